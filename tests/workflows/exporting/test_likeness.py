"""Shifts from BatchNorm's statistics against NumPy, and which images and recipes are warned of."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from ran_deploy.preprocessing import ChannelOrder, Preprocessing  # noqa: E402
from ran_deploy.workflows.exporting.likeness import batch_norm_shifts, likeness_warning  # noqa: E402

SIZE = (20, 24)
RECIPE = Preprocessing(crop=SIZE, mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3))


def coloured(rng: np.random.Generator, count: int) -> np.ndarray:
    """Images with a mean and a spread of its own in each channel, and their own brightness."""
    base = rng.normal((50, 100, 150), (20, 40, 60), (count, *SIZE, 3)) + rng.normal(0, 10, (count, 1, 1, 1))
    return np.clip(np.rint(base), 0, 255).astype(np.uint8)


def normalised(images: np.ndarray, recipe: Preprocessing = RECIPE) -> np.ndarray:
    return ((images / 255 - np.array(recipe.mean)) / np.array(recipe.std)).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Three BatchNorms whose statistics are of 400 images."""
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 6, 1), nn.BatchNorm2d(6),
    )  # fmt: skip
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over batches
    images = normalised(coloured(np.random.default_rng(1), 400))
    with torch.no_grad():
        for start in range(0, 400, 50):
            module(torch.from_numpy(images[start : start + 50]))
    return module.eval()


def test_shifts_are_those_of_numpy(network, rng):
    images = normalised(coloured(rng, 21)[..., ::-1])
    shift = batch_norm_shifts(network, images)[0]
    norm = network[1]
    with torch.no_grad():
        x = network[0](torch.from_numpy(images)).numpy().astype(np.float64)
    running = norm.running_var.numpy() + norm.eps
    moved = (x.mean(axis=(0, 2, 3)) - norm.running_mean.numpy()) / np.sqrt(running)
    spread = np.log((x.var(axis=(0, 2, 3)) + norm.eps) / running)
    assert shift.layer == "1"
    assert shift.mean == pytest.approx(float(np.sqrt((moved**2).mean())), rel=1e-4)
    assert shift.spread == pytest.approx(float(np.sqrt((spread**2).mean())), rel=1e-4)


@pytest.mark.parametrize("count", [8, 32, 64])
def test_right_images_are_not_warned_of(network, rng, count):
    assert likeness_warning(network, coloured(rng, count), RECIPE) is None


def test_a_swapped_channel_order_is_named(network, rng):
    wrong = coloured(rng, 32)[..., ::-1]
    assert "With --channel-order bgr they would look right" in likeness_warning(network, wrong, RECIPE)
    reverse = Preprocessing(crop=SIZE, mean=RECIPE.mean, std=RECIPE.std, channel_order=ChannelOrder.BGR)
    assert "With --channel-order rgb they would look right" in likeness_warning(network, wrong, reverse)


def test_wrong_normalisation_and_noise_name_what_to_check(network, rng):
    plain = Preprocessing(crop=SIZE)
    noise = rng.integers(0, 256, (32, *SIZE, 3), dtype=np.uint8)
    for images, recipe in [(coloured(rng, 32), plain), (noise, RECIPE)]:
        assert "Check --mean, --std, --channel-order and --resize" in likeness_warning(network, images, recipe)


def test_networks_that_remember_nothing_are_not_judged(rng):
    noise = rng.integers(0, 256, (8, *SIZE, 3), dtype=np.uint8)
    for norm in (nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False), nn.Identity()):
        assert likeness_warning(nn.Sequential(nn.Conv2d(3, 4, 3), norm).eval(), noise, RECIPE) is None


def test_no_hook_stays(network, rng):
    batch_norm_shifts(network, normalised(coloured(rng, 3)))
    assert not any(module._forward_pre_hooks for module in network.modules())
