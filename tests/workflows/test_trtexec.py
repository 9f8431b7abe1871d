"""The recipe for trtexec of TensorRT 8, run whole with a stand-in for trtexec that computes the graph."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.errors import BundleError, OutputError
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.trtexec import _flags, write_trtexec_recipe

# It reads the options as trtexec documents them, and computes in ONNX Runtime, times FACTOR.
STAND_IN = """#!{python}
import json, os, sys
import numpy as np
from ran_deploy.runtime.backends.ort import open_reference
options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
if "onnx" in options:
    print(*sys.argv[1:], file=open("built.txt", "w"))
    open(options["saveEngine"], "wb").write(open(options["onnx"], "rb").read())
    sys.exit()
name, _, shape = options["shapes"].partition(":")
given, _, path = options["loadInputs"].partition(":")
assert given == name and options["warmUp"] == "0"
image = np.fromfile(path, np.uint8).reshape([int(side) for side in shape.split("x")])
outputs = open_reference(open(options["loadEngine"], "rb").read()).infer({{name: image}})
factor = float(os.environ["FACTOR"])
found = [
    {{"name": name, "dimensions": "x".join(map(str, output.shape)), "values": (factor * output).ravel().tolist()}}
    for name, output in outputs.items()
]
json.dump(found, open(options["exportOutput"], "w"))
"""


@pytest.fixture
def build(tmp_path):
    stand_in = tmp_path / "trtexec"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(folder, *options, factor="1"):
        env = {**os.environ, "TRTEXEC": str(stand_in), "FACTOR": factor, "PATH": path}
        return subprocess.run(
            ["sh", folder / "build.sh", *options], env=env, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="module")
def bundle(demo):
    return open_bundle(demo.bundle)


@pytest.fixture(scope="module")
def recipe(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe") / "jetson"
    return write_trtexec_recipe(bundle, folder, batch=BatchProfile(minimum=1, optimum=2, maximum=5))


def test_the_scripts_build_run_and_pass_with_one_command(recipe, build):
    done = build(recipe, "--verbose")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(": relative L2 0.0000")[0] for line in lines] == [f"batch {n}: passed" for n in (1, 3, 5)]
    built = (recipe / "built.txt").read_text()
    shapes = "--minShapes=image:1x32x32x3 --optShapes=image:2x32x32x3 --maxShapes=image:5x32x32x3"
    assert (
        built
        == f"--onnx=model.onnx --saveEngine=model.plan --int8 --fp16 {shapes} --memPoolSize=workspace:1024 --verbose\n"
    )


def test_an_engine_that_is_off_fails(recipe, build):
    done = build(recipe, factor="1.1")
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == 3


def test_a_device_without_trtexec_is_told_so_in_one_line(recipe, tmp_path):
    env = {**os.environ, "TRTEXEC": str(tmp_path / "nowhere")}
    done = subprocess.run(["sh", recipe / "build.sh"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"build.sh: no {tmp_path / 'nowhere'} here; set TRTEXEC to where trtexec is\n"


def test_the_graph_is_opset_17_and_gives_what_the_bundle_recorded(recipe, bundle):
    proto = onnx.load(recipe / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == 17
    golden = read_golden(bundle)
    found = open_reference((recipe / "model.onnx").read_bytes()).infer({"image": golden.inputs[:5]})["logits"]
    assert relative_l2(golden.logits["tensorrt"][:5], found) <= 0.03
    np.testing.assert_array_equal(np.fromfile(recipe / "image_5.bin", np.uint8), golden.inputs[:5].ravel())


def test_the_readme_names_input_and_output(recipe, bundle):
    text = (recipe / "README.txt").read_text()
    assert "image: uint8 (N, 32, 32, 3), RGB" in text
    assert "logits: float32 (N, 10), logits of the classes in labels.txt, in this order" in text
    assert "centre crop 32x32, RGB" in text
    assert (recipe / "labels.txt").read_text().splitlines() == list(bundle.manifest.labels)


def test_a_bundle_without_tensorrt_is_refused(attentive, tmp_path):
    bundle = open_bundle(attentive.bundle)
    with pytest.raises(BundleError, match="exported without tensorrt"):
        write_trtexec_recipe(bundle, tmp_path / "jetson")


@pytest.mark.parametrize(
    ("precision", "half", "flags"),
    [
        (Precision.FP32, False, "--noTF32"),
        (Precision.FP16, True, "--fp16"),
        (Precision.FP16, False, "--noTF32"),
        (Precision.INT8, True, "--int8 --fp16"),
        (Precision.INT8, False, "--int8 --noTF32"),
    ],
)
def test_precision_is_a_flag_of_the_builder(precision, half, flags):
    assert _flags(precision, half) == flags


def test_nothing_is_replaced(recipe, bundle):
    with pytest.raises(OutputError, match="already exists"):
        write_trtexec_recipe(bundle, recipe)
