"""A stand-in for a GPU: memory, streams and graphs as CUDA documents them, and a list of what a program did wrong.

It computes nothing by itself and proves nothing about speed or a driver. Each stream is a thread that executes what is
queued on it in order, after a random delay, so that whatever a program does not wait for happens late. What a real
device would answer with wrong results or a crash is a line in `faults`; what CUDA answers with an error is a GpuError.

The rules are those of the CUDA C++ Programming Guide (streams, graphs, page-locked memory) and of "API synchronization
behavior", https://docs.nvidia.com/cuda/cuda-runtime-api/api-sync-behavior.html: copies from and to page-locked memory
return at once; those to pageable memory once they are done, and those from it once it has been read. It is stricter in
one place: any use of a stream or of memory from a thread whose current device is another one is a fault.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from stand_in_memory import Block, GpuError, Memory, bytes_at
from stand_in_stream import Operation, Stream

MEET_S = 10.0


class StandInGpu(Memory):
    """`count` devices of `memory_bytes` each. `delay_s` is the longest that anything takes.

    The first batches of engines wait until `meet` of them have run at once, for MEET_S at most: a machine that is busy
    with other things delays them, and no test has to guess by how much. With `keeps_freed` the pages of freed memory
    stay, for tests that let the host read it: it would end the process.
    Of its `dla_cores` TensorRT's stand-in notes on which an engine was loaded, in `loaded_on`; they compute nothing.
    """

    def __init__(
        self,
        *,
        count: int = 2,
        integrated: bool = False,
        memory_bytes: int = 2**26,
        delay_s: float = 0.002,
        meet: int = 1,
        keeps_freed: bool = False,
        seed: int = 0,
        dla_cores: int = 0,
    ) -> None:
        super().__init__()
        self.count, self.integrated, self.memory_bytes, self.delay_s = count, integrated, memory_bytes, delay_s
        self.dla_cores, self.loaded_on = dla_cores, list[int]()
        self.calls: Counter[str] = Counter()
        self.running: Counter[str] = Counter()  # batches of engines at once: "now" and the "most" so far
        self._meet, self._met = meet, threading.Event()
        self._keeps_freed, self._freed = keeps_freed, list[Block]()
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Operation]] = {}
        self.executables: dict[int, list[Operation]] = {}
        self.local = threading.local()
        self.used_devices: set[int] = set()  # those with a context: chosen, or used by default
        self._random = random.Random(seed)
        self._handles = itertools.count(0x10, 0x10)
        self._failures: dict[str, list[str]] = defaultdict(list)
        self._scratch: dict[object, tuple[Stream, int]] = {}
        self._busy = 0

    # What a test asks for and looks at.

    def fail(self, call: str, error: str, *, after: int = 0) -> None:
        """Let a call fail: the next one, or that `after` so many good ones."""
        self._failures[call] += [*[""] * after, error]

    def live(self) -> dict[str, int]:
        """Return how many of each kind of object exist."""
        kinds = {"streams": self.streams, "memory": self.blocks, "graphs": self.graphs, "executables": self.executables}
        return {name: len(found) for name, found in kinds.items() if found}

    def pending(self) -> int:
        """Return how many operations are queued or running."""
        with self.lock:
            return self._busy

    def allocated(self, device: int = 0) -> int:
        with self.lock:
            return sum(b.data.nbytes for b in self.blocks.values() if b.device == device and b.host_address is None)

    # What every interface is made of.

    def entered(self, call: str) -> None:
        """Count a call, and fail it if a test asked for that."""
        with self.lock:
            self.calls[call] += 1
            waiting = self._failures.get(call)
            error = waiting.pop(0) if waiting else ""
        if error:
            raise GpuError(error)

    @property
    def device(self) -> int:
        """The calling thread's current device: 0 unless it chose another one."""
        return getattr(self.local, "device", 0)

    @device.setter
    def device(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise GpuError("InvalidDevice")
        self.local.device = index
        self.used_devices.add(index)

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)

    def create_stream(self) -> int:
        self.refuse_during_capture()
        self.used_devices.add(self.device)
        handle, stream = next(self._handles), Stream(self.device)
        with self.lock:
            self.streams[handle] = stream
        threading.Thread(target=self._work, args=(stream,), daemon=True, name=f"stand-in stream {handle}").start()
        return handle

    def stream(self, handle: int) -> Stream:
        stream = self.streams.get(handle)
        if stream is None:
            raise GpuError("InvalidResourceHandle")
        if stream.device != self.device:
            self.fault(f"a stream of device {stream.device} was used while device {self.device} is current")
        return stream

    def destroy_stream(self, handle: int) -> None:
        stream = self.stream(handle)
        with self.lock:
            del self.streams[handle]
        stream.jobs.put(None)  # as documented, what is queued is still done

    def synchronize(self, handle: int) -> None:
        stream = self.stream(handle)
        if stream.captured is not None:
            stream.invalid = True
            raise GpuError("StreamCaptureUnsupported")
        done = threading.Event()
        stream.jobs.put(done)
        done.wait()
        if stream.error:
            raise GpuError(stream.error)

    def allocate(self, size: int) -> int:
        self.refuse_during_capture()
        if size > self.memory_bytes - self.allocated(self.device):
            raise GpuError("MemoryAllocation")
        return self.new_block(size, self.device).address

    def allocate_host(self, size: int) -> Block:
        """Return page-locked memory; the device reaches it at `address`, which is not that of the host."""
        self.refuse_during_capture()
        block = self.new_block(size, self.device)
        block.host_address = block.data.ctypes.data
        return block

    def free(self, address: int) -> None:
        self.refuse_during_capture()
        with self.lock:
            block = self.blocks.get(address)
            if block is None:
                raise GpuError("InvalidValue")
            if block.in_use:
                self.fault("memory was freed while something that uses it is queued")
            if block.device != self.device:
                self.fault(f"memory of device {block.device} was freed while device {self.device} is current")
            del self.blocks[address]
            if self._keeps_freed:
                self._freed.append(block)

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        self._check_host_is_not_device(source)
        block = self.host_block(source)
        if block is None:  # pageable: it is read before the call returns
            self.calls["pageable copies"] += 1
            content = bytes_at(source, size).copy()
            self.enqueue(stream, Operation(lambda: self.write(target, content), writes=((target, size),)))
            return
        reads = ((block.address + source - block.host_address, size),)
        self.enqueue(stream, Operation(lambda: self.write(target, self.read(*reads[0])), reads, ((target, size),)))

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        self._check_host_is_not_device(target)
        block = self.host_block(target)
        if block is None:
            self.calls["pageable copies"] += 1

            def run() -> None:
                bytes_at(target, size)[:] = self.read(source, size)

            self.enqueue(stream, Operation(run, reads=((source, size),)))
            self.synchronize(stream)
            return
        writes = ((block.address + target - block.host_address, size),)
        self.enqueue(
            stream, Operation(lambda: self.write(writes[0][0], self.read(source, size)), ((source, size),), writes)
        )

    def enqueue(self, handle: int, operation: Operation) -> None:
        """Queue an operation, or note it where the stream is being captured."""
        stream = self.stream(handle)
        if stream.captured is not None:
            stream.captured.append(operation)
            return
        blocks = [self.block(address, size) for address, size in (*operation.reads, *operation.writes)]
        if None in blocks:
            self.fault("something was queued with an address that is no memory of the device")
            return
        host = [place for place in operation.reads if self.block(*place).host_address is not None]
        seen = [self.read(*place).copy() for place in host]
        with self.lock:
            self._busy += 1
            for block in blocks:
                block.in_use += 1
            other, running = self._scratch.get(operation.scratch, (stream, 0))
            if operation.scratch is not None:
                if running and other is not stream:
                    self.fault("two streams use the activation memory of one context at once")
                self._scratch[operation.scratch] = (stream, running + 1)

        def run() -> None:
            if any(not np.array_equal(was, self.read(*place)) for was, place in zip(seen, host, strict=True)):
                self.fault("host memory was changed before the device had read it")
            try:
                if not stream.error:
                    operation.run()
            except GpuError as exc:
                stream.error = str(exc)
            with self.lock:
                self._busy -= 1
                for block in blocks:
                    block.in_use -= 1
                if operation.scratch is not None:
                    self._scratch[operation.scratch] = (stream, self._scratch[operation.scratch][1] - 1)

        stream.jobs.put(run)

    def begin_capture(self, handle: int, mode: str) -> None:
        stream = self.stream(handle)
        if stream.captured is not None:
            raise GpuError("IllegalState")
        stream.captured, stream.capturing_thread, stream.invalid = [], threading.get_ident(), False
        stream.mode = mode

    def end_capture(self, handle: int) -> int:
        stream = self.stream(handle)
        if stream.captured is None:
            raise GpuError("IllegalState")
        captured, stream.captured = stream.captured, None  # also where it fails
        self.entered("capture")
        if stream.invalid:
            raise GpuError("StreamCaptureInvalidated")
        graph = next(self._handles)
        self.graphs[graph] = captured
        return graph

    def instantiate(self, graph: int) -> int:
        executable = next(self._handles)
        self.executables[executable] = list(self.graphs[graph])
        return executable

    def launch(self, executable: int, stream: int) -> None:
        for operation in self.executables[executable]:
            self.enqueue(stream, operation)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Count how many operations of this kind run at once."""
        with self.lock:
            self.running["now"] += 1
            self.running["most"] = max(self.running["most"], self.running["now"])
            if self.running["most"] >= self._meet:
                self._met.set()
        self._met.wait(MEET_S)
        self._met.set()  # nobody waits twice
        try:
            yield
        finally:
            with self.lock:
                self.running["now"] -= 1

    def pause(self) -> None:
        with self.lock:
            seconds = self._random.uniform(0, self.delay_s)
        time.sleep(seconds)

    def _work(self, stream: Stream) -> None:
        while (job := stream.jobs.get()) is not None:
            if isinstance(job, threading.Event):
                job.set()
            else:
                self.pause()
                job()

    def _check_host_is_not_device(self, address: int) -> None:
        if self.block(address, 1) is not None:
            raise GpuError("InvalidValue")

    def refuse_during_capture(self) -> None:
        """Calls that a capture forbids: of the capturing thread, and in global mode of every thread."""
        with self.lock:
            for stream in self.streams.values():
                mine = stream.capturing_thread == threading.get_ident()
                if stream.captured is not None and (mine or stream.mode == "Global"):
                    stream.invalid = True
                    raise GpuError("StreamCaptureUnsupported")
