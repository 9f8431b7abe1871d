import subprocess
import sys

import pytest

from ran_deploy.backends import BACKENDS
from ran_deploy.converters.builders import BUILDERS
from ran_deploy.errors import ConfigError
from ran_deploy.runtime.backends import RUNNERS, fingerprint, open_runner, unavailable_reason


def test_every_backend_has_a_builder_and_a_runner():
    assert set(RUNNERS) == set(BUILDERS) == set(BACKENDS)


def test_an_unknown_backend_is_named():
    with pytest.raises(ConfigError, match="'onnx'; choose one of openvino"):
        open_runner("onnx", b"")


@pytest.mark.parametrize("backend", RUNNERS)
def test_a_backend_that_cannot_run_has_a_reason_in_one_line(backend):
    reason = unavailable_reason(backend)
    assert reason is None or (reason and "\n" not in reason)


def test_a_tensorrt_rtx_fingerprint_needs_no_gpu():
    package = pytest.importorskip("tensorrt_rtx")
    assert fingerprint("tensorrt-rtx")["tensorrt_rtx"] == package.__version__


def test_importing_runners_and_builders_loads_no_vendor():
    modules = sorted({entry.split(":")[0] for table in (RUNNERS, BUILDERS) for entry in table.values()})
    heavy = ["torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda"]
    code = f"import sys, {', '.join(modules)}\nprint([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_cpu_backend_loads_neither_torch_nor_onnx_nor_telemetry(backend):
    code = (
        "import sys\nfrom ran_deploy.runtime.backends import fingerprint, unavailable_reason\n"
        f"reason = unavailable_reason({backend!r}) or fingerprint({backend!r}) and ''\n"
        "print(reason or [n for n in ('torch', 'onnx', 'openvino_telemetry') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if result.stdout.startswith("Cannot import"):
        pytest.skip(result.stdout.strip())
    assert result.stdout.strip() == "[]"
