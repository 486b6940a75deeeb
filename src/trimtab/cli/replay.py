"""`trimtab replay`: replay a recorded trace, open-loop, against any OpenAI-compatible endpoint."""

import asyncio
import contextlib
import json
import math
import os
import platform
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.live import Live

from trimtab.cli.replay_view import live_view, scale_note, status_line, summary_view, wall_text
from trimtab.model.problem import Problem
from trimtab.workload.catalog import DATA_VARIABLE, Catalog, Entry, find_traces
from trimtab.workload.level import DEFAULT_LEVELS, ServiceLevel, parse_duration, parse_level
from trimtab.workload.models import choose_model
from trimtab.workload.replay import Replay, ReplaySettings
from trimtab.workload.report import (
    PLOT_FILE,
    REQUESTS_FILE,
    SUMMARY_FILE,
    summary_fields,
    write_requests,
    write_summary,
)
from trimtab.workload.request import Trace, statistics_of
from trimtab.workload.summary import Summary, summarize
from trimtab.workload.wire import Client, parse_target

INTERRUPTED = 130
_DRAWN_SECONDS = 600.0
_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 10.0


class Duration(click.ParamType[float]):
    """A time such as `250ms`, `2s`, `10m` or `1h`, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text."""
        try:
            return value if isinstance(value, float) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Factor(click.ParamType[float]):
    """A finite number above 0."""

    name = "factor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a number above 0", param, ctx)
        return number


class Level(click.ParamType[ServiceLevel]):
    """A service level, `NAME:ttft=2s,tpot=60ms,completion=1h:SHARE`."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ServiceLevel:
        """Read the text."""
        try:
            return value if isinstance(value, ServiceLevel) else parse_level(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; see the options for what each means."""

    url: str | None
    trace: str
    speed: float
    time_scale: float | None
    start: float
    duration: float | None
    rate_scale: float
    model: str | None
    levels: tuple[ServiceLevel, ...]
    headers: Mapping[str, str]
    endpoint: str
    exact_output: bool
    timeout: float
    drain: float
    seed: int
    data: Path | None
    out: Path | None
    output_format: str
    list_traces: bool
    check: bool


@click.command(
    epilog="Times are written 250ms, 2s, 10m, 1h. A service level is NAME:TARGETS:SHARE, with targets ttft=, tpot= and "
    "completion=, e.g. --level interactive:ttft=2s,tpot=60ms:0.8 --level batch:completion=1h:0.2"
)
@click.option("--url", help="Base URL of the endpoint, e.g. http://127.0.0.1:8000.")
@click.option("--trace", default="azure-conv", show_default=True, help="Name of a trace (see --list) or a file.")
@click.option("--speed", type=Factor(), default=1.0, show_default=True, help="Compress the trace by this factor.")
@click.option(
    "--time-scale",
    type=Factor(),
    help="Reported seconds in one wall second, limits too: the speed factor of a simulated engine. [default: 1]",
)
@click.option("--start", type=Duration(), default="0s", show_default=True, help="Where in the trace to begin.")
@click.option(
    "--duration", type=Duration(), help="How much of the trace, in its own time. [default: all; 10m if drawn]"
)
@click.option("--rate-scale", type=Factor(), default=1.0, show_default=True, help="Rate of a trace that is drawn.")
@click.option("--model", help="Model to ask for. [default: the only one that the endpoint offers]")
@click.option(
    "--level",
    type=Level(),
    multiple=True,
    help="Judge by this; repeat it. [default: interactive:ttft=2s,tpot=60ms]",
)
@click.option("--header", multiple=True, metavar="NAME:VALUE", help="Send this header; repeat it.")
@click.option("--endpoint", type=click.Choice(["chat", "completions"]), default="chat", show_default=True)
@click.option(
    "--exact-output/--no-exact-output",
    default=True,
    show_default=True,
    help="Send min_tokens and ignore_eos, so that answers have the trace's lengths; off for servers that refuse them.",
)
@click.option("--timeout", type=Duration(), default="10m", show_default=True, help="Give a request up after this time.")
@click.option("--drain", type=Duration(), default="10m", show_default=True, help="Wait so long after the last arrival.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of prompts, levels and drawn traces."
)
@click.option("--data", type=click.Path(path_type=Path), help=f"Folder with more traces. [default: ${DATA_VARIABLE}]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for CSV, JSON and PNG. [default: replays/NAME-TIME]"
)
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--list", "list_traces", is_flag=True, help="List the traces that are found, and stop.")
@click.option("--check", is_flag=True, help="Read the trace, describe it, and stop.")
def replay(**options: Any) -> int:
    """Replay a recorded trace against an OpenAI-compatible endpoint.

    Requests go out when the trace says, however slowly earlier ones are answered (open loop), and latencies count from
    that moment. The API key is taken from OPENAI_API_KEY.
    """
    levels = _levels(options.pop("level"))
    asked = Options(levels=levels, headers=_headers(options.pop("header")), **options)
    catalog = find_traces(asked.data)
    if asked.list_traces:
        _list(catalog)
        return 0
    entry = catalog.find(asked.trace)
    drawn = entry.format.name == "servegen"
    duration_seconds = asked.duration or (_DRAWN_SECONDS if drawn else math.inf)
    trace = entry.load(
        seed=asked.seed, start_seconds=asked.start, duration_seconds=duration_seconds, rate_scale=asked.rate_scale
    )
    if asked.check:
        _describe(trace)
        return 0
    if asked.url is None:
        raise click.UsageError("--url is missing: where should the requests go?")
    return _replay(asked, entry, trace)


def _list(catalog: Catalog) -> None:
    console = Console()
    for entry in catalog.entries.values():
        console.print(f"[bold]{entry.name}[/]  {entry.format.what}\n    {entry.path}", highlight=False, soft_wrap=True)
    for problem in catalog.problems:
        console.print(f"[yellow]not usable:[/] {problem}", highlight=False, soft_wrap=True)
    if catalog.missing:
        names = ", ".join(known.name for known in catalog.missing)
        console.print(
            f"no trace of these formats was found: {names}; point --data or {DATA_VARIABLE} at a folder with some",
            highlight=False,
        )


def _describe(trace: Trace) -> None:
    seen = statistics_of(trace)
    mean_in, median_in, high_in = seen.input_tokens
    mean_out, median_out, high_out = seen.output_tokens
    click.echo(f"{trace.name}: {seen.requests} requests in {seen.duration_seconds:.1f} s from {trace.source}")
    click.echo(
        f"arrivals: {seen.requests_per_second:.3g} per second, coefficient of variation {seen.interarrival_cv:.2f}"
    )
    click.echo(f"input tokens: mean {mean_in:.0f}, median {median_in:.0f}, p99 {high_in:.0f}")
    click.echo(f"output tokens: mean {mean_out:.0f}, median {median_out:.0f}, p99 {high_out:.0f}")
    click.echo(f"prefix blocks seen before: {seen.reused_prefix_tokens_fraction:.1%} of input tokens")
    for note in trace.notes:
        click.echo(f"note: {note}")


def _replay(asked: Options, entry: Entry, trace: Trace) -> int:
    folder = _output_folder(asked, entry)
    _allow_many_connections()
    console = Console(stderr=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        finished, complete = runner.run(_run(asked, trace, console))
    summary = summarize(
        finished.records, finished.settings.levels, offered_seconds=finished.offered_seconds, gaps=finished.gaps
    )
    record = summary_fields(summary, _about(finished, complete=complete, url=str(asked.url)))
    if asked.output_format == "json":
        click.echo(json.dumps(record, indent=2))
    else:
        _print_summary(finished, summary)
    _write(folder, finished, summary, record, console)
    return 0 if complete else INTERRUPTED


def _output_folder(asked: Options, entry: Entry) -> Path:
    """Make the folder before anything is sent: a replay whose figures cannot be kept is better not begun."""
    folder = asked.out or Path("replays", f"{entry.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REQUESTS_FILE).touch()
    except OSError as error:
        raise Problem(f"cannot write to {folder}: {error.strerror}", fix="pass --out with another folder") from error
    return folder


def _allow_many_connections() -> None:
    """Raise the limit of open files to what the system allows: every request under way has a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(asked: Options, trace: Trace, console: Console) -> tuple[Replay, bool]:
    """Replay with a live view; Ctrl-C and SIGTERM end it early, and what was measured is kept."""
    client = Client(parse_target(str(asked.url)), asked.headers)
    settings = ReplaySettings(
        model=await choose_model(client, asked.model),
        speed=asked.speed,
        time_scale=asked.time_scale or 1.0,
        levels=asked.levels,
        seed=asked.seed,
        chat=asked.endpoint == "chat",
        exact_output=asked.exact_output,
        timeout_seconds=asked.timeout,
        drain_seconds=asked.drain,
    )
    running = Replay(trace, client, settings)
    _announce(running, console)
    work = asyncio.create_task(running.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    await _watch(running, work, console)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return running, not work.cancelled()


def _announce(running: Replay, console: Console) -> None:
    wall_seconds = running.trace.duration_seconds / running.settings.speed
    console.print(
        f"replaying {running.trace.name}: {len(running.trace.requests)} requests, "
        f"{running.trace.duration_seconds:.0f} s of trace in {wall_text(wall_seconds)}, model {running.settings.model}",
        highlight=False,
    )
    for note in running.trace.notes:
        console.print(f"note: {note}", highlight=False)


async def _watch(running: Replay, work: "asyncio.Task[None]", console: Console) -> None:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not work.done():
                live.update(live_view(running), refresh=True)
                await asyncio.wait([work], timeout=_REFRESH_SECONDS)
        return
    while not work.done():
        await asyncio.wait([work], timeout=_LINE_SECONDS)
        console.print(status_line(running), highlight=False, soft_wrap=True)


def _levels(given: tuple[ServiceLevel, ...]) -> tuple[ServiceLevel, ...]:
    names = [level.name for level in given]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise click.UsageError(f"two levels are called {', '.join(doubled)}")
    return given or DEFAULT_LEVELS


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        headers["authorization"] = f"Bearer {key}"
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or any(mark in text for mark in "\r\n"):
            raise click.UsageError(f"--header {text!r} is not NAME:VALUE")
        headers[name.strip().lower()] = value.strip()
    return headers


def _about(finished: Replay, *, complete: bool, url: str) -> dict[str, Any]:
    settings = finished.settings
    return {
        "trace": finished.trace.name,
        "source": Path(finished.trace.source).name,
        "notes": list(finished.trace.notes),
        "url": url,
        "model": settings.model,
        "speed": settings.speed,
        "timeScale": settings.time_scale,
        "seed": settings.seed,
        "traceSeconds": finished.trace.duration_seconds,
        "plannedRequests": len(finished.trace.requests),
        "complete": complete,
        "versions": {"trimtab": version("trimtab"), "python": platform.python_version()},
    }


def _print_summary(finished: Replay, summary: Summary) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(summary_view(summary), highlight=False, soft_wrap=True)
    console.print(scale_note(finished.settings.speed, finished.settings.time_scale), style="dim", highlight=False)


def _write(folder: Path, finished: Replay, summary: Summary, record: dict[str, Any], console: Console) -> None:
    try:
        write_requests(folder / REQUESTS_FILE, finished.records)
        write_summary(folder / SUMMARY_FILE, record)
        if finished.records:
            # Importing matplotlib takes a second, which would delay the first requests.
            from trimtab.workload.plot import draw_replay  # noqa: PLC0415

            draw_replay(folder / PLOT_FILE, finished.records, summary, _title(finished, summary))
    except OSError as error:
        raise Problem(
            f"cannot write to {folder}: {error.strerror}", fix="free some space, or pass --out with another folder"
        ) from error
    console.print(f"written: {folder}/ ({REQUESTS_FILE}, {SUMMARY_FILE}, {PLOT_FILE})", highlight=False, soft_wrap=True)


def _title(finished: Replay, summary: Summary) -> str:
    settings = finished.settings
    return (
        f"{finished.trace.name} on {settings.model}: {summary.total.offered} requests, speed {settings.speed:g}"
        + (f", times x {settings.time_scale:g}" if settings.time_scale != 1 else "")
        + f", {summary.total.attainment:.1%} within their level"
    )
