"""What TensorRT-RTX compiles when it loads an engine, on the stand-ins of tests/stand_ins."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from stand_in_tensorrt import engine_bytes, row_sums

from ran_deploy.engine.kept_file import KeptFile
from ran_deploy.runtime.backends import open_runner


@pytest.fixture
def file(tmp_path):
    return KeptFile(tmp_path / "engine" / "kernels", "compiled kernels")


def run(file, backend: str = "tensorrt-rtx") -> None:
    """Open an engine, run sizes that come again, so that it has several contexts, and close it."""
    runner = open_runner(backend, engine_bytes([(1, 4, 9)]), kernels=file)
    for batch in (3, 5, 3, 5):
        images = np.full((batch, 9, 14, 3), batch, np.uint8)
        np.testing.assert_array_equal(runner.infer({"image": images})["logits"], row_sums(images))
    runner.close()
    runner.close()


def test_kernels_are_compiled_once_for_all_contexts_and_kept_for_the_next_start(stand_in, file):
    gpu = stand_in("tensorrt_rtx")
    run(file)
    assert gpu.calls["create_execution_context"] == 3
    assert gpu.calls["compiled"] == 1
    kept = file.path.stat().st_mtime_ns
    run(file)
    assert gpu.calls["compiled"] == 1
    assert file.path.stat().st_mtime_ns == kept  # nothing new to write


@pytest.mark.parametrize("content", [b"of another version", b""])
def test_kernels_that_do_not_fit_are_compiled_again_and_replaced(stand_in, file, content, caplog):
    caplog.set_level(logging.INFO)
    file.update(lambda _: content)
    gpu = stand_in("tensorrt_rtx")
    run(file)
    assert gpu.calls["compiled"] == 1
    assert file.read() == b"compiled by the stand-in:kernels"
    assert ("compiled again" in caplog.text) == bool(content)


def test_a_damaged_file_is_not_given_to_tensorrt(stand_in, file, caplog):
    file.update(lambda _: b"compiled by the stand-in:kernels")
    file.path.write_bytes(file.path.read_bytes() + b"!")
    gpu = stand_in("tensorrt_rtx")
    run(file)
    assert gpu.calls["compiled"] == 1
    assert f"ignoring the compiled kernels in {file.path}: the file is damaged" in caplog.text


def test_tensorrt_compiles_when_it_builds_and_keeps_nothing(stand_in, file):
    stand_in("tensorrt")
    run(file, "tensorrt")
    assert not file.path.exists()


def test_a_folder_that_cannot_be_written_only_warns(stand_in, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    stand_in("tensorrt_rtx")
    run(KeptFile(tmp_path / "file" / "kernels", "compiled kernels"))
    assert "the compiled kernels are not kept: cannot write" in caplog.text
