"""`trimtab predictor`: train and judge predictors of the lengths of answers."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

from trimtab.decide.queueing.length_boosted import GROUPS
from trimtab.learn.length_judge import Judgement, judge_all
from trimtab.learn.lengths import Source, train
from trimtab.learn.shipped import read_weights, write_weights
from trimtab.model.problem import Problem
from trimtab.workload.catalog import DATA_VARIABLE, Catalog, find_traces
from trimtab.workload.fault import TraceError
from trimtab.workload.length_log import OPTIONAL, REQUIRED, Pace, examples_of, read_log
from trimtab.workload.length_sources import is_drawn, recorded
from trimtab.workload.origin import origin_of

F = TypeVar("F", bound=Callable[..., Any])

_COLUMNS = ", ".join(REQUIRED)
_MORE_COLUMNS = ", ".join(OPTIONAL)


def _inputs(command: F) -> F:
    """Add the options that say which requests are looked at."""
    decorators = (
        click.option("--trace", "traces", multiple=True, help="Name of a trace or a file; repeat it."),
        click.option("--log", "logs", multiple=True, type=click.Path(path_type=Path), help="An own log; repeat it."),
        click.option(
            "--data", type=click.Path(path_type=Path), help=f"Folder with more traces. [default: ${DATA_VARIABLE}]"
        ),
        click.option("--encoder", help="Encoder of prompts: a folder, or a name that sentence-transformers knows."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of traces that are drawn."),
        click.option(
            "--seconds-per-token",
            type=click.FloatRange(0.0, 10.0),
            default=Pace().seconds_per_token,
            show_default=True,
            help="How fast answers are generated, where the data does not say when they ended.",
        ),
        click.option(
            "--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


@click.group()
def predictor() -> None:
    """Train and judge predictors of how long an answer will be.

    A predictor sees what is known when a request arrives and what had ended by then, never more.
    """


@predictor.command(
    "train",
    epilog=f"A log is JSON lines or CSV with the columns {_COLUMNS}, and where known {_MORE_COLUMNS}. Prompts are "
    "turned into numbers and forgotten; neither the weights nor any message holds text.",
)
@_inputs
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Where the weights go.")
@click.option(
    "--features",
    default="history",
    show_default=True,
    help=f"Groups of features, separated by commas: {', '.join(GROUPS)}.",
)
@click.option("--name", default="lengths", show_default=True, help="What predictions with these weights are marked by.")
def train_command(
    *,
    traces: Sequence[str],
    logs: Sequence[Path],
    data: Path | None,
    encoder: str | None,
    seed: int,
    seconds_per_token: float,
    output_format: str,
    out: Path,
    features: str,
    name: str,
) -> None:
    """Train from traces or own logs: the earliest 60 % train, the next 20 % calibrate, the last 20 % judge."""
    groups = _groups(features, encoder)
    if not traces and not logs:
        raise click.UsageError("name at least one --trace or --log to train from")
    pace = Pace(seconds_per_token=seconds_per_token)
    sources = [*_traces(find_traces(data), traces, seed, pace, drawn=False), *_logs(logs, pace)]
    try:
        weights = train(sources, groups, name=name, encoder=_encoder(encoder))
    except ModuleNotFoundError as error:
        raise Problem(f"training needs the Python package {error.name}", fix="pip install 'trimtab[learn]'") from error
    asked = [
        *(f"--trace {trace}" for trace in traces),
        *(f"--log {log.name}" for log in logs),
        f"--features {features}",
    ]
    weights["made_by"] = f"trimtab predictor train {' '.join(asked)} --seconds-per-token {seconds_per_token:g}"
    write_weights(weights, out)
    rows = [{"source": source["name"], **source["held_out"]} for source in weights["provenance"]]
    if output_format == "json":
        click.echo(json.dumps({"out": str(out), "held_out": rows}, indent=2))
        return
    _print(f"Wrote {out}. On the last 20 % of each, which it has not seen:", [{"predictor": name} | r for r in rows])


@predictor.command(
    "evaluate",
    epilog="Without --trace and --log, every trace that is found is looked at. tau: Kendall's, ties counted 0. loss: "
    "mean pinball loss in tokens. within: the share of answers at most p50 and p90 (0.50 and 0.90 are right). order: "
    "what the drift guard orders by at the end.",
)
@_inputs
@click.option("--weights", type=click.Path(path_type=Path), help="Weights to judge. [default: those that ship]")
@click.option(
    "--part",
    type=click.Choice(["later", "whole"]),
    default="later",
    show_default=True,
    help="Judge by the last 20 % of the requests, or by all of them; the history always begins with the first.",
)
def evaluate_command(
    *,
    traces: Sequence[str],
    logs: Sequence[Path],
    data: Path | None,
    encoder: str | None,
    seed: int,
    seconds_per_token: float,
    output_format: str,
    weights: Path | None,
    part: str,
) -> None:
    """Judge weights, and simpler predictors beside them, on traces or own logs. Nothing is trained."""
    pace = Pace(seconds_per_token=seconds_per_token)
    plain = read_weights(weights)
    skipped: list[dict[str, str]] = []
    sources = [*_chosen(traces, logs, data, seed, pace, skipped), *_logs(logs, pace)]
    judgements, unjudged = judge_all(sources, plain, _encoder(encoder), whole=part == "whole")
    skipped += unjudged
    if output_format == "json":
        results = [judgement.fields() for judgement in judgements]
        click.echo(json.dumps({"weights": plain.get("name"), "results": results, "skipped": skipped}, indent=2))
        return
    where = "all requests" if part == "whole" else "the last 20 % of the requests"
    _print(f"Judged by {where}, with the history of all that had ended before each:", _rows(judgements))
    for line in skipped:
        click.echo(f"skipped {line['source']}: {line['reason']}")
    for note in dict.fromkeys(note for judgement in judgements for note in judgement.notes):
        click.echo(f"note: {note}")


def _groups(features: str, encoder: str | None) -> tuple[str, ...]:
    groups = tuple(group.strip() for group in features.split(",") if group.strip())
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups or len(set(groups)) != len(groups):
        raise click.UsageError(f"--features {features!r}: name each of {', '.join(GROUPS)} at most once")
    if ("embedding" in groups) != (encoder is not None):
        raise click.UsageError("--features embedding and --encoder go together")
    return groups


def _encoder(name: str | None) -> Any:
    if name is None:
        return None
    from trimtab.learn.encoder import load_encoder  # noqa: PLC0415 - an extra that few need

    return load_encoder(name)


def _chosen(
    traces: Sequence[str],
    logs: Sequence[Path],
    data: Path | None,
    seed: int,
    pace: Pace,
    skipped: list[dict[str, str]],
) -> Iterator[Source]:
    catalog = find_traces(data)
    if traces:
        yield from _traces(catalog, traces, seed, pace, drawn=True)
        return
    if logs:
        return
    skipped += [{"source": problem.split(":", 1)[0], "reason": problem} for problem in catalog.problems]
    for name in catalog.entries:
        try:
            yield from _traces(catalog, [name], seed, pace, drawn=True)
        except TraceError as error:
            skipped.append({"source": name, "reason": str(error)})


def _traces(catalog: Catalog, names: Sequence[str], seed: int, pace: Pace, *, drawn: bool) -> Iterator[Source]:
    """Read traces; `drawn` says whether those are allowed whose requests are drawn."""
    for name in names:
        entry = catalog.find(name)
        about = origin_of(entry.path) | {
            "pace": f"{pace.constant_seconds:g} s + {pace.seconds_per_token:g} s per token"
        }
        if is_drawn(entry):
            if not drawn:
                why = "its requests are drawn, their lengths independent of their prompts"
                raise TraceError(entry.path, f"nothing can be learned from it: {why}; train from a recording")
            about["drawn"] = f"seed {seed}, lengths independent of prompts"
        yield Source(entry.name, examples_of(recorded(entry, seed), pace), about)


def _logs(logs: Sequence[Path], pace: Pace) -> Iterator[Source]:
    for path in logs:
        yield Source(path.name, read_log(path, pace), origin_of(path))


def _rows(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    return [judgement.fields() for judgement in judgements]


def _print(title: str, rows: Sequence[dict[str, Any]]) -> None:
    table = Table("source, predictor", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("requests", "tau", "loss p50 p90", "within p50 p90", "order"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for row in rows:
        if row["source"] != previous:
            cut_off = f" ({row['censored']:,} cut off, not judged)" if row["censored"] else ""
            table.add_row(f"{row['source']}{cut_off}")
        table.add_row(f"  {row['predictor']}", *_cells(row))
        previous = row["source"]
    click.echo(title)
    Console(highlight=False).print(table)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    figures = ("-", "-", "-")
    if row["tau"] is not None:
        figures = (
            f"{row['tau']:.3f}",
            f"{row['pinball_p50']:.1f} {row['pinball_p90']:.1f}",
            f"{row['coverage_p50']:.2f} {row['coverage_p90']:.2f}",
        )
    return f"{row['requests']:,}", *figures, row["order"]
