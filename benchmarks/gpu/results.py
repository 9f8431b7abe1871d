"""What gpu_check measures, as JSON of a fixed schema and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gpu.record import Record
from gpu.runtime_results import ENGINE, BindingResult, binding_table
from gpu.tables import cell, device_line

from ran_deploy.converters.builders.engine_layers import EngineLayers

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One runner at one batch size: milliseconds a batch from host memory to host memory, or why there are none.

    `ratio` is its median over that of our engine, the calls of both taken in turn.
    """

    runner: str
    batch: int
    runs: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    ratio: float | None = None
    noisy: bool = False
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Top-1 on labelled images, in percent."""

    dataset: str
    images: int
    top1: float


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Images a second of several threads that call one engine, over those of one thread."""

    batch: int
    threads: int
    images_per_second: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much faster the runner is with `of` than without it, on the same engine."""

    of: str
    batch: int
    threads: int
    gain: float


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Bytes that were in use after many batches, over those in use before: of the process, and on the device."""

    batches: int
    host_bytes: int
    device_bytes: int | None
    leaks: bool


@dataclass(frozen=True, kw_only=True)
class Builds:
    """Seconds of a build with an empty timing cache, and of the same build again with what that one measured."""

    first_seconds: float
    again_seconds: float


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The engine of one option of ran-build; `ratio` is its median over that of the engine without, taken in turn.

    `load_seconds` are of opening it, refitting included; `relative_l2` is how far its logits are from that engine's.
    """

    option: str
    batch: int
    build_seconds: float | None = None
    engine_bytes: int | None = None
    load_seconds: float | None = None
    self_test: str | None = None
    relative_l2: float | None = None
    p50_ms: float | None = None
    ratio: float | None = None
    problem: str | None = None

    def having(self, **found: object) -> Variant:
        """Return the row with what was found."""
        return replace(self, **found)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class EngineResult:
    """One bundle on one backend. What failed is in `problems`, by the name of the check."""

    bundle: str
    architecture: str
    precision: str
    input_size: tuple[int, int]
    digest: str
    backend: str
    fingerprint: dict[str, str] = field(default_factory=dict)
    engine_bytes: int | None = None
    layers: EngineLayers | None = None  # TensorRT alone tells
    load_seconds: float | None = None
    variants: tuple[Variant, ...] = ()
    builds: Builds | None = None  # of TensorRT alone, which times kernels
    self_test: str | None = None
    accuracy: Accuracy | None = None
    timings: tuple[Timed, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    gains: tuple[Gain, ...] = ()
    graph_bytes: int | None = None  # of the GPU's memory, for each further batch size that is captured
    leak: Leak | None = None
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether the engine gives right results and keeps no memory; what was not looked at counts as neither."""
        return self.self_test is not None and not (self.leak and self.leak.leaks)


@dataclass(frozen=True, kw_only=True)
class Report(Record):
    """Everything of one run."""

    engines: tuple[EngineResult, ...]
    problems: dict[str, str] = field(default_factory=dict)  # bundles that cannot be opened
    runtime: tuple[BindingResult, ...] = ()  # of gpu_runtime_check, where no engine opened
    schema_version: int = SCHEMA_VERSION


def markdown(report: Report) -> str:
    """Return the report as tables."""
    blocks = [["# gpu_check", "", f"{report.created}, {device_line(report.device)}"], list(summary(report.engines))]
    for engine in report.engines:
        if engine.timings:
            blocks.append(list(timing_table(engine)))
        if engine.variants:
            blocks.append(list(variant_table(engine)))
    problems = [f"- {bundle}: {cell(problem)}" for bundle, problem in report.problems.items()]
    problems += problem_lines(report.engines)
    if problems:
        blocks.append(["## What did not run", "", *problems])
    if report.runtime:
        blocks.append(["# The runtime without an engine", "", f"As no engine opened. {ENGINE.capitalize()}."])
        blocks += [list(binding_table(result)) for result in report.runtime]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def summary(engines: Sequence[EngineResult]) -> Iterator[str]:
    """Yield a table with one row for each engine."""
    yield "| bundle | backend | golden self-test | top-1 | int8 kernels | threads | memory kept |"
    yield "|---|---|---|---|---|---|---|"
    for engine in engines:
        test = engine.self_test or f"no: {engine.problems.get('engine', 'failed')}"
        top1 = f"{engine.accuracy.top1:.2f} % of {engine.accuracy.images:,}" if engine.accuracy else ""
        best = max(engine.overlaps, key=lambda each: each.gain, default=None)
        gain = f"{best.threads} threads {best.gain:.2f}x at batch {best.batch}" if best else ""
        gain += "".join(f"; {each.of} {each.gain:.2f}x at batch {each.batch}" for each in engine.gains)
        cells = (
            label(engine),
            engine.backend,
            cell(test),
            top1,
            int8_cell(engine.layers),
            gain,
            leak_cell(engine.leak),
        )
        yield f"| {' | '.join(cells)} |"


def label(engine: EngineResult) -> str:
    """Return what a reader calls the network."""
    height, width = engine.input_size
    return cell(f"{engine.bundle} ({engine.architecture}, {engine.precision}, {height}x{width})")


def int8_cell(layers: EngineLayers | None) -> str:
    """Return how many of the convolutions and products run in int8."""
    return "" if layers is None else f"{layers.int8_products} of {layers.products}"


def leak_cell(leak: Leak | None) -> str:
    """Return what stayed in use after how many batches."""
    if leak is None:
        return ""
    device = "" if leak.device_bytes is None else f", device {leak.device_bytes / 2**20:+.1f} MiB"
    verdict = "**leaks**: " if leak.leaks else ""
    return f"{verdict}host {leak.host_bytes / 2**20:+.1f} MiB{device} after {leak.batches:,}"


def timing_table(engine: EngineResult) -> Iterator[str]:
    """Yield the times of one engine beside those of its peers."""
    yield f"## {label(engine)}, {engine.backend}"
    yield ""
    yield "| batch | runner | median ms | p90 | p99 | images/s | of ours |"
    yield "|---|---|---|---|---|---|---|"
    for row in engine.timings:
        if row.problem is not None:
            continue
        noisy = " (noisy)" if row.noisy else ""
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        times = f"{ms(row.p50_ms)}{noisy} | {ms(row.p90_ms)} | {ms(row.p99_ms)} | {row.images_per_second or 0:,.0f}"
        yield f"| {row.batch} | {cell(row.runner)} | {times} | {ratio} |"


def variant_table(engine: EngineResult) -> Iterator[str]:
    """Yield what each option of a build gives, beside the engine without it."""
    yield f"### Options of ran-build: {label(engine)}, {engine.backend}"
    yield ""
    yield "| option | build s | MiB | load s | golden self-test | rel. L2 to ours | batch | median ms | of ours |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in engine.variants:
        seconds = "" if row.build_seconds is None else f"{row.build_seconds:.1f}"
        size = "" if row.engine_bytes is None else f"{row.engine_bytes / 2**20:.1f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        load = "" if row.load_seconds is None else f"{row.load_seconds:.2f}"
        test = cell(row.self_test or f"no: {row.problem}")
        distance = "" if row.relative_l2 is None else f"{row.relative_l2:.5f}"
        made = f"{seconds} | {size} | {load} | {test} | {distance}"
        yield f"| `{row.option}` | {made} | {row.batch} | {ms(row.p50_ms)} | {ratio} |"


def ms(value: float | None) -> str:
    """Return milliseconds with what digits they deserve."""
    return "" if value is None else f"{value:.3f}"


def problem_lines(engines: Sequence[EngineResult]) -> Iterator[str]:
    """Yield one line for each check or peer that gave nothing."""
    for engine in engines:
        named = [*engine.problems.items()]
        named += [(f"{row.runner}, batch {row.batch}", row.problem) for row in engine.timings if row.problem]
        for name, problem in named:
            yield f"- {engine.bundle}, {engine.backend}: {name}: {cell(problem)}"
