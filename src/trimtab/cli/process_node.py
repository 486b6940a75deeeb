"""`trimtab process-node`: serve one Node whose pods are local processes. `trimtab cluster up` starts it."""

from collections.abc import Iterable
from pathlib import Path

import click
import uvloop

from trimtab.local.process_node.agent import DEFAULT_CAPACITY, DEFAULT_LABELS, Settings, serve
from trimtab.local.process_node.forward import Forward, parse_forward
from trimtab.local.process_node.quantity import parse
from trimtab.local.process_node.restarts import BackOff
from trimtab.obs.logging import LogFormat, configure


def _forwards(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[Forward, ...]:
    try:
        return tuple(map(parse_forward, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _pairs(values: Iterable[str]) -> dict[str, str]:
    pairs = dict(value.partition("=")[::2] for value in values)
    if "" in pairs or "" in pairs.values():
        raise click.BadParameter("expected NAME=VALUE")
    return pairs


def _labels(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    return DEFAULT_LABELS | _pairs(values)


def _capacity(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = _pairs(values)
    try:
        for amount in pairs.values():
            parse(amount)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return DEFAULT_CAPACITY | pairs


@click.command("process-node")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
    required=True,
    help="Access to the API server, with rights to act as a node for every namespace.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    required=True,
    help="Where logs, volumes and credentials of its pods are kept.",
)
@click.option("--node-name", default="process-0", show_default=True, help="Name of the Node object.")
@click.option(
    "--forward",
    "forwards",
    multiple=True,
    callback=_forwards,
    metavar="NAMESPACE/SERVICE[:PORT]=ADDRESS:PORT",
    help="A fixed address for a Service's port, by name or number (default: its first). Repeatable.",
)
@click.option(
    "--capacity",
    multiple=True,
    callback=_capacity,
    metavar="RESOURCE=AMOUNT",
    help=f"What pods may request in total; defaults: {', '.join(f'{k}={v}' for k, v in DEFAULT_CAPACITY.items())}.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    callback=_labels,
    metavar="KEY=VALUE",
    help=f"A label of the Node; defaults: {', '.join(f'{k}={v}' for k, v in DEFAULT_LABELS.items())}.",
)
@click.option("--allow", "programs", multiple=True, metavar="PROGRAM", help="One more program that pods may run.")
@click.option("--kubelet-port", default=10250, show_default=True, help="Where logs are served, at the Node's address.")
@click.option("--back-off", default=10.0, show_default=True, metavar="SECONDS", help="First delay between restarts.")
@click.option("--back-off-limit", default=300.0, show_default=True, metavar="SECONDS", help="Longest such delay.")
@click.option("--stop-grace", default=5.0, show_default=True, metavar="SECONDS", help="From TERM to KILL at the end.")
@click.option("--log-format", type=click.Choice([f.value for f in LogFormat]), default="auto", show_default=True)
@click.option("--log-level", default="INFO", show_default=True)
def process_node(
    kubeconfig: Path,
    state_dir: Path,
    node_name: str,
    forwards: tuple[Forward, ...],
    capacity: dict[str, str],
    labels: dict[str, str],
    programs: tuple[str, ...],
    kubelet_port: int,
    back_off: float,
    back_off_limit: float,
    stop_grace: float,
    log_format: str,
    log_level: str,
) -> None:
    """Serve one Node whose pods run as processes of this machine, on loopback addresses.

    A pod runs here if it is bound to the Node, has the label trimtab.dev/run-as=process and a command that is one
    of our own entry points (or allowed with --allow). SIGTERM ends every process; the pods' objects stay, and the
    next process node with the same state directory runs them again.
    """
    configure(LogFormat(log_format), log_level.upper())
    settings = Settings(
        kubeconfig=kubeconfig,
        state_dir=state_dir,
        node_name=node_name,
        forwards=forwards,
        capacity=capacity,
        labels=labels,
        programs=programs,
        back_off=BackOff(back_off, back_off_limit),
        kubelet_port=kubelet_port,
        stop_grace_seconds=stop_grace,
    )
    uvloop.run(serve(settings))
