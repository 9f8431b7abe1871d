"""What the tables of gpu_check and gpu_runtime_check have in common."""

from __future__ import annotations


def device_line(device: dict[str, object]) -> str:
    """Return in one line what was measured on."""
    found = device.get("cuda")
    if isinstance(found, dict) and "name" in found:
        gpu = f"{found['name']} (compute capability {found['compute capability']})"
    else:
        gpu = "no NVIDIA GPU"
    power = device.get("nvpmodel")
    mode = f", power mode {power['mode']}" if isinstance(power, dict) and "mode" in power else ""
    board = f", {device['board']}" if device.get("board") else ""
    return f"{gpu}{board}, {device['platform']}{mode}"


def cell(text: object) -> str:
    """Return text that cannot end a cell of a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
