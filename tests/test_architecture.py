"""The walls of the design: imports point down, the runtime needs neither PyTorch nor ONNX, nothing heavy at --help."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"ran_deploy": ROOT / "ran_deploy"} | {
    f"ran_deploy.{name}": ROOT / name for name in ("calibration", "converters", "runtime")
}
FACADE = "ran_deploy/__init__.py"  # names the workflows and loads them when they are used: nothing of ours imports it
LAYER = {
    FACADE: 4,
    "ran_deploy.commands": 3,
    "ran_deploy.workflows": 2,
    "ran_deploy.converters": 1,
    "ran_deploy.calibration": 1,
    "ran_deploy.runtime": 1,
    "ran_deploy.verification": 1,
    "ran_deploy.report": 1,
    "ran_deploy": 0,
}
WORKFLOW_LAYER = {  # within the workflows: a file for each thing that is asked for, over the folders of its steps
    "ran_deploy.workflows": 2,
    "ran_deploy.workflows.exporting": 1,
    "ran_deploy.workflows.validation": 1,
    "ran_deploy.workflows.diagnosis": 1,
    "ran_deploy.workflows.evaluation": 0,
    "ran_deploy.workflows.engines": 0,
}
ALLOWED = {
    ("ran_deploy.report", "ran_deploy.verification"),  # a report shows what verification found
}


def part_of(module: str, layers: Mapping[str, int]) -> str | None:
    """Return the innermost part that `module` is in, if it is in any."""
    if module == "ran_deploy":
        return FACADE
    return max((part for part in layers if f"{module}.".startswith(f"{part}.")), key=len, default=None)


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def imports_between_parts(layers: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs = {
        (part_of(importer, layers), part_of(imported, layers))
        for importer, path in modules().items()
        for imported in imported_names(path)
        if imported.split(".")[0] == "ran_deploy"
    }
    return sorted(pair for pair in pairs if pair[0] != pair[1] and set(pair) <= set(layers))


def test_there_are_imports_to_judge():
    assert len(imports_between_parts(LAYER)) > 10
    assert len(imports_between_parts(WORKFLOW_LAYER)) > 5


@pytest.mark.parametrize(("importer", "imported"), imports_between_parts(LAYER))
def test_imports_point_down(importer, imported):
    allowed = LAYER[importer] > LAYER[imported] or (importer, imported) in ALLOWED
    assert allowed, f"{importer} must not import {imported}"


@pytest.mark.parametrize(("importer", "imported"), imports_between_parts(WORKFLOW_LAYER))
def test_imports_within_the_workflows_point_down(importer, imported):
    assert WORKFLOW_LAYER[importer] > WORKFLOW_LAYER[imported], f"{importer} must not import {imported}"


def loaded_by(code: str) -> set[str]:
    """Return the top-level packages a fresh interpreter has loaded after `code`."""
    program = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_all_of_runtime_loads_neither_torch_nor_onnx_nor_a_vendor():
    names = [name for name in modules() if name.startswith("ran_deploy.runtime")]
    loaded = loaded_by("import " + ", ".join(names))
    assert not loaded & {"torch", "onnx", "onnx_ir", "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx", "cv2"}


def test_loading_and_running_a_bundle_needs_neither_torch_nor_onnx():
    assert not loaded_by("import ran_deploy.workflows.load") & {"torch", "onnx", "onnx_ir"}


WITHOUT_COMPILER = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnx_ir", "onnxscript", "onnxsim"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for name in ("torch", "onnx"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is there: nothing is proven")

from pathlib import Path
import numpy as np
import ran_deploy

bundle, cache = Path(sys.argv[1]), Path(sys.argv[2])
images = np.random.default_rng(0).integers(0, 256, (3, 40, 32, 3), dtype=np.uint8)
for backend in ("openvino", "onnxruntime"):
    with ran_deploy.load(bundle, backend, cache_dir=cache) as predictor:
        print(backend, [len(best) for best in predictor.predict(images, top_k=2)])
report = ran_deploy.validate(ran_deploy.ValidateConfig(bundle=bundle, backends=("all",), cache_dir=cache)).report
print(report.passed, *sorted(engine.backend for engine in report.engines))
"""


def test_a_bundle_is_built_run_and_proven_where_torch_and_onnx_are_missing(demo, tmp_path):
    command = [sys.executable, "-c", WITHOUT_COMPILER, demo.bundle, tmp_path / "cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ran, alike, proven = done.stdout.splitlines()
    assert (ran, alike) == ("openvino [2, 2, 2]", "onnxruntime [2, 2, 2]")
    assert proven.startswith("True ")
    assert {"onnxruntime", "openvino"} <= set(proven.split())


@pytest.mark.parametrize("command", ["export", "build", "infer", "validate", "bench"])
def test_help_loads_nothing_heavy(command):
    code = f"""
import contextlib, io
from ran_deploy.commands.{command} import {command}
with contextlib.redirect_stdout(io.StringIO()):
    {command}.main(["--help"], standalone_mode=False)
"""
    heavy = {"torch", "onnx", "onnx_ir", "openvino", "onnxruntime", "tensorrt_rtx", "cv2", "msgspec", "matplotlib"}
    assert not loaded_by(code) & heavy


def test_every_package_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    present = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert listed == present


def test_every_folder_with_code_is_a_package():
    for path in modules().values():
        assert (path.parent / "__init__.py").exists(), path.parent
