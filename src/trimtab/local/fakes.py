"""Fake nodes: Node objects with accelerators and a place in the hall, kept alive by kwok."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

from trimtab.api import keys
from trimtab.kube import Kube
from trimtab.kube.resources import NODES

NODES_PER_RACK: Final = 4
RACKS_PER_ROW: Final = 2
ROWS_PER_AISLE: Final = 2
_CAPACITY: Final = {"cpu": "96", "memory": "1Ti", "ephemeral-storage": "3Ti", "pods": "110", keys.GPU_RESOURCE: "8"}
_CONDITIONS: Final = (
    ("Ready", "True", "KubeletReady", "kwok plays the kubelet"),
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", ""),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", ""),
    ("PIDPressure", "False", "KubeletHasSufficientPID", ""),
    ("NetworkUnavailable", "False", "RouteCreated", ""),
)


def place(index: int) -> dict[str, str]:
    """The topology labels of the fake node with this index: four nodes a rack, two racks a row, two rows an aisle."""
    rack = index // NODES_PER_RACK
    row = rack // RACKS_PER_ROW
    return {
        keys.SITE: "site-a",
        keys.AISLE: f"aisle-{row // ROWS_PER_AISLE + 1}",
        keys.ROW: f"row-{row + 1}",
        keys.RACK: f"row-{row + 1}-rack-{rack % RACKS_PER_ROW}",
    }


def nodes(count: int, accelerators: Sequence[str], *, now: str) -> Iterator[dict[str, Any]]:
    """Node objects `fake-0001`, ... that are Ready as created.

    Args:
        count: How many.
        accelerators: Accelerator names, dealt out rack by rack.
        now: The time of the first heartbeat, RFC 3339.
    """
    for index in range(count):
        accelerator = accelerators[index // NODES_PER_RACK % len(accelerators)]
        yield _node(f"fake-{index + 1:04}", {**place(index), keys.ACCELERATOR: accelerator}, now)


async def create(kube: Kube, wanted: Sequence[dict[str, Any]]) -> None:
    """Create many nodes at once; the connection limit of `kube` bounds how many requests are in flight."""
    await asyncio.gather(*(kube.create(NODES, node) for node in wanted))


def _node(name: str, labels: dict[str, str], now: str) -> dict[str, Any]:
    hostname = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**hostname, keys.NODE_TYPE: "fake", **labels},
            "annotations": {keys.FAKE_TAINT: "fake"},
        },
        "spec": {"taints": [{"key": keys.FAKE_TAINT, "value": "fake", "effect": "NoSchedule"}]},
        "status": {
            "phase": "Running",
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
                for kind, status, reason, message in _CONDITIONS
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "kwok",
                "kernelVersion": "kwok",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.37.2",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "kwok",
                "systemUUID": "",
            },
        },
    }
