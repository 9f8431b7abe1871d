from __future__ import annotations

import re
from pathlib import Path

import pytest

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.runtime.backends import open_runner, trt, unavailable_reason


@pytest.mark.parametrize("package", ["tensorrt_rtx", "tensorrt"])
def test_every_name_used_exists_in_the_package(package):
    installed = pytest.importorskip(package)
    source = Path(trt.__file__).read_text(encoding="utf-8")
    owners = {
        "_context": installed.IExecutionContext,
        "_engine": installed.ICudaEngine,
        "_runtime": installed.Runtime,
        "trt": installed,
    }
    used = [(owner, name) for owner, name in re.findall(r"\b(_context|_engine|_runtime|trt)\.([A-Za-z]\w*)", source)]
    used = [(owner, name) for owner, name in used if not (owner == "trt" and name in ("py", "import_tensorrt"))]
    assert len(used) > 12
    assert [f"{owner}.{name}" for owner, name in used if not hasattr(owners[owner], name)] == []
    assert hasattr(installed.TensorIOMode, "INPUT")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_without_package_driver_or_gpu_opening_says_which_in_one_line(backend):
    reason = unavailable_reason(backend)
    if reason is None:
        pytest.skip("it runs here")
    with pytest.raises(BackendUnavailableError) as error:
        open_runner(backend, b"")
    assert str(error.value) == reason
    assert "\n" not in reason
