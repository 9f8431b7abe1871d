"""Which bundles can be compared, how their outputs belong together, and which images each of them gets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ran_deploy.datasets.dataset import ArrayDataset
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Task
from ran_deploy.preprocessing import ChannelOrder, Preprocessing, prepare
from ran_deploy.workflows.evaluation.images import read_images
from ran_deploy.workflows.validation.bundle_pair import on_own_images, output_order, pair_warnings, prepares_alike

RECIPE = Preprocessing(crop=(12, 16))


def bundle(labels=None, size=3, task=Task.CLASSIFICATION, recipe=RECIPE, checkpoint="a"):
    manifest = SimpleNamespace(
        name=f"of-{checkpoint}",
        labels=labels,
        output_size=size,
        task=task,
        preprocessing=recipe,
        checkpoint=SimpleNamespace(file_name=f"{checkpoint}.pth", sha256=f"{checkpoint * 64}"),
    )
    return SimpleNamespace(manifest=manifest, path="x.ran")


@pytest.mark.parametrize(
    ("reference", "judged", "order"),
    [
        (("a", "b", "c"), ("a", "b", "c"), [0, 1, 2]),
        (("a", "b", "c"), ("b", "c", "a"), [1, 2, 0]),
        (("T-shirt", "Ankle boot", "c"), ("ankle_boot", "C", "t shirt"), [1, 2, 0]),
        (None, ("b", "c", "a"), [0, 1, 2]),
        (None, None, [0, 1, 2]),
    ],
)
def test_outputs_belong_together_by_name_where_both_have_names(reference, judged, order):
    assert output_order(bundle(reference), bundle(judged)).tolist() == order


@pytest.mark.parametrize(
    ("reference", "judged", "words"),
    [
        (bundle(("a", "b", "c")), bundle(("a", "b", "d")), "'d'"),
        (bundle(size=3), bundle(size=4), "3 classes .* 4 classes"),
        (bundle(), bundle(task=Task.EMBEDDING), "3 classes .* 3 features"),
    ],
)
def test_bundles_with_other_outputs_cannot_be_compared(reference, judged, words):
    with pytest.raises(ConfigError, match=words):
        output_order(reference, judged)


def test_vectors_of_different_checkpoints_are_warned_of():
    first, second = (bundle(task=Task.EMBEDDING, checkpoint=name).manifest for name in "ab")
    (warning,) = pair_warnings(first, second)
    assert "different checkpoints, a.pth (sha256 aaaaaaaaaaaa) and b.pth (sha256 bbbbbbbbbbbb)" in warning
    assert "cosine, relative L2 and SQNR say nothing" in warning
    assert pair_warnings(first, first) == ()


def test_classes_matched_by_number_are_warned_of_unless_the_checkpoint_is_the_same():
    named, unnamed, other = bundle(("a", "b", "c")), bundle(), bundle(checkpoint="b")
    (warning,) = pair_warnings(named.manifest, other.manifest)
    assert "matched by number, as of-b has no names" in warning
    assert pair_warnings(named.manifest, unnamed.manifest) == ()
    assert pair_warnings(named.manifest, bundle(("b", "c", "a"), checkpoint="b").manifest) == ()


def test_what_the_graph_does_itself_makes_no_other_image():
    same = replace(RECIPE, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    assert prepares_alike(bundle().manifest, bundle(recipe=same).manifest)
    for other in ({"resize": 20}, {"crop": (12, 12)}, {"channel_order": ChannelOrder.BGR}):
        assert not prepares_alike(bundle().manifest, bundle(recipe=replace(RECIPE, **other)).manifest)


def test_each_batch_is_prepared_again_from_the_same_images(rng):
    pixels = rng.integers(0, 256, (70, 15, 20, 3), dtype=np.uint8)
    dataset = ArrayDataset(name="x", kind="npz", images=pixels, labels=None, origins=(("x", 70),))
    images = replace(read_images(dataset, RECIPE), indices=tuple(range(69, -1, -1)))
    own = replace(RECIPE, crop=(9, 8), channel_order=ChannelOrder.BGR)
    seen = []
    infer = on_own_images(lambda batch: seen.append(batch) or batch[:, 0, 0], own, lambda: images)
    for batch, _ in images.batches():
        assert infer(batch).shape == (len(batch), 3)
    expected = [prepare(pixels[index], own) for index in images.indices]
    np.testing.assert_array_equal(np.concatenate(seen), expected)
