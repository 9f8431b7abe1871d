"""The peers that int8_accuracy.py compares with: where each is installed, and how it is run as a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent
VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


class PeerError(Exception):
    """In one line, why there is no graph of a peer."""


@dataclass(frozen=True)
class Peer:
    """A quantizer: the packages its environment needs, and the script of benchmarks/peers that calls it there."""

    script: str
    pins: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """One way to use a peer (`argument` of its script), the kind of graph it writes, and what evaluates that."""

    name: str
    peer: str
    argument: str
    evaluator: str
    suffix: str = ".onnx"


PEERS = {
    "nncf": Peer("quantize_nncf.py", ("nncf==3.4.0", "openvino==2026.4.1")),
    "onnxruntime": Peer("quantize_onnxruntime.py", ("onnxruntime==1.32.0", "onnx==1.23.2", "sympy==1.14.0")),
    "modelopt": Peer("quantize_modelopt.py", ("nvidia-modelopt[onnx]==0.47.0", "torch==2.13.0")),
}
VARIANTS = (
    Variant("NNCF, default", "nncf", "default", "OpenVINO", ".xml"),
    Variant("NNCF, mixed preset", "nncf", "mixed", "OpenVINO", ".xml"),
    Variant("NNCF, accuracy control", "nncf", "accuracy control", "OpenVINO", ".xml"),
    Variant("ONNX Runtime, s8, min-max", "onnxruntime", "s8 min-max", "ONNX Runtime"),
    Variant("ONNX Runtime, u8, min-max", "onnxruntime", "u8 min-max", "ONNX Runtime"),
    Variant("ONNX Runtime, u8, entropy", "onnxruntime", "u8 entropy", "ONNX Runtime"),
    Variant("ONNX Runtime, u8, percentile", "onnxruntime", "u8 percentile", "ONNX Runtime"),
    Variant("ONNX Runtime, symmetric s8, min-max", "onnxruntime", "symmetric min-max", "as written"),
    Variant("ONNX Runtime, symmetric s8, entropy", "onnxruntime", "symmetric entropy", "as written"),
    Variant("ONNX Runtime, symmetric s8, percentile", "onnxruntime", "symmetric percentile", "as written"),
    Variant("ModelOpt, entropy", "modelopt", "entropy", "as written"),
    Variant("ModelOpt, max", "modelopt", "max", "as written"),
)


def default_peers_dir() -> Path:
    """Return $XDG_CACHE_HOME/ran-deploy-peers, or ~/.cache/ran-deploy-peers."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ran-deploy-peers"


def install_command(peer: str, peers_dir: Path) -> str:
    """Return the shell command that installs a peer."""
    pins = " ".join(f"'{pin}'" if "[" in pin else pin for pin in PEERS[peer].pins)
    return f"python3 -m venv {peers_dir / peer} && {peers_dir / peer}/bin/pip install {pins}"


def versions(peer: str, peers_dir: Path) -> dict[str, str]:
    """Return the versions of the pinned packages as installed. Raises: PeerError if one is missing."""
    python = peers_dir / peer / "bin" / "python"
    names = [pin.partition("==")[0].partition("[")[0] for pin in PEERS[peer].pins]
    try:
        found = subprocess.run([python, "-c", VERSIONS, *names], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise PeerError("not installed") from exc
    return dict(json.loads(found.stdout))


def quantize(variant: Variant, peers_dir: Path, reference: Path, calibration: Path, output: Path) -> None:
    """Have the peer read `reference` and `calibration` and write `output`; what it prints is kept beside it.

    Nothing stands at `output` until all of it does. Raises: PeerError with the last line that the peer printed.
    """
    python = peers_dir / variant.peer / "bin" / "python"
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder) / output.name
        files = [python, SCRIPTS / PEERS[variant.peer].script, reference, calibration, made]
        command = [*(str(path.absolute()) for path in files), variant.argument]
        log = output.with_suffix(".log")
        with log.open("w") as stream:
            # There, as some leave files behind where they run.
            ended = subprocess.run(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, check=False)
        status = ended.returncode
        if status or not made.exists():
            lines = log.read_text(errors="replace").strip().splitlines() or [f"exit status {status}, nothing printed"]
            raise PeerError(f"failed: {lines[-1].strip()} (all of it is in {log})")
        for suffix in (".bin", output.suffix):  # OpenVINO's weights first: the graph says that all is there
            if made.with_suffix(suffix).exists():
                shutil.move(made.with_suffix(suffix), output.with_suffix(suffix))
