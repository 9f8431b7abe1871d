"""Charts of layers: the error over depth, and magnitudes against the range that int8 holds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ran_deploy.report.charts import ACCENT, BAD, MUTED, RULE, STYLE, TEXT, WIDTH_IN, import_matplotlib, svg_of
from ran_deploy.verification.layer_errors import LayerError, LayerErrors, MagnitudeHistogram

__all__ = ["depth_chart", "magnitude_chart"]

NARROWEST_STAGE = 0.09  # of the chart's width: below, its name does not fit above it


def depth_chart(errors: LayerErrors) -> str | None:
    """Return the SQNR of each layer from the input to the output, trunk and masks told apart.

    None if fewer than two layers have one.
    """
    known = [(index, layer) for index, layer in enumerate(errors.layers) if layer.sqnr_db is not None]
    if len(known) < 2:
        return None
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(WIDTH_IN, 2.6))
        axes = figure.add_axes((0.1, 0.18, 0.88, 0.62))
        size = 5 if len(known) <= 120 else 3
        for branch, style in (
            ("trunk", {"color": ACCENT, "marker": "o"}),
            ("mask", {"color": TEXT, "marker": "D", "fillstyle": "none"}),
        ):
            points = [(index, layer.sqnr_db) for index, layer in known if layer.branch == branch]
            if points:
                axes.plot(*zip(*points, strict=True), linestyle="none", markersize=size, label=branch, **style)
        axes.set_xlim(-1, len(errors.layers))
        axes.margins(y=0.12)
        _mark_stages(axes, errors.layers)
        _lay_out_depth_axes(axes)
        return svg_of(figure, "SQNR of each layer from the input to the output, in decibels")


def _mark_stages(axes: Any, layers: Sequence[LayerError]) -> None:
    start = 0
    for stage, group in itertools.groupby(layers, key=lambda layer: layer.stage):
        length = len(list(group))
        if start:
            axes.axvline(start - 0.5, color=RULE, linewidth=1)
        if length / len(layers) >= NARROWEST_STAGE:
            name = stage if len(stage) <= 16 else stage[:15] + "…"
            middle = start + (length - 1) / 2
            axes.text(middle, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", color=MUTED, fontsize=9)
        start += length


def _lay_out_depth_axes(axes: Any) -> None:
    axes.set_xlabel("layers, from the input to the output")
    axes.set_ylabel("SQNR, dB")
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.locator_params(axis="y", nbins=6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.12), ncols=2, frameon=False, handletextpad=0.1, borderaxespad=0
    )


def magnitude_chart(histogram: MagnitudeHistogram) -> str:
    """Return how often each |x| occurs in a tensor, counted on a logarithmic scale, and where int8 ends."""
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(WIDTH_IN, 1.9))
        axes = figure.add_axes((0.14, 0.26, 0.83, 0.58))
        width = histogram.end / len(histogram.counts)
        lefts = [index * width for index in range(len(histogram.counts))]
        colours = [BAD if left >= histogram.limit else ACCENT for left in lefts]
        axes.bar(lefts, histogram.counts, width=width, align="edge", color=colours, alpha=0.75, linewidth=0, log=True)
        axes.axvline(histogram.limit, color=BAD, linewidth=1.4, linestyle=(0, (4, 3)))
        axes.set_xlim(0, 1.03 * max(histogram.end, histogram.limit))
        axes.set_ylim(0.5, 3 * max(1, *histogram.counts))
        end = f"int8 ends at {histogram.limit:.3g}"
        axes.text(histogram.limit, 1.04, end, transform=axes.get_xaxis_transform(), color=BAD, ha="right", fontsize=9)
        _lay_out_magnitude_axes(axes, max(histogram.counts))
        return svg_of(figure, f"Magnitudes that enter {histogram.layer}, and the end of the range of int8")


def _lay_out_magnitude_axes(axes: Any, most: int) -> None:
    powers = [10**power for power in range(0, 13, 2) if 10**power <= max(most, 1)]
    axes.set_yticks(powers, [f"{power:,}" if power < 10**6 else f"{power // 10**6:,}M" for power in powers])
    axes.minorticks_off()
    axes.set_xlabel("|x|")
    axes.set_ylabel("values")
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
