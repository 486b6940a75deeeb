"""The Node object and its Lease: how the control plane knows that the node is there."""

import asyncio
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import structlog

from trimtab.api import keys
from trimtab.kube import Kube, KubeError, NotFound
from trimtab.kube.resources import LEASES, NODES
from trimtab.local.process_node.status import timestamp

_log = structlog.get_logger(__name__)

LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE_SECONDS: Final = 40
RENEW_SECONDS: Final = 10.0
STATUS_SECONDS: Final = 240.0
_RETRY_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the Node object says.

    Attributes:
        name: the node's name.
        ip: its address.
        port: where its kubelet API listens.
        capacity: what pods may request in total.
        labels: labels besides the usual ones.
    """

    name: str
    ip: str
    port: int
    capacity: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


def node_object(facts: NodeFacts) -> dict[str, Any]:
    """Return the Node as it is created: labels and the taint that keeps out pods that do not tolerate it."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    usual = {
        keys.NODE_TYPE: "process",
        "kubernetes.io/hostname": facts.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine,
    }
    taint = {"key": keys.PROCESS_TAINT, "value": "process", "effect": "NoSchedule"}
    return {"metadata": {"name": facts.name, "labels": {**usual, **facts.labels}}, "spec": {"taints": [taint]}}


def node_status(facts: NodeFacts, now: float, *, ready: bool, since: float) -> dict[str, Any]:
    """Return the Node's status.

    Args:
        facts: what it says.
        now: the heartbeat, Unix seconds.
        ready: whether pods may come.
        since: when that last changed, Unix seconds.
    """
    return {
        "capacity": dict(facts.capacity),
        "allocatable": dict(facts.capacity),
        # No Hostname: the API server would prefer it for logs, and no DNS knows it.
        "addresses": [{"type": "InternalIP", "address": facts.ip}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "conditions": _conditions(now, ready=ready, since=since),
        "nodeInfo": _node_info(),
    }


def _conditions(now: float, *, ready: bool, since: float) -> list[dict[str, Any]]:
    times = {"lastHeartbeatTime": timestamp(now), "lastTransitionTime": timestamp(since)}
    pressure = [
        {"type": kind, "status": "False", "reason": "NotMeasured", "message": "the process node does not measure it"}
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    on = {"type": "Ready", "status": "True", "reason": "ProcessNodeReady", "message": "pods run as local processes"}
    off = {
        "type": "Ready",
        "status": "False",
        "reason": "ProcessNodeStopped",
        "message": "the process node has stopped",
    }
    return [condition | times for condition in [*pressure, on if ready else off]]


def _node_info() -> dict[str, str]:
    uname = os.uname()
    return {
        "architecture": uname.machine,
        "bootID": "",
        "containerRuntimeVersion": f"process://{version('trimtab')}",
        "kernelVersion": uname.release,
        "kubeProxyVersion": "",
        "kubeletVersion": f"trimtab-{version('trimtab')}",
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "local processes",
        "systemUUID": "",
    }


class NodeKeeper:
    """Keeps the Node object and its Lease alive.

    Args:
        kube: the API server.
        facts: what the Node says.
        now: the clock, Unix seconds.
    """

    def __init__(self, kube: Kube, facts: NodeFacts, now: Callable[[], float]) -> None:
        self._kube = kube
        self._facts = facts
        self._now = now
        self._since = now()
        self._uid = ""

    async def register(self) -> None:
        """Create or adopt the Node, trying until the API server takes it."""
        while True:
            try:
                await self._register()
            except KubeError as error:
                _log.warning("node not registered", node=self._facts.name, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def run(self) -> None:
        """Renew the Lease, and from time to time the status, for ever."""
        status_at = self._now()
        while True:
            try:
                await self._renew()
                if self._now() - status_at > STATUS_SECONDS:
                    await self._write_status(ready=True)
                    status_at = self._now()
            except NotFound:
                _log.warning("node object was deleted, registering again", node=self._facts.name)
                await self.register()
            except KubeError as error:
                _log.warning("node lease not renewed", node=self._facts.name, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await asyncio.sleep(RENEW_SECONDS)

    async def stop(self) -> None:
        """Say that the node is not ready any more; if nobody listens, the Lease will run out."""
        self._since = self._now()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._write_status(ready=False)
        except (KubeError, TimeoutError) as error:
            _log.info("node status not written at stop", node=self._facts.name, error=str(error))

    async def _register(self) -> None:
        node = await self._create_or_adopt()
        self._uid = node["metadata"]["uid"]
        await self._renew()
        await self._write_status(ready=True)

    async def _create_or_adopt(self) -> dict[str, Any]:
        """Return the Node with our labels and taint; taints that others have put on it stay."""
        wanted = node_object(self._facts)
        try:
            node = await self._kube.get(NODES, self._facts.name)
        except NotFound:
            return await self._kube.create(NODES, wanted)
        labels = {"metadata": {"name": self._facts.name, "labels": wanted["metadata"]["labels"]}}
        node = await self._kube.apply(NODES, labels, force=True)
        taints = node["spec"].get("taints") or []
        if any(taint["key"] == keys.PROCESS_TAINT for taint in taints):
            return node
        patch = {"spec": {"taints": [*taints, *wanted["spec"]["taints"]]}}
        return await self._kube.merge_patch(NODES, self._facts.name, patch)

    async def _write_status(self, *, ready: bool) -> None:
        status = node_status(self._facts, self._now(), ready=ready, since=self._since)
        await self._kube.apply(
            NODES, {"metadata": {"name": self._facts.name}, "status": status}, force=True, subresource="status"
        )

    async def _renew(self) -> None:
        await self._kube.apply(LEASES, self._lease(), force=True)

    def _lease(self) -> dict[str, Any]:
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._facts.name, "uid": self._uid}
        renewed = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "metadata": {"namespace": LEASE_NAMESPACE, "name": self._facts.name, "ownerReferences": [owner]},
            "spec": {
                "holderIdentity": self._facts.name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": renewed,
            },
        }
