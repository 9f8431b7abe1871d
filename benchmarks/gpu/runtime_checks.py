"""The checks of the runtime's results, which are right to the last bit or wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
from gpu.kernel_engine import expected_logits
from gpu.runtime_setting import (
    CALLS,
    THREADS,
    Figures,
    NotRunError,
    Setting,
    WrongError,
    images,
    opened,
    require_equal,
    verify,
)

from ran_deploy.engine.padding import every_padding
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime import cuda
from ran_deploy.runtime.pipeline import run_pipeline
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.runtime.sources import ArraySource, BrokenSource, Source


def copies(setting: Setting) -> Figures:
    """What goes to the device and back is the same, from and to page-locked memory of several sizes."""
    for size in setting.copied_bytes:
        with ExitStack() as stack:
            stack.enter_context(cuda.on_device(0))
            there, back = cuda.HostMemory(size), cuda.HostMemory(size)
            memory, stream = cuda.DeviceMemory(size), cuda.Stream()
            for each in (there, back, memory, stream):  # the stream, which waits, is closed first
                stack.callback(each.close)
            there.array[:size] = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
            back.array[:size] = ~there.array[:size]
            stream.upload(there.array[:size], memory.address)
            stream.download(memory.address, back.array[:size])
            stream.synchronize()
            require_equal(back.array[:size], there.array[:size])
    return {"sizes": len(setting.copied_bytes)}


def batches(setting: Setting, *, mapped: bool) -> Figures:
    """Every batch size is right, several times each with other images, with graphs and without."""
    count = 0
    for graphs in (False, True):
        with opened(setting.plan(rounds=2), graphs=graphs, mapped=mapped) as runner:
            for size in setting.sizes * CALLS:
                count += 1
                verify(runner, images(setting.small, size, seed=count), rounds=2)
    return {"batches": count}


def threads(setting: Setting, *, mapped: bool) -> Figures:
    """Threads that share two slots each get the results of their own images."""

    def work(runner: Runner, thread: int) -> None:
        for call in range(setting.repeats):
            size = setting.sizes[(thread + call) % len(setting.sizes)]
            verify(runner, images(setting.small, size, seed=1000 * thread + call))

    with opened(setting.plan(), mapped=mapped) as runner, ThreadPoolExecutor(THREADS) as pool:
        for job in [pool.submit(work, runner, thread) for thread in range(THREADS)]:
            job.result()
    return {"threads": THREADS, "batches": THREADS * setting.repeats}


def graphs(setting: Setting) -> Figures:
    """A size that comes again is launched as a graph, so that the host launches no kernels; results stay right."""
    if not setting.captures:
        raise NotRunError("this binding cannot capture CUDA graphs")
    size = setting.sizes[-1]
    with opened(setting.plan(), slots=1) as runner:
        for call in range(CALLS):
            verify(runner, images(setting.small, size, seed=call))
        launched = setting.driver.launched
        for call in range(setting.repeats):
            verify(runner, images(setting.small, size, seed=CALLS + call))
        if setting.driver.launched != launched:
            raise WrongError(
                f"the host launched {setting.driver.launched - launched} kernels in {setting.repeats} calls of a size "
                "that had come before; expected none, as a graph launches them"
            )
    return {"launched as a graph": setting.repeats}


def padded_batches(setting: Setting) -> Figures:
    """Padded batches are right, and all run as one graph, which is there though other sizes had theirs."""
    *_, padding = every_padding(BatchProfile(minimum=1, optimum=1, maximum=max(setting.sizes)))
    sizes = range(padding.least, padding.size + 1)
    with opened(setting.plan(), slots=1, padding=(padding,)) as runner:
        for seed, size in enumerate([*range(1, padding.least)] * CALLS + [*sizes] * CALLS):
            verify(runner, images(setting.small, size, seed=seed))
        launched = setting.driver.launched
        for size in sizes:
            verify(runner, images(setting.small, size, seed=-size % 2**32))
        if setting.captures and setting.driver.launched != launched:
            raise WrongError(
                f"the host launched {setting.driver.launched - launched} kernels for {len(sizes)} batches that were "
                "padded; expected none, as a graph launches them"
            )
    return {"sizes": len(sizes), "padded to": padding.size}


def pipeline(setting: Setting) -> Figures:
    """Through the whole pipeline, two batches under way, results come in order; a broken image is its own error."""
    count, broken = 20 * setting.repeats + 1, 7
    pixels = images(setting.small, count, seed=3)
    sources: list[Source] = [ArraySource(str(i), pixels[i]) for i in range(count)]
    sources[broken] = BrokenSource(str(broken), f"{broken}: cannot be read")
    expected = expected_logits(pixels)
    with opened(setting.plan()) as runner:
        found = list(
            run_pipeline(
                sources,
                prepare=lambda image: image,
                infer=lambda batch: runner.infer({INPUT: batch})[OUTPUT],
                batch=max(setting.sizes),
            )
        )
    if [result.name for result in found] != [source.name for source in sources]:
        raise WrongError("results are missing or out of order")
    if [result.index for result in found if result.error] != [broken]:
        raise WrongError(f"errors at {[result.index for result in found if result.error]}; expected at {broken} alone")
    rows = [result.logits for result in found if result.logits is not None]
    require_equal(np.stack(rows), np.delete(expected, broken, axis=0))
    return {"images": count}
