"""`trimtab whatif`: what a pool would do under a recorded load, before anybody touches it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from trimtab.cli.lab import backend, check_data, make_folder
from trimtab.cli.terminal import TerminalProgress
from trimtab.model.problem import Problem
from trimtab.sim.report.files import to_json
from trimtab.sim.whatif.answer import answer, answer_values
from trimtab.sim.whatif.case import Case, case_of, read_pool
from trimtab.sim.whatif.study import Question, study
from trimtab.sim.whatif.view import PAGE, answer_view, write_answer
from trimtab.workload.catalog import DATA_VARIABLE


@click.command(
    epilog="Policies: FCFS (by arrival), SSJF (by predicted length, with aging), EDF (by deadline), QLM (planned "
    "groups; slow to simulate). Exit code 0 whatever the answer is."
)
@click.option("-f", "--filename", "manifest", type=click.Path(path_type=Path), required=True,
              help="Manifest with the ServingPool.")  # fmt: skip
@click.option("--pool", "pool_name", help="Which ServingPool of the manifest, if it holds several.")
@click.option(
    "--trace",
    default="azure-conv",
    show_default=True,
    help="Recorded load: a name (`trimtab replay --list`) or a file.",
)
@click.option(
    "--load", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Times the recorded rate."
)
@click.option(
    "--compare", help="Policies, with commas between. [default: the pool's own, FCFS, SSJF; EDF with several levels]"
)
@click.option("--replicas", type=click.IntRange(1), help="Instead of the pool's own number.")
@click.option(
    "--share",
    "shares",
    multiple=True,
    metavar="LEVEL=SHARE",
    help="Part of the requests that ask for a service level; repeat it. [default: all ask for the default level]",
)
@click.option("--model", help="Which of the pool's models, if it serves several.")
@click.option(
    "--profile", help="Profile of the engine: a name or a file. [default: by model, accelerator and parallelism]"
)
@click.option("--gpu-hour-price", type=click.FloatRange(0), help="Price of one GPU for an hour, in any currency.")
@click.option(
    "--seeds",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Draws of requests, lengths and engine speed.",
)
@click.option(
    "--duration",
    type=click.FloatRange(10),
    help="Seconds that requests arrive in each run. [default: about 1,500 requests]",
)
@click.option(
    "--data", type=click.Path(path_type=Path), envvar=DATA_VARIABLE, show_envvar=True, help="Folder of data sets."
)
@click.option("--workers", type=click.IntRange(1), help="Processes at once. [default: as many as there are cores]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the report. [default: whatif/POOL]")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def whatif(
    *,
    manifest: Path,
    pool_name: str | None,
    compare: str | None,
    shares: tuple[str, ...],
    gpu_hour_price: float | None,
    workers: int | None,
    out: Path | None,
    output_format: str,
    **options: Any,
) -> None:
    """Answer how many replicas a pool needs under a recorded load, in which order, and how sure that is.

    Simulates the pool with the gateway's own queue and a calibrated engine, many times: each draw has other requests of
    the recording, other lengths, and an engine that is as much faster or slower as the calibration may be wrong.
    """
    check_data(options["data"])
    case = case_of(
        read_pool(manifest, pool_name), profile=options["profile"], model=options["model"], shares=_shares(shares),
        replicas=options["replicas"],
    )  # fmt: skip
    question = Question(
        case,
        options["trace"],
        options["data"],
        options["load"],
        _policies(compare, case),
        options["seeds"],
        options["duration"],
    )
    folder = make_folder(out or Path("whatif", case.name))
    with TerminalProgress() as progress, backend(workers, None):
        found = answer(study(question, progress), gpu_hour_price)
    write_answer(found, folder, _command())
    if output_format == "json":
        click.echo(to_json(answer_values(found)), nl=False)
        return
    console = Console(highlight=False)
    console.print(answer_view(found))
    console.print(f"report: {folder / PAGE}", soft_wrap=True)


def _shares(given: Sequence[str]) -> Mapping[str, float]:
    shares = {}
    for text in given:
        name, equals, number = text.partition("=")
        try:
            shares[name] = float(number)
        except ValueError:
            shares[name] = -1.0
        if not equals or not 0 <= shares[name] < float("inf"):
            raise Problem(f"--share {text!r} is not LEVEL=SHARE", fix="write e.g. --share interactive=0.8")
    if shares and not sum(shares.values()):
        raise Problem("all shares are 0", fix="give some level a share above 0")
    return shares


def _policies(compare: str | None, case: Case) -> tuple[str, ...]:
    """Return what is compared: the pool's own order first, unless others are named."""
    if compare is not None:
        return tuple(dict.fromkeys(name.strip().upper() for name in compare.split(",") if name.strip()))
    several = ("EDF",) if len(case.levels) > 1 else ()
    return tuple(dict.fromkeys((case.policy, "FCFS", "SSJF", *several)))


def _command() -> str:
    """Return the command line as it was typed, for whoever wants to run it again."""
    context = click.get_current_context()
    words = ["trimtab", "whatif"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        typed = context.get_parameter_source(parameter.name or "") in _TYPED
        if typed and parameter.name not in {"out", "workers", "output_format"}:
            option = parameter.opts[0]
            values = value if isinstance(value, tuple) else (value,)
            words += [word for one in values for word in (option, "DIR" if parameter.name == "data" else str(one))]
    return shlex.join(words)


_TYPED = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
