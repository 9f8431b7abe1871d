"""Charts as inline SVG whose colours are the page's: they follow its light or dark scheme."""

from __future__ import annotations

import html
import importlib
import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.report.schema import ClassFlip, EngineReport

__all__ = [
    "ACCENT",
    "BAD",
    "MUTED",
    "RULE",
    "STYLE",
    "TEXT",
    "WIDTH_IN",
    "drop_chart",
    "flip_chart",
    "import_matplotlib",
    "svg_of",
]

# Colours that stand in for the page's own, as matplotlib knows no CSS.
PAGE_COLOURS = {
    "#010101": "currentColor",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--accent)",
    "#050505": "var(--bad)",
}
TEXT, MUTED, RULE, ACCENT, BAD = PAGE_COLOURS
WIDTH_IN = 5.0  # 360 CSS pixels: about what a phone shows, so that text is never scaled down far
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "ran-deploy",
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": TEXT,
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
}
MOST_CLASSES = 12  # more cells than 12 x 12 cannot be read


def drop_chart(engines: Sequence[EngineReport], max_drop_pp: float | None) -> str | None:
    """Return the accuracy drop of each engine with its 95 % interval and the budget, or None if none has labels."""
    rows = [(engine, engine.drop_pp, engine.drop_ci95_pp) for engine in engines]
    known = [(engine, drop, ci) for engine, drop, ci in rows if drop is not None and ci is not None]
    if not known:
        return None
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(WIDTH_IN, 0.75 + 0.42 * len(known)))
        axes = figure.add_axes((0.25, 0.48 / figure.get_figheight(), 0.71, 1 - 0.75 / figure.get_figheight()))
        axes.axvline(0, color=MUTED, linewidth=1)
        for y, (engine, drop, (low, high)) in enumerate(known):
            colour = TEXT if max_drop_pp is None else ACCENT if engine.passed else BAD
            line = (0, (3, 2)) if engine.estimate else "solid"
            axes.plot([low, high], [y, y], color=colour, linewidth=2.5, linestyle=line, solid_capstyle="round")
            axes.plot([drop], [y], "o", color=colour, markersize=7)
        if max_drop_pp is not None:
            axes.axvline(max_drop_pp, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.text(max_drop_pp, -0.62, f"budget {max_drop_pp:g}", color=BAD, ha="center", va="bottom", fontsize=9)
        _lay_out_drop_axes(axes, [engine for engine, _, _ in known])
        return svg_of(figure, "Accuracy drop of each engine with its 95 % interval")


def _lay_out_drop_axes(axes: Any, engines: Sequence[EngineReport]) -> None:
    names = [f"{engine.backend}\n(estimate)" if engine.estimate else engine.backend for engine in engines]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=6)
    measure = (engines[0].measure or "accuracy").lower()
    axes.set_xlabel(f"{measure} drop in points (right is worse)")
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def flip_chart(flips: Sequence[ClassFlip], *, least: int = 1) -> str | None:
    """Return how many images went from which class to which, for the classes most concerned.

    None where that would show fewer than `least` such changes: a matrix of empty cells says nothing.
    """
    names = _most_concerned(flips)
    counts = {
        (flip.reference, flip.engine): flip.images for flip in flips if flip.reference in names and flip.engine in names
    }
    if len(counts) < least:
        return None
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        height, width = 0.28 * len(names), min(0.36 * len(names), 3.5)
        figure = matplotlib.figure.Figure(figsize=(WIDTH_IN, height + 1.3))
        axes = figure.add_axes((0.27, 1.2 / figure.get_figheight(), width / WIDTH_IN, height / figure.get_figheight()))
        for i in range(len(names)):
            axes.text(i + 0.5, i + 0.5, "·", color=MUTED, ha="center", va="center")
        for (source, target), images in counts.items():
            column, row = names.index(target), names.index(source)
            shade = {"facecolor": ACCENT, "alpha": 0.12 + 0.58 * images / max(counts.values()), "linewidth": 0}
            cell = matplotlib.patches.Rectangle((column + 0.04, row + 0.06), 0.92, 0.88, clip_on=False, **shade)
            axes.add_artist(cell)
            axes.text(column + 0.5, row + 0.5, str(images), ha="center", va="center", fontsize=9)
        _lay_out_flip_axes(axes, names)
        return svg_of(figure, "Images by class of the reference (rows) and class of the engine (columns)")


def _lay_out_flip_axes(axes: Any, names: Sequence[str]) -> None:
    centres = [i + 0.5 for i in range(len(names))]
    shown = [name if len(name) <= 14 else name[:13] + "…" for name in names]
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    axes.set_xticks(centres, shown, rotation=45, ha="right", rotation_mode="anchor", color=TEXT, fontsize=9)
    axes.set_yticks(centres, shown, fontsize=9)
    axes.set_xlabel("engine says")
    axes.set_ylabel("reference says")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _most_concerned(flips: Sequence[ClassFlip]) -> list[str]:
    """Return the classes with most images in or out, at most MOST_CLASSES, sorted by name or number."""
    images: dict[str, int] = {}
    for flip in flips:
        for name in (flip.reference, flip.engine):
            images[name] = images.get(name, 0) + flip.images
    most = sorted(images, key=lambda name: (-images[name], name))[:MOST_CLASSES]
    return sorted(most, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))


def svg_of(figure: Any, description: str) -> str:
    """Return a figure as an <svg> element without links, style sheet, fixed size, or fonts and colours of its own."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # measured in a font that lacks it, shown in the page's
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    view_box = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', text)
    assert view_box is not None
    text = f'<svg role="img" aria-label="{html.escape(description)}" {view_box[1]}>{text[view_box.end() :]}'
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"; font-family: [^;\"]*", "", text)
    text = _without_unused_ids(text)
    for stand_in, colour in PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    return text


def _without_unused_ids(svg: str) -> str:
    """Return `svg` without the ids that nothing refers to: several charts on one page would share them."""
    used = set(re.findall(r"#([\w-]+)[\")]", svg))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)


def import_matplotlib() -> Any:
    """Return matplotlib with what charts need of it. Raises: BackendUnavailableError."""
    try:
        for module in ("figure", "patches", "backends.backend_svg"):
            importlib.import_module(f"matplotlib.{module}")
        return importlib.import_module("matplotlib")
    except ImportError as exc:
        raise BackendUnavailableError(
            f"Cannot import matplotlib ({exc}). Install it: pip install 'ran-deploy[report]'."
        ) from exc
