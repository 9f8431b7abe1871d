"""What a measurement was made on: GPU, driver, clocks and power mode, as the vendor's own tools tell."""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import io
import platform
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from ran_deploy.errors import RanDeployError
from ran_deploy.runtime import cuda
from ran_deploy.vendors import one_line

SMI_FIELDS = (
    "name",
    "driver_version",
    "vbios_version",
    "pstate",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "clocks_throttle_reasons.active",
    "mig.mode.current",
)
# Binding -> the packages that it may be installed as.
BINDINGS = {"cuda-python": ("cuda-bindings", "cuda-python"), "pycuda": ("pycuda",)}
TIMEOUT_S = 20
ENDLESS = ("tegrastats",)
Run = Callable[[list[str]], str]


def run_tool(command: list[str]) -> str:
    """Return what a tool prints, of one that prints without end the first line. Raises: OSError, SubprocessError."""
    if command[0] in ENDLESS:
        return first_printed(command)
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout


def first_printed(command: list[str]) -> str:
    """Return the first line that a tool prints, and end it; nothing if it prints none. Raises: OSError."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tool:
        impatience = threading.Timer(TIMEOUT_S, tool.kill)
        impatience.start()
        assert tool.stdout is not None
        line = tool.stdout.readline()
        impatience.cancel()
        tool.kill()
    return line


def device_record(run: Run = run_tool, root: Path = Path("/")) -> dict[str, object]:
    """Return what can be said of this machine; what a tool cannot say is its reason, in the place of the answer."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cuda": cuda_record(),
        "bindings": binding_versions(),
        "nvidia-smi": asked(run, ["nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv"], parse_smi),
        "nvpmodel": asked(run, ["nvpmodel", "-q"], parse_nvpmodel),
        "jetson_clocks": asked(run, ["jetson_clocks", "--show"], parse_lines),
        "tegrastats": asked(run, ["tegrastats", "--interval", "500"], parse_tegrastats),
        "jetson_release": asked(run, ["jetson_release"], parse_lines),
        "l4t": first_line(root / "etc/nv_tegra_release"),
        "board": first_line(root / "proc/device-tree/model"),
    }


def cuda_record() -> dict[str, object]:
    """Return the device as CUDA's runtime shows it, or why it shows none."""
    try:
        cuda.require_gpu()
        found = cuda.current_device()
    except RanDeployError as exc:
        return {"problem": str(exc)}
    return {
        "name": found.name,
        "compute capability": found.compute_capability,
        "memory_bytes": found.memory_bytes,
        "driver supports CUDA": found.driver,
    }


def binding_versions() -> dict[str, str]:
    """Return the versions of the CUDA bindings that are installed."""
    versions = {}
    for name, packages in BINDINGS.items():
        for package in packages:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions.setdefault(name, importlib.metadata.version(package))
    return versions


def asked(run: Run, command: list[str], parse: Callable[[str], object]) -> object:
    """Return the parsed answer of a tool, or {"problem": why}."""
    if run is run_tool and shutil.which(command[0]) is None:
        return {"problem": "not here"}
    try:
        return parse(run(command))
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        told = getattr(exc, "stderr", None) or exc
        return {"problem": one_line(told)}


def parse_smi(text: str) -> list[dict[str, str]]:
    """Return one record for each GPU from `nvidia-smi --format=csv`. Raises: ValueError for other text."""
    rows = list(csv.reader(io.StringIO(text), skipinitialspace=True))
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"nvidia-smi printed {one_line(text or 'nothing', 80)}")
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def parse_nvpmodel(text: str) -> dict[str, str]:
    """Return name and number of the power mode from `nvpmodel -q`. Raises: ValueError."""
    match = re.search(r"Power Mode:\s*(\S+)\s+(\d+)", text)
    if match is None:
        raise ValueError(f"nvpmodel printed {one_line(text or 'nothing', 80)}")
    return {"mode": match[1], "number": match[2]}


def parse_tegrastats(text: str) -> dict[str, dict[str, float]]:
    """Return degrees Celsius by sensor and milliwatts by rail from a line of `tegrastats`; rails may need root.

    A rail has its present value first, then its average. -256 is a sensor of something that is switched off.
    Fields: https://docs.nvidia.com/jetson/archives/l4t-archived/l4t-325/Tegra%20Linux%20Driver%20Package%20Development%20Guide/AppendixTegraStats.html
    with the units that boards of L4T 36 print. Raises: ValueError for other text.
    """
    temperatures = {name: float(value) for name, value in re.findall(r"(\w+)@(-?\d+(?:\.\d+)?)C\b", text)}
    power = {name: float(value) for name, value in re.findall(r"(\w+) (\d+)mW", text)}
    if not temperatures and not power:
        raise ValueError(f"tegrastats printed {one_line(text or 'nothing', 80)}")
    return {"temperature_c": {name: t for name, t in temperatures.items() if t > -256}, "power_mw": power}


def parse_lines(text: str) -> list[str]:
    """Return the lines that say something, without the colours that jetson_release prints."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return [line.strip() for line in plain.splitlines() if line.strip()]


def first_line(path: Path) -> str | None:
    """Return the first line of a file of the system, None where there is none."""
    try:
        return path.read_text(errors="replace").strip("\0\n ").splitlines()[0]
    except (OSError, IndexError):
        return None
