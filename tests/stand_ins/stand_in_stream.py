"""Streams of the stand-in for a GPU, and what is queued on them."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Operation:
    """Something queued: what it reads and writes, and what it does. `scratch` is memory it alone may use meanwhile."""

    run: Callable[[], None]
    reads: tuple[tuple[int, int], ...] = ()  # address, bytes
    writes: tuple[tuple[int, int], ...] = ()
    scratch: object | None = None


@dataclass(eq=False)
class Stream:
    device: int
    jobs: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    captured: list[Operation] | None = None  # while it captures
    capturing_thread: int | None = None
    mode: str = ""  # of the capture: Global, ThreadLocal or Relaxed
    invalid: bool = False  # the capture
    error: str | None = None  # of what ran on it, for good
