"""A few slots, each for one call at a time, lent to the threads that ask for one."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from ran_deploy.errors import DeviceError, RanDeployError

__all__ = ["Slots"]

logger = logging.getLogger(__name__)


class Closable(Protocol):
    def close(self) -> None: ...


Slot = TypeVar("Slot", bound=Closable)


class Slots(Generic[Slot]):
    """At most `limit` slots: the first is made now, the others when so many threads call at once.

    Where the device has no memory for another one, those that are there serve everybody.
    """

    def __init__(self, make: Callable[[], Slot], limit: int) -> None:
        self._make: Callable[[], Slot] | None = make  # None when closed: it may hold the engine
        self._limit = limit
        self._changed = threading.Condition()
        self._idle: list[Slot] = [make()]
        self._made = 1
        self._closed = False

    @contextlib.contextmanager
    def taken(self) -> Iterator[Slot]:
        """Lend a slot within a with statement; wait for one if need be. Raises: RanDeployError when closed."""
        slot = self._take()
        try:
            yield slot
        finally:
            with self._changed:
                self._idle.append(slot)
                self._changed.notify_all()

    def close(self) -> None:
        """Wait for the calls under way, then close every slot; a second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._idle) == self._made)
            slots, self._idle, self._made, self._make = self._idle, [], 0, None
        for slot in slots:
            slot.close()

    def _take(self) -> Slot:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._made < self._limit)
            if self._closed:
                raise RanDeployError("This runner is closed. Open the engine again.")
            if self._idle:
                return self._idle.pop()
            self._made += 1
            make = self._make
        try:
            assert make is not None
            return make()
        except BaseException as exc:
            with self._changed:
                self._made -= 1
                self._changed.notify_all()
                if not isinstance(exc, DeviceError) or self._made == 0:
                    raise
                self._limit = self._made
            logger.warning("no memory for a further batch at once, so batches wait for each other: %s", exc)
        return self._take()
