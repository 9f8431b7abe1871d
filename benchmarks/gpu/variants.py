"""What options of a build cost or gain: each engine is built, proven, and timed in turn with that of the defaults."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping

import numpy as np
from gpu.results import Variant

from ran_deploy.bundle import Bundle
from ran_deploy.converters.builders import GpuOptions, HardwareLevel
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.runtime.timing import measure_in_turn
from ran_deploy.vendors import one_line
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.engines.golden import golden_result, read_golden
from ran_deploy.workflows.engines.loading import fresh_engine, open_predictor

_BOTH = {"none": GpuOptions(), "--optimum-profile": GpuOptions(optimum_profile=True)}  # none: what chance does
VARIANTS: dict[str, dict[str, GpuOptions]] = {
    "tensorrt-rtx": _BOTH,
    "tensorrt": {
        **_BOTH,
        **{f"--hardware-compatible {level.value}": GpuOptions(hardware=level) for level in HardwareLevel},
        "--version-compatible": GpuOptions(version_compatible=True),
        "--strip-weights": GpuOptions(strip_weights=True),
    },
}


def variants(
    bundle: Bundle, ours: Predictor, images: np.ndarray, seconds: float, asked: Mapping[str, GpuOptions]
) -> tuple[Variant, ...]:
    """Return one row for each of `asked`, at the batch of `images`; what fails is in its row."""
    return tuple(_variant(bundle, ours, images, seconds, option, gpu) for option, gpu in asked.items())


def _variant(
    bundle: Bundle, ours: Predictor, images: np.ndarray, seconds: float, option: str, gpu: GpuOptions
) -> Variant:
    row = Variant(option=option, batch=len(images))
    try:
        start = time.perf_counter()
        engine = fresh_engine(bundle, ours.backend, ours.batch, gpu)
        row = row.having(build_seconds=time.perf_counter() - start, engine_bytes=len(engine.data))
        start = time.perf_counter()
        with open_predictor(bundle.manifest, ours.backend, engine, threads=0) as theirs:
            row = row.having(load_seconds=time.perf_counter() - start)
            row = row.having(self_test=golden_result(theirs, read_golden(bundle)).summary)
            row = row.having(relative_l2=relative_l2(ours.infer_batch(images), theirs.infer_batch(images)))
            calls = {each: functools.partial(each.infer_batch, images) for each in (ours, theirs)}
            timings = measure_in_turn(calls, seconds)
        median, other = (timings[each].latency_ms.p50 for each in (ours, theirs))
        return row.having(p50_ms=other, ratio=other / median)
    except Exception as exc:  # a vendor's library raises what it likes, and the other options go on
        return row.having(problem=one_line(exc))
