"""How far a build is that reports nested phases, each of a number of steps."""

from __future__ import annotations

import threading
from dataclasses import dataclass

__all__ = ["Phases"]


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Phases under way, by name. The methods may be called from several threads."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._share = 0.0
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of that many steps, itself a step of `parent`."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))

    def complete(self, name: str, step: int) -> float:
        """Note that step number `step`, from 0, of a phase is done; return the share of everything, never falling."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = min(step + 1, self._phases[name].steps)
                self._share = max(self._share, self._share_of(name))
            return self._share

    def finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            self._phases.pop(name, None)

    def _share_of(self, name: str) -> float:
        """Return how far the outermost phase is, seen from this one: each is a part of one step of its parent."""
        phase = self._phases[name]
        share = phase.done / phase.steps
        seen = {name}
        while phase.parent in self._phases and phase.parent not in seen:
            seen.add(phase.parent)
            phase = self._phases[phase.parent]
            share = min((phase.done + share) / phase.steps, 1.0)
        return share
