"""What the page shows of layers."""

from __future__ import annotations

from dataclasses import dataclass

from ran_deploy.report.layer_charts import depth_chart, magnitude_chart
from ran_deploy.verification.layer_errors import LayerError, LayerErrors, MagnitudeHistogram

__all__ = ["LayerSection", "layer_section"]


@dataclass(frozen=True, kw_only=True)
class LayerSection:
    """The layers with a chart over depth, the worst of them, and the ranges of their inputs, each with its chart."""

    errors: LayerErrors
    chart: str | None
    worst: tuple[LayerError, ...]
    ranges: tuple[tuple[MagnitudeHistogram, str], ...]


def layer_section(errors: LayerErrors) -> LayerSection:
    """Return the section. Raises: BackendUnavailableError without matplotlib."""
    return LayerSection(
        errors=errors,
        chart=depth_chart(errors),
        worst=tuple(errors.layers[index] for index in errors.worst),
        ranges=tuple((histogram, magnitude_chart(histogram)) for histogram in errors.histograms),
    )
