"""This machine's platform and CPU, as far as engines depend on them."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["cpu_instructions", "host_platform"]

# Instruction sets that choose kernels or data layouts, by their names in /proc/cpuinfo (x86, then Arm).
_X86 = {"avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni"}
_X86_LOW_PRECISION = {"avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"}
_ARM = {"asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"}


def host_platform() -> str:
    """Return operating system and machine, as in `Linux x86_64`."""
    return f"{platform.system()} {platform.machine()}"


def cpu_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the instruction sets of this CPU that matter to engines; its name where the system does not list them."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    flags: set[str] = set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            flags = set(value.split())
            break  # every core lists the same
    return " ".join(sorted(flags & (_X86 | _X86_LOW_PRECISION | _ARM))) or platform.processor() or "unknown"
