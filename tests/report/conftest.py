"""A report such as a validation makes: two measured engines, one of them beyond the budget, and an estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ran_deploy.manifest import Task
from ran_deploy.report import (
    BundleSummary,
    EngineReport,
    Provenance,
    UnreadableImage,
    ValidationReport,
    engine_report,
    validation_report,
)
from ran_deploy.verification import Comparison, compare, self_test

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
