"""The calibration report's figures: quantiles measured and predicted, their error, and whether that is good enough.

A run is judged by the error of its median (at most 10 %) and of its 90th percentile (at most 20 %); each of its stages
by that of its median (at most 20 %). Errors are |predicted - measured| / measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from trimtab.sim.calibration.source import METRICS, Compared, Findings, Run, Source

ALL: Final = "all"
"""The stage of figures over a whole run."""
BARS: Final[Mapping[tuple[bool, float], float]] = {(True, 0.5): 0.1, (True, 0.9): 0.2, (False, 0.5): 0.2}
"""Largest good error, by (over the whole run, quantile)."""
TITLES: Final = {"ttft": "time to first token", "time_between_tokens": "time between tokens", "e2e": "end to end"}
QUANTILES: Final = (0.5, 0.9)
_FEWEST: Final = 3  # requests of a stage that a median is taken of


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantile of one metric over one stage of a run, or over all of it.

    Attributes:
        n: Requests that it is taken over.
        metric: One of `METRICS`; None in the one figure of a run of which nothing could be predicted.
        measured: Seconds.
        predicted: Seconds.
        error: Relative, never negative.
        judged: Whether there is a bar for it.
        reason: Why not.
    """

    id: str
    stage: str
    n: int
    metric: str | None
    quantile: float | None
    measured: float | None
    predicted: float | None
    error: float | None
    judged: bool
    reason: str

    @property
    def bar(self) -> float | None:
        """The largest good error; None where there is none."""
        return BARS.get((self.stage == ALL, self.quantile or 0.0)) if self.judged else None

    @property
    def within(self) -> bool:
        """Whether it meets its bar."""
        return self.bar is not None and self.error is not None and self.error <= self.bar

    @property
    def deviation(self) -> float:
        """The error with its sign: positive where the prediction is too large."""
        return (self.predicted or 0.0) / (self.measured or 1.0) - 1


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the sources found.

    Attributes:
        figures: By run, stage, metric and quantile.
    """

    runs: tuple[Run, ...]
    figures: tuple[Figure, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    findings: tuple[Findings, ...]

    def of(self, run: Run) -> list[Figure]:
        """The figures of one run."""
        return [figure for figure in self.figures if figure.id == run.id]


def calibrate(sources: Iterable[Source], data: Path, *, fit: bool) -> Report:
    """Ask every source and work out the figures.

    Args:
        sources: What is looked for in the folder.
        data: The folder of data sets.
        fit: Whether the sources fit to it first.
    """
    findings = tuple(source.replay(data, fit=fit) for source in sources)
    runs = tuple(run for found in findings for run in found.runs)
    return Report(
        runs=runs,
        figures=tuple(figure for run in runs for figure in figures_of(run)),
        problems=tuple(problem for found in findings for problem in found.problems),
        notes=tuple(note for found in findings for note in found.notes),
        findings=findings,
    )


def figures_of(run: Run) -> list[Figure]:
    """Every quantile of every metric, over the run and over each of its stages."""
    if not run.requests:
        return [Figure(run.id, ALL, 0, None, None, None, None, None, judged=False, reason=run.reason)]
    stages: dict[str, list[Compared]] = {ALL: list(run.requests)}
    for request in run.requests:
        stages.setdefault(request.stage, []).append(request)
    return [
        figure
        for stage, requests in stages.items()
        for metric in METRICS
        for figure in _quantiles(run, stage, metric, requests)
    ]


def _quantiles(run: Run, stage: str, metric: str, requests: Sequence[Compared]) -> list[Figure]:
    value = METRICS[metric]
    pairs = [(value(request.measured), value(request.predicted)) for request in requests]
    both = [(measured, predicted) for measured, predicted in pairs if measured is not None and predicted is not None]
    if not both:
        return []
    figures = []
    for quantile in QUANTILES:
        measured, predicted = (float(x) for x in np.quantile(np.array(both), quantile, axis=0))
        reason = _why_not(run, stage, quantile, len(both))
        error = abs(predicted - measured) / measured
        shape = (run.id, stage, len(both), metric, quantile, measured, predicted, error)
        figures.append(Figure(*shape, judged=not reason, reason=reason))
    return figures


def _why_not(run: Run, stage: str, quantile: float, n: int) -> str:
    """Why a figure is not judged; empty if it is."""
    if not run.judged:
        return run.reason or "The run is not judged."
    if (stage == ALL, quantile) not in BARS:
        return "There is no bar for this quantile of a stage."
    return f"Only {n} requests." if n < _FEWEST else ""


# For people.


def stage_rows(report: Report, run: Run) -> list[tuple[str, int, list[Figure | None]]]:
    """Return a run's table: its stages, their requests, and the figure of each metric and quantile."""
    figures = {(f.stage, f.metric, f.quantile): f for f in report.of(run)}
    stages = dict.fromkeys(f.stage for f in report.of(run))
    columns = [(metric, quantile) for metric in METRICS for quantile in QUANTILES]
    counts = {f.stage: f.n for f in reversed(report.of(run))}
    named = [(stage, counts[stage], [figures.get((stage, *column)) for column in columns]) for stage in stages]
    return [("whole run" if stage == ALL else stage, n, cells) for stage, n, cells in named]


def error_text(figure: Figure | None) -> str:
    """Return a figure's signed error, e.g. "+3.1 %"."""
    if figure is None or figure.error is None:
        return ""
    percent = round(100 * figure.deviation, 1) + 0.0  # which has no negative zero
    return f"{percent:+.1f} %".replace("-", "−")  # noqa: RUF001


# As JSON.


def to_values(report: Report) -> dict[str, Any]:
    """The report as plain values: `runs`, one object per figure, and `summary`."""
    return {"runs": [asdict(figure) for figure in report.figures], "summary": summary(report)}


def summary(report: Report) -> dict[str, Any]:
    """What to remember of it."""
    judged = [figure for figure in report.figures if figure.judged]
    missed = [figure for figure in judged if not figure.within]
    return {
        "runs": len(report.runs),
        "judged_runs": sum(run.judged for run in report.runs),
        "within_bars": sum(run.judged and run.id not in {f.id for f in missed} for run in report.runs),
        "bars": {"run": {"0.5": BARS[True, 0.5], "0.9": BARS[True, 0.9]}, "stage": {"0.5": BARS[False, 0.5]}},
        "figures": {"judged": len(judged), "within": len(judged) - len(missed)},
        "worst": {metric: _worst(judged, metric) for metric in METRICS},
        "missed": [{**asdict(figure), "bar": figure.bar} for figure in missed],
        "not_judged": [{"id": run.id, "reason": run.reason} for run in report.runs if not run.judged],
        "profiles": {run.id: {"profile": run.profile, "extrapolated": run.extrapolated} for run in report.runs},
        "problems": list(report.problems),
        "notes": list(report.notes),
    }


def _worst(judged: Sequence[Figure], metric: str) -> dict[str, float | None]:
    """The largest errors of a metric, by what was judged."""
    kinds = {"run_median": (True, 0.5), "run_p90": (True, 0.9), "stage_median": (False, 0.5)}
    found: dict[str, float | None] = {}
    for name, kind in kinds.items():
        mine = [f.error for f in judged if f.metric == metric and (f.stage == ALL, f.quantile) == kind]
        found[name] = max((error for error in mine if error is not None), default=None)
    return found
