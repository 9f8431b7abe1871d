"""The report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.manifest import Task
from ran_deploy.report.attention import ShownAttention, attention_sections
from ran_deploy.report.charts import drop_chart, flip_chart, import_matplotlib
from ran_deploy.report.layer_section import layer_section
from ran_deploy.report.schema import ChangedImage, EngineReport, TurnedImage, ValidationReport
from ran_deploy.report.thumbnails import png_data_uri
from ran_deploy.whole_file import write_whole

__all__ = ["render_html", "require_html", "write_html"]

TEMPLATES = Path(__file__).parent / "templates"
MISSING = "\N{EN DASH}"
FIGURES = {Task.CLASSIFICATION: "classes.html", Task.EMBEDDING: "embedding.html"}
MOST_FLIPS = 10  # rows of the table; the chart shows more or is left out, and the JSON has all


@dataclass(frozen=True)
class _Changed:
    """One image that changed its class, or whose vector turned, as the page shows it."""

    image: ChangedImage | TurnedImage
    picture: str | None


@dataclass(frozen=True)
class _Changes:
    """What an engine changed, as the page shows it; `flip_chart` is <svg>, None where a table says it all."""

    engine: EngineReport
    flip_chart: str | None
    images: tuple[_Changed, ...]


def require_html() -> None:
    """Raises: BackendUnavailableError if jinja2 or matplotlib is missing; not every page has charts, but most do."""
    _import_jinja2()
    import_matplotlib()


def write_html(
    report: ValidationReport,
    path: Path,
    *,
    images: Mapping[int, np.ndarray] | None = None,
    attention: Mapping[str, Sequence[ShownAttention]] | None = None,
) -> None:
    """Write the page to `path`, see `render_html`. Raises: OutputError, BackendUnavailableError."""
    write_whole(path, render_html(report, images=images, attention=attention).encode("utf-8"))


def render_html(
    report: ValidationReport,
    *,
    images: Mapping[int, np.ndarray] | None = None,
    attention: Mapping[str, Sequence[ShownAttention]] | None = None,
) -> str:
    """Return the page. `images` are changed images to show, uint8 RGB (H, W, 3), by their index in the data set.

    `attention` are the images whose soft masks to show, by backend.
    Raises: BackendUnavailableError if jinja2 or matplotlib is missing.
    """
    pictures = {index: png_data_uri(image) for index, image in (images or {}).items()}
    changes = [
        _Changes(
            engine=engine,
            flip_chart=flip_chart(engine.flips, least=MOST_FLIPS + 1),
            images=tuple(_Changed(image, pictures.get(image.index)) for image in _worst(engine)),
        )
        for engine in report.engines
        if engine.images
    ]
    jinja2 = _import_jinja2()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # class names and file names are the user's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("report.html").render(
        report=report,
        lead=next((engine for engine in report.engines if not engine.estimate), report.engines[0]),
        drop_chart=drop_chart(report.engines, report.max_drop_pp),
        changes=changes,
        figures=FIGURES[report.bundle.task],
        most_flips=MOST_FLIPS,
        attention=attention_sections(report.engines, attention or {}),
        layers=layer_section(report.layers) if report.layers else None,
    )


def _worst(engine: EngineReport) -> tuple[ChangedImage | TurnedImage, ...]:
    return engine.changed if engine.embedding is None else engine.embedding.turned


def _number(value: float | None, digits: int = 2) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _signed(value: float | None, digits: int = 2) -> str:
    """Return a number with its sign, a true minus, and no sign for what rounds to zero."""
    if value is None:
        return MISSING
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if rounded else f"{0:.{digits}f}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return MISSING if bounds is None else f"{_signed(bounds[0])} to {_signed(bounds[1])}"


def _range(bounds: tuple[float, float] | None) -> str:
    return MISSING if bounds is None else f"{_number(bounds[0])} to {_number(bounds[1])}"


def _small(value: float | None) -> str:
    """Return a number of unknown size with three significant digits."""
    return MISSING if value is None else f"{value:#.3g}".rstrip(".")


def _typeset(sentence: str) -> str:
    """Return a sentence that is written for a terminal with true minus signs before its numbers."""
    return re.sub(r"(?<!\S)-(?=\d)", "\N{MINUS SIGN}", sentence)


def _p_value(value: float | None) -> str:
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _bytes(count: int | None) -> str:
    return MISSING if count is None else f"{count / 2**20:,.1f} MiB"


def _percent(share: float | None, digits: int = 1) -> str:
    """Return a share, 0 to 1, in percent; what is not quite nothing does not become 0."""
    if share is None:
        return MISSING
    if share == 0:
        return "0 %"
    if share < 0.5 * 10 ** (-2 - digits):
        return f"< {10**-digits:g} %"
    return f"{100 * share:,.{digits}f} %"


FILTERS = {
    "bytes": _bytes,
    "percent": _percent,
    "number": _number,
    "signed": _signed,
    "interval": _interval,
    "typeset": _typeset,
    "range": _range,
    "small": _small,
    "p_value": _p_value,
}


def _import_jinja2() -> Any:
    try:
        return importlib.import_module("jinja2")
    except ImportError as exc:
        raise BackendUnavailableError(
            f"Cannot import jinja2 ({exc}). Install it: pip install 'ran-deploy[report]'."
        ) from exc
