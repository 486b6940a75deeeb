"""`trimtab demo`: everything at work on this machine, in about three minutes."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.live import Live

from trimtab.api.serving_pool import ServingPool
from trimtab.cli.demo_view import demo_view, placements_table, pools_table
from trimtab.cli.replay_output import allow_many_connections, finish, make_folder
from trimtab.cli.replay_view import status_line
from trimtab.cli.terminal import TerminalProgress
from trimtab.kube import Kube, KubeError
from trimtab.local import demo as act
from trimtab.local.catalog import PROGRAMS
from trimtab.local.cluster import LocalCluster, Options
from trimtab.local.programs import Programs
from trimtab.model.problem import Problem
from trimtab.workload.catalog import find_traces
from trimtab.workload.models import choose_model
from trimtab.workload.replay import Replay, ReplaySettings
from trimtab.workload.report import PLOT_FILE
from trimtab.workload.request import Trace
from trimtab.workload.wire import Client, parse_target

_NODES = 8
_READY_SECONDS = 60.0
_GATEWAY_SECONDS = 30.0
_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 10.0
_LOG_WIDTH = 160
_RETRY_SECONDS = 0.25
_DRAIN_SECONDS = 120.0
# What a person would try, and when, as parts of the trace.
_SCALE_AT, _SCALE_TO = 0.35, 3
_DELETE_AT = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo replays.

    Attributes:
        trace: the requests.
        speed: how much faster than recorded; None: as fast as the simulated engines run.
    """

    trace: Trace
    speed: float | None


@click.command()
@click.option(
    "--trace-seconds", type=click.FloatRange(10, 3500), default=600.0, show_default=True, help="Of the trace."
)
@click.option(
    "--speed", type=click.FloatRange(0.1, 100), help="Compress the trace by this. [default: the engines' speed]"
)
@click.option("--name", default=act.NAME, show_default=True, help="Name of the local cluster.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the figures. [default: out/demo]")
@click.option("--down", is_flag=True, help="Remove everything that the demo made, and stop.")
def demo(trace_seconds: float, speed: float | None, name: str, out: Path | None, down: bool) -> None:
    """Show Trimtab at work: a cluster, the Helm chart, sample pools, and a real request trace through the gateway.

    The cluster stays when the demo is over, to look around in. Ctrl-C at any moment removes everything.
    """
    checkout = act.find_checkout()
    folder = out or checkout.figures
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    cluster = LocalCluster(name)
    if down:
        console.print("removed" if act.remove(cluster, folder) else "there was nothing to remove")
        return
    started = time.monotonic()
    trace = find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=trace_seconds)
    make_folder(folder)
    allow_many_connections()
    with _removed_when_interrupted(cluster, folder, console):
        with TerminalProgress(console) as progress:
            programs = Programs.standard(progress)
            programs.ensure(PROGRAMS)  # all at once, so that a first run says how long all of it takes
            _set_up(LocalCluster(name, programs=programs, progress=progress), checkout, progress)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_play(cluster, Plan(trace, speed), folder, console))
    console.print(f"\nthe demo took {time.monotonic() - started:.0f} s; the cluster stays up to look around:\n")
    _where_to_look(cluster, folder)


@contextlib.contextmanager
def _removed_when_interrupted(cluster: LocalCluster, folder: Path, console: Console) -> Iterator[None]:
    """Remove everything on Ctrl-C or SIGTERM; further ones are ignored meanwhile. After an error the cluster stays."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        console.print("\ninterrupted: removing everything that the demo made ...")
        act.remove(cluster, folder)
        console.print("removed")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise click.Abort from stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _set_up(cluster: LocalCluster, checkout: act.Checkout, progress: TerminalProgress) -> None:
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("cluster", lambda: cluster.up(Options(nodes=_NODES))),
        ("Trimtab, by its Helm chart", lambda: act.install(cluster, checkout)),
        ("sample objects", lambda: act.apply_samples(cluster, checkout)),
    )
    for what, do in steps:
        started = time.monotonic()
        do()
        progress.say(f"{what}: {time.monotonic() - started:.1f} s")


async def _play(cluster: LocalCluster, plan: Plan, folder: Path, console: Console) -> None:
    """Wait for the pools, replay through the gateway while showing the cluster, and sum up."""
    work = asyncio.current_task()
    assert work is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    url = f"http://127.0.0.1:{cluster.ports['gateway']}"
    narration: list[str] = []
    async with Kube.connect(cluster.kubeconfig) as kube, act.watching(kube) as seen:
        started = time.monotonic()
        pool = await _ready_pools(seen)
        running = await _prepare(plan, pool, Client(parse_target(url)))
        console.print(f"pools ready, gateway at {url}: {time.monotonic() - started:.1f} s")
        _announce(running, console)
        async with asyncio.TaskGroup() as group:
            group.create_task(_replay(running, seen, narration, console))
            group.create_task(_act(running, kube, seen, narration))
        await asyncio.sleep(act.COUNTS_SECONDS)  # the last counts come in
        for table in (pools_table(seen), placements_table(seen)):
            console.print(table)
    for line in narration:
        console.print(line)
    console.print()
    finish(running, folder, console, url=url, complete=True, as_json=False)


async def _ready_pools(seen: act.Seen) -> ServingPool:
    """Wait for every pool of the samples; returns the one that answers."""
    answering = await act.wait_until_ready(seen, f"{act.NAMESPACE}/{act.POOL}", patience_seconds=_READY_SECONDS)
    for name in sorted(seen.pools):
        await act.wait_until_ready(seen, name, patience_seconds=_READY_SECONDS)
    return answering


async def _prepare(plan: Plan, pool: ServingPool, client: Client) -> Replay:
    engine_speed = act.engine_speed(pool)
    settings = ReplaySettings(
        model=await _served(client, pool.spec.models[0].name),
        speed=plan.speed or engine_speed,
        time_scale=engine_speed,
        levels=act.service_levels(pool),
        drain_seconds=_DRAIN_SECONDS,
    )
    return Replay(plan.trace, client, settings)


def _announce(running: Replay, console: Console) -> None:
    trace, settings = running.trace, running.settings
    console.print(
        f"replaying {trace.duration_seconds:.0f} s of {trace.name} ({len(trace.requests)} requests) in "
        f"{trace.duration_seconds / settings.speed:.0f} s; all times below are those of the engines, which simulate at "
        f"{settings.time_scale:g} x\n"
    )


async def _served(client: Client, model: str) -> str:
    """Wait until the gateway offers the model: a new pool is known to it a moment after it is Ready."""
    deadline = time.monotonic() + _GATEWAY_SECONDS
    while True:
        try:
            return await choose_model(client, model)
        except Problem:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_RETRY_SECONDS)


async def _replay(running: Replay, seen: act.Seen, narration: list[str], console: Console) -> None:
    work = asyncio.create_task(running.run())
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
                while not work.done():
                    live.update(demo_view(running, seen, narration), refresh=True)
                    await asyncio.wait([work], timeout=_REFRESH_SECONDS)
        else:
            while not work.done():
                await asyncio.wait([work], timeout=_LINE_SECONDS)
                waiting = sum(seen.waiting.values())
                console.print(f"{status_line(running)}, {waiting:.0f} in the queue", soft_wrap=True)
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def _act(running: Replay, kube: Kube, seen: act.Seen, narration: list[str]) -> None:
    """Do what a person would do to see how the system takes it."""

    async def more() -> str:
        await act.scale(kube, _SCALE_TO)
        return f"kubectl -n {act.NAMESPACE} scale spool {act.POOL} --replicas={_SCALE_TO}"

    async def fewer() -> str:
        name = await act.delete_one_engine(kube, seen)
        return f"kubectl -n {act.NAMESPACE} delete pod {name} (its streams break off; the pool mends itself)"

    doings: tuple[tuple[float, Callable[[], Awaitable[str]]], ...] = ((_SCALE_AT, more), (_DELETE_AT, fewer))
    for part, do in doings:
        at_seconds = part * running.planned_seconds
        await asyncio.sleep(max(0.0, at_seconds - running.elapsed_seconds) / running.settings.time_scale)
        try:
            narration.append(f"at {at_seconds:.0f} s: {await do()}")
        except KubeError as error:
            narration.append(f"at {at_seconds:.0f} s: the API server refused: {error}")


def _where_to_look(cluster: LocalCluster, folder: Path) -> None:
    kubectl = cluster.program("kubectl")
    name = "" if cluster.name == act.NAME else f" --name {cluster.name}"
    hints = (
        ("kubectl get trimtab -A", "every custom resource"),
        (f"kubectl -n {act.NAMESPACE} describe spool {act.POOL}", "a pool: conditions, decisions, events"),
        (f"trimtab explain spool/{act.POOL} -n {act.NAMESPACE}", "the same for people: what was decided, and why"),
        (f"kubectl -n {act.NAMESPACE} get pods -o wide", "what was placed where"),
        (f"kubectl -n {act.SYSTEM} logs deploy/trimtab-operator", "what the operator saw and did"),
        (f"curl http://127.0.0.1:{cluster.ports['gateway']}/v1/models", "the gateway: OpenAI's API"),
        (f"trimtab top --prometheus http://127.0.0.1:{cluster.ports['prometheus']}", "live numbers of the pools"),
        (f"{folder / PLOT_FILE}", "the picture; the figures are beside it"),
        (f"trimtab demo --down{name}", "remove everything (or: make demo-down)"),
    )
    width = max(len(command) for command, _ in hints)
    click.echo(f"  export KUBECONFIG={cluster.kubeconfig} PATH={kubectl.parent}:{Path(sys.executable).parent}:$PATH")
    for command, what in hints:
        click.echo(f"  {command:{width}}  {what}")
