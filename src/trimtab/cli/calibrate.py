"""`trimtab lab calibrate`: how far the simulator is from measured engines."""

import os
from pathlib import Path
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.model.problem import Problem
from trimtab.sim.calibration.report import Figure, Report, error_text, stage_rows, summary, to_values
from trimtab.sim.calibration.report import calibrate as run_calibration
from trimtab.sim.calibration.shipped import SHIPPED
from trimtab.sim.calibration.source import Run
from trimtab.sim.calibration.sources import sources
from trimtab.sim.report.files import to_json
from trimtab.workload.catalog import DATA_VARIABLE

_HEADINGS: Final = ("first", "p90", "between", "p90", "end", "p90")


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of data sets. Default: TRIMTAB_DATA, or the runs that ship."
)
@click.option("--fit", is_flag=True, help="Fit to the data first, each run also without itself; --out keeps the fits.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the page, the pictures, JSON and CSV.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def calibrate(data: Path | None, fit: bool, out: Path | None, output_format: str) -> None:
    r"""Replay measured runs of real engines, and compare.

    Every run that is found under --data is replayed through the simulator: its requests at their recorded times, or
    when their client was ready for them. What the simulator says is held against what was measured, by run and by load
    stage. A run that misses its bar, or cannot be judged, is reported; the exit status is 0.

    \b
    trimtab lab calibrate                           the runs that ship
    trimtab lab calibrate --data DIR --out report   other runs of the same format, with a page and pictures
    trimtab lab calibrate --data DIR --fit --out F  make the shipped speeds and profiles again
    """
    folder = _folder(data)
    if fit:
        click.echo(f"Fitting to {folder}, and for each run to all others: a minute or more.", err=True)
    report = run_calibration(sources(), folder, fit=fit)
    if out is not None:
        from trimtab.sim.calibration.page import write_report  # noqa: PLC0415 - drawing takes long to import

        write_report(report, out)
    if output_format == "json":
        click.echo(to_json(to_values(report)), nl=False)
        return
    _show(report, Console(highlight=False))
    if out is not None:
        click.echo(f"Wrote {out}: open index.html.")


def _folder(data: Path | None) -> Path:
    named = os.environ.get(DATA_VARIABLE)
    folder = data or (Path(named) if named else SHIPPED)
    if not folder.is_dir():
        raise Problem(
            f"the folder {folder} is not there", fix="name a folder of data sets with --data, or leave it out"
        )
    return folder


def _show(report: Report, console: Console) -> None:
    console.print(
        "Errors of predicted medians and 90th percentiles, in %: time to the first token, between tokens, to the end."
    )
    for run in report.runs:
        if run.requests:
            console.print(_run_table(report, run))
    for run in report.runs:
        if not run.judged:
            console.print(Text(f"Not judged: {run.id}. {run.reason}", style="dim"))
    for line in (*report.problems, *report.notes):
        console.print(Text(line, style="dim"))
    said = summary(report)
    console.print(
        f"{said['within_bars']} of {said['judged_runs']} judged runs meet every bar:"
        " median 10 %, p90 20 %, median of each stage 20 %."
    )
    for figure in (figure for figure in report.figures if figure.judged and not figure.within):
        console.print(Text(f"Missed: {_missed(figure)}", style="yellow"))


def _run_table(report: Report, run: Run) -> Table:
    mark = " (extrapolated)" if run.extrapolated else ""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{run.id}: {run.profile}{mark}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("stage", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for stage, n, cells in stage_rows(report, run):
        table.add_row(stage, str(n), *(Text(error_text(cell).removesuffix(" %"), style=_style(cell)) for cell in cells))
    return table


def _style(figure: Figure | None) -> str:
    if figure is None or not figure.judged:
        return "dim"
    return "green" if figure.within else "yellow"


def _missed(figure: Figure) -> str:
    return (
        f"{figure.id}, {figure.stage}, {figure.metric} p{100 * (figure.quantile or 0):.0f}:"
        f" measured {figure.measured:.4g} s, predicted {figure.predicted:.4g} s"
    )
