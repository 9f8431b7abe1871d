from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx.helper import make_node

from ran_deploy.converters.graph import array_of
from ran_deploy.converters.passes.fold_batch_norm import fold_batch_norm, folded_weights
from ran_deploy.converters.passes.run import run_passes

PARAMETERS = ("gamma", "beta", "mean", "variance")


def constants(rng, bias):
    arrays = {name: rng.standard_normal(5).astype(np.float32) for name in PARAMETERS}
    arrays["variance"] = np.exp(arrays["variance"])
    arrays["w"] = rng.standard_normal((5, 3, 3, 2)).astype(np.float32)
    return arrays | ({"b": rng.standard_normal(5).astype(np.float32)} if bias else {})


def conv_batch_norm(build, arrays, *more, outputs=("y",), **attributes):
    conv = make_node("Conv", ["x", "w", *(["b"] if "b" in arrays else [])], ["c"])
    norm = make_node("BatchNormalization", ["c", *PARAMETERS], ["y"], epsilon=1e-3, **attributes)
    return build([conv, norm, *more], {"x": ["batch", 3, 6, 7]}, outputs, arrays)


@pytest.mark.parametrize("bias", [False, True])
def test_fold_batch_norm_rewrites_and_keeps_outputs(build, evaluate, operators, rng, bias):
    model = conv_batch_norm(build, constants(rng, bias))
    folded, rewrites = run_passes(model, [fold_batch_norm])
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    assert rewrites["fold_batch_norm"] == 1
    assert operators(folded) == ["Conv"]
    assert folded.graph.outputs[0].name == "y"
    # Sums of 18 products of standard normals, in another order.
    np.testing.assert_allclose(evaluate(folded, {"x": x})[0], evaluate(model, {"x": x})[0], rtol=1e-4, atol=1e-4)
    assert fold_batch_norm(folded) == 0


def test_fold_batch_norm_leaves_shared_weights_to_the_other_convolution(build, evaluate, rng):
    arrays = constants(rng, bias=False)
    model = conv_batch_norm(build, arrays, make_node("Conv", ["x", "w"], ["z"]), outputs=("y", "z"))
    folded, _ = run_passes(model, [fold_batch_norm])
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(evaluate(folded, {"x": x})[1], evaluate(model, {"x": x})[1])
    np.testing.assert_array_equal(array_of(folded.graph.initializers["w"]), arrays["w"])


def test_fold_batch_norm_declines_a_convolution_with_another_reader(build, rng):
    model = conv_batch_norm(build, constants(rng, False), make_node("Relu", ["c"], ["z"]), outputs=("y", "z"))
    assert fold_batch_norm(model) == 0


def test_fold_batch_norm_declines_a_convolution_that_is_an_output(build, rng):
    assert fold_batch_norm(conv_batch_norm(build, constants(rng, False), outputs=("y", "c"))) == 0


def test_fold_batch_norm_declines_computed_weights(build, rng):
    nodes = [
        make_node("Neg", ["v"], ["w"]),
        make_node("Conv", ["x", "w"], ["c"]),
        make_node("BatchNormalization", ["c", *PARAMETERS], ["y"]),
    ]
    arrays = constants(rng, False)
    arrays["v"] = arrays.pop("w")
    assert fold_batch_norm(build(nodes, {"x": [2, 3, 6, 7]}, ["y"], arrays)) == 0


def test_fold_batch_norm_declines_a_norm_behind_anything_else(build, rng):
    arrays = {name: np.ones(3, np.float32) for name in PARAMETERS}
    nodes = [make_node("Relu", ["x"], ["c"]), make_node("BatchNormalization", ["c", *PARAMETERS], ["y"])]
    assert fold_batch_norm(build(nodes, {"x": [2, 3, 6, 7]}, ["y"], arrays)) == 0


def test_folded_weights_are_those_of_pytorch(rng):
    conv, norm = torch.nn.Conv2d(3, 5, (3, 2)), torch.nn.BatchNorm2d(5).eval()
    for tensor in norm.state_dict().values():
        if tensor.ndim:
            tensor.copy_(torch.from_numpy(np.exp(rng.standard_normal(5))))
    fused = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), norm)
    tensors = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias = folded_weights(*(tensor.detach().numpy() for tensor in tensors), norm.eps)
    np.testing.assert_allclose(weight, fused.weight.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(bias, fused.bias.detach().numpy(), rtol=1e-4, atol=1e-6)
