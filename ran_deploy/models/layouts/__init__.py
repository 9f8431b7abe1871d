"""State-dict layouts of RAN implementations, one a file: how its keys and shapes tell the network, and our keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from ran_deploy.manifest import Task
from ran_deploy.models.design import Design
from ran_deploy.models.network import build_network
from ran_deploy.preprocessing import Preprocessing

__all__ = ["LAYOUTS", "Layout", "Reading", "Shapes", "reading_of"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a layout reads from keys and shapes.

    `build` returns the network, `key_of` names one of its state-dict keys as the layout spells it, `is_dead` tells
    keys that the layout stores but never uses. `design` is None where the network is no composition of ours.
    `num_classes` is the number of features where the task is embedding. `preprocessing` is what the layout's own code
    trains with, if it is known.
    """

    architecture: str
    num_classes: int
    input_size: tuple[int, int]
    build: Callable[[], nn.Module]
    key_of: Callable[[str], str]
    is_dead: Callable[[str], bool]
    design: Design | None = None
    task: Task = Task.CLASSIFICATION
    preprocessing: Preprocessing | None = None


def reading_of(
    design: Design,
    num_classes: int,
    *,
    architecture: str,
    key_of: Callable[[str], str],
    is_dead: Callable[[str], bool] = lambda key: False,
    input_size: tuple[int, int] = (224, 224),
    task: Task = Task.CLASSIFICATION,
    preprocessing: Preprocessing | None = None,
) -> Reading:
    """Return the reading of a network that is a composition of ours."""
    return Reading(
        architecture=architecture,
        num_classes=num_classes,
        input_size=input_size,
        build=lambda: build_network(design, num_classes),
        key_of=key_of,
        is_dead=is_dead,
        design=design,
        task=task,
        preprocessing=preprocessing,
    )


class Layout(Protocol):
    """A module of this package."""

    NAME: str

    def read(self, shapes: Shapes) -> Reading | None:
        """Return what keys and shapes say if they have this layout's structure, even with some keys missing."""
        ...

    def typical(self) -> Reading:
        """Return the reading of the best-known network of this layout, to name differences against."""
        ...


LAYOUTS = {
    "ran-deploy": "ran_deploy.models.layouts.native",
    "authors": "ran_deploy.models.layouts.authors",
    "tengshaofeng": "ran_deploy.models.layouts.tengshaofeng",
    "liudaizong": "ran_deploy.models.layouts.liudaizong",
    "pytorchcv": "ran_deploy.models.layouts.pytorchcv",
    "facexzoo": "ran_deploy.models.layouts.facexzoo",
    "weiaicunzai": "ran_deploy.models.layouts.weiaicunzai",
}
