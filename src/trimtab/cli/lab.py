"""`trimtab lab`: experiments on the calibrated simulator."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import joblib
from rich import box
from rich.console import Console
from rich.table import Table

from trimtab.cli.lazy import load
from trimtab.cli.terminal import TerminalProgress
from trimtab.model.problem import Problem
from trimtab.sim.experiment import Experiment, Part
from trimtab.sim.experiments import experiments, find
from trimtab.sim.lab import Order, Result, run
from trimtab.sim.report.files import to_json
from trimtab.sim.report.folder import PAGE, RowKeeper, result_values, write_report
from trimtab.sim.report.terminal import part_view
from trimtab.workload.catalog import DATA_VARIABLE

INTERRUPTED = 130
CONNECT_SECONDS = 10

ATTACHED: Final[dict[str, tuple[str, str]]] = {
    "calibrate": ("trimtab.cli.calibrate:calibrate", "Hold the simulator against measured engines"),
}
"""Commands that live in modules of their own: name -> (module:attribute, the line shown by `--help`)."""


class LabGroup(click.Group):
    """A group some of whose commands are imported only when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted([*super().list_commands(ctx), *ATTACHED])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module where it has one of its own."""
        if cmd_name not in ATTACHED:
            return super().get_command(ctx, cmd_name)
        return load(ATTACHED[cmd_name][0], f"lab {cmd_name}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing those attached."""
        del ctx
        own = [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted([*own, *((name, line) for name, (_, line) in ATTACHED.items())]))


@click.group(cls=LabGroup)
def lab() -> None:
    """Ask the calibrated simulator what a policy would have done, and how sure that is."""


@lab.command("list")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_experiments(output_format: str) -> None:
    """List the experiments and their parts."""
    known = list(experiments().values())
    if output_format == "json":
        click.echo(to_json({"experiments": [_listed(experiment) for experiment in known]}), nl=False)
        return
    console = Console(highlight=False)
    for experiment in known:
        rough = _minutes_of(experiment)
        console.print(f"[bold]{experiment.name}[/]  {experiment.title}  [dim]({rough} on one core)[/]")
        console.print(_parts_table(experiment))
    click.echo("Run one with `trimtab lab run NAME`, a part of it with `--part PART`.")


def _parts_table(experiment: Experiment) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("title")
    table.add_column("needs data", overflow="fold")
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for part in experiment.parts():
        seeds = str(part.seeds or experiment.seeds)
        table.add_row(part.name, part.title, ", ".join(part.needs), seeds, _minutes(_seconds(experiment, part)))
    return table


def _listed(experiment: Experiment) -> dict[str, Any]:
    parts = [
        {
            "name": part.name,
            "title": part.title,
            "needs": part.needs,
            "seeds": part.seeds or experiment.seeds,
            "settings": len(part.settings),
            "rough_seconds": _seconds(experiment, part),
        }
        for part in experiment.parts()
    ]
    return {"name": experiment.name, "title": experiment.title, "parts": parts}


def _seconds(experiment: Experiment, part: Part) -> float | None:
    if part.seconds_per_run is None:
        return None
    return part.seconds_per_run * len(part.settings) * (part.seeds or experiment.seeds)


def _minutes_of(experiment: Experiment) -> str:
    seconds = [_seconds(experiment, part) for part in experiment.parts()]
    return _minutes(None if None in seconds else sum(filter(None, seconds)))


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 1:
        return "< 1 s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"  # noqa: PLR2004


@lab.command("run")
@click.argument("name")
@click.option("--seeds", type=click.IntRange(1), help="How many seeds, from 0. [default: each part's own]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for CSV, PNG, HTML and JSON. [default: lab/NAME]")
@click.option("--data", type=click.Path(path_type=Path), envvar=DATA_VARIABLE, show_envvar=True,
              help="Folder of data sets.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Processes at once. [default: as many as there are cores]")
@click.option(
    "--dask", metavar="ADDRESS", help="Run on the Dask cluster with this scheduler, e.g. tcp://10.0.0.7:8786."
)
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--part", "parts", multiple=True, help="Run this part only; repeat it.")
@click.option("--quick", is_flag=True, help="A first look with few seeds.")
def run_experiment(
    *,
    name: str,
    out: Path | None,
    workers: int | None,
    dask: str | None,
    output_format: str,
    parts: tuple[str, ...],
    **options: Any,
) -> int:
    """Run the experiment NAME and write its report.

    The same seeds give the same numbers with any number of workers. Ctrl-C ends the run; what has finished is kept.
    """
    order = Order(find(name), parts, **options)
    check_data(order.data)
    order.chosen()  # an unknown part is refused before anything is written
    folder = make_folder(out or Path("lab", name))
    with TerminalProgress() as progress, backend(workers, dask):
        result = run(order, RowKeeper(folder), progress)
        write_report(result, folder)
    _show(result, folder, as_json=output_format == "json")
    return INTERRUPTED if result.interrupted else 0


def check_data(data: Path | None) -> None:
    """Raise a Problem where a folder of data sets is named that is not there."""
    if data is not None and not data.is_dir():
        raise Problem(f"the data folder {data} does not exist", fix="correct --data, or leave it out")


def make_folder(path: Path) -> Path:
    """Return a folder that is there; a Problem where a file is in its place."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise Problem(f"--out {path} is a file", fix="name a folder") from error
    return path


@contextmanager
def backend(workers: int | None, dask: str | None) -> Iterator[None]:
    """Let sweeps run in processes of this machine, or on a Dask cluster."""
    if dask is None:
        with joblib.parallel_config(backend="loky", n_jobs=workers or os.cpu_count() or 1):
            yield
        return
    with _client(dask), joblib.parallel_config(backend="dask", n_jobs=workers or -1):
        yield


def _client(address: str) -> Any:
    try:
        from distributed import Client  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        fix = "pip install 'dask[distributed]', here and where the workers are"
        raise Problem("--dask needs the Python package distributed", fix=fix) from error
    try:
        return Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        fix = "start one with `dask scheduler`, or correct the address"
        raise Problem(f"no Dask scheduler answers at {address}", fix=fix) from error


def _show(result: Result, folder: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json(result_values(result)), nl=False)
        return
    console = Console(highlight=False)
    for part in result.parts:
        if part.table:
            console.print(part_view(part.table, console.width), "")
        else:
            console.print(f"[yellow]not run:[/] {part.part.name}: {part.skipped}\n")
    if result.interrupted:
        console.print("[yellow]interrupted:[/] what had finished is kept")
    console.print(f"report: {folder / PAGE}", soft_wrap=True)
