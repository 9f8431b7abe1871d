"""ONNX Runtime's profiler: a JSON file with an event for each kernel of each run, in whole microseconds.

The format: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from ran_deploy.counts import counted
from ran_deploy.errors import OutputError
from ran_deploy.runtime.backends.ort import open_session, session_options
from ran_deploy.runtime.profiles.layer_time import LayerTime, VendorProfile
from ran_deploy.runtime.profiles.workload import Workload
from ran_deploy.runtime.timing import measure

__all__ = ["profile"]

KERNEL = "_kernel_time"
CONVERSIONS = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear", "ReorderInput", "ReorderOutput", "Transpose"})
# Its optimisers number the nodes they make after others, and name those of blocked layouts after their output.
MADE_BY_OPTIMISERS = re.compile(r"(_token_\d+|_bn_nchwc|_nchwc)$")


class Arguments(msgspec.Struct):
    """Of an event: of a kernel, which node it is and what it reads, such as [{"uint8": [1, 32, 32, 3]}]."""

    op_name: str = ""
    node_index: str = ""
    input_type_shape: list[dict[str, list[int]]] = []


class Event(msgspec.Struct):
    """One entry of the file, `dur` in microseconds."""

    name: str
    cat: str
    dur: int
    args: Arguments


def profile(workload: Workload) -> VendorProfile:
    """Return the median time of each kernel.

    Raises: EngineMismatchError if ONNX Runtime cannot load the engine; OutputError if its profile, a temporary file,
    cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="ran-deploy-") as folder:
        options = session_options(workload.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(workload.engine, options)
        run = functools.partial(session.run, None, dict(workload.feeds))
        timing = measure(run, warm_up=workload.warm_up, repeats=workload.runs)
        text = Path(session.end_profiling()).read_bytes()
    return VendorProfile(layers=layers_from_events(text, workload.runs), statistic="median", timing=timing)


def layers_from_events(text: bytes, runs: int) -> tuple[LayerTime, ...]:
    """Return the kernels in a profile's JSON, in the order they first ran; the last `runs` events of each count.

    Raises: OutputError if the JSON is cut short.
    """
    try:
        events = msgspec.json.decode(text, type=list[Event])
    except msgspec.DecodeError as exc:  # ONNX Runtime does not notice a full disk
        raise OutputError(
            f"ONNX Runtime's profile ends after {counted(len(text), 'byte')} ({exc}). Make room for some megabytes in "
            f"{tempfile.gettempdir()}, or set TMPDIR to another folder."
        ) from exc
    kernels: dict[str, list[Event]] = {}
    for event in events:
        if event.cat == "Node" and event.name.endswith(KERNEL):
            kernels.setdefault(event.args.node_index, []).append(event)
    return tuple(layer_time(each[-runs:]) for each in kernels.values())


def layer_time(events: Sequence[Event]) -> LayerTime:
    """Return the time of one kernel from its events."""
    name, arguments = events[0].name.removesuffix(KERNEL), events[0].args
    return LayerTime(
        name=name,
        kind=arguments.op_name,
        execution=next((kind for types in arguments.input_type_shape for kind in types), ""),
        origins=(MADE_BY_OPTIMISERS.sub("", name),),
        converts=arguments.op_name in CONVERSIONS,
        ms=float(np.median([event.dur for event in events])) / 1000,
    )
