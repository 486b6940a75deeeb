"""`trimtab replay`: replay a recorded trace, open-loop, against any OpenAI-compatible endpoint."""

import asyncio
import contextlib
import math
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.live import Live

from trimtab.cli.replay_output import allow_many_connections, finish, make_folder
from trimtab.cli.replay_view import live_view, status_line, wall_text
from trimtab.workload.catalog import DATA_VARIABLE, Catalog, find_traces
from trimtab.workload.generated import SYNTAX
from trimtab.workload.level import DEFAULT_LEVELS, ServiceLevel, parse_duration, parse_level
from trimtab.workload.models import choose_model
from trimtab.workload.replay import Replay, ReplaySettings
from trimtab.workload.request import Trace, statistics_of
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
    "completion=, e.g. --level interactive:ttft=2s,tpot=60ms:0.8 --level batch:completion=1h:0.2. "
    f"A law is {SYNTAX}."
)
@click.option("--url", help="Base URL of the endpoint, e.g. http://127.0.0.1:8000.")
@click.option("--trace", default="azure-conv", show_default=True, help="A name (see --list), a file or a law.")
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
    entry = catalog.resolve(asked.trace)
    duration_seconds = asked.duration or (_DRAWN_SECONDS if entry.drawn else math.inf)
    trace = entry.load(
        seed=asked.seed, start_seconds=asked.start, duration_seconds=duration_seconds, rate_scale=asked.rate_scale
    )
    if asked.check:
        _describe(trace)
        return 0
    if asked.url is None:
        raise click.UsageError("--url is missing: where should the requests go?")
    return _replay(asked, trace)


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
    if seen.media_tokens_fraction:
        click.echo(f"pictures, sounds and films: {seen.media_tokens_fraction:.1%} of input tokens, sent as text")
    if seen.reasoning_tokens_fraction:
        click.echo(f"reasoning: {seen.reasoning_tokens_fraction:.1%} of output tokens")
    for note in trace.notes:
        click.echo(f"note: {note}")


def _replay(asked: Options, trace: Trace) -> int:
    folder = make_folder(asked.out or Path("replays", f"{_plain(trace.name)}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
    allow_many_connections()
    console = Console(stderr=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        finished, complete = runner.run(_run(asked, trace, console))
    as_json = asked.output_format == "json"
    finish(finished, folder, console, url=str(asked.url), complete=complete, as_json=as_json)
    return 0 if complete else INTERRUPTED


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


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
