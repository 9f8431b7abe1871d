"""Deciding the pre-processing recipe of a bundle, and where each decision came from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from ran_deploy.config_fields import conform_fields
from ran_deploy.errors import ConfigError
from ran_deploy.preprocessing import ChannelOrder, Interpolation, Preprocessing

__all__ = ["RecipeOptions", "resolve_recipe"]

# Of ImageNet and CIFAR-10's training images, as torchvision and the public RAN implementations use them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
GUESSED = "guessed from the input size: give --mean, --std and --resize if it was trained otherwise"
SMALLEST_PHOTO = 96  # below this side a net was trained on small pictures, without resize and crop


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What the user asked for; None leaves the decision to checkpoint, data set or input size."""

    resize: int | tuple[int, int] | str | None = None  # "none" keeps the size
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    channel_order: ChannelOrder | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        conform_fields(self)

    def chosen(self) -> dict[str, Any]:
        """Return the recipe's fields the user set."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen = {name: value for name, value in values.items() if value is not None}
        if chosen.get("resize") == "none":
            chosen["resize"] = None
        return chosen


def resolve_recipe(
    options: RecipeOptions,
    *,
    input_size: tuple[int, int],
    stored: Preprocessing | None = None,
    layout: Preprocessing | None = None,
    dataset: Preprocessing | None = None,
    dataset_name: str = "",
) -> tuple[Preprocessing, str]:
    """Return the recipe for an engine of `input_size` (height, width) and a phrase that says where it came from.

    `stored` is the recipe in the checkpoint, `layout` that of the code which trained it, `dataset` the
    calibration data set's customary one. Options come first, then these in turn, then a guess from the input size.
    Raises: ConfigError for a recipe that cannot work.
    """
    if stored is not None:
        base, source = stored, "from the checkpoint"
    elif layout is not None:
        base, source = layout, "from this layout's own code"
    elif dataset is not None:
        base, source = dataset, f"customary for {dataset_name}"
    else:
        base, source = _guess(input_size), GUESSED
    chosen = options.chosen()
    try:
        recipe = replace(base, crop=input_size, **chosen)
    except TypeError as exc:
        raise ConfigError(f"The pre-processing options do not fit together: {exc}.") from exc
    if chosen:
        source = f"{', '.join(sorted(chosen))} as asked for, the rest {source}"
    return recipe, source


def _guess(input_size: tuple[int, int]) -> Preprocessing:
    height, width = input_size
    if min(height, width) < SMALLEST_PHOTO:
        return Preprocessing(crop=input_size, resize=input_size, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    # The customary 256 for 224, in proportion.
    return Preprocessing(
        crop=input_size, resize=round(max(height, width) * 256 / 224), mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
