"""The pictures of a part: a metric over a setting, or the differences to the baseline where nothing is said."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from trimtab.sim.experiment import Cell, Metric, Part, Plot, Setting
from trimtab.sim.findings import Line, Table
from trimtab.sim.report.numerals import difference_scale, heading, short
from trimtab.sim.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which people with any color vision can tell apart; markers and dashes say the same again.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
BASELINE_COLOR = "#4D4D4D"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (6, 1.5)), (0, (2, 1)), (0, (7, 1.5, 1.5, 1.5)))
_DPI = 130
_PANEL_WIDTH, _PANEL_HEIGHT = 4.9, 3.9
_LEGEND_WIDTH = 1.9
_MOST_PANELS = 3
_MOST_TICKS = 9
_CLOSE = 0.12  # ticks nearer than this part of the axis would print over each other
_ROW_HEIGHT = 0.2
_ASIDE = 0.008  # of the axis, between the points of one policy and the next


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with what people who cannot see it are told."""

    name: str
    png: bytes
    caption: str


def draw_part(table: Table) -> list[Picture]:
    """Draw the plots of a part, or the differences to its baseline if it names none and has one."""
    part = table.part
    if not table.records:
        return []
    if part.plots:
        names = [part.name if len(part.plots) == 1 else f"{part.name}-{place + 1}" for place in range(len(part.plots))]
        return [
            Picture(name, _plot(table, plot), _caption(part, plot))
            for name, plot in zip(names, part.plots, strict=True)
        ]
    if part.baseline is None or all(line.difference is None for line in table.lines):
        return []
    caption = (
        f"Difference to {part.baseline} within the same seed, with its 95 % interval; one that crosses the line at 0 "
        "shows no difference."
    )
    return [Picture(part.name, _forest(table), caption)]


def _caption(part: Part, plot: Plot) -> str:
    said = part.baseline is not None and part.baseline in plot.y_title
    what = f"Difference to {part.baseline} in {plot.y_title}" if plot.difference and not said else plot.y_title
    panels = f", one panel for each {plot.panel}" if plot.panel else ""
    text = f"{what} over {plot.x_title}{panels}. Bars are 95 % intervals over seeds."
    if plot.difference or part.baseline is None:
        return text
    return f"{text} Policies share their seeds, so bars that overlap may still differ: the table has the differences."


def _plot(table: Table, plot: Plot) -> bytes:
    metric = next(metric for metric in table.part.metrics if metric.name == plot.y)
    settings = [s for s in table.part.settings if plot.x in s.values and (not plot.settings or s.name in plot.settings)]
    values = list(dict.fromkeys(setting.values.get(plot.panel) for setting in settings)) if plot.panel else [None]
    figure, axes = panels(len(values))
    for place, (own, panel) in enumerate(zip(axes, values, strict=True)):
        shown = [setting for setting in settings if plot.panel is None or setting.values.get(plot.panel) == panel]
        _lines(own, table, plot, metric, shown)
        if plot.panel:
            own.set_title(f"{plot.panel} {panel}", fontsize=10, loc="left")
        if place == 0:
            own.set_ylabel(_y_title(table.part, plot, metric))
    legend(figure, axes[0])
    return png(figure)


def _y_title(part: Part, plot: Plot, metric: Metric) -> str:
    if plot.difference and part.baseline is not None and part.baseline in plot.y_title:
        return f"{plot.y_title} [{difference_scale(metric)[1]}]"
    if not plot.difference:
        return plot.y_title if "[" in plot.y_title or not metric.unit else f"{plot.y_title} [{metric.unit}]"
    return f"{plot.y_title},\ndifference to {part.baseline} [{difference_scale(metric)[1]}]"


def _lines(axes: "Axes", table: Table, plot: Plot, metric: Metric, settings: Sequence[Setting]) -> None:
    places = _places([setting.values[plot.x] for setting in settings])
    shift = _shifter(places, len(table.policies), logarithmic=plot.logarithmic)
    for number, policy in enumerate(table.policies):
        found = [table.line(setting.name, policy, metric.name) for setting in settings]
        pairs = [(place, line) for place, line in zip(places, found, strict=True) if line]
        points = [
            (shift(place, number), shown)
            for place, line in pairs
            if (shown := _shown(line, metric, difference=plot.difference))
        ]
        points.sort(key=lambda pair: pair[0])
        if points:
            _line(axes, points, policy, _style(table, number))
    if plot.difference:
        axes.axhline(0, color=BASELINE_COLOR, lw=1)
    _x_axis(axes, plot, [setting.values[plot.x] for setting in settings], places)
    dress(axes)
    low, high = axes.get_ylim()
    if not plot.difference and 0 < low < 0.6 * high:
        axes.set_ylim(bottom=0)


def _shifter(places: Sequence[float], count: int, *, logarithmic: bool) -> Callable[[float, int], float]:
    """Return what moves each policy's points a little aside, so that equal ones do not hide each other."""
    low, high = min(places), max(places)
    if logarithmic and low > 0:
        factor = (high / low) ** _ASIDE
        return lambda place, number: float(place * factor ** (number - (count - 1) / 2))
    step = _ASIDE * (high - low)
    return lambda place, number: place + step * (number - (count - 1) / 2)


def _shown(line: Line, metric: Metric, *, difference: bool) -> Estimate | None:
    """Return what is drawn of a line, in the unit of the axis."""
    if not difference:
        return line.value if line.value.n else None
    if line.difference is None or not line.difference.n:
        return None
    factor = difference_scale(metric)[0]
    seen = line.difference
    return Estimate(seen.n, factor * seen.mean, factor * seen.low, factor * seen.high)


def _line(axes: "Axes", points: Sequence[tuple[float, Estimate]], policy: str, style: dict[str, Any]) -> None:
    means = np.array([shown.mean for _, shown in points])
    reach = np.array(
        [[shown.mean - shown.low, shown.high - shown.mean] if shown.known else [0, 0] for _, shown in points]
    )
    axes.errorbar(
        [place for place, _ in points], means, yerr=np.maximum(reach.T, 0), label=policy,
        lw=1.6, ms=5, capsize=3, elinewidth=1.2, **style,
    )  # fmt: skip


def _style(table: Table, number: int) -> dict[str, Any]:
    policy = table.policies[number]
    if policy == table.part.baseline:
        return {"color": BASELINE_COLOR, "marker": "o", "ls": "-"}
    others = [name for name in table.policies if name != table.part.baseline]
    place = others.index(policy)
    return {
        "color": COLORS[place % len(COLORS)],
        "marker": _MARKERS[(place + 1) % len(_MARKERS)],
        "ls": _DASHES[place % len(_DASHES)],
    }


def _places(values: Sequence[Cell]) -> list[float]:
    """Return where values are on the x axis: themselves if they are numbers, else 0, 1, 2..."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values if isinstance(value, int | float)]
    order = list(dict.fromkeys(values))
    return [float(order.index(value)) for value in values]


def _x_axis(axes: "Axes", plot: Plot, values: Sequence[Cell], places: Sequence[float]) -> None:
    axes.set_xlabel(plot.x_title)
    if any(isinstance(value, str | bool) for value in values):
        words = [str(value) for value in dict.fromkeys(values)]
        axes.set_xticks(range(len(words)), words, rotation=20 if max(map(len, words)) > 8 else 0)  # noqa: PLR2004
        return
    if plot.logarithmic and min(places) > 0:
        axes.set_xscale("log")
    ticks = _apart(sorted(set(places)), logarithmic=plot.logarithmic and min(places) > 0)
    if len(ticks) <= _MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _apart(places: Sequence[float], *, logarithmic: bool) -> list[float]:
    """Leave out ticks that would print over the one before."""
    scaled = np.log(places) if logarithmic else np.asarray(places, dtype=np.float64)
    width = float(scaled[-1] - scaled[0]) or 1.0
    kept = [0]
    for place in range(1, len(places)):
        if scaled[place] - scaled[kept[-1]] >= _CLOSE * width:
            kept.append(place)
    return [places[place] for place in kept]


def _forest(table: Table) -> bytes:
    """Draw the differences to the baseline of the first metrics, one row for each policy under each setting."""
    metrics = [metric for metric in table.part.metrics if _differs(table, metric)][:_MOST_PANELS]
    rows = [
        (setting, number)
        for setting in table.part.settings
        for number, policy in enumerate(table.policies)
        if policy != table.part.baseline and table.line(setting.name, policy, metrics[0].name)
    ]
    figure, axes = panels(len(metrics), height=1.3 + _ROW_HEIGHT * (len(rows) + len(table.part.settings)), shared=False)
    for own, metric in zip(axes, metrics, strict=True):
        _forest_panel(own, table, metric, rows)
    for own in axes[1:]:
        own.tick_params(labelleft=False)
    legend(figure, axes[0])
    return png(figure)


def _differs(table: Table, metric: Metric) -> bool:
    return any(line.metric is metric and line.difference is not None and line.difference.n for line in table.lines)


def _forest_panel(axes: "Axes", table: Table, metric: Metric, rows: Sequence[tuple[Setting, int]]) -> None:
    heights: dict[str, list[float]] = {}
    labelled: set[int] = set()
    height, last = 0.0, ""
    for setting, number in rows:
        height += 2.0 if last and setting.name != last else 1.0
        last = setting.name
        heights.setdefault(setting.name, []).append(height)
        line = table.line(setting.name, table.policies[number], metric.name)
        shown = _shown(line, metric, difference=True) if line else None
        if shown is None:
            continue
        reach = [[shown.mean - shown.low], [shown.high - shown.mean]] if shown.known else [[0], [0]]
        style = {**_style(table, number), "ls": "none"}
        label = "_" if number in labelled else table.policies[number]
        axes.errorbar([shown.mean], [height], xerr=np.maximum(reach, 0), ms=5, capsize=3, label=label, **style)
        labelled.add(number)
    axes.axvline(0, color=BASELINE_COLOR, lw=1)
    axes.set_yticks([float(np.mean(own)) for own in heights.values()], list(heights))
    axes.set_ylim(height + 1, 0)
    axes.set_title(heading(metric), fontsize=10, loc="left")
    better = "right" if metric.better == "higher" else "left"
    axes.set_xlabel(
        f"difference to {table.part.baseline} [{difference_scale(metric)[1] or 'count'}]\n(better is {better})"
    )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    dress(axes)


def panels(count: int, height: float = _PANEL_HEIGHT, *, shared: bool = True) -> tuple[Figure, list["Axes"]]:
    """Return a figure with axes side by side and room for a legend at its right."""
    figure = Figure(figsize=(_PANEL_WIDTH * count + _LEGEND_WIDTH, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False, sharey=shared)[0])


def legend(figure: Figure, axes: "Axes") -> None:
    """Name what is drawn, beside the axes."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper", frameon=False, fontsize=9, title="policy", alignment="left"
    )


def dress(axes: "Axes") -> None:
    """Give axes the look of all pictures of the lab."""
    axes.grid(visible=True, color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def png(figure: Figure) -> bytes:
    """Return the picture as PNG; the same picture gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
