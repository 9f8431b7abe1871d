import os
import subprocess
import sys
from types import ModuleType

import pytest

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.vendors import LogCollector, import_tensorrt, one_line

OPENVINO = (
    "Exception from src/inference/src/cpp/core.cpp:217:\nException from src/inference/src/dev/plugin.cpp:74:\n"
    "Check 'res.status == ok' failed at src/frontends/ir/src/model.cpp:229:\nStart-end tags mismatch at offset 42\n"
)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (OPENVINO, "Start-end tags mismatch at offset 42"),
        ("two\n  lines", "two lines"),
        ("Exception from a.cpp:1:\n", "Exception from a.cpp:1:"),
        (ValueError(""), "ValueError"),
        ("x" * 500, "x" * 397 + "..."),
    ],
)
def test_a_vendor_s_message_becomes_one_line(message, line):
    assert one_line(message) == line


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx", None)
    with pytest.raises(
        BackendUnavailableError, match=r"Cannot import tensorrt_rtx .*pip install 'ran-deploy\[tensorrt-rtx\]'"
    ):
        import_tensorrt("tensorrt_rtx")


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.2", "9.3.0.1", "10.0.1"])
def test_a_tensorrt_that_is_too_old_is_refused_in_one_line(monkeypatch, version):
    package = ModuleType("tensorrt")
    package.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    with pytest.raises(
        BackendUnavailableError, match=rf"^tensorrt {version} cannot .*; expected 10\.1 or newer: .*\.$"
    ):
        import_tensorrt("tensorrt")


def test_collected_errors_are_told_once_in_order_and_without_repetition():
    log = LogCollector()
    for message in ["first\ncause", "first\ncause", "second", "first\ncause"]:
        log.error(message)
    assert log.take_errors() == "first cause; second"
    assert log.take_errors() == ""


def test_warnings_are_told_to_who_asks_and_once():
    log = LogCollector()
    for message in ["up1: DLA only\nsupports kHALF_PIXEL", "second", "second"]:
        log.warning(message)
    assert log.take_warnings() == ("up1: DLA only supports kHALF_PIXEL", "second")
    assert log.take_warnings() == ()
    assert log.take_errors() == ""


def test_onnxruntime_leaves_no_telemetry_behind(tmp_path):
    code = "from ran_deploy.vendors import import_onnxruntime as load; print(load().__version__)"
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    assert list(tmp_path.rglob("*")) == []
