"""What a cluster was started with, kept in its `cluster.json` for whoever wants to reach it."""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.local import ports
from trimtab.local.locks import deleted_afterwards, locked

PORTS: Final = (
    "apiserver",
    "etcd",
    "etcd_peer",
    "controller_manager",
    "scheduler",
    "kwok",
    "prometheus",
    "extender",
    "gateway",
    "process_node",
)
_FILE: Final = "cluster.json"


class Damaged(Exception):
    """There is a record, and it cannot be read."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a cluster is brought up.

    Attributes:
        nodes: Number of fake nodes.
        accelerators: Their accelerators, dealt out rack by rack.
        prometheus: Whether to run Prometheus.
        process_node: Whether to run the node whose pods are real processes.
        disable_qps_limits: Lift the client-side rate limits of the controllers, for tests at scale.
    """

    nodes: int = 8
    accelerators: tuple[str, ...] = ("nvidia-h100",)
    prometheus: bool = True
    process_node: bool = True
    disable_qps_limits: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """The content of `cluster.json`.

    Attributes:
        ports: Ports on 127.0.0.1 by the names in `PORTS`.
        options: How the cluster was brought up.
        programs: Path of each program by name.
    """

    ports: dict[str, int]
    options: Options
    programs: dict[str, str]


def read(root: Path) -> Record:
    """The record of the cluster in the folder `root`.

    Raises:
        FileNotFoundError: It has none.
        Damaged: It cannot be read.
    """
    try:
        content = json.loads((root / _FILE).read_text())
        options = {**content["options"], "accelerators": tuple(content["options"]["accelerators"])}
        return Record(content["ports"], Options(**options), content["programs"])
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(root / _FILE) from error


def write(root: Path, options: Options, programs: Mapping[str, Path], kubeconfig: Path) -> Record:
    """Choose ports that are free and that no cluster beside this one has, and write everything down.

    Raises:
        Problem: There are too few free ports.
    """
    lock = root.with_name("ports.lock")
    with locked(lock, lambda _: None), deleted_afterwards(lock):
        taken = {port for neighbor in root.parent.glob("*/") for port in _ports(neighbor)}
        named = os.environ.get("TRIMTAB_PORTS")
        within = ports.port_range(named) if named else ports.DEFAULT_RANGE
        found = ports.free(len(PORTS), taken, within, first_choice=zlib.crc32(str(root).encode()))
        content: dict[str, Any] = {
            "name": root.name,
            "kubeconfig": str(kubeconfig),
            "ports": dict(zip(PORTS, found, strict=True)),
            "options": asdict(options),
            "programs": {name: str(path) for name, path in programs.items()},
        }
        (root / _FILE).write_text(json.dumps(content, indent=2) + "\n")
    return read(root)


def _ports(root: Path) -> list[int]:
    try:
        return list(read(root).ports.values())
    except (FileNotFoundError, Damaged):
        return []
