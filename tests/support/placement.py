"""Fake nodes, power domains and pods for tests of placement on a real cluster."""

import asyncio
from collections import Counter
from typing import Any

from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube, NotFound
from trimtab.kube.resources import NODES, PODS, POWER_DOMAINS

TAINT = "test.trimtab.dev/hall"
HALL = "test.trimtab.dev/hall"


class Hall:
    """Nodes of one test: `<hall>-<row>-<index>` with 8 GPUs each; a taint keeps everybody else's pods away.

    Args:
        kube: a connection.
        namespace: where pods are made; also the hall's name.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self._nodes: list[str] = []
        self._domains: list[str] = []

    def row(self, row: str) -> str:
        return f"{self.namespace}-{row}"

    async def build(self, *rows: str, count: int = 2, ready_seconds: float = 30.0) -> None:
        """Add `count` nodes to each row and wait until pods can be bound to them."""
        names = [(f"{self.row(row)}-{index}", row) for row in rows for index in range(count)]
        await asyncio.gather(*(self.kube.create(NODES, self._node(name, row)) for name, row in names))
        self._nodes += [name for name, _ in names]

        async def ready() -> bool:
            listing = await self.kube.list(NODES, label_selector=f"{HALL}={self.namespace}")
            return len(listing.items) == len(self._nodes) and all(map(_is_ready, listing.items))

        await until(ready, seconds=ready_seconds)

    def _node(self, name: str, row: str) -> dict[str, Any]:
        capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", keys.GPU_RESOURCE: "8"}
        labels = {
            "kubernetes.io/hostname": name,
            keys.ACCELERATOR: "nvidia-h100",
            keys.ROW: self.row(row),
            HALL: self.namespace,
        }
        return {
            "metadata": {"name": name, "labels": labels, "annotations": {keys.FAKE_TAINT: "fake"}},
            "spec": {"taints": [{"key": TAINT, "value": self.namespace, "effect": "NoSchedule"}]},
            "status": {"capacity": capacity, "allocatable": capacity},
        }

    async def limit(self, row: str, watts: int, *, parent: str | None = None, mode: str = "Enforce") -> None:
        """Set a row's limit; no margin."""
        labels = {keys.ROW: self.row(row)}
        await self._domain(self.row(row), "Row", labels, watts, mode, self.row(parent) if parent else None)

    async def limit_site(self, name: str, watts: int) -> None:
        """Set a limit for the whole hall."""
        await self._domain(self.row(name), "Site", {HALL: self.namespace}, watts, "Enforce", None)

    async def _domain(
        self, name: str, kind: str, labels: dict[str, str], watts: int, mode: str, parent: str | None
    ) -> None:
        spec: dict[str, Any] = {"mode": mode, "type": kind, "nodes": {"matchLabels": labels}, "marginPercent": 0}
        spec |= {"limits": {"powerWatts": watts}} | ({"parent": parent} if parent else {})
        await self.kube.apply(POWER_DOMAINS, {"metadata": {"name": name}, "spec": spec}, force=True)
        if name not in self._domains:
            self._domains.append(name)

    async def pods(self, prefix: str, count: int = 1, **rest: Any) -> list[str]:
        """Create pods `<prefix>-0` ..., at once."""
        names = [f"{prefix}-{index}" for index in range(count)]
        await asyncio.gather(*(self.kube.create(PODS, self.pod(name, **rest)) for name in names))
        return names

    def pod(
        self,
        name: str,
        *,
        watts: int | None = None,
        gpus: int = 1,
        labels: dict[str, str] | None = None,
        requests: dict[str, str] | None = None,
        row: str = "",
        **spec: Any,
    ) -> dict[str, Any]:
        resources = requests if requests is not None else {keys.GPU_RESOURCE: str(gpus)}
        chosen = {HALL: self.namespace} | ({keys.ROW: self.row(row)} if row else {})
        annotations = {} if watts is None else {keys.WATTS: str(watts)}
        return {
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": labels or {},
                "annotations": annotations,
            },
            "spec": {
                "containers": [{"name": "engine", "image": "engine:1", "resources": {"limits": resources}}],
                "nodeSelector": chosen,
                "tolerations": [{"key": TAINT, "operator": "Exists"}],
                "terminationGracePeriodSeconds": 0,
            }
            | spec,
        }

    async def rows_of_pods(self) -> Counter[str]:
        """How many bound pods each row has; the empty row has the others."""
        pods = (await self.kube.list(PODS, self.namespace)).items
        nodes = [pod["spec"].get("nodeName", "") for pod in pods]
        return Counter(node.removeprefix(f"{self.namespace}-").rsplit("-", 1)[0] for node in nodes)

    async def decided(self, count: int, *, seconds: float = 30.0) -> Counter[str]:
        """Wait until the scheduler has bound or refused `count` pods; return the rows of the bound ones."""

        async def all_decided() -> bool:
            pods = (await self.kube.list(PODS, self.namespace)).items
            return len(pods) == count and all(pod["spec"].get("nodeName") or refusal(pod) for pod in pods)

        await until(all_decided, seconds=seconds)
        return await self.rows_of_pods()

    async def bound(self, count: int, *, seconds: float = 30.0) -> Counter[str]:
        """Wait until `count` pods are bound; return their rows."""

        async def enough() -> bool:
            rows = await self.rows_of_pods()
            return rows.total() - rows[""] >= count

        await until(enough, seconds=seconds)
        return await self.rows_of_pods()

    async def refused(self, name: str, *words: str) -> str:
        """Wait until the scheduler's message about a pod holds all `words`; return it."""

        async def said() -> str | None:
            message = refusal(await self.kube.get(PODS, name, self.namespace))
            return message if message and all(word in message for word in words) else None

        return await until(said)

    async def tear_down(self) -> None:
        for pod in (await self.kube.list(PODS, self.namespace)).items:
            await self.kube.delete(PODS, pod["metadata"]["name"], self.namespace, grace_seconds=0)
        for name in self._domains:
            await self.kube.delete(POWER_DOMAINS, name)
        for name in self._nodes:
            await self.kube.delete(NODES, name)


def refusal(pod: dict[str, Any]) -> str:
    """What the scheduler says of a pod that it could not place; empty when it did not try or did place it."""
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", ""))
    return ""


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = {one["type"]: one["status"] for one in node.get("status", {}).get("conditions", ())}
    taints = {taint["key"] for taint in node["spec"].get("taints", ())}
    return conditions.get("Ready") == "True" and taints == {TAINT}


async def gone(kube: Kube, name: str, namespace: str) -> bool:
    """Whether a pod no longer exists."""
    try:
        await kube.get(PODS, name, namespace)
    except NotFound:
        return True
    return False
