"""Lines that native libraries write to descriptor 2, in a process of its own: pytest holds this one's."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from PIL import Image

PROGRAM = """
import logging, os, sys, threading
from ran_deploy.commands.native_lines import move_python_stderr, sum_up_native_lines
move_python_stderr()
logging.basicConfig(level={level}, format="%(message)s")
def write():
    os.write(2, b"native \\x1b[31m one\\n")
    os.write(2, b"native two\\n")
    print("printed", file=sys.stderr)
    logging.warning("logged")
os.write(2, b"before\\n")
with sum_up_native_lines():
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    {end}
os.write(2, b"after\\n")
"""
NO_STDERR = """
from ran_deploy.commands.native_lines import move_python_stderr, sum_up_native_lines
move_python_stderr()
with sum_up_native_lines():
    print("done")
"""
WARNING = r"warning: image decoders or the engine wrote 2 lines, the first: native \x1b[31m one (-v shows each)"


def run(*, level: str = "logging.WARNING", end: str = "pass", **settings: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM.format(level=level, end=end)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, **settings)


def test_native_lines_become_one_and_ours_are_all_there():
    assert run().stderr.splitlines() == ["before", "printed", "logged", WARNING, "after"]


def test_native_lines_are_summed_up_where_an_error_ends_the_work():
    lines = run(end="raise KeyError").stderr.splitlines()
    assert lines[:4] == ["before", "printed", "logged", WARNING]
    assert lines[-1] == "KeyError"


def test_native_lines_come_as_they_are_when_everything_is_logged():
    lines = run(level="logging.DEBUG").stderr.splitlines()
    assert lines == ["before", "native \x1b[31m one", "native two", "printed", "logged", "after"]


def test_without_a_temporary_folder_the_lines_are_only_kept_away():
    end = "import tempfile; tempfile.tempdir = '/nowhere'\n    with sum_up_native_lines(): os.write(2, b'gone')"
    assert run(end=end).stderr.splitlines() == ["before", "printed", "logged", WARNING, "after"]


def test_a_process_without_stderr_goes_on():
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, NO_STDERR],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.fixture
def damaged_jpeg() -> bytes:
    """Return a JPEG that lacks some of its pixels and still ends as it should: libjpeg decodes it, and complains."""
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(stream, "JPEG")
    return stream.getvalue()[:-300] + b"\xff\xd9"


def test_infer_keeps_what_decoders_write_from_between_its_rows(script, demo, tmp_path, damaged_jpeg):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(damaged_jpeg)
    done = script("ran-infer", demo.bundle, tmp_path, "--cache-dir", demo.cache)
    warning, summary = done.stderr.splitlines()
    assert warning.startswith("warning: image decoders or the engine wrote 3 lines, the first: Corrupt JPEG data")
    assert summary.startswith("3 images (")
    assert done.returncode == 0
