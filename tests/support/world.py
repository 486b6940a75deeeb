"""A clock that tests turn, and wire objects for the extender's world."""

from typing import Any

from trimtab.api import keys
from trimtab.kube import Event, EventType
from trimtab.kube.resources import NODES, PODS, POWER_DOMAINS
from trimtab.obs.clock import WallClock, to_time
from trimtab.obs.metrics import ExtenderMetrics
from trimtab_extender.world import WATCHED, World

START = 1_800_000_000.0


class TurnedClock(WallClock):
    """Time that stands still until a test moves it; sleeping moves it."""

    def __init__(self, at: float = START) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def a_world(clock: WallClock | None = None, metrics: ExtenderMetrics | None = None) -> World:
    """A world that has seen everything: two rows with a node each, row-1 limited to 1000 W, row-2 to 500 W."""
    world = World(clock or TurnedClock(), metrics or ExtenderMetrics(), 30.0)
    for row, watts in (("row-1", 1000), ("row-2", 500)):
        world.take(POWER_DOMAINS, added(domain_object(row, watts)))
        world.take(NODES, added(node_object(f"{row}-n0", row)))
    for resource in WATCHED:
        world.take(resource, Event(EventType.SYNCED, {}))
    return world


def added(obj: dict[str, Any]) -> Event:
    return Event(EventType.ADDED, obj)


def modified(obj: dict[str, Any]) -> Event:
    return Event(EventType.MODIFIED, obj)


def deleted(obj: dict[str, Any]) -> Event:
    return Event(EventType.DELETED, {"metadata": obj["metadata"]})


def domain_object(name: str, watts: int, generation: int = 1, **spec: Any) -> dict[str, Any]:
    nodes = {"matchLabels": {keys.ROW: name}}
    limits = {"powerWatts": watts}
    whole = {"mode": "Enforce", "type": "Row", "nodes": nodes, "limits": limits, "marginPercent": 0} | spec
    return {"metadata": {"name": name, "uid": f"uid-{name}", "generation": generation}, "spec": whole}


def node_object(name: str, row: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {keys.ROW: row, keys.ACCELERATOR: "nvidia-h100"}}}


def pod_object(
    name: str,
    *,
    watts: str | None = "400",
    node: str = "",
    pool: str = "",
    resource: str = keys.GPU_RESOURCE,
    created: float = START,
    **rest: Any,
) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "ai",
        "uid": f"uid-{name}",
        "creationTimestamp": to_time(created),
        "labels": {keys.POOL: pool} if pool else {},
        "annotations": {} if watts is None else {keys.WATTS: watts},
    }
    limits = {resource: "1"} if resource else {}
    spec: dict[str, Any] = {"containers": [{"name": "engine", "resources": {"limits": limits}}]} | rest
    return {"metadata": metadata, "spec": spec | ({"nodeName": node} if node else {}), "status": {}}


def see_pod(world: World, obj: dict[str, Any]) -> None:
    world.take(PODS, modified(obj))
