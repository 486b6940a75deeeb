"""Pictures of the calibration report: predicted against measured for each request, and the error of each stage."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture

from trimtab.sim.calibration.report import ALL, BARS, TITLES, Figure
from trimtab.sim.calibration.source import METRICS, Compared, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
_MARKERS: Final = "os^DvPX*"
_DPI: Final = 110
_GOOD, _BAD, _UNJUDGED = "#009e73", "#d55e00", "#999999"


def draw(run: Run, figures: Sequence[Figure]) -> bytes:
    """Return a PNG: above, each request, one panel per metric; below, the error of each stage's median.

    Args:
        run: With at least one request.
        figures: Those of the run.
    """
    picture = Picture(figsize=(13.5, 8.6), layout="constrained")
    FigureCanvasAgg(picture)
    upper, lower = picture.subplots(2, 3)
    picture.suptitle(f"{run.id}: predicted by {run.profile}", fontsize=11)
    for axes, metric in zip(upper, METRICS, strict=True):
        _requests(axes, run, metric)
    for axes, metric in zip(lower, METRICS, strict=True):
        _stages(axes, [f for f in figures if f.metric == metric and f.quantile == 0.5])  # noqa: PLR2004
    handles, names = upper[0].get_legend_handles_labels()
    picture.legend(handles, names, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    written = io.BytesIO()
    picture.savefig(written, format="png", dpi=_DPI, metadata={"Software": None})
    return written.getvalue()


def _requests(axes: "Axes", run: Run, metric: str) -> None:
    """Each request as a point, and the line on which a perfect prediction lies with 20 % to either side."""
    stages = list(dict.fromkeys(request.stage for request in run.requests))
    for number, stage in enumerate(stages):
        points = _points([request for request in run.requests if request.stage == stage], metric)
        style: dict[str, Any] = {"color": _COLORS[number % 8], "marker": _MARKERS[(number // 8 + number) % 8]}
        axes.scatter(points[:, 0], points[:, 1], s=14, alpha=0.75, linewidths=0, label=stage, **style)
    both = _points(run.requests, metric)
    if len(both):
        ends = np.array([both.min() * 0.8, both.max() * 1.25])
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.fill_between(ends, ends * 0.8, ends * 1.2, color="black", alpha=0.07, linewidth=0)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set(title=TITLES[metric], xlabel="measured, s", ylabel="predicted, s")
    axes.grid(visible=True, which="major", alpha=0.25)


def _points(requests: Sequence[Compared], metric: str) -> np.typing.NDArray[np.float64]:
    value = METRICS[metric]
    pairs = [(value(request.measured), value(request.predicted)) for request in requests]
    return np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)


def _stages(axes: "Axes", medians: Sequence[Figure]) -> None:
    """The signed error of each stage's median, with the bar that it is held to."""
    rows = np.arange(len(medians))[::-1]
    colors = [_UNJUDGED if not f.judged else _GOOD if f.within else _BAD for f in medians]
    axes.barh(rows, [100 * f.deviation for f in medians], color=colors, height=0.65)
    axes.set_yticks(rows, ["whole run" if f.stage == ALL else f.stage for f in medians], fontsize=8)
    for row, figure in zip(rows, medians, strict=True):
        bar = 100 * BARS[figure.stage == ALL, 0.5]
        x, y = [-bar, -bar, np.nan, bar, bar], [row - 0.45, row + 0.45, np.nan, row - 0.45, row + 0.45]
        axes.plot(x, y, color="black", linewidth=0.9)
    widest = max([25.0, *(110 * abs(f.deviation) for f in medians)])
    axes.set(xlim=(-widest, widest), xlabel="error of the median, %")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(visible=True, axis="x", alpha=0.25)
