"""Fixtures that several folders of tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("stand_ins", "samples")]
pytest_plugins = ["stand_in_fixtures"]

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20170424)


@dataclass(frozen=True)
class Keys:
    """An Ed25519 key pair in PEM, and the public half of a stranger's."""

    private: Path
    public: Path
    stranger: Path


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> Keys:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    folder = tmp_path_factory.mktemp("keys")
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    for name in ("owner", "stranger"):
        key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pem").write_bytes(private)
        (folder / f"{name}.pub.pem").write_bytes(public)
    return Keys(folder / "owner.pem", folder / "owner.pub.pem", folder / "stranger.pub.pem")


@dataclass(frozen=True)
class Demo:
    """The demo checkpoint, exported once to INT8 by the real command; `manifest` is what the command printed."""

    checkpoint: Path
    calibration: Path
    test: Path
    images: Path
    bundle: Path
    cache: Path
    manifest: dict


@pytest.fixture(scope="session")
def script(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """Run a console script as a process of its own, with a cache of this test run."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}

    def run(name: str, *arguments: object, **settings: object) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
        merged = {**env, **settings.pop("env", {})}
        return subprocess.run(command, capture_output=True, text=True, env=merged, timeout=300, **settings)

    return run


@pytest.fixture(scope="session")
def demo(script, tmp_path_factory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    checkpoint, bundle, cache = EXAMPLE / "compact.safetensors", folder / "demo.ran", folder / "cache"
    options = ["--calibration-data", EXAMPLE / "calibration.npz", "--cache-dir", cache, "--json"]
    done = script("ran-export", checkpoint, "-o", bundle, *options)
    assert done.returncode == 0, done.stderr
    return Demo(
        checkpoint=checkpoint,
        calibration=EXAMPLE / "calibration.npz",
        test=EXAMPLE / "test.npz",
        images=EXAMPLE / "images",
        bundle=bundle,
        cache=cache,
        manifest=json.loads(done.stdout),
    )


@dataclass(frozen=True)
class Attentive:
    """The demo network in INT8 for ONNX Runtime, exported with its attention."""

    bundle: Path
    cache: Path


@pytest.fixture(scope="session")
def attentive(tmp_path_factory) -> Attentive:
    pytest.importorskip("torch")
    from ran_deploy.workflows.export import ExportConfig, export_bundle

    folder = tmp_path_factory.mktemp("attentive")
    config = ExportConfig(
        checkpoint=EXAMPLE / "compact.safetensors",
        output=folder / "attentive.ran",
        backends=("onnxruntime",),
        calibration_data=EXAMPLE / "calibration.npz",
        calibration_images=64,
        with_attention=True,
        cache_dir=folder / "cache",
    )
    export_bundle(config)
    return Attentive(config.output, folder / "cache")


TINY_CNN = '''
from torch import nn

SIZE = (20, 28)


def build():
    """A network of no known layout: 3 channels of 20x28 pixels in, 7 classes out."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 9, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 7),
    )
'''


@dataclass(frozen=True)
class Tiny:
    """A small network that is no RAN: its checkpoint and the options that build it."""

    folder: Path
    checkpoint: Path
    options: tuple[str, ...]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny_cnn.py").write_text(TINY_CNN)
    sys.path.insert(0, str(folder))
    import tiny_cnn

    torch.manual_seed(0)
    module = tiny_cnn.build()
    torch.save(module.state_dict(), folder / "tiny.pth")
    return Tiny(folder, folder / "tiny.pth", ("--model", "tiny_cnn:build", "--input-size", "20x28"))
