from __future__ import annotations

from ran_deploy.commands.detail_lines import layer_text, size_text, speed_text
from ran_deploy.report.details_schema import EngineSize, EngineSpeed
from ran_deploy.verification.layer_errors import InputRange, LayerError


def layer(**changes) -> LayerError:
    known = {"relative_l2": 0.05, "sqnr_db": 26.02, "input": None}
    return LayerError(name="a", stage="a", branch="mask", operator="Conv", tensor="t", **(known | changes))


def test_a_layer_tells_how_its_range_fits_or_that_it_has_none_among_others():
    used = InputRange(tensor="t", low=-2, high=2, largest=2.5, used=1.25, clipped=0.0004)
    assert layer_text(layer(input=used), quantized=True) == (
        "mask, relative L2 0.0500, SQNR 26.0 dB, 125 % of the input's range used, 0.040 % cut off"
    )
    assert layer_text(layer(), quantized=True).endswith("SQNR 26.0 dB, in float")
    assert layer_text(layer(), quantized=False).endswith("SQNR 26.0 dB")
    assert layer_text(layer(relative_l2=None, sqnr_db=None), quantized=False) == "mask, not finite"


def test_speed_and_size_leave_out_what_is_not_known():
    speed = EngineSpeed(
        backend="tensorrt", batch=8, runs=9, median_ms=1.5, fp32_median_ms=None, fp32_ratio=None, noisy=False
    )
    assert speed_text(speed) == "tensorrt, batch 8: 1.50 ms, median of 9"
    size = EngineSize(backend="tensorrt", engine_bytes=2**21, graph_bytes=None, reference_bytes=2**20)
    assert size_text(size) == "tensorrt: engine 2.0 MiB, FP32 graph 1.0 MiB"
