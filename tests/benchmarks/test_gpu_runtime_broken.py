"""Each check of the runtime finds it wrong where it is broken as it is here."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from ran_deploy.errors import DeviceError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends.slots import Slots
from ran_deploy.runtime.backends.trt_call import Call, Tensor
from ran_deploy.runtime.backends.trt_slot import Slot
from ran_deploy.runtime.cuda.cuda_python import CudaPython
from ran_deploy.runtime.pipeline import run_pipeline


def forget(device) -> None:
    """Wait for what a broken runtime did not, and take away what it left on the stand-in and the fixtures refuse."""
    while device.pending():
        time.sleep(0.01)
    for kept in (device.faults, device.blocks, device.streams, device.graphs, device.executables):
        kept.clear()


def nothing(*arguments, **options):
    """Stands for work that is left out."""


def all_layers_in_one_memory(gpu, patch):
    first = []

    def set_device_memory(context, memory, size):
        first.append(memory)
        context._scratch = first[0]

    patch(gpu("kernel_engine").Context, "set_device_memory", set_device_memory)


def memory_freed_at_once(gpu, patch):
    made = Tensor.__init__

    def make(tensor, *arguments, **options):
        made(tensor, *arguments, **options)
        arguments[1].pop().close()

    patch(Tensor, "__init__", make)


def stale_address_in_the_graph(gpu, patch):
    capture = Call._capture

    def captured(call):
        uploads = call._uploads
        call._uploads = [(np.array(view), address) for view, address in uploads]
        capture(call)
        call._kept, call._uploads = call._uploads, uploads

    patch(Call, "_capture", captured)


def slot_for_several_threads(gpu, patch):
    @contextlib.contextmanager
    def taken(slots):
        yield slots._idle[0]

    patch(Slots, "taken", taken)


def memory_kept_at_each_batch(gpu, patch):
    infer, kept = Slot.infer, []

    def keeping(slot, *arguments):
        kept.append(cuda.DeviceMemory(2**19))
        return infer(slot, *arguments)

    patch(Slot, "infer", keeping)


def lanes_on_one_stream(gpu, patch):
    streams = []

    class OneStream(cuda.Stream):
        def __new__(cls):
            streams.append(streams[0] if streams else super().__new__(cls))
            return streams[-1]

        def __init__(self):
            if len(streams) == 1:
                super().__init__()

    patch(cuda, "Stream", OneStream)


def slow_graphs(gpu, patch):
    launch = cuda.Stream.launch
    patch(cuda.Stream, "launch", lambda *arguments: time.sleep(0.3) or launch(*arguments))


def slow_second_slot(gpu, patch):
    taken = Slots.taken

    @contextlib.contextmanager
    def slowed(slots):
        with taken(slots) as slot:
            time.sleep(0.5 * (slots._limit - 1))
            yield slot

    patch(Slots, "taken", slowed)


def last_rows(gpu, patch):
    infer = Slot.infer

    def other_rows(slot, arrays, shapes, profile):
        whole = {name: np.resize(array, shapes[name]) for name, array in arrays.items()}
        count = min(map(len, arrays.values()))
        return {name: rows[-count:] for name, rows in infer(slot, whole, shapes, profile).items()}

    patch(Slot, "infer", other_rows)


def results_backwards(gpu, patch):
    def backwards(sources, **options):
        yield from reversed(list(run_pipeline(sources, **options)))

    patch(gpu("runtime_checks"), "run_pipeline", backwards)


def refusals_unheard(gpu, patch):
    execute = gpu("kernel_engine").Context.execute_async_v3
    patch(gpu("kernel_engine").Context, "execute_async_v3", lambda *arguments: execute(*arguments) or True)


def devices_not_chosen(gpu, patch):
    patch(CudaPython, "current", lambda *arguments: contextlib.nullcontext())


def closing_at_once(gpu, patch):
    def close(slots):
        slots._closed = True
        for slot in slots._idle:
            slot.close()

    def taken(slots):
        slot = slots._idle[0]
        if slots._closed:
            raise DeviceError("invalid handle")
        return contextlib.nullcontext(slot)

    patch(Slots, "close", close)
    patch(Slots, "taken", taken)


def less_memory_than_asked_for(gpu, patch):
    allocate = CudaPython.allocate
    patch(CudaPython, "allocate", lambda binding, size: allocate(binding, min(size, 2**20)))


def left_out(owner, name):
    """Return what leaves out a method of the runtime."""
    return lambda gpu, patch: patch(owner, name, nothing)


BATCHES = ("batches, copied", "batches, mapped memory", "threads, copied", "threads, mapped memory")
BROKEN = {
    "nobody waits": (left_out(CudaPython, "synchronize"), ("page-locked copies", *BATCHES, "leaks", "pipeline")),
    "no copy to the device": (left_out(cuda.Stream, "upload"), ("page-locked copies", "batches, copied")),
    "no copy back": (left_out(cuda.Stream, "download"), ("page-locked copies", "batches, copied")),
    "memory freed at once": (memory_freed_at_once, ("batches, copied",)),
    "layers of all slots in one memory": (all_layers_in_one_memory, ("threads, copied", "threads, mapped memory")),
    "a slot for several threads": (slot_for_several_threads, ("threads, copied", "threads, mapped memory")),
    "a graph that is not launched": (left_out(cuda.Stream, "launch"), ("batches, copied", "CUDA graphs")),
    "a graph of an old address": (stale_address_in_the_graph, ("batches, copied", "CUDA graphs")),
    "no graph at all": (left_out(Call, "_capture"), ("CUDA graphs", "padded batches")),
    "rows of what pads a batch": (last_rows, ("padded batches",)),
    "no graph for what is padded": (
        lambda gpu, patch: patch(Slot, "_has_padded_size", lambda *arguments: False),
        ("padded batches",),
    ),
    "refusals unheard": (refusals_unheard, ("refused calls",)),
    "memory not freed": (left_out(cuda.DeviceMemory, "close"), ("closing",)),
    "memory not freed after a failure": (left_out(cuda.DeviceMemory, "close"), ("refused calls",)),
    "less memory than asked for": (less_memory_than_asked_for, ("engine larger than memory",)),
    "closing waits for nobody": (closing_at_once, ("closing under load",)),
    "memory kept at each batch": (memory_kept_at_each_batch, ("leaks",)),
    "results backwards": (results_backwards, ("pipeline",)),
    "any GPU accepted": (left_out(cuda, "require_gpu"), ("missing GPU",)),
    "devices not chosen": (devices_not_chosen, ("another GPU",)),
    "lanes on one stream": (lanes_on_one_stream, ("copies beside kernels",)),
    "slow graphs": (slow_graphs, ("gain of CUDA graphs",)),
    "a slow second slot": (slow_second_slot, ("gain of a second slot",)),
}


def test_every_check_is_seen_to_find_something(gpu):
    assert {name for _, names in BROKEN.values() for name in names} == set(gpu("gpu_runtime_check").CHECKS)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_runtime_is_found_wrong(checks, gpu, monkeypatch, broken):
    break_it, names = BROKEN[broken]
    break_it(gpu, monkeypatch.setattr)
    found, device = checks(
        *names,
        delay_s=0.01,
        steady="gain" in names[0] or "beside" in names[0],
        keeps_freed=names == ("closing under load",),
    )
    monkeypatch.undo()
    forget(device)
    assert {name: check.outcome.value for name, check in found.items()} == dict.fromkeys(names, "wrong")
