"""Sources in, results out in the same order: decoding, batching and inference overlap, and memory stays bounded."""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
from ran_deploy.runtime.sources import Source

from ran_deploy.errors import ConfigError

__all__ = ["Result", "run_pipeline"]

logger = logging.getLogger(__name__)

STOP_POLL_S = 0.1  # how late a set stop event is seen while sources are waited for
JOIN_S = 1.0  # a thread inside a source's own blocking read cannot be ended, only left

DECODE_THREADS = max(1, min(8, (os.cpu_count() or 1) // 2))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one source: `logits` float32 (classes,), or `error` in one line."""

    index: int
    name: str
    logits: np.ndarray | None = None
    error: str | None = None


def run_pipeline(
    sources: Iterable[Source],
    *,
    prepare: Callable[[np.ndarray], np.ndarray],
    infer: Callable[[np.ndarray], np.ndarray],
    batch: int,
    decode_threads: int = DECODE_THREADS,
    in_flight: int = 2,
    max_wait_ms: float = 100.0,
    stop: threading.Event | None = None,
) -> Iterator[Result]:
    """Yield one result per source, in the order of the sources.

    `prepare` turns a decoded image into what `infer` takes, uint8 (H, W, 3); `infer` turns uint8 (N, H, W, 3), N up to
    `batch`, into float32 (N, classes), is called from `in_flight` threads at once, and gets a smaller batch where
    images are broken, at the end, and when filling one takes longer than `max_wait_ms` (infinity: always wait).
    Sources are pulled only as results are consumed, so they may be endless. Setting `stop` ends the pulling: what was
    pulled is finished. Closing the iterator early drops what is in flight and ends every thread.

    A RanDeployError of one source, or of `infer`, becomes the error of its item or of its batch's items. Any other
    exception is a bug, and is raised here.
    """
    if min(batch, decode_threads, in_flight) < 1:
        raise ConfigError(
            f"Batch size {batch}, {decode_threads} decode threads and {in_flight} batches in flight: each must be 1 or more."
        )
    work = _Work(iter(sources), prepare, infer, batch, max_wait_ms / 1000, stop or threading.Event())
    return work.results(decode_threads, in_flight)


@dataclass(frozen=True)
class _Pulled:
    """A source on its way through a decode thread."""

    index: int
    name: str
    image: Future[np.ndarray]

    def failed(self) -> bool:
        return self.image.exception() is not None


@dataclass
class _Batch:
    """Items in order; `logits` are those of the items that could be decoded."""

    items: list[_Pulled] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    due: float = math.inf  # time.monotonic() at which it leaves, full or not
    logits: Future[np.ndarray] | None = None


@dataclass(frozen=True)
class _End:
    """The last element of each queue, with what broke the thread that filled it."""

    error: BaseException | None = None


class _Work:
    """One run: a thread pulls sources, a pool decodes, a thread makes batches, a pool infers, the caller consumes.

    `slots` counts the items between being pulled and being yielded. It alone bounds the memory, so that no queue
    needs a bound and nothing can block but pulling.
    """

    def __init__(
        self,
        sources: Iterator[Source],
        prepare: Callable[[np.ndarray], np.ndarray],
        infer: Callable[[np.ndarray], np.ndarray],
        batch: int,
        max_wait_s: float,
        stop: threading.Event,
    ) -> None:
        self.sources, self.prepare, self.infer = sources, prepare, infer
        self.batch, self.max_wait_s, self.stop = batch, max_wait_s, stop
        self.closed = threading.Event()
        self.pulled: queue.SimpleQueue[_Pulled | _End] = queue.SimpleQueue()
        self.batches: queue.SimpleQueue[_Batch | _End] = queue.SimpleQueue()
        self.head: _Pulled | _End | None = None  # of `pulled`, while its image is waited for

    def results(self, decode_threads: int, in_flight: int) -> Iterator[Result]:
        self.slots = threading.Semaphore(decode_threads + (in_flight + 1) * self.batch)
        self.decoders = ThreadPoolExecutor(decode_threads, "decode")
        self.engines = ThreadPoolExecutor(in_flight, "infer")
        threads = [
            threading.Thread(target=run, name=run.__name__, daemon=True) for run in (self.pull, self.make_batches)
        ]
        for thread in threads:
            thread.start()
        try:
            while isinstance(batch := self.batches.get(), _Batch):
                for result in batch_results(batch):
                    self.slots.release()
                    yield result
            if batch.error is not None:
                raise batch.error
        finally:
            self.close(threads)

    def pull(self) -> None:
        """Take sources while there is room, and hand them to the decoders."""
        error: BaseException | None = None
        try:
            for index, source in enumerate(self.wanted_sources()):
                self.pulled.put(_Pulled(index, source.name, self.decoders.submit(self.decode, source)))
        except BaseException as exc:  # raised again where the results are consumed
            error = exc
        self.pulled.put(_End(error))

    def wanted_sources(self) -> Iterator[Source]:
        while True:
            self.slots.acquire()
            if self.stop.is_set() or self.closed.is_set():
                return
            source = next(self.sources, None)
            if source is None or self.closed.is_set():
                return
            yield source

    def decode(self, source: Source) -> np.ndarray:
        return self.prepare(source.load())

    def make_batches(self) -> None:
        """Join decoded images in order; a batch leaves when it is full, overdue or the last."""
        error: BaseException | None = None
        try:
            batch = _Batch()
            while not isinstance(item := self.next_decoded(batch.due), _End):
                if item is not None:
                    self.add(item, batch)
                # Broken items count too: else a run of them would hold results back without end.
                if len(batch.items) >= self.batch or time.monotonic() >= batch.due:
                    self.dispatch(batch)
                    batch = _Batch()
            error = item.error
            self.dispatch(batch)
        except BaseException as exc:  # raised again where the results are consumed
            error = exc
        self.batches.put(_End(error))

    def next_decoded(self, due: float) -> _Pulled | _End | None:
        """Return the next item once it is decoded, None if that takes longer than until `due`."""
        if self.head is None:
            try:
                self.head = self.pulled.get(timeout=min(STOP_POLL_S, max(0.0, due - time.monotonic())))
            except queue.Empty:
                return _End() if self.stop.is_set() else None
        if isinstance(self.head, _Pulled):
            left = None if due == math.inf else max(0.0, due - time.monotonic())
            if not wait([self.head.image], left).done:
                return None
        item, self.head = self.head, None
        return item

    def add(self, item: _Pulled, batch: _Batch) -> None:
        if not batch.items:
            batch.due = time.monotonic() + self.max_wait_s
        batch.items.append(item)
        if not item.failed():
            batch.images.append(item.image.result())

    def dispatch(self, batch: _Batch) -> None:
        if not batch.items:
            return
        if batch.images:
            images, batch.images = batch.images, []
            batch.logits = self.engines.submit(lambda: self.infer(np.stack(images)))
        self.batches.put(batch)

    def close(self, threads: list[threading.Thread]) -> None:
        """End every thread; what is in flight finishes unseen, what waits is dropped."""
        self.closed.set()
        self.slots.release()
        self.decoders.shutdown(wait=True, cancel_futures=True)
        self.pulled.put(_End())
        for thread in threads:
            thread.join(JOIN_S)
            if thread.is_alive():
                logger.warning("A source is still being read; its thread is left behind.")
        self.engines.shutdown(wait=True, cancel_futures=True)


def batch_results(batch: _Batch) -> Iterator[Result]:
    """Wait for the batch and yield the result of each item. Raises: what is not a RanDeployError."""
