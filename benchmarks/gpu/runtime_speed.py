"""What the runtime gains on this device: copies beside kernels, CUDA graphs, a second batch under way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
from gpu.gains import graph_gains, slot_gain
from gpu.kernel_engine import expected_logits
from gpu.runtime_setting import Figures, NotRunError, Setting, WrongError, images, require_equal

from ran_deploy.engine.cache import CachedEngine
from ran_deploy.engine.traits import NO_TRAITS
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends.trt_call import Call, Tensor
from ran_deploy.runtime.backends.trt_engine import TensorRtEngine
from ran_deploy.runtime.predictor import INPUT, OUTPUT

QUEUED = 16  # batches without waiting, so that the device and not the host is timed
ROUNDS = 7
MOST_KERNEL_ROUNDS = 1000
LEAST_IDEAL = 1.2  # below it there is too little to gain to tell it from noise
SLOWER = 0.9  # a gain below it is a loss, and no noise of a median


class Lane:
    """A stream, memory and a context, as a slot of the runner has them; batches are queued without waiting."""

    def __init__(self, engine: TensorRtEngine, batch: np.ndarray, stack: ExitStack) -> None:
        owned: list[cuda.DeviceMemory | cuda.HostMemory | cuda.Stream] = []
        stack.callback(cuda.release, owned)
        scratch = cuda.DeviceMemory(engine.scratch_bytes)
        owned.append(scratch)
        self.context = engine.new_context()
        self.context.set_device_memory(scratch.address, engine.scratch_bytes)
        self.context.set_input_shape(INPUT, batch.shape)
        tensors = {INPUT: Tensor(batch.nbytes, owned, mapped=False)}
        logits_bytes = 4 * int(np.prod(self.context.get_tensor_shape(OUTPUT)))
        tensors[OUTPUT] = Tensor(logits_bytes, owned, mapped=False)
        for name, tensor in tensors.items():
            self.context.set_tensor_address(name, tensor.address)
        self.stream = cuda.Stream()
        owned.append(self.stream)
        self._input = tensors[INPUT]
        np.copyto(self._input.host.view(batch.shape, "uint8"), batch)
        self.call = Call(engine, self.context, self.stream, tensors)

    def upload(self) -> None:
        """Queue the copy to the device alone."""
        self.stream.upload(self._input.host.array, self._input.address)

    def compute(self) -> None:
        """Queue the kernels alone."""
        self.context.execute_async_v3(self.stream.handle)


def overlap(setting: Setting) -> Figures:
    """Two lanes finish the same batches sooner than one, as the copies of one run beside the kernels of the other.

    The kernels are made as long as a copy, where they are shorter. Expected is half of what is possible, at least.
    """
    if cuda.current_device().integrated:
        raise NotRunError("an integrated GPU makes no copies")
    with cuda.on_device(0):
        copy, kernel = times(setting, rounds=1)
        rounds = min(MOST_KERNEL_ROUNDS, max(1, round(copy / kernel)))
        copy, kernel = times(setting, rounds=rounds)
        ideal = (copy + kernel) / max(copy, kernel)
        if ideal < LEAST_IDEAL:
            raise NotRunError(
                f"a copy takes {copy:.3f} ms and the kernels {kernel:.3f} ms: one hides little of the other"
            )
        gain = lanes_gain(setting, rounds)
    least = 1 + (ideal - 1) / 2
    if gain < least:
        raise WrongError(
            f"two streams are {gain:.2f} times as fast as one; expected {least:.2f}, half of what hiding {copy:.3f} ms "
            f"of copy and {kernel:.3f} ms of kernels behind each other would give"
        )
    return {"gain": gain, "possible": ideal, "copy_ms": copy, "kernel_ms": kernel, "batch": setting.timed_batch}


def times(setting: Setting, rounds: int) -> tuple[float, float]:
    """Return the milliseconds of one copy to the device and of one batch's kernels."""
    with ExitStack() as stack:
        (lane,) = lanes(setting, rounds, 1, stack)
        copy, kernel = (median_ms(work, [lane], QUEUED) / QUEUED for work in (Lane.upload, Lane.compute))
        return copy, kernel


def lanes_gain(setting: Setting, rounds: int) -> float:
    """Return how much sooner two lanes finish than one, timed in turn. Raises: WrongError for a wrong result."""
    with ExitStack() as stack:
        two = lanes(setting, rounds, 2, stack)
        alone, together = [], []
        for _ in range(ROUNDS):
            alone.append(elapsed_ms(queue_batch, two[:1], 2 * QUEUED))
            together.append(elapsed_ms(queue_batch, two, 2 * QUEUED))
        for seed, lane in enumerate(two):
            expected = expected_logits(images(setting.large, setting.timed_batch, seed), rounds)
            require_equal(lane.call.outputs[OUTPUT], expected)
        return statistics.median(alone) / statistics.median(together)


def queue_batch(lane: Lane) -> None:
    lane.call.queue()


def lanes(setting: Setting, rounds: int, count: int, stack: ExitStack) -> list[Lane]:
    """Return lanes of one engine, each with images of its own."""
    engine = TensorRtEngine("tensorrt", setting.plan(large=True, rounds=rounds), NO_TRAITS, graphs=False)
    return [Lane(engine, images(setting.large, setting.timed_batch, seed), stack) for seed in range(count)]


def median_ms(work: Callable[[Lane], None], used: Sequence[Lane], count: int) -> float:
    return statistics.median(elapsed_ms(work, used, count) for _ in range(ROUNDS))


def elapsed_ms(work: Callable[[Lane], None], used: Sequence[Lane], count: int) -> float:
    """Return the milliseconds of `count` pieces of work, dealt to the lanes in turn, until all are done."""
    start = time.perf_counter()
    for number in range(count):
        work(used[number % len(used)])
    for lane in used:
        lane.stream.synchronize()
    return 1000 * (time.perf_counter() - start)


def graph_gain(setting: Setting) -> Figures:
    """A small batch, of which queueing is much of the time, is not slower as a graph."""
    if not setting.captures:
        raise NotRunError("this binding cannot capture CUDA graphs")
    (found,) = graph_gains("tensorrt", cached(setting.plan()), [images(setting.small, 1, seed=0)], setting.seconds)
    return not_slower({"gain": found.gain, "batch": found.batch})


def second_slot(setting: Setting) -> Figures:
    """Several threads get no fewer images a second from two slots than from one."""
    batch = images(setting.large, setting.timed_batch, seed=0)
    found = slot_gain("tensorrt", cached(setting.plan(large=True)), batch, setting.seconds)
    return not_slower({"gain": found.gain, "batch": found.batch, "threads": found.threads})


def cached(engine: bytes) -> CachedEngine:
    return CachedEngine(data=engine, batch=BatchProfile(), required={}, proven=True)


def not_slower(found: Figures) -> Figures:
    """Return what was found. Raises: WrongError if it is a loss."""
    if found["gain"] < SLOWER:
        raise WrongError(f"{found['gain']:.2f} times as fast as without; expected {SLOWER} at least")
    return found
