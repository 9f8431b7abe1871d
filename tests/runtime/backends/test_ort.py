"""What ONNX Runtime's release decides."""

from __future__ import annotations

import pytest

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.runtime.backends.ort import require_fp16_rounding

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("version", "is_right"), [("1.23.2", False), ("1.29.0", False), ("1.30.0", True), ("2.0", True)]
)
def test_releases_that_cut_off_fp16_quotients_are_refused(version, is_right, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    if is_right:
        require_fp16_rounding()
        return
    with pytest.raises(
        BackendUnavailableError, match=f"ONNX Runtime {version} evaluates TensorRT's INT8 graph wrongly"
    ):
        require_fp16_rounding()
