from __future__ import annotations

import numpy as np
import openvino
import pytest
import torch
from onnx.helper import make_node

from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.remove_unused import remove_unused
from ran_deploy.converters.passes.resize_by_scales import aligned_scale, resize_by_scales
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.simplify import run_unoptimised

# Heights and widths: 32 sides from 1 to 105, as masks upsample them for images of 32 to 420; 26 -> 53 is the one at
# which the quotient of the sizes falls one pixel short.
PAIRS = [
    *(((a, 2 * a - 1), (b, 2 * b)) for a, b in zip(range(2, 18), range(20, 36), strict=True)),
    ((26, 53), (52, 105)),
    ((1, 3), (3, 7)),
    ((7, 7), (13, 27)),
]
ATOL = 1e-4  # source positions up to 52, in float32: 2e-6 apart, times differences of neighbours up to 8


def resized(build, source, target, mode="linear", transform="align_corners"):
    """Resize as exported: the batch is read from the tensor, height and width are known."""
    nodes = [
        make_node("Shape", ["x"], ["n"], start=0, end=2),
        make_node("Concat", ["n", "hw"], ["sizes"], axis=0),
        make_node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode, coordinate_transformation_mode=transform),
    ]
    return build(nodes, {"x": ["batch", 3, *source]}, ["y"], {"hw": np.array(target, np.int64)})


@pytest.mark.parametrize(("heights", "widths"), PAIRS)
def test_resize_by_scales_agrees_with_pytorch_in_both_cpu_engines(build, operators, rng, heights, widths):
    source, target = (heights[0], widths[0]), (heights[1], widths[1])
    model, rewrites = run_passes(resized(build, source, target), [resize_by_scales, remove_unused])
    assert rewrites["resize_by_scales"] == 1
    assert operators(model) == ["Resize"]
    x = rng.standard_normal((2, 3, *source)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(x), size=target, mode="bilinear", align_corners=True)
    np.testing.assert_allclose(run_unoptimised(model, {"x": x})[0], wanted.numpy(), atol=ATOL)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model_bytes(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([x])[0], wanted.numpy(), atol=ATOL)
    assert resize_by_scales(model) == 0


@pytest.mark.parametrize("pooled", [lambda n: -(-(n - 3) // 2) + 1, lambda n: (n - 1) // 2 + 1])
def test_aligned_scales_give_the_right_size_at_every_side_however_they_are_multiplied(pooled):
    for target in range(3, 421):
        source, scale = pooled(target), aligned_scale(pooled(target), target)
        products = (np.float32(source) * scale, source * float(scale), np.float16(source) * np.float64(scale))
        assert {int(product) for product in products} == {target}


@pytest.mark.parametrize("target", [(13, 9), (27, 19), (11, 25)])
def test_resize_by_scales_keeps_sample_points_of_unaligned_corners(build, rng, target):
    model, rewrites = run_passes(resized(build, (6, 8), target, transform="half_pixel"), [resize_by_scales])
    assert rewrites["resize_by_scales"] == 1
    x = rng.standard_normal((2, 3, 6, 8)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(x), size=target, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(run_unoptimised(model, {"x": x})[0], wanted.numpy(), atol=ATOL)


def test_resize_by_scales_declines_nearest_with_an_inexact_quotient(build):
    assert resize_by_scales(resized(build, (6, 8), (10, 16), "nearest", "asymmetric")) == 0


def test_resize_by_scales_declines_unknown_height(build):
    assert resize_by_scales(resized(build, ("height", 8), (10, 16))) == 0


def test_resize_by_scales_declines_resize_by_scales(build):
    node = make_node("Resize", ["x", "", "s"], ["y"], mode="linear")
    model = build([node], {"x": ["batch", 3, 4, 5]}, ["y"], {"s": np.array([1, 1, 2, 2], np.float32)})
    assert resize_by_scales(model) == 0


def test_resize_by_scales_declines_a_policy_that_keeps_the_aspect_ratio(build):
    policy = {"keep_aspect_ratio_policy": "not_larger", "axes": [2, 3]}
    node = make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", **policy)
    model = build([node], {"x": ["batch", 3, 6, 8]}, ["y"], {"sizes": np.array([12, 20], np.int64)})
    assert resize_by_scales(model) == 0
