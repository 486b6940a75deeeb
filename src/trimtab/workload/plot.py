"""A replay as a picture: TTFT, time between tokens, goodput and attainment, by service level."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from trimtab.workload.answer import Outcome
from trimtab.workload.level import ServiceLevel, short_duration
from trimtab.workload.record import RequestRecord
from trimtab.workload.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which people with any color vision can tell apart.
_LEVEL_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
_OFFERED_COLOR = "#B9B9B9"
_FATES = (
    ("met", "#2E8B57"),
    ("late", "#F2C14E"),
    ("refused", "#E07A5F"),
    ("failed", "#A4243B"),
    ("unfinished", "#8D8D8D"),
)
_BINS = 60
_SMALL = 9
_LEGEND_ROOM = 0.25
_WIDE = 1e3


def draw_replay(path: Path, records: Sequence[RequestRecord], summary: Summary, title: str) -> None:
    """Write the picture as PNG.

    Args:
        path: the file.
        records: every request that was started; at least one.
        summary: of the same records.
        title: one line above the picture.
    """
    figure = Figure(figsize=(13, 8.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    (ttft, tpot), (goodput, fates) = figure.subplots(2, 2)
    levels = [level.level for level in summary.levels]
    _latency(ttft, records, levels, "ttft")
    _latency(tpot, records, levels, "tpot")
    _goodput(goodput, records, summary)
    for axes in (ttft, tpot):
        axes.set_xlim(goodput.get_xlim())  # the same time is at the same place
    _fates(fates, records, summary)
    figure.savefig(path)


def _latency(axes: "Axes", records: Sequence[RequestRecord], levels: Sequence[ServiceLevel], what: str) -> None:
    names = {"ttft": "Time to first token (TTFT)", "tpot": "Time between tokens, mean of each request (TPOT)"}
    for level, color in zip(levels, _colors(len(levels)), strict=True):
        own = [(r.scheduled_seconds, getattr(r, f"{what}_seconds")) for r in records if r.level == level]
        points = np.array(sorted(pair for pair in own if pair[1] is not None)).reshape(-1, 2)
        axes.scatter(points[:, 0], points[:, 1], s=7, color=color, alpha=0.35, linewidths=0, rasterized=True)
        middle, median, tail = _moving(points)
        axes.plot(middle, median, color=color, lw=2, label=f"{level.name}: median")
        axes.plot(middle, tail, color=color, lw=1.2, ls=(0, (4, 1.5)), label=f"{level.name}: 95th percentile")
        target = getattr(level, f"{what}_seconds")
        if target is not None:
            axes.axhline(target, color=color, lw=1, ls=":")
            axes.annotate(
                f"{level.name} ≤ {short_duration(target)}",
                xy=(1, target),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=color,
                bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1},
            )
    if what == "ttft":
        _mark_without_answer(axes, records)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _place: short_duration(float(f"{seconds:.3g}"))))
    axes.yaxis.set_minor_locator(NullLocator())
    low, high = _sight(axes.get_ylim(), [getattr(record, f"{what}_seconds") for record in records])
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > _WIDE else (1, 2, 5)))
    axes.set_ylim(low, high * (high / low) ** _LEGEND_ROOM)
    axes.set_title(names[what], fontsize=11, loc="left")
    axes.legend(fontsize=8, loc="upper left", framealpha=0.85, ncols=2)
    _dress(axes)


def _sight(limits: tuple[float, float], values: Sequence[float | None]) -> tuple[float, float]:
    """Leave single values far below all others out of sight: they would squeeze the rest together."""
    there = [value for value in values if value]
    low, high = limits
    return (max(low, float(np.percentile(there, 1)) / 3) if there else low), high


def _mark_without_answer(axes: "Axes", records: Sequence[RequestRecord]) -> None:
    lost = [record.scheduled_seconds for record in records if record.ttft_seconds is None]
    if lost:
        axes.plot(
            lost,
            [0.015] * len(lost),
            "x",
            color="#A4243B",
            ms=4,
            alpha=0.6,
            transform=axes.get_xaxis_transform(),
            label=f"no answer ({len(lost)})",
        )


def _moving(points: npt.NDArray[np.float64]) -> tuple[list[float], list[float], list[float]]:
    """Return the middles of stretches with equally many points, their medians and 95th percentiles."""
    stretches = [part for part in np.array_split(points, max(1, min(40, len(points) // 25))) if len(part)]
    return (
        [float(part[:, 0].mean()) for part in stretches],
        [float(np.percentile(part[:, 1], 50)) for part in stretches],
        [float(np.percentile(part[:, 1], 95)) for part in stretches],
    )


def _goodput(axes: "Axes", records: Sequence[RequestRecord], summary: Summary) -> None:
    end = max(summary.offered_seconds, 1e-9, *(record.scheduled_seconds for record in records))
    edges = np.linspace(0, end, min(_BINS, max(4, len(records) // 15)) + 1)
    width = edges[1] - edges[0]
    offered = np.histogram([record.scheduled_seconds for record in records], edges)[0] / width
    axes.stairs(offered, edges, fill=True, color=_OFFERED_COLOR, alpha=0.55, label="offered")
    floor = np.zeros(len(edges) - 1)
    for level, color in zip(summary.levels, _colors(len(summary.levels)), strict=True):
        met = [record.scheduled_seconds for record in records if record.met and record.level == level.level]
        top = floor + np.histogram(met, edges)[0] / width
        label = f"{level.level.name}: within its level"
        axes.stairs(top, edges, baseline=floor, fill=True, color=color, alpha=0.8, label=label)
        floor = top
    axes.set_ylabel("requests per second, by scheduled time")
    total = summary.total
    rates = f"{total.goodput:.2f} of {total.offered / end:.2f} requests/s"
    axes.set_title(f"Goodput: {rates}", fontsize=11, loc="left")
    axes.set_ylim(0, max(offered.max() * 1.25, 1e-9))
    axes.set_xlim(0, end)
    axes.legend(fontsize=8, loc="upper right", framealpha=0.85, ncols=len(summary.levels) + 1)
    _dress(axes)


def _fates(axes: "Axes", records: Sequence[RequestRecord], summary: Summary) -> None:
    levels = summary.levels
    floor = np.zeros(len(levels))
    for fate, color in _FATES:
        if not any(fate_of(record) == fate for record in records):
            continue
        counts = [sum(fate_of(record) == fate for record in records if record.level == level.level) for level in levels]
        shares = np.array([100 * count / max(1, level.offered) for count, level in zip(counts, levels, strict=True)])
        axes.barh(range(len(levels)), shares, left=floor, height=0.5, color=color, label=fate)
        for place, share in enumerate(shares):
            if share >= 4:  # noqa: PLR2004 - narrower than its own number
                axes.text(floor[place] + share / 2, place, f"{share:.1f} %", ha="center", va="center", fontsize=_SMALL)
        floor += shares
    axes.set_yticks(range(len(levels)), [f"{level.level.name}\n{level.offered} requests" for level in levels])
    for place, level in enumerate(levels):
        axes.text(0.5, place - 0.28, level.level.described, fontsize=8, color="#444444", va="bottom")
    axes.set_ylim(len(levels) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent of the requests offered")
    axes.set_title("Attainment by service level", fontsize=11, loc="left")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=len(_FATES), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def fate_of(record: RequestRecord) -> str:
    """Return what became of a request in one word: met, late, refused, failed or unfinished."""
    if record.met:
        return "met"
    return {
        Outcome.OK: "late",
        Outcome.TIMEOUT: "late",
        Outcome.REJECTED: "refused",
        Outcome.UNFINISHED: "unfinished",
    }.get(record.outcome, "failed")


def _colors(count: int) -> list[str]:
    return [_LEVEL_COLORS[place % len(_LEVEL_COLORS)] for place in range(count)]


def _dress(axes: "Axes") -> None:
    axes.set_xlabel("seconds since the start")
    axes.grid(visible=True, color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
