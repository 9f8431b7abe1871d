"""What is looked at on one engine: accuracy, what threads and timings gain, what memory stays in use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gpu.results import Accuracy, Builds, Leak, Overlap

from ran_deploy.bundle import Bundle
from ran_deploy.datasets import Split, open_dataset, select_indices
from ran_deploy.errors import DatasetError, RanDeployError
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime import cuda
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.workflows.engines.loading import fresh_engine

Infer = Callable[[np.ndarray], np.ndarray]
THREADS = (2, 4)
WARM_UP = 50  # batches: pools and caches fill up at first
# What an allocator may keep once: a leak of one output a batch is far more after 10,000 batches.
ALLOWED_BYTES = 16 * 2**20


def accuracy(predictor: Predictor, data: Path, count: int) -> Accuracy:
    """Return top-1 on the first `count` chosen test images. Raises: DatasetError, also without labels."""
    dataset = open_dataset(data, Split.TEST)
    chosen = select_indices(dataset, count)
    labels = [dataset.label(index) for index in chosen]
    if None in labels:
        raise DatasetError(f"{data} has images without labels; accuracy needs one for each.")
    right = 0
    for start in range(0, len(chosen), predictor.batch.maximum):
        part = slice(start, start + predictor.batch.maximum)
        logits = predictor.infer_batch(np.stack([predictor.prepare(dataset.image(i)) for i in chosen[part]]))
        right += int((logits.argmax(axis=1) == np.array(labels[part])).sum())
    return Accuracy(dataset=dataset.name, images=len(chosen), top1=100 * right / len(chosen))


def overlaps(infer: Infer, images: np.ndarray, seconds: float) -> tuple[Overlap, ...]:
    """Return what several threads calling `infer` at once gain over one, which keeps one batch in flight."""
    alone = rate(infer, images, 1, seconds)
    found = [(threads, rate(infer, images, threads, seconds)) for threads in THREADS]
    return tuple(
        Overlap(batch=len(images), threads=threads, images_per_second=speed, gain=speed / alone)
        for threads, speed in found
    )


def rate(infer: Infer, images: np.ndarray, threads: int, seconds: float) -> float:
    """Return images a second of `threads` threads, each calling `infer` for `seconds`, and at least once."""
    infer(images)
    start = time.perf_counter()

    def work() -> int:
        batches = 0
        while batches == 0 or time.perf_counter() - start < seconds:
            infer(images)
            batches += 1
        return batches

    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(work) for _ in range(threads)]
        batches = sum(job.result() for job in jobs)
    return batches * len(images) / (time.perf_counter() - start)


def leak(infer: Infer, images: np.ndarray, batches: int) -> Leak:
    """Run `batches` batches and compare what is in use with what was after WARM_UP of them."""
    for _ in range(min(WARM_UP, batches)):
        infer(images)
    host, device = host_bytes(), device_bytes()
    for _ in range(batches):
        infer(images)
    grown = host_bytes() - host
    now = device_bytes()
    on_device = None if device is None or now is None else now - device
    return Leak(
        batches=batches,
        host_bytes=grown,
        device_bytes=on_device,
        leaks=max(grown, on_device or 0) > ALLOWED_BYTES,
    )


def builds(bundle: Bundle, backend: str, batch: BatchProfile) -> Builds:
    """Return what the timing cache gains: two builds in an empty cache folder."""
    seconds = []
    with TemporaryDirectory() as folder:
        for _ in range(2):
            start = time.perf_counter()
            fresh_engine(bundle, backend, batch, cache_dir=Path(folder))
            seconds.append(time.perf_counter() - start)
    return Builds(first_seconds=seconds[0], again_seconds=seconds[1])


def host_bytes() -> int:
    """Return the memory that this process has resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def device_bytes() -> int | None:
    """Return the memory in use on the GPU, by all processes; None without a GPU."""
    try:
        cuda.require_gpu()
        return cuda.used_bytes()
    except RanDeployError:
        return None
