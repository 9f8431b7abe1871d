from __future__ import annotations

import subprocess
import sys

import pytest

from ran_deploy.engine.device_files import timing_file

HERE = {"tensorrt": "10.3.0", "GPU": "Orin"}


def test_timings_are_read_again_on_the_same_device_and_version_only(tmp_path):
    timing_file(tmp_path, HERE).update(lambda now: now + b"conv 3 us\n")
    timing_file(tmp_path, dict(reversed(HERE.items()))).update(lambda now: now + b"pool 1 us\n")
    assert timing_file(tmp_path, HERE).read() == b"conv 3 us\npool 1 us\n"
    assert timing_file(tmp_path, {**HERE, "tensorrt": "10.7.0"}).read() == b""
    assert timing_file(tmp_path, {**HERE, "GPU": "H100"}).read() == b""


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"!"])
def test_a_damaged_file_counts_as_none_with_one_warning_and_is_replaced(tmp_path, caplog, damage):
    file = timing_file(tmp_path, HERE)
    file.update(lambda now: b"conv 3 us\n")
    file.path.write_bytes(damage(file.path.read_bytes()))
    assert file.read() == b""
    assert [record.message for record in caplog.records] == [
        f"ignoring the timings in {file.path}: the file is damaged, and replaced by new ones"
    ]
    file.update(lambda now: b"conv 4 us\n")
    assert file.read() == b"conv 4 us\n"


def test_what_cannot_replace_the_file_leaves_nothing_behind(tmp_path, caplog):
    file = timing_file(tmp_path, HERE)
    file.path.mkdir(parents=True)
    file.update(lambda now: b"conv 3 us\n")
    assert "the timings are not kept: cannot write" in caplog.text
    assert [path.suffix for path in file.path.parent.iterdir() if path != file.path] == [".lock"]


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom ran_deploy.engine.device_files import timing_file\n"
        "file = timing_file(Path(sys.argv[1]), {'tensorrt': '10.3.0'})\n"
        "for index in range(50):\n    file.update(lambda now: now + f'{sys.argv[2]}{index}\\n'.encode())\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("a", "b", "c")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    lines = timing_file(tmp_path, {"tensorrt": "10.3.0"}).read().decode().split()
    assert sorted(lines) == sorted(f"{name}{index}" for name in "abc" for index in range(50))


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, caplog):
    (tmp_path / "timing").write_text("in the way")
    file = timing_file(tmp_path, HERE)
    file.update(lambda now: b"conv 3 us\n")
    assert "the timings are not kept: cannot write" in caplog.text
    assert file.read() == b""
