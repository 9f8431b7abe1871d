"""What there is to know of a named network without building it."""

from __future__ import annotations

from dataclasses import dataclass

from ran_deploy.models.arithmetic import cost_of
from ran_deploy.models.design import Design
from ran_deploy.models.zoo import architecture_named

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A network of the zoo with the classes and the input size (height, width) it was published with.

    `multiply_adds` are those of one image of that size, in convolutions and classifier.
    """

    name: str
    parameters: int
    multiply_adds: int
    trunk_depth: int
    input_size: tuple[int, int]
    smallest_side: int
    num_classes: int
    source: str
    design: Design


def summarise(name: str) -> Summary:
    """Return the summary of the zoo's network of that name. Raises: ConfigError for an unknown one."""
    architecture = architecture_named(name)
    cost = cost_of(architecture.design, architecture.num_classes, architecture.input_size)
    return Summary(
        name=name,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        trunk_depth=architecture.design.trunk_depth,
        input_size=architecture.input_size,
        smallest_side=architecture.design.smallest_side,
        num_classes=architecture.num_classes,
        source=architecture.source,
        design=architecture.design,
    )
