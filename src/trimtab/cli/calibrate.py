"""`trimtab lab calibrate`: how far the simulator is from measured engines."""

import os
from pathlib import Path

import click
from rich.console import Console

from trimtab.cli.calibrate_view import show
from trimtab.model.problem import Problem
from trimtab.sim.calibration.report import calibrate as run_calibration
from trimtab.sim.calibration.report import to_values
from trimtab.sim.calibration.shipped import SHIPPED
from trimtab.sim.calibration.sources import sources
from trimtab.sim.report.files import to_json
from trimtab.workload.catalog import DATA_VARIABLE


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of data sets. Default: TRIMTAB_DATA, or the runs that ship."
)
@click.option("--fit", is_flag=True, help="Fit to the data first, each run also without itself; --out keeps the fits.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the page, the pictures, JSON and CSV.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def calibrate(data: Path | None, fit: bool, out: Path | None, output_format: str) -> None:
    """Replay measured runs of real engines, and compare.

    Every run that is found under --data is replayed through the simulator: its requests at their recorded times, or
    when their client was ready for them. What the simulator says is held against what was measured, by run and by load
    stage. A run that misses its bar, or cannot be judged, is reported; the exit status is 0.

    \b
    trimtab lab calibrate                           the runs that ship
    trimtab lab calibrate --data DIR --out report   other runs of the same format, with a page and pictures
    trimtab lab calibrate --data DIR --fit --out F  make the shipped speeds and profiles again
    """  # noqa: D301 - click looks for the control character, not for a backslash and a letter
    folder = _folder(data)
    if fit:
        click.echo(f"Fitting to {folder}, and for each run to all others: minutes, for sweeps many.", err=True)
    report = run_calibration(sources(), folder, fit=fit)
    if out is not None:
        from trimtab.sim.calibration.page import write_report  # noqa: PLC0415 - drawing takes long to import

        write_report(report, out)
    if output_format == "json":
        click.echo(to_json(to_values(report)), nl=False)
        return
    show(report, Console(highlight=False))
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
