"""TensorRT's own builder without a GPU, as far as that goes."""

from __future__ import annotations

import pytest

from ran_deploy.converters.builders.trt import TensorRtBuilder
from ran_deploy.errors import BackendUnavailableError


class TensorRtBuilderOnRtx(TensorRtBuilder):
    """It makes the calls of TensorRT on TensorRT-RTX's library, which has the same names."""

    package = "tensorrt_rtx"


@pytest.fixture
def tensorrt_builder() -> TensorRtBuilder:
    try:
        return TensorRtBuilderOnRtx()
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))
