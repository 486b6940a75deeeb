"""The calibration report on a terminal."""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.sim.calibration.report import ALL, TITLES, Figure, Report, error_text, stage_rows, summary
from trimtab.sim.calibration.source import Run

_HEADINGS: Final = ("first", "p90", "between", "p90", "end", "p90")
_MISSED: Final = "!"


def show(report: Report, console: Console) -> None:
    """Print every run: those of several load stages each by stage, all others in one table for each profile."""
    console.print(
        "Errors in %: of the median and the 90th percentile (p90) of the time to the first token, between tokens, and"
        f" to the end. What misses its bar is marked {_MISSED}"
    )
    for table in _tables(report):
        console.print(table)
    for line in _not_judged(report):
        console.print(Text(line, style="dim"))
    for line in (*report.problems, *report.notes):
        console.print(Text(line, style="dim"))
    said = summary(report)
    console.print(
        f"{said['within_bars']} of {said['judged_runs']} judged runs meet every bar:"
        " median 10 %, p90 20 %, median of each stage 20 %."
    )
    for figure in (figure for figure in report.figures if figure.judged and not figure.within):
        console.print(Text(_missed(figure), style="yellow"))


def _tables(report: Report) -> list[Table]:
    tables = []
    plain: dict[str, list[Run]] = {}
    for run in (run for run in report.runs if run.requests):
        if len({request.stage for request in run.requests}) > 1:
            tables.append(_stages(report, run))
        else:
            plain.setdefault(_predicted_by(run), []).append(run)
    return [*tables, *(_runs(report, title, runs) for title, runs in plain.items())]


def _predicted_by(run: Run) -> str:
    return f"{run.profile}{' (extrapolated)' if run.extrapolated else ''}"


def _stages(report: Report, run: Run) -> Table:
    table = _table(f"{run.id}: {_predicted_by(run)}", "stage")
    for stage, n, cells in stage_rows(report, run):
        table.add_row(stage, str(n), *map(_cell, cells))
    return table


def _runs(report: Report, title: str, runs: Sequence[Run]) -> Table:
    table = _table(title, "run")
    for run in runs:
        (_, n, cells), *_ = stage_rows(report, run)
        table.add_row(run.id, str(n), *map(_cell, cells))
    return table


def _table(title: str, first: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column(first, no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cell(figure: Figure | None) -> Text:
    text = error_text(figure).removesuffix(" %")
    if figure is None or not figure.judged:
        return Text(text, style="dim")
    return Text(text, style="green") if figure.within else Text(text + _MISSED, style="yellow")


def _not_judged(report: Report) -> list[str]:
    """Say which runs are not judged, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for run in report.runs:
        if not run.judged:
            reasons.setdefault(run.reason, []).append(run.id)
    return [f"Not judged: {', '.join(runs)}. {reason}" for reason, runs in reasons.items()]


def _missed(figure: Figure) -> str:
    stage = "" if figure.stage == ALL else f"{figure.stage}, "
    quantile = {0.5: "median", 0.9: "p90"}[figure.quantile or 0.5]
    return (
        f"Missed: {figure.id}, {stage}{quantile} of the {TITLES[figure.metric or '']}: {error_text(figure)} where"
        f" {100 * (figure.bar or 0):g} % is allowed (measured {figure.measured:.3g} s, predicted"
        f" {figure.predicted:.3g} s)"
    )
