"""A report such as a validation makes: two measured engines, one of them beyond the budget, and an estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from ran_deploy.budget_record import BudgetLook, RegionRecord
from ran_deploy.manifest import RangeChange, Task
from ran_deploy.report import (
    BundleSummary,
    EngineReport,
    Provenance,
    UnreadableImage,
    ValidationReport,
    engine_report,
    validation_report,
)
from ran_deploy.report.details_schema import BudgetSummary, CalibrationSummary, EngineSize, EngineSpeed
from ran_deploy.verification import Comparison, compare, self_test
from ran_deploy.verification.layer_errors import (
    HISTOGRAM_BINS,
    InputRange,
    LayerError,
    LayerErrors,
    MagnitudeHistogram,
    furthest,
)

CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
IMAGES = 2000


@pytest.fixture(scope="session")
def class_names() -> tuple[str, ...]:
    return CLASS_NAMES


@pytest.fixture(scope="session")
def compared() -> Callable[..., Comparison]:
    """Compare two real sets of logits, which differ by `noise`."""

    def compare_logits(noise: float, *, labelled: bool = True) -> Comparison:
        rng = np.random.default_rng(7)
        labels = rng.integers(0, len(CLASS_NAMES), IMAGES)
        logits = rng.standard_normal((IMAGES, len(CLASS_NAMES))) + 3 * np.eye(len(CLASS_NAMES))[labels]
        moved = logits + noise * rng.standard_normal(logits.shape)
        numbers = np.arange(IMAGES)[:, None]
        batches = [(numbers, labels if labelled else None)]
        return compare(lambda x: logits[x[:, 0]], lambda x: moved[x[:, 0]], batches, worst=12)

    return compare_logits


@pytest.fixture(scope="session")
def engines(compared) -> tuple[EngineReport, ...]:
    rng = np.random.default_rng(8)
    golden, inputs = rng.standard_normal((32, 10)).astype(np.float32), np.arange(32)[:, None]
    proof = self_test(lambda x: golden[x[:, 0]] * 1.004, inputs, golden, spread=0.005, max_batch=8)
    common = {"precision": "int8", "max_drop_pp": 1.0, "class_names": CLASS_NAMES}
    files = {index: f"test/{index:05}.png" for index in range(IMAGES)}
    return (
        engine_report(
            backend="openvino",
            comparison=compared(0.05),
            self_test=proof,
            device={"OpenVINO": "2026.4.0", "platform": "Linux x86_64", "CPU": "Intel Xeon Platinum 8488C"},
            files=files,
            **common,
        ),
        engine_report(backend="onnxruntime", comparison=compared(0.6), self_test=proof, files=files, **common),
        engine_report(backend="tensorrt", comparison=compared(0.1), estimate=True, files=files, **common),
    )


@pytest.fixture(scope="session")
def report_of() -> Callable[..., ValidationReport]:
    def make(
        *engines: EngineReport,
        max_drop_pp: float | None = 1.0,
        name: str = "sorter",
        task: Task = Task.CLASSIFICATION,
        unreadable: Sequence[UnreadableImage] = (),
    ) -> ValidationReport:
        return validation_report(
            engines,
            bundle=BundleSummary(name=name, sha256="5e" * 32, architecture="Attention-56", task=task, output_size=10),
            provenance=Provenance(
                reference="reference.onnx on ONNX Runtime, FP32",
                checkpoint="best.safetensors",
                checkpoint_sha256="c0" * 32,
                preprocessing="resize 32, crop 32x32, bilinear with antialias, RGB, mean 0.286, std 0.353",
                calibration="min-max over 512 images of fashion-mnist/train",
                data="fashion-mnist/test",
                tools={"ran-deploy": "0.1.0", "openvino": "2026.4.0", "onnxruntime": "1.32.0"},
            ),
            max_drop_pp=max_drop_pp,
            unreadable=unreadable,
            created="2026-01-31T12:00:00Z",
        )

    return make


@pytest.fixture(scope="session")
def report(engines, report_of) -> ValidationReport:
    return report_of(*engines)


def histogram_of(layer: str, limit: float, end: float) -> MagnitudeHistogram:
    counts = (2 * 10**6 * np.exp(-np.arange(HISTOGRAM_BINS) / 4)).astype(int)
    return MagnitudeHistogram(layer=layer, tensor="t", end=end, limit=limit, counts=tuple(counts.tolist()))


def layers_of(count: int, *, name: str = "stages.{stage}.1.{branch}.0.conv1") -> LayerErrors:
    """Return so many layers, every third in a mask, with a wave of errors over depth."""
    layers = []
    for index in range(count):
        error, branch = 0.02 + 0.01 * float(np.sin(index)), "mask" if index % 3 == 2 else "trunk"
        stage = 4 * index // count
        used = InputRange(tensor="t", low=-5.1, high=5.0, largest=6.0, used=1.2, clipped=3e-6)
        layers.append(
            LayerError(
                name=name.format(stage=stage, branch=branch),
                stage=f"stage{stage + 1}",
                branch=branch,
                operator="Conv",
                tensor=f"t{index}",
                relative_l2=error,
                sqnr_db=float(-20 * np.log10(error)),
                input=used if index % 10 else None,
            )
        )
    worst = furthest(layers)
    histograms = (histogram_of(layers[worst[0]].name, 5.0, 6.0), histogram_of(layers[worst[1]].name, 8.0, 8.0))
    return LayerErrors(
        dialect="openvino", images=32, source="test.npz", layers=tuple(layers), worst=worst, histograms=histograms
    )


@pytest.fixture(scope="session")
def detailed(report) -> ValidationReport:
    """The report with all that a closer look adds."""
    look = BudgetLook(
        kept_regions=1,
        float_multiply_adds=0.04,
        dialect="openvino",
        images=500,
        drop_pp=0.1,
        bound_pp=0.42,
        confidence=0.97,
        passed=True,
    )
    regions = tuple(
        RegionRecord(name=f"stages.{i}.1.mask", multiply_adds=0.1, output_error=0.3 / (i + 1), kept_in_float=i == 0)
        for i in range(25)
    )
    return replace(
        report,
        calibration=CalibrationSummary(
            method="auto",
            dataset="train",
            images=512,
            stability=(RangeChange(images_before=256, images=512, median=0.01, worst=0.2, worst_tensor="relu_3"),),
            chosen={"minmax": 70, "mse": 13},
        ),
        kept_in_float={"stages.0.1.mask": "its INT8 error moved the outputs most"},
        budget=BudgetSummary(
            max_drop_pp=0.5,
            measure="Top-1",
            dataset="val",
            images=500,
            method_errors={"minmax": 0.02, "mse": 0.03},
            regions=regions,
            looks=(look,),
            drops=(look,),
            float_multiply_adds=0.04,
        ),
        layers=layers_of(83),
        speeds=(
            EngineSpeed(
                backend="openvino", batch=1, runs=30, median_ms=4.2, fp32_median_ms=8.0, fp32_ratio=0.52, noisy=True
            ),
            EngineSpeed(
                backend="onnxruntime", batch=8, runs=30, median_ms=31, fp32_median_ms=None, fp32_ratio=None, noisy=False
            ),
        ),
        sizes=(EngineSize(backend="openvino", engine_bytes=1_900_000, graph_bytes=1_500_000, reference_bytes=None),),
    )
