"""Choosing a few images of a data set."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ran_deploy.datasets.dataset import Dataset
from ran_deploy.errors import ConfigError

__all__ = ["select_indices"]


def select_indices(dataset: Dataset, count: int, seed: int = 0) -> list[int]:
    """Return `count` different indices, or all if there are fewer, the same for the same `seed`.

    Classes take turns, so any beginning of the list is as balanced as the data set allows. Images without labels are
    one class. Raises: ConfigError if `count` is not positive.
    """
    if count < 1:
        raise ConfigError(f"{count} images were asked for; at least 1 is needed.")
    rng = np.random.default_rng(seed)
    by_class: dict[int | None, list[int]] = defaultdict(list)
    for index in rng.permutation(len(dataset)).tolist():  # classes, and images within each, come in random order
        by_class[dataset.label(index)].append(index)
    members = list(by_class.values())
    turns = sorted((turn, position) for position, indices in enumerate(members) for turn in range(len(indices)))
    return [members[position][turn] for turn, position in turns[:count]]
