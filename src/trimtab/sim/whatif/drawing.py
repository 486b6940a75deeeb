"""The two pictures of an answer: attainment over load with its knee, and over the number of replicas."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from trimtab.sim.findings import Table
from trimtab.sim.report.drawing import BASELINE_COLOR, COLORS, Picture, dress, legend, panels, png
from trimtab.sim.report.numerals import short
from trimtab.sim.statistics import range_of_draws
from trimtab.sim.whatif.answer import Answer
from trimtab.sim.whatif.case import Level
from trimtab.sim.whatif.study import settings_of, values_by_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D")
_DASHES = ("-", "--", "-.", ":")
_MOST_TICKS = 10


def draw_answer(found: Answer) -> list[Picture]:
    """Draw both pictures; one panel for each service level."""
    study, levels = found.study, found.study.question.case.levels
    own = study.question.case.replicas
    loads = _picture(study.loads, levels, "requests_per_second", "load [requests/s]", lambda axes: _mark(axes, found))
    replicas = _picture(study.replicas, levels, "replicas", "replicas", lambda axes: _whole(axes, study.replicas))
    return [
        Picture(
            "load",
            loads,
            f"Attainment over load with {own} replica{'s' if own > 1 else ''}: the line is the mean over draws, the "
            "band is the 95 % range of draws. Each draw has its knee where it falls below the "
            "objective (red), or at the last load if it never does; vertical: the load that was asked about.",
        ),
        Picture(
            "replicas",
            replicas,
            "Attainment over the number of replicas at the load that was asked about: mean over draws, bars are "
            "the 95 % range of draws. Enough is where even the bars stay above the objective (red).",
        ),
    ]


def _picture(
    table: Table, levels: Sequence[Level], column: str, x_title: str, finish: Callable[["Axes"], None]
) -> bytes:
    figure, axes = panels(len(levels), shared=False)
    for own, level in zip(axes, levels, strict=True):
        for number, policy in enumerate(table.policies):
            _line(own, table, number, policy, level, column)
        own.axhline(level.objective, color="#B00020", lw=1.2, ls=(0, (4, 2)), label="objective")
        finish(own)
        own.set_title(f"{level.name}: {level.described}", fontsize=9, loc="left")
        own.set_xlabel(x_title)
        own.set_ylabel("attainment [% of requests]")
        own.set_ylim(-3, 103)
        dress(own)
    legend(figure, axes[0])
    return png(figure)


def _line(axes: "Axes", table: Table, number: int, policy: str, level: Level, column: str) -> None:
    by_place = values_by_seed(table, policy, f"attainment {level.name}")
    places = [value for value, _ in settings_of(table, column)]
    points = [(place, draws) for place, draws in zip(places, map(_draws, by_place.values()), strict=True) if draws.size]
    x = np.array([place for place, _ in points])
    mean = np.array([np.mean(draws) for _, draws in points])
    low, high = np.array([range_of_draws(draws) for _, draws in points]).T
    color = BASELINE_COLOR if number == 0 else COLORS[(number - 1) % len(COLORS)]
    style: dict[str, Any] = {"color": color, "marker": _MARKERS[number % len(_MARKERS)], "ms": 4.5}
    dashes = _DASHES[number % len(_DASHES)]
    if column == "replicas":
        aside = x + 0.06 * (number - (len(table.policies) - 1) / 2)
        axes.errorbar(aside, mean, yerr=[mean - low, high - mean], capsize=3, ls=dashes, lw=1.4, label=policy, **style)
        return
    axes.plot(x, mean, ls=dashes, lw=1.7, label=policy, **style)
    axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)


def _draws(values: Mapping[int, float]) -> NDArray[np.float64]:
    return np.array([value for value in values.values() if isfinite(value)])


def _mark(axes: "Axes", found: Answer) -> None:
    rate = found.study.rate
    axes.set_xlim(left=0)
    low, high = axes.get_xlim()
    if rate <= high * 1.5:
        axes.axvline(rate, color="#666666", lw=1, ls=":", label="load asked about")
        axes.set_xlim(low, max(high, rate * 1.05))


def _whole(axes: "Axes", table: Table) -> None:
    counts = sorted({value for value, _ in settings_of(table, "replicas")})
    if len(counts) <= _MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlim(min(counts) - 0.5, max(counts) + 0.5)
