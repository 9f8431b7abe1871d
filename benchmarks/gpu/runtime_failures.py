"""The checks of what a runtime does when something fails, is closed or runs for long, and on which GPU."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import numpy as np
from gpu.checks import ALLOWED_BYTES, host_bytes, leak
from gpu.runtime_setting import CALLS, THREADS, Figures, NotRunError, Setting, WrongError, images, opened, verify

from ran_deploy.errors import BackendUnavailableError, DeviceError, RanDeployError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.cuda.binding import binding
from ran_deploy.runtime.predictor import INPUT, OUTPUT


def warm_up(setting: Setting) -> None:
    """Let the device load and allocate what stays for good, before memory is counted."""
    engine = setting.plan(scratch_bytes=setting.memory_bytes)
    with opened(engine) as runner, ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(verify, runner, images(setting.small, 1, seed=0)) for _ in range(2 * CALLS)]:
            job.result()


def kept_since(before: int, what: str, used: Callable[[], int] = cuda.used_bytes) -> int:
    """Return how many bytes more are in use than were before. Raises: WrongError if they are more than a little."""
    kept = used() - before
    if kept > ALLOWED_BYTES:
        where = "on the host" if used is host_bytes else "on the device"
        raise WrongError(f"{kept / 2**20:.1f} MiB stayed in use {where} after {what}")
    return kept


def refused_calls(setting: Setting) -> Figures:
    """A call that the engine refuses raises, or is queued where it was being captured; every other one is right.

    Closed after it, the runner keeps no memory.
    """
    warm_up(setting)
    raised, before = 0, cuda.used_bytes()
    for number in range(CALLS):
        errors = 0
        engine = setting.plan(refused=[number], scratch_bytes=setting.memory_bytes)
        with opened(engine, slots=1) as runner:
            for call in range(2 * CALLS):
                try:
                    verify(runner, images(setting.small, setting.sizes[-1], seed=call))
                except DeviceError:
                    errors += 1
        if errors > 1:
            raise WrongError(f"{errors} calls failed after the engine refused one; expected that one alone")
        raised += errors
    if raised == 0:
        raise WrongError("no call failed although the engine refused some")
    return {
        "refused": CALLS,
        "raised": raised,
        "device_bytes": kept_since(before, f"{CALLS} runners with a refused call"),
    }


def too_large(setting: Setting) -> Figures:
    """An engine larger than the device's memory is refused and gives back what it took; then another one runs."""
    warm_up(setting)
    total, before = cuda.current_device().memory_bytes, cuda.used_bytes()
    try:
        with opened(setting.plan(scratch_bytes=4 * total)):
            pass
    except DeviceError:
        kept = kept_since(before, "an engine was refused")
    else:
        raise WrongError(f"an engine that needs four times the {total / 2**20:,.0f} MiB of the device was opened")
    with opened(setting.plan()) as runner:
        verify(runner, images(setting.small, 2, seed=1))
    return {"device_bytes": kept}


def closing(setting: Setting) -> Figures:
    """Opening, running and closing again and again keeps nothing; a closed runner says that it is closed."""
    warm_up(setting)
    device, host = cuda.used_bytes(), host_bytes()
    for cycle in range(setting.repeats):
        with opened(setting.plan(scratch_bytes=setting.memory_bytes)) as runner, ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(verify, runner, images(setting.small, 2, seed=2 * cycle + thread)) for thread in range(2)
            ]
            for job in jobs:
                job.result()
        runner.close()  # again
    with suppress(RanDeployError):
        runner.infer({INPUT: images(setting.small, 2, seed=0)})
        raise WrongError("a closed runner took a batch")
    what = f"{setting.repeats} runners were closed"
    return {
        "cycles": setting.repeats,
        "device_bytes": kept_since(device, what),
        "host_bytes": kept_since(host, what, host_bytes),
    }


def closing_under_load(setting: Setting) -> Figures:
    """Closing waits for the calls under way, which are right; those that come after are told that it is closed."""
    with opened(setting.plan()) as runner, ThreadPoolExecutor(THREADS) as pool:
        done = threading.Semaphore(0)

        def work(thread: int) -> int:
            for call in itertools.count():
                try:
                    verify(runner, images(setting.small, 3, seed=1000 * thread + call))
                except RanDeployError as exc:
                    if type(exc) is not RanDeployError:  # of the device, and not of the slots
                        raise
                    return call
                finally:
                    done.release()
            raise AssertionError

        jobs = [pool.submit(work, thread) for thread in range(THREADS)]
        for _ in range(2 * THREADS):
            done.acquire(timeout=1)  # in vain where a call failed, which its job tells
        runner.close()
        return {"threads": THREADS, "batches": sum(job.result() for job in jobs)}


def leaks(setting: Setting) -> Figures:
    """Many batches, of sizes with a graph and without, keep no memory; the last ones are still right."""
    numbers = itertools.cycle(setting.sizes)
    pool = images(setting.small, max(setting.sizes), seed=0)
    with opened(setting.plan()) as runner:

        def infer(batch: np.ndarray) -> np.ndarray:
            return runner.infer({INPUT: batch[: next(numbers)]})[OUTPUT]

        found = leak(infer, pool, setting.leak_batches)
        for size in setting.sizes:
            verify(runner, images(setting.small, size, seed=size))
    if found.leaks:
        device = "?" if found.device_bytes is None else f"{found.device_bytes / 2**20:.1f}"
        raise WrongError(
            f"{found.host_bytes / 2**20:.1f} MiB more are in use on the host, {device} MiB on the device, after "
            f"{found.batches:,} batches"
        )
    return {"batches": found.batches, "host_bytes": found.host_bytes, "device_bytes": found.device_bytes or 0}


def missing_device(setting: Setting) -> Figures:
    """A GPU of a number that there is not is refused, and those that there are are named."""
    count = binding().device_count()
    try:
        cuda.require_gpu(count)
    except BackendUnavailableError as exc:
        if "cuda:0" not in str(exc):
            raise WrongError(f"the refusal does not name the GPUs there are: {exc}") from exc
        return {"GPUs": count}
    raise WrongError(f"cuda:{count} was accepted; this machine has {count}")


def other_device(setting: Setting) -> Figures:
    """A runner works on the GPU on which it was opened, though the threads that call it use the first one."""
    if (count := binding().device_count()) < 2:
        raise NotRunError("it takes two GPUs, and one is here")
    last = count - 1
    with ExitStack() as stack:
        with cuda.on_device(last):
            if (here := cuda.current_index()) != last:
                raise WrongError(f"cuda:{here} is current; expected cuda:{last}, which was chosen")
            warm_up(setting)
            before = cuda.used_bytes()
            runner = stack.enter_context(opened(setting.plan(scratch_bytes=setting.memory_bytes)))
        for call in range(CALLS):
            verify(runner, images(setting.small, 3, seed=call))
            if cuda.current_index() != 0:
                raise WrongError(f"the calling thread was left on cuda:{cuda.current_index()}; expected cuda:0")
        with cuda.on_device(last):
            taken = cuda.used_bytes() - before
        if taken < setting.memory_bytes:
            raise WrongError(f"cuda:{last} holds {taken} bytes of the runner; expected {setting.memory_bytes} at least")
    return {"GPUs": count}
