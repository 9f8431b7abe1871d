"""A machine that runs engines need not have what compiles them: a command that does need it says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
importlib.import_module("ran_deploy.commands.{command}").main()
"""


def run_without(packages, command, *arguments):
    program = WITHOUT.format(packages=packages, command=command)
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize(
    "packages", [("torch",), ("onnx",), ("onnx_ir",), ("safetensors",), ("torch", "onnx", "onnx_ir")]
)
def test_export_names_what_is_missing(packages, demo, tmp_path):
    output = tmp_path / "x.ran"
    done = run_without(packages, "export", demo.checkpoint, "--precision", "fp32", "-o", output)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("ran-export: ")
    assert line.endswith("Install it: pip install 'ran-deploy[export]'.")
    assert any(f"needs {package} " in line for package in packages)
    assert not output.exists()


def test_a_recipe_for_trtexec_needs_onnx_and_says_so(demo, tmp_path):
    done = run_without(("onnx",), "build", demo.bundle, "--backend", "tensorrt", "--trtexec", tmp_path / "recipe")
    assert done.stderr.startswith("ran-build: this needs onnx (No module named 'onnx'). Install it: pip install 'ran-")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])


def test_a_profile_without_the_graph_is_of_layers_alone_and_says_why(demo):
    options = ["--profile", "--backend", "onnxruntime", "--seconds", "0.05", "--cache-dir", demo.cache]
    done = run_without(("onnx", "onnx_ir"), "bench", demo.bundle, *options)
    assert done.returncode == 0, done.stderr
    reason = "no parts of the network: the graph cannot be read (No module named 'onnx"
    assert any(line.startswith(reason) and "'ran-deploy[export]'" in line for line in done.stdout.splitlines())
    assert "soft mask" not in done.stdout
    assert len(done.stdout.partition("longest layers, ms")[2].splitlines()) == 11


def test_a_missing_package_that_no_extra_brings_is_a_fault_of_the_installation(demo):
    done = run_without(("msgspec",), "bench", demo.bundle)
    assert "Traceback" in done.stderr
