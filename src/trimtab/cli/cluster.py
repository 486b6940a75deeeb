"""`trimtab cluster`: local Kubernetes clusters of plain processes."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from trimtab.cli.terminal import TerminalProgress
from trimtab.local import paths
from trimtab.local.catalog import FAMILIES, PROGRAMS
from trimtab.local.cluster import DEFAULT_NAME, LocalCluster, Options, Status
from trimtab.local.programs import Programs
from trimtab.model.problem import Problem

Command = TypeVar("Command", bound=Callable[..., Any])

_FOLLOW_SECONDS = 0.2


def _name(command: Command) -> Command:
    return click.option(
        "--name", default=DEFAULT_NAME, show_default=True, envvar="TRIMTAB_CLUSTER", help="Which cluster."
    )(command)


@click.group()
def cluster() -> None:
    """Start, inspect and stop local Kubernetes clusters.

    A cluster is a real etcd, kube-apiserver, kube-controller-manager and kube-scheduler, as processes of this
    machine that listen on loopback only, with fake accelerator nodes (kwok), one node whose pods are real
    processes, and Prometheus. No Docker, no root.
    """


@cluster.command()
@_name
@click.option("--nodes", default=8, show_default=True, type=click.IntRange(0, 20000), help="Number of fake nodes.")
@click.option(
    "--accelerator",
    "accelerators",
    multiple=True,
    default=["nvidia-h100"],
    show_default=True,
    metavar="NAME",
    help="Accelerator of the fake nodes; repeat it to deal out several, rack by rack.",
)
@click.option("--prometheus/--no-prometheus", default=True, show_default=True, help="Run Prometheus.")
@click.option(
    "--process-node/--no-process-node", default=True, show_default=True, help="Run the node whose pods are processes."
)
@click.option(
    "--disable-qps-limits", is_flag=True, help="Lift the controllers' client-side rate limits, for scale tests."
)
def up(
    name: str, nodes: int, accelerators: tuple[str, ...], prometheus: bool, process_node: bool, disable_qps_limits: bool
) -> None:
    """Bring a cluster up.

    Programs come from $TRIMTAB_ASSETS, the cache, official releases or a build from source, in this order. What is
    left of an earlier cluster that is not well is removed first. Ctrl-C takes everything down again.
    """
    options = Options(nodes, accelerators, prometheus, process_node, disable_qps_limits)
    started = time.monotonic()
    with _terminated_like_interrupted(), TerminalProgress() as progress:
        local = LocalCluster(name, progress=progress)
        local.up(options)
        progress.say(f"cluster {name} is up after {time.monotonic() - started:.1f} s")
    click.echo(f"export KUBECONFIG={local.kubeconfig}")


@cluster.command()
@_name
@click.option("--all", "everything", is_flag=True, help="Take down every cluster.")
def down(name: str, everything: bool) -> None:
    """Stop a cluster and delete everything of it."""
    for each in LocalCluster.names() if everything else [name]:
        with TerminalProgress() as progress:
            existed = LocalCluster(each, progress=progress).down()
        click.echo(f"cluster {each} is down" if existed else f"there is no cluster {each}")


@cluster.command()
@_name
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(name: str, output: str) -> None:
    """Say how each component is, and what to do about it. Exit code 1 when something is wrong."""
    local = LocalCluster(name)
    found = local.status()
    if output == "json":
        click.echo(json.dumps({"name": name, "well": found.well, "ports": local.ports, **asdict(found)}, indent=2))
    else:
        _print_status(found, local)
    if not found.well:
        sys.exit(1)


@cluster.command()
@_name
@click.argument("component", default="")
def restart(name: str, component: str) -> None:
    """Restart COMPONENT, or all of them, and wait until the cluster is well. Objects are kept."""
    with TerminalProgress() as progress:
        LocalCluster(name, progress=progress).restart(component)
    click.echo(f"{component or 'every component'} of cluster {name} was restarted")


@cluster.command()
@_name
def kubeconfig(name: str) -> None:
    """Print the path of the kubeconfig.

    Use it as: export KUBECONFIG=$(trimtab cluster kubeconfig)
    """
    local = LocalCluster(name)
    if not local.kubeconfig.exists():
        raise Problem(f"there is no cluster {name}", fix="trimtab cluster up")
    click.echo(local.kubeconfig)


@cluster.command()
@_name
@click.argument("component")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come.")
@click.option("--tail", default=100, show_default=True, type=click.IntRange(0), help="How many lines from the end.")
def logs(name: str, component: str, follow: bool, tail: int) -> None:
    """Print the log of COMPONENT.

    Besides the components that `status` lists there is `audit`, the API server's record of every request.
    """
    local = LocalCluster(name)
    files = {item.name: item.log for item in local.components()} | {"audit": local.audit_log}
    if component not in files:
        raise Problem(f"cluster {name} has no component {component!r}", fix=f"choose from {', '.join(files)}")
    if not files[component].exists():
        raise Problem(f"{component} has logged nothing yet", fix="trimtab cluster status")
    for line in _lines(files[component], tail, follow=follow):
        click.echo(line, nl=False)


@cluster.command("list")
def list_() -> None:
    """List the clusters of this user."""
    names = LocalCluster.names()
    if not names:
        click.echo("no clusters; start one with `trimtab cluster up`")
    for name in names:
        click.echo(f"{name}: {_summary(LocalCluster(name))}")


@cluster.group()
def programs() -> None:
    """See and fetch the programs of clusters."""


@programs.command("list")
def list_programs() -> None:
    """List each program, its version and where it is."""
    known = Programs.standard()
    found = [(name, family.version, known.found(name)) for name, family in PROGRAMS.items()]
    rows = [(name, version, at.origin if at else "-", str(at.path) if at else "-") for name, version, at in found]
    _print_table(("PROGRAM", "VERSION", "FROM", "PATH"), rows)


@programs.command()
@click.argument("names", nargs=-1, metavar="[PROGRAM]...")
def fetch(names: tuple[str, ...]) -> None:
    """Get PROGRAMs, or all of them, so that a later `up` starts at once."""
    with _terminated_like_interrupted(), TerminalProgress() as progress:
        found = Programs.standard(progress).ensure(names or PROGRAMS)
    click.echo(f"{len(found)} programs are ready")


@programs.command()
@click.argument("name", metavar="PROGRAM")
def path(name: str) -> None:
    """Print the path of PROGRAM, which is fetched when it is not here."""
    with TerminalProgress() as progress:
        found = Programs.standard(progress).path(name)
    click.echo(found)


@programs.command()
def verify() -> None:
    """Hash every cached program. Exit code 1 when one is damaged; it is replaced on its next use."""
    damaged = Programs.standard().verify()
    for line in damaged:
        click.echo(line)
    if damaged:
        sys.exit(1)
    click.echo(f"{paths.cache() / 'programs'}: {len(FAMILIES)} families, nothing damaged")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns as wide as they need to be, on any terminal: what is cut off cannot be copied."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_status(found: Status, local: LocalCluster) -> None:
    rows = [
        (health.component, health.problem or "well", str(health.pid or "-"), health.address or "-")
        for health in found.components
    ]
    _print_table(("COMPONENT", "STATE", "PID", "ADDRESS"), rows)
    if found.nodes_ready is not None:
        click.echo(f"\n{found.nodes_ready} of {found.nodes} nodes ready; export KUBECONFIG={local.kubeconfig}")
    for health in found.components:
        if health.fix:
            click.echo(f"fix {health.component}: {health.fix}")


def _summary(local: LocalCluster) -> str:
    try:
        status = local.status()
    except Problem as problem:
        return f"{problem.what} ({problem.fix})"
    wrong = [health.component for health in status.components if health.problem]
    return f"not well: {', '.join(wrong)}" if wrong else f"well, {status.nodes} nodes, {local.kubeconfig}"


def _lines(log: Path, tail: int, *, follow: bool) -> Iterator[str]:
    """The last lines of a file, then further ones as they come."""
    with log.open(errors="replace") as file:
        yield from file.readlines()[-tail:] if tail else file.readlines()[:0]
        while follow:
            line = file.readline()
            if line:
                yield line
            else:
                time.sleep(_FOLLOW_SECONDS)
