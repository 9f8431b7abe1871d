"""Sources in, results out in the same order: decoding, batching and inference overlap, and memory stays bounded."""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError, InputError, ShapeError
from ran_deploy.runtime.outputs import Outputs
from ran_deploy.runtime.sources import Source

__all__ = ["Result", "run_pipeline"]

logger = logging.getLogger(__name__)

DECODE_THREADS = max(1, min(8, (os.cpu_count() or 1) // 2))  # the other half of the processors infers
STOP_POLL_S = 0.1  # how late a set stop event is seen while sources are waited for
JOIN_S = 1.0  # a thread that waits inside the sources cannot be ended, only left behind
Infer = Callable[[np.ndarray], np.ndarray | Outputs]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one source: `logits` float32 (classes,), or `error` in one line.

    Where the engine is asked for more than logits there is `attention` too: float32 (h, w) by name of the module, with
    the prepared image they are of, uint8 (H, W, 3).
    """

    index: int
    name: str
    logits: np.ndarray | None = None
    error: str | None = None
    attention: Mapping[str, np.ndarray] | None = None
    image: np.ndarray | None = None


def run_pipeline(
    sources: Iterable[Source],
    *,
    prepare: Callable[[np.ndarray], np.ndarray],
    infer: Infer,
    batch: int,
    decode_threads: int = DECODE_THREADS,
    in_flight: int = 2,
    max_wait_ms: float = 100.0,
    stop: threading.Event | None = None,
) -> Generator[Result, None, None]:
    """Yield one result per source, in the order of the sources.

    `prepare` turns a decoded image into what `infer` takes, uint8 (H, W, 3); `infer` turns uint8 (N, H, W, 3), N up to
    `batch`, into float32 (N, classes) or `Outputs` with such logits, is called from `in_flight` threads at once, and
    gets a smaller batch where images are broken, at the end, and when filling one takes longer than `max_wait_ms`
    (infinity: always wait).
    Sources are pulled only as results are consumed, so they may be endless. Setting `stop` ends the pulling: what was
    pulled is finished, what the sources still owe is not waited for. Closing the iterator early drops what is in flight
    and ends every thread.

    An InputError of one source, or of `infer`, becomes the error of its item or of its batch's items. Any other
    exception concerns them all, a lost device say, and is raised here.
    """
    if min(batch, decode_threads, in_flight) < 1:
        raise ConfigError(
            f"Batch size {batch}, {decode_threads} decode threads, {in_flight} batches in flight: all must be positive."
        )
    return _Work(
        sources=iter(sources),
        prepare=prepare,
        infer=infer,
        batch=batch,
        max_wait_s=max_wait_ms / 1000,
        stop=stop or threading.Event(),
        decoders=ThreadPoolExecutor(decode_threads, "decode"),
        engines=ThreadPoolExecutor(in_flight, "infer"),
        slots=threading.Semaphore(decode_threads + (in_flight + 1) * batch),
    ).results()


@dataclass(frozen=True)
class _Pulled:
    """A source on its way through a decode thread."""

    index: int
    name: str
    image: Future[np.ndarray]


class _Row(NamedTuple):
    """What the engine gave for one image; nothing where there was no image."""

    logits: np.ndarray | None = None
    attention: Mapping[str, np.ndarray] | None = None


@dataclass
class _Batch:
    """Items in order; `rows` are those of the items that could be decoded."""

    items: list[_Pulled] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    due: float = math.inf  # time.monotonic() at which it leaves, full or not
    rows: Future[list[_Row]] | None = None


@dataclass(frozen=True)
class _End:
    """The last element of each queue, with what broke the thread that filled it."""

    error: BaseException | None = None


@dataclass(kw_only=True)
class _Work:
    """One run: a thread pulls sources, a pool decodes, a thread makes batches, a pool infers, the caller consumes.

    `slots` counts the items between being pulled and being yielded. It alone bounds the memory, so that no queue
    needs a bound and nothing can block but pulling.
    """

    sources: Iterator[Source]
    prepare: Callable[[np.ndarray], np.ndarray]
    infer: Infer
    batch: int
    max_wait_s: float
    stop: threading.Event
    decoders: ThreadPoolExecutor
    engines: ThreadPoolExecutor
    slots: threading.Semaphore
    closed: threading.Event = field(default_factory=threading.Event)
    pulled: queue.SimpleQueue[_Pulled | _End] = field(default_factory=queue.SimpleQueue)
    batches: queue.SimpleQueue[_Batch | _End] = field(default_factory=queue.SimpleQueue)
    asking: bool = False  # whether the puller is inside the sources, as it may be without end
    head: _Pulled | _End | None = None  # of `pulled`, while its image is waited for

    def results(self) -> Generator[Result, None, None]:
        puller = threading.Thread(target=self.pull, name="pull", daemon=True)
        batcher = threading.Thread(target=self.make_batches, name="batch", daemon=True)
        puller.start()
        batcher.start()
        try:
            while isinstance(batch := self.batches.get(), _Batch):
                for result in _results_of(batch):
                    self.slots.release()
                    yield result
            if batch.error is not None:
                raise batch.error
        finally:
            self.close(puller, batcher)

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
            self.asking = True  # all that was pulled before is in the queue
            source = next(self.sources, None)
            self.asking = False
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
            # Looked up before the queue: what comes between the two was pulled after the stop.
            ended = self.stop.is_set() and self.asking
            try:
                self.head = self.pulled.get(timeout=min(STOP_POLL_S, max(0.0, due - time.monotonic())))
            except queue.Empty:
                return _End() if ended else None
        if isinstance(self.head, _Pulled):
            left = None if due == math.inf else max(0.0, due - time.monotonic())
            try:
                self.head.image.exception(left)  # unlike `wait`, it wakes for a future that is cancelled
            except CancelledError:
                return _End()
            except TimeoutError:
                return None
        item, self.head = self.head, None
        return _End() if self.closed.is_set() else item

    def add(self, item: _Pulled, batch: _Batch) -> None:
        if not batch.items:
            batch.due = time.monotonic() + self.max_wait_s
        batch.items.append(item)
        if item.image.exception() is None:
            batch.images.append(item.image.result())

    def dispatch(self, batch: _Batch) -> None:
        if batch.images:
            batch.rows = self.engines.submit(self.infer_images, batch.images)
            batch.images = []
        if batch.items:
            self.batches.put(batch)

    def infer_images(self, images: list[np.ndarray]) -> list[_Row]:
        found = self.infer(np.stack(images))
        logits = found.logits if isinstance(found, Outputs) else found
        if len(logits) != len(images):
            raise ShapeError(
                f"The engine gave {counted(len(logits), 'row')} of logits for {counted(len(images), 'image')}."
            )
        if not isinstance(found, Outputs):
            return [_Row(row) for row in logits]
        return [_Row(row, {name: masks[i] for name, masks in found.attention.items()}) for i, row in enumerate(logits)]

    def close(self, puller: threading.Thread, batcher: threading.Thread) -> None:
        """End every thread: what runs finishes unseen, what waits is dropped."""
        self.closed.set()
        self.slots.release()
        puller.join(JOIN_S)
        if puller.is_alive():
            logger.warning("The sources are still being waited for; that thread is left behind.")
        self.decoders.shutdown(cancel_futures=True)
        self.pulled.put(_End())
        batcher.join()
        self.engines.shutdown(cancel_futures=True)


def _results_of(batch: _Batch) -> Iterator[Result]:
    """Wait for `batch` and yield the result of each item."""
    rows: Iterator[_Row] = iter(())
    batch_error = None
    if batch.rows is not None:
        batch_error = _user_error(batch.rows)
        rows = iter(() if batch_error else batch.rows.result())
    for item in batch.items:
        error = _user_error(item.image) or batch_error
        row = _Row() if error else next(rows)
        yield Result(
            index=item.index,
            name=item.name,
            logits=row.logits,
            error=error,
            attention=row.attention,
            image=None if row.attention is None else item.image.result(),
        )


def _user_error(future: Future[Any]) -> str | None:
    """Wait, and return the message of an InputError, None if there is no error. Any other error is raised."""
    error = future.exception()
    if error is None:
        return None
    if not isinstance(error, InputError):
        raise error
    return str(error) or type(error).__name__
