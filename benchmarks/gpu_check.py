"""Verify and measure bundles on this device: one command, one JSON file to send back, one table to read.

    python benchmarks/make_bundles.py bundles/                # on any machine with ran-deploy[export]; no GPU
    python benchmarks/gpu_check.py bundles/*.ran --data FASHION_MNIST --output gpu_check.json

For each bundle and backend: golden self-test, accuracy (bundles of 10 classes, with --data), latency percentiles and
throughput at each batch size beside PyTorch, torch.compile, ONNX Runtime on CUDA and trtexec where they are, what
several threads, CUDA graphs and kept timings gain, and what memory stays in use; with --variants also what options of
ran-build cost or gain. Device, driver, clocks and power mode are read before and after.
What is missing or fails is a line with its reason; the rest goes on. Engines that are neither in the bundle nor in the
cache are built here. Where a GPU refuses every engine, gpu_runtime_check.py follows and says whether the rest works.
Exit status: 0 if every engine that could be opened is right; 1 if one is not; 2 if none opened.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from gpu.device import cuda_record, device_record
from gpu.measure import Options, measure_engine
from gpu.peers import TRTEXEC
from gpu.record import record_of, write_record
from gpu.results import EngineResult, Report, markdown
from gpu.runtime_results import BindingResult
from gpu_runtime_check import check_each

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.errors import ConfigError, RanDeployError
from ran_deploy.report.writing import check_report_path
from ran_deploy.runtime.backends import unavailable_reason

GPU_BACKENDS = ("tensorrt", "tensorrt-rtx")
FASHION_MNIST_CLASSES = 10
SHORT_NAMES = {"eager": "PyTorch eager", "compile": "torch.compile fp16", "onnxruntime": "ONNX Runtime CUDA"}
SHORT_NAMES["trtexec"] = TRTEXEC
EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"


def say(line: str) -> None:
    """Tell what is being done."""
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="NAME.ran")
    parser.add_argument("--backend", action="append", choices=list(BACKENDS), help="default: both of TensorRT")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128], metavar="N", help="sizes to time")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timed work at each batch size")
    parser.add_argument("--leak-batches", type=int, default=10_000, metavar="N", help="runs of the memory check")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=list(SHORT_NAMES),
        default=list(SHORT_NAMES),
        metavar="PEER",
        help=f"what to time beside it, of {', '.join(SHORT_NAMES)}; none without a name",
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        nargs="*",
        default=[],
        metavar="PATH",
        help="files or folders with the networks of the bundles, for PyTorch; beside the bundles' own folders",
    )
    parser.add_argument("--data", type=Path, help="Fashion-MNIST (IDX files), for accuracy")
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="how many of --data")
    parser.add_argument("--variants", action="store_true", help="also build and time ran-build's options, one by one")
    parser.add_argument("--cache-dir", type=Path, help="where engines are kept; as ran-build's")
    parser.add_argument(
        "--output", type=Path, default=Path("gpu_check.json"), help="NAME.json; the table goes to NAME.md"
    )
    options = parser.parse_args(arguments)
    if min(*options.batches, options.images, options.leak_batches) < 1 or not 0 < options.seconds < math.inf:
        raise ConfigError("--batches, --images, --seconds and --leak-batches must be positive.")
    if options.output.suffix != ".json":
        raise ConfigError(f"--output is {options.output}; expected NAME.json.")
    check_report_path(options.output)  # before an hour of measuring
    return options


def measured(
    paths: Sequence[Path], backends: Sequence[str], options: argparse.Namespace
) -> tuple[list[EngineResult], dict[str, str]]:
    """Return the results of every bundle on every backend, and which bundles cannot be opened and why."""
    results: list[EngineResult] = []
    problems: dict[str, str] = {}
    for path in paths:
        try:
            bundle = open_bundle(path)
        except RanDeployError as exc:
            problems[str(path)] = str(exc)
            continue
        results += [measure_engine(bundle, backend, options_for(bundle, options), say) for backend in backends]
    return results, problems


def options_for(bundle: Bundle, options: argparse.Namespace) -> Options:
    """Return what is measured of one bundle: accuracy only where its classes can be those of the data."""
    has_classes = bundle.manifest.output_size == FASHION_MNIST_CLASSES
    return Options(
        batches=tuple(sorted(set(options.batches))),
        seconds=options.seconds,
        leak_batches=options.leak_batches,
        peers=tuple(SHORT_NAMES[name] for name in options.peers),
        checkpoints=(*options.checkpoints, bundle.path.parent, EXAMPLE),
        data=options.data if has_classes else None,
        images=options.images,
        cache_dir=options.cache_dir,
        variants=options.variants,
    )


def runtime_results(engines: Sequence[EngineResult], options: argparse.Namespace) -> tuple[BindingResult, ...]:
    """Return how far all but the engine works, where there is a GPU and every engine for it was refused."""
    tried = [engine for engine in engines if engine.backend in GPU_BACKENDS]
    if not tried or any(engine.load_seconds is not None for engine in tried) or "name" not in cuda_record():
        return ()
    say("no engine opened on this GPU: the runtime without one, as gpu_runtime_check.py")
    return check_each(options.seconds, options.leak_batches)


def exit_status(engines: Sequence[EngineResult]) -> int:
    """Return 0 if all that opened are right, 1 if one is not, 2 if none opened."""
    opened = [engine for engine in engines if engine.load_seconds is not None]
    if not opened:
        return 2
    return 0 if all(engine.works for engine in opened) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    backends = options.backend or GPU_BACKENDS
    for backend in backends:
        if reason := unavailable_reason(backend):
            say(f"{backend}: {reason}")
    before = device_record()
    engines, problems = measured(options.bundles, backends, options)
    runtime = runtime_results(engines, options)
    report = Report(
        **record_of("gpu_check.py", arguments, before),
        engines=tuple(engines),
        problems=problems,
        runtime=runtime,
    )
    write_record(report, markdown(report), options.output)
    print(markdown(report))
    say(f"wrote {options.output} and {options.output.with_suffix('.md')}")
    return exit_status(engines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RanDeployError as exc:
        print(f"gpu_check: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
