"""What the check of the runtime found, as JSON of a fixed schema and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from gpu.record import Record
from gpu.tables import cell, device_line

SCHEMA_VERSION = 1
ENGINE = "no network: the two kernels of benchmarks/gpu/kernel.ptx stand for the engine"


class Outcome(str, Enum):
    RIGHT = "right"
    WRONG = "wrong"
    NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: what it found, in numbers; `reason` says why it is wrong or did not run."""

    name: str
    outcome: Outcome
    figures: dict[str, float] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class BindingResult:
    """All checks through one CUDA binding; `problem` says why there are none, or not all."""

    binding: str
    version: str | None = None
    checks: tuple[Check, ...] = ()
    problem: str | None = None
    crashed: bool = False

    @property
    def wrong(self) -> bool:
        """Whether something is: what is not installed or could not run is not."""
        return self.crashed or any(check.outcome is Outcome.WRONG for check in self.checks)

    @property
    def ran(self) -> bool:
        return any(check.outcome is not Outcome.NOT_RUN for check in self.checks)


@dataclass(frozen=True, kw_only=True)
class RuntimeReport(Record):
    """Everything of one run."""

    bindings: tuple[BindingResult, ...]
    engine: str = ENGINE
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_status(self) -> int:
        """0 if all that could run is right, 1 if something is wrong, 2 if nothing could run."""
        if any(result.wrong for result in self.bindings):
            return 1
        return 0 if any(result.ran for result in self.bindings) else 2


def markdown(report: RuntimeReport) -> str:
    """Return the report as one table for each binding."""
    blocks = [[f"# gpu_runtime_check: {report.engine}", "", f"{report.created}, {device_line(report.device)}"]]
    blocks += [list(binding_table(result)) for result in report.bindings]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def binding_table(result: BindingResult) -> Iterator[str]:
    """Yield one row for each check, or why there are none."""
    yield f"## {result.binding} {result.version or ''}".rstrip()
    yield ""
    if result.problem is not None:
        yield f"{'**crashed**' if result.crashed else 'not run'}: {cell(result.problem)}"
    if result.checks:
        yield "| check | | |"
        yield "|---|---|---|"
    for check in result.checks:
        outcome = f"**{check.outcome.value}**" if check.outcome is Outcome.WRONG else check.outcome.value
        yield f"| {check.name} | {outcome} | {cell(check.reason or figures_line(check.figures))} |"


def figures_line(figures: Mapping[str, float]) -> str:
    """Return the numbers, bytes as MiB, in one line."""
    return ", ".join(figure(name, value) for name, value in figures.items())


def figure(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes')} {value / 2**20:+.1f} MiB"
    if name.endswith("_ms"):
        return f"{name.removesuffix('_ms')} {value:.3f} ms"
    return f"{name} {value:,.2f}" if isinstance(value, float) and not value.is_integer() else f"{name} {value:,.0f}"
