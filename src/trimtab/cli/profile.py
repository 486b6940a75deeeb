"""`trimtab profile`: measure an OpenAI-compatible engine and write a profile of it."""

import asyncio
import json
import os
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

from trimtab.cli.replay_output import allow_many_connections
from trimtab.cli.terminal import TerminalProgress
from trimtab.model.problem import Problem
from trimtab.sim.profiling.document import check_writable, fields_of, profile_of, text_of, write
from trimtab.sim.profiling.session import Engine, Result, Session, Told, look_at
from trimtab.workload.wire import Client, parse_target


@click.command(
    epilog="Prompts are random words, no two of which begin alike, so that the prefix cache does not help. What the "
    "engine does not tell and cannot be seen is assumed, and the profile says so."
)
@click.option("--url", required=True, help="Base URL of the engine, e.g. http://127.0.0.1:8000.")
@click.option("--model", help="Model to ask for. [default: the only one that the engine offers]")
@click.option(
    "--minutes", type=click.FloatRange(0.1, 120), default=10.0, show_default=True, help="How long it may take."
)
@click.option("--out", type=click.Path(path_type=Path), help="The profile. [default: MODEL.yaml]")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--api-key-file", type=click.Path(path_type=Path), help="File with the API key. [default: $OPENAI_API_KEY]"
)
@click.option(
    "--max-concurrency", type=click.IntRange(2, 512), default=128, show_default=True, help="Requests at once at most."
)
@click.option("--accelerator", default="unknown", show_default=True, help="What it runs on, for the profile.")
@click.option("--tensor-parallel", type=click.IntRange(1), default=1, show_default=True, help="On how many of them.")
@click.option("--max-model-len", type=click.IntRange(64), help="Longest context. [default: as the engine says]")
@click.option("--max-num-seqs", type=click.IntRange(1), help="Largest batch. [default: as seen]")
@click.option("--max-num-batched-tokens", type=click.IntRange(1), help="Tokens per iteration. [default: as seen]")
@click.option("--block-size", type=click.IntRange(1), help="Tokens per KV block. [default: as the engine says]")
@click.option("--num-gpu-blocks", "kv_blocks", type=click.IntRange(2), help="KV blocks. [default: as it says]")
@click.option("--timeout", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds for one answer.")
@click.option("--seed", type=click.IntRange(0), help="Of prompts and orders. [default: another one each time]")
@click.option("--busy", is_flag=True, help="Measure although the engine has other traffic.")
@click.option("--yes", is_flag=True, help="Put the load on an engine that is not on this machine.")
def profile(
    *,
    url: str,
    out: Path | None,
    output_format: str,
    api_key_file: Path | None,
    accelerator: str,
    tensor_parallel: int,
    seed: int | None,
    yes: bool,
    minutes: float,
    max_concurrency: int,
    timeout: float,
    **options: Any,
) -> None:
    """Measure an OpenAI-compatible engine and write a profile for `trimtab engine` and the lab.

    The engine is loaded for about ten minutes: idle requests of many lengths, bursts of more and more at once, prompts
    among answers under way, and at last as many requests of mixed lengths as it can take. The last phase is not fitted:
    how well the profile predicts it is the error that the profile states.
    """
    told = Told(seconds=minutes * 60, concurrency=max_concurrency, patience_seconds=timeout, **options)
    if out is not None:
        check_writable(out)
    console = Console(stderr=True, highlight=False)
    allow_many_connections()
    headers = _headers(api_key_file)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        client = Client(parse_target(url), headers)
        engine = runner.run(look_at(client, told))
        path = out or Path(f"{_plain(engine.model)}.yaml")
        check_writable(path)
        _announce(engine, told, console)
        if not yes and not is_loopback(url):
            _consent(url)
        with TerminalProgress(console) as bars:
            session = Session(
                client,
                engine,
                told,
                clock=time.monotonic,
                seed=secrets.randbelow(1 << 31) if seed is None else seed,
                progress=_Phases(bars),
            )
            result = runner.run(session.run())
    measured = profile_of(
        result, name=path.stem, accelerator=accelerator, tensor_parallel=tensor_parallel, at=datetime.now(UTC)
    )
    write(path, text_of(measured))
    if output_format == "json":
        click.echo(json.dumps(fields_of(result, measured), indent=2))
    else:
        _show(result, Console(highlight=False))
    console.print(f"wrote {path}: try it with `trimtab engine --model {engine.model} --profile {path}`", soft_wrap=True)


class _Phases:
    """Progress as bars: each phase has its own, and says how long it may still take."""

    def __init__(self, bars: TerminalProgress) -> None:
        self._bars = bars
        self._phase = ""

    def __call__(self, phase: str, done: float, total: float, note: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self._bars.say(f"{phase}: up to {total:.0f} s" if total else phase)
        if total:
            left = f", at most {total - done:.0f} s" if total > done else ""
            self._bars.advance(phase, done, total, note=f"{note}{left}")


def is_loopback(url: str) -> bool:
    """Say whether a URL leads to this very machine."""
    host = parse_target(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _headers(api_key_file: Path | None) -> dict[str, str]:
    key = os.environ.get("OPENAI_API_KEY", "")
    if api_key_file is not None:
        try:
            key = api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(
                f"--api-key-file {api_key_file} cannot be read: {error}", fix="name a readable file"
            ) from error
        if not key or any(mark in key for mark in "\r\n"):
            raise Problem(f"--api-key-file {api_key_file} does not hold one line", fix="put the key alone into it")
    return {"authorization": f"Bearer {key}"} if key else {}


def _plain(model: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.") or "profile"


def _announce(engine: Engine, told: Told, console: Console) -> None:
    limits = engine.limits
    lengths = limits.prompt_lengths()
    console.print(
        f"measuring {engine.model}: up to {limits.concurrency} requests at once, prompts of {lengths[0]} to"
        f" {lengths[-1]} tokens, for up to {told.seconds / 60:g} minutes; the engine will be fully loaded",
        soft_wrap=True,
    )
    for note in engine.notes:
        console.print(f"note: {note}", soft_wrap=True)


def _consent(url: str) -> None:
    if not sys.stdin.isatty():
        raise Problem(f"{url} is not on this machine, and it will be fully loaded", fix="pass --yes if that is meant")
    click.confirm(f"{url} is not on this machine. Put this load on it?", abort=True, err=True)


def _show(result: Result, console: Console) -> None:
    costs = Table(title="What takes how long, with 95 % intervals")
    for column in ("number", "value", "from", "to"):
        costs.add_column(column, justify="left" if column == "number" else "right")
    for name, value in result.fit.estimate.values.items():
        low, high = result.fit.estimate.intervals[name]
        costs.add_row(name, *(_seconds(x) for x in (value, low, high)))
    console.print(costs)
    judged = Table(title=f"{result.requests} requests of mixed lengths from {result.clients} clients, not fitted")
    for column in ("figure", "measured", "predicted", "error"):
        judged.add_column(column, justify="left" if column == "figure" else "right")
    for figure in result.judged:
        metric = figure.metric if figure.quantile is None else f"{figure.metric}, p{figure.quantile * 100:.0f}"
        unit = _seconds if figure.quantile is not None else "{:.4g}".format
        judged.add_row(metric, unit(figure.measured), unit(figure.predicted), f"{figure.error:+.1%}")
    console.print(judged)
    config = result.config
    console.print(
        f"max_num_seqs {config.max_num_seqs}, max_num_batched_tokens {config.max_num_batched_tokens},"
        f" {config.kv_blocks} KV blocks of {config.block_size} tokens; {result.seconds:.0f} s"
    )
    for note in result.notes:
        console.print(f"note: {note}", soft_wrap=True)


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value * 1e9:.3g} ns"
