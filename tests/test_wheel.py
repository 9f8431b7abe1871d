"""What users install: a wheel built from the source distribution, used far from this folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation: the build needs setuptools alone, which the test extra brings, and no network.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_template(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = [path.relative_to(ROOT) for path in (ROOT / "ran_deploy").rglob("*") if path.suffix in (".py", ".html")]
    for folder in ("calibration", "converters", "runtime"):
        sources += [Path("ran_deploy") / path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py")]
    missing = {str(path) for path in sources if "__pycache__" not in path.parts} - names
    assert not missing
    assert "ran_deploy/py.typed" in names


def test_the_installed_wheel_imports_from_its_own_place_and_has_every_command(wheel, tmp_path):
    target = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import ran_deploy.runtime.predictor as p;"
        "import ran_deploy.converters.builders as b; print(p.__file__, b.__file__)"
    )
    for location in run(sys.executable, "-c", code, cwd=tmp_path).split():
        assert location.startswith(str(target))
    scripts = {path.name for path in (target / "bin").iterdir()}
    assert scripts >= {"ran-export", "ran-build", "ran-infer", "ran-validate", "ran-bench", "ran-doctor"}
