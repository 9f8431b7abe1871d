"""Verify on this device all that lies around an engine, without one: no TensorRT, no network, no bundle.

    python benchmarks/gpu_runtime_check.py --output gpu_runtime_check.json

Two small CUDA kernels, which the driver compiles, stand for the engine in the runner that serves TensorRT's engines.
What they give is held bit for bit against what the host computes. For each CUDA binding that is installed (cuda-
python, pycuda), in a process of its own: batches of every size, copied and in mapped memory; threads on two slots;
CUDA graphs; calls that fail, memory that runs out, memory that stays in use; several GPUs; the pipeline; and what
copies beside kernels, graphs and a second slot gain. Device, driver, clocks and power mode are read before and after.
A check that cannot run says why. Exit status: 0 if all that ran is right; 1 if something is wrong; 2 if nothing could
run.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from gpu import runtime_checks, runtime_failures, runtime_speed
from gpu.device import binding_versions, device_record
from gpu.driver import Driver, cuda_driver
from gpu.record import record_of, write_record
from gpu.runtime_results import BindingResult, Check, Outcome, RuntimeReport, markdown
from gpu.runtime_setting import Figures, NotRunError, Setting, WrongError, put_in_place

from ran_deploy.errors import BackendUnavailableError, ConfigError, RanDeployError
from ran_deploy.report.writing import check_report_path
from ran_deploy.runtime import cuda
from ran_deploy.runtime.cuda.binding import BINDINGS, binding
from ran_deploy.vendors import one_line

PACKAGES = {"cuda-python": "cuda.bindings", "pycuda": "pycuda"}  # the binding's name here -> in BINDINGS
CAPTURING = ("cuda-python",)
TIMEOUT_S = 1800
CHECKS: Mapping[str, Callable[[Setting], Figures]] = {
    "page-locked copies": runtime_checks.copies,
    "batches, copied": functools.partial(runtime_checks.batches, mapped=False),
    "batches, mapped memory": functools.partial(runtime_checks.batches, mapped=True),
    "threads, copied": functools.partial(runtime_checks.threads, mapped=False),
    "threads, mapped memory": functools.partial(runtime_checks.threads, mapped=True),
    "CUDA graphs": runtime_checks.graphs,
    "padded batches": runtime_checks.padded_batches,
    "refused calls": runtime_failures.refused_calls,
    "engine larger than memory": runtime_failures.too_large,
    "closing": runtime_failures.closing,
    "closing under load": runtime_failures.closing_under_load,
    "leaks": runtime_failures.leaks,
    "pipeline": runtime_checks.pipeline,
    "missing GPU": runtime_failures.missing_device,
    "another GPU": runtime_failures.other_device,
    "copies beside kernels": runtime_speed.overlap,
    "gain of CUDA graphs": runtime_speed.graph_gain,
    "gain of a second slot": runtime_speed.second_slot,
}


def say(line: str) -> None:
    """Tell what is being done."""
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binding", choices=list(PACKAGES), help="this one alone; default: each in its own process")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed work for each gain")
    parser.add_argument("--leak-batches", type=int, default=10_000, metavar="N", help="runs of the memory check")
    parser.add_argument(
        "--output", type=Path, default=Path("gpu_runtime_check.json"), help="NAME.json; the table goes to NAME.md"
    )
    options = parser.parse_args(arguments)
    if not 0 < options.seconds < math.inf or options.leak_batches < 1:
        raise ConfigError("--seconds and --leak-batches must be positive.")
    if options.output.suffix != ".json":
        raise ConfigError(f"--output is {options.output}; expected NAME.json.")
    check_report_path(options.output)
    return options


def take_binding(name: str) -> None:
    """Make one binding this process's only one, before anything asks for another."""
    for package in [package for package in BINDINGS if package != PACKAGES[name]]:
        del BINDINGS[package]
    binding.cache_clear()


def check_binding(name: str, options: argparse.Namespace) -> BindingResult:
    """Return all checks through the binding that this process has taken."""
    result = BindingResult(binding=name, version=binding_versions().get(name))
    try:
        cuda.require_gpu()
        driver = Driver(cuda_driver())
    except BackendUnavailableError as exc:
        return replace(result, problem=str(exc))
    put_in_place(driver)
    setting = Setting(
        driver=driver, captures=name in CAPTURING, seconds=options.seconds, leak_batches=options.leak_batches
    )
    with warnings_unheard():
        return replace(result, checks=run_checks(name, setting))


@contextlib.contextmanager
def warnings_unheard() -> Iterator[None]:
    """Keep the runtime from warning of refused calls and bindings without graphs: here they are what is checked."""
    log = logging.getLogger("ran_deploy")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def run_checks(name: str, setting: Setting) -> tuple[Check, ...]:
    """Return all checks, each told before it is made."""
    found = []
    for check, function in CHECKS.items():
        say(f"{name}: {check}")
        found.append(checked(setting, check, function))
    return tuple(found)


def checked(setting: Setting, name: str, check: Callable[[Setting], Figures]) -> Check:
    """Return what a check found; this never raises for what a device does."""
    try:
        return Check(name=name, outcome=Outcome.RIGHT, figures=check(setting))
    except NotRunError as exc:
        return Check(name=name, outcome=Outcome.NOT_RUN, reason=one_line(exc))
    except WrongError as exc:
        return Check(name=name, outcome=Outcome.WRONG, reason=one_line(exc))
    except Exception as exc:  # a binding raises what it likes, and the other checks go on
        return Check(name=name, outcome=Outcome.WRONG, reason=one_line(f"{type(exc).__name__}: {exc}"))


def check_each(seconds: float, leak_batches: int) -> tuple[BindingResult, ...]:
    """Return all checks through every binding, each in a process of its own."""
    return tuple(check_in_process(name, seconds, leak_batches) for name in PACKAGES)


def check_in_process(name: str, seconds: float, leak_batches: int) -> BindingResult:
    """Return all checks through one binding, made by this script in a process of its own: it may crash."""
    with TemporaryDirectory() as folder:
        output = Path(folder) / "binding.json"
        command = [sys.executable, __file__, "--binding", name, "--output", str(output)]
        command += ["--seconds", str(seconds), "--leak-batches", str(leak_batches)]
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            problem = f"it had not ended after {TIMEOUT_S} seconds"
        else:
            if output.is_file():
                (result,) = msgspec.json.decode(output.read_bytes(), type=RuntimeReport).bindings
                return result
            problem = f"its process ended with {ending(done.returncode)}; the last line above says in which check"
    return BindingResult(binding=name, version=binding_versions().get(name), problem=problem, crashed=True)


def ending(status: int) -> str:
    """Return what an exit status of a process means."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    if options.binding is not None:
        take_binding(options.binding)
    before = device_record()
    if options.binding is not None:
        bindings = (check_binding(options.binding, options),)
    else:
        bindings = check_each(options.seconds, options.leak_batches)
    report = RuntimeReport(
        **record_of("gpu_runtime_check.py", arguments, before),
        bindings=bindings,
    )
    write_record(report, markdown(report), options.output)
    print(markdown(report))
    print(f"wrote {options.output} and {options.output.with_suffix('.md')}")
    return report.exit_status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RanDeployError as exc:
        print(f"gpu_runtime_check: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
