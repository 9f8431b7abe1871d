from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx.helper import make_node

from ran_deploy.converters.graph_facts import align_corners_resizes
from ran_deploy.converters.half_pixel import resize_by_half_pixels
from ran_deploy.converters.passes.resize_by_scales import aligned_scale
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConversionError


def resized(build, source, target, mode="linear", transform="align_corners"):
    """Resize as our graphs have it: scales that give the right size under aligned corners."""
    scales = np.array([1, 1, *map(aligned_scale, source, target)], np.float32)
    nodes = [make_node("Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode=transform)]
    return build(nodes, {"x": ["batch", 3, *source]}, ["y"], {"scales": scales})


@pytest.mark.parametrize(("source", "target"), [((4, 7), (8, 14)), ((2, 26), (3, 53)), ((14, 7), (27, 13))])
def test_the_result_is_pytorchs_without_aligned_corners(build, rng, source, target):
    model = resized(build, source, target)
    x = rng.standard_normal((2, 3, *source)).astype(np.float32)
    aligned = run_unoptimised(model, {"x": x})[0]
    assert resize_by_half_pixels(model) == 1
    assert align_corners_resizes(model) == []
    wanted = torch.nn.functional.interpolate(torch.from_numpy(x), size=target, mode="bilinear", align_corners=False)
    found = run_unoptimised(model, {"x": x})[0]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert np.abs(found - aligned).max() > 0.01
    assert resize_by_half_pixels(model) == 0


@pytest.mark.parametrize(("mode", "transform"), [("nearest", "align_corners"), ("linear", "half_pixel")])
def test_other_resizes_are_left_alone(build, mode, transform):
    assert resize_by_half_pixels(resized(build, (4, 7), (8, 14), mode, transform)) == 0


def test_a_size_that_is_not_known_is_refused(build):
    model = resized(build, (4, 7), (8, 14))
    model.graph.outputs[0].shape = None
    with pytest.raises(ConversionError, match="'y' has no known size"):
        resize_by_half_pixels(model)


def test_every_mask_of_a_network_is_rewritten(clean):
    model = clean.clone()
    resizes = len(align_corners_resizes(model))
    assert resizes == resize_by_half_pixels(model) == 2
