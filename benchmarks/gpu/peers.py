"""What our engine is timed beside: PyTorch eager and compiled, ONNX Runtime on CUDA, trtexec on our own plan.

Each peer does what our engine does: uint8 images (N, H, W, 3) from host memory to float32 logits in host memory.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpu.results import Timed

from ran_deploy.bundle import Bundle, sha256_of
from ran_deploy.errors import BackendUnavailableError, CheckpointError
from ran_deploy.precision import Precision
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.vendors import import_onnxruntime, one_line

Infer = Callable[[np.ndarray], np.ndarray]
TRTEXEC_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a peer is opened for."""

    bundle: Bundle
    checkpoints: tuple[Path, ...]  # files, or folders of them


def eager(setting: Setting) -> Infer:
    """PyTorch as it comes, FP32 (TF32 as PyTorch has it by default), on the GPU where it sees one."""
    return torch_infer(setting, half=False, compiled=False)


def compiled(setting: Setting) -> Infer:
    """torch.compile (max-autotune), channels last, FP16."""
    return torch_infer(setting, half=True, compiled=True)


def torch_infer(setting: Setting, *, half: bool, compiled: bool) -> Infer:
    """Return the network of the bundle's checkpoint in PyTorch. Raises: RanDeployError if that is not possible."""
    torch = import_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if half and device == "cpu":
        raise BackendUnavailableError("PyTorch sees no CUDA device.")
    from ran_deploy.models import load_checkpoint

    recipe = setting.bundle.manifest.preprocessing
    module = load_checkpoint(find_checkpoint(setting)).module.eval().to(device)
    mean, deviation = (torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (recipe.mean, recipe.std))
    layout = torch.channels_last if half else torch.contiguous_format
    dtype = torch.float16 if half else torch.float32
    module = module.to(dtype=dtype, memory_format=layout)

    def forward(pixels: Any) -> Any:
        x = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / deviation
        return module(x.to(dtype=dtype, memory_format=layout)).float()

    # Each batch size is compiled for itself: dynamic shapes would cost it speed.
    run = torch.compile(forward, mode="max-autotune", dynamic=False) if compiled else forward

    def infer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = run(torch.from_numpy(images).to(device)).cpu().numpy()
            return found

    return infer


def import_torch() -> Any:
    """Return PyTorch. Raises: BackendUnavailableError."""
    try:
        import torch
    except (ImportError, OSError) as exc:
        raise BackendUnavailableError(f"Cannot import torch ({one_line(exc)}).") from exc
    return torch


def find_checkpoint(setting: Setting) -> Path:
    """Return the very file the bundle was exported from. Raises: CheckpointError."""
    record = setting.bundle.manifest.checkpoint
    for place in setting.checkpoints:
        path = place / record.file_name if place.is_dir() else place
        if path.is_file() and sha256_of(path.read_bytes()) == record.sha256:
            return path
    raise CheckpointError(f"The checkpoint {record.file_name} is not at hand; give its folder as --checkpoints.")


def onnxruntime_cuda(setting: Setting) -> Infer:
    """ONNX Runtime's CUDA provider on the graph our TensorRT engine is built from, buffers bound by itself."""
    ort = import_onnxruntime()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise BackendUnavailableError("This ONNX Runtime has no CUDA provider; onnxruntime-gpu has.")
    manifest = setting.bundle.manifest
    if manifest.precision is Precision.INT8:
        raise BackendUnavailableError("Not asked: its CUDA provider has no INT8 convolutions.")
    graph = setting.bundle.read(manifest.dialects["tensorrt"].graph)
    session = ort.InferenceSession(graph, providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise BackendUnavailableError("ONNX Runtime fell back to the CPU.")
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


PEERS: dict[str, Callable[[Setting], Infer]] = {
    "PyTorch eager": eager,
    "torch.compile fp16": compiled,
    "ONNX Runtime CUDA": onnxruntime_cuda,
}
TRTEXEC = "trtexec, same plan"


def trtexec_rows(plan: bytes, size: tuple[int, int], batches: Sequence[int], seconds: float) -> list[Timed]:
    """Have trtexec run our own plan at each batch size: a process of its own, so not interleaved with us."""
    program = find_trtexec()
    if program is None:
        return [Timed(runner=TRTEXEC, batch=batch, problem="trtexec is not here") for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.plan"
        path.write_bytes(plan)
        return [trtexec_row(program, path, size, batch, seconds) for batch in batches]


def find_trtexec() -> str | None:
    """Return where trtexec is, None if nowhere."""
    return shutil.which("trtexec") or next((place for place in TRTEXEC_PLACES if Path(place).is_file()), None)


def trtexec_row(program: str, plan: Path, size: tuple[int, int], batch: int, seconds: float) -> Timed:
    """Return what trtexec measures of a plan at one batch size."""
    shape = f"{INPUT}:{batch}x{size[0]}x{size[1]}x3"
    command = [program, f"--loadEngine={plan}", f"--shapes={shape}", f"--duration={max(1, round(seconds))}"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
        return parse_trtexec(text, batch)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        told = (getattr(exc, "stderr", "") or "").strip().splitlines()[-1:] or [exc]
        return Timed(runner=TRTEXEC, batch=batch, problem=one_line(told[0]))


def parse_trtexec(text: str, batch: int) -> Timed:
    """Return throughput and latency, host to host, from trtexec's summary. Raises: ValueError if it has none."""
    rate = re.search(r"Throughput: ([\d.]+) qps", text)
    latency = re.search(r"\] Latency: min = .*", text)
    found = {} if latency is None else dict(re.findall(r"(median|percentile\(\d+%\)) = ([\d.]+) ms", latency[0]))
    if rate is None or "median" not in found:
        raise ValueError("trtexec printed no summary")
    return Timed(
        runner=TRTEXEC,
        batch=batch,
        p50_ms=float(found["median"]),
        p90_ms=_number(found.get("percentile(90%)")),
        p99_ms=_number(found.get("percentile(99%)")),
        images_per_second=batch * float(rate[1]),
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
