"""What ONNX Runtime's release decides."""

from __future__ import annotations

import pytest

from ran_deploy.errors import BackendUnavailableError, EngineMismatchError
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends.ort import open_emulation

onnxruntime = pytest.importorskip("onnxruntime")
NO_GRAPH = b"no graph"  # what gets past the release is refused for that


@pytest.mark.parametrize("version", ["1.23.2", "1.29.0"])
def test_releases_that_cut_off_fp16_quotients_do_not_emulate_tensorrts_int8(version, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(
        BackendUnavailableError, match=f"ONNX Runtime {version} evaluates TensorRT's INT8 graph wrongly"
    ):
        open_emulation(NO_GRAPH, "tensorrt", Precision.INT8)
    for dialect, precision in (("tensorrt", Precision.FP16), ("openvino", Precision.INT8)):
        with pytest.raises(EngineMismatchError):
            open_emulation(NO_GRAPH, dialect, precision)


@pytest.mark.parametrize("version", ["1.30.0", "2.0"])
def test_later_releases_do(version, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(EngineMismatchError):
        open_emulation(NO_GRAPH, "tensorrt", Precision.INT8)
