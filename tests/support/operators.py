"""Operators as processes against a test cluster, and the pools that they look after."""

import asyncio
import itertools
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import Running, running
from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube, NotFound, Object, Resource
from trimtab.kube.resources import DEPLOYMENTS, EVENTS, LEASES, SERVING_POOLS

LEASE_NAMESPACE = "trimtab-system"
LEASE = "trimtab-operator"
ON_FAKE_NODES = {"key": keys.FAKE_TAINT, "operator": "Exists"}  # not on process nodes, which run no foreign command

_numbers = itertools.count()


@contextmanager
def an_operator(kubeconfig: Path, logs: Path, **settings: object) -> Iterator[Running]:
    """An operator of its own, started but not necessarily ready; `identity` is its name in the Lease."""
    health, metrics = _free_port(), _free_port()
    number = next(_numbers)
    given = {"identity": f"operator-{number}", "health_port": health, "metrics_port": metrics} | settings
    ready = f"http://127.0.0.1:{health}/readyz"
    with running("trimtab-operator", given, kubeconfig, ready, logs / f"operator-{number}.log") as process:
        yield process


def _free_port() -> int:
    """A port that the kernel hands out to nobody else for a while."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def livez(process: Running) -> int:
    """The status of an operator's `/livez`."""
    with urllib.request.urlopen(process.ready.replace("/readyz", "/livez"), timeout=2) as answer:
        return int(answer.status)


async def holder(kube: Kube) -> str:
    """Who leads; empty for nobody."""
    try:
        lease = await kube.get(LEASES, LEASE, LEASE_NAMESPACE)
    except NotFound:
        return ""
    return str(lease["spec"].get("holderIdentity") or "")


def a_pool(name: str, namespace: str, **spec: Any) -> Object:
    """A small valid pool that owns its workload, unless `targetRef` is given."""
    container = {"name": "engine", "image": "engine:1", "ports": [{"containerPort": 8000}]}
    template = {"spec": {"containers": [container], "tolerations": [ON_FAKE_NODES]}}
    given = {"models": [{"name": "m"}], "replicas": 1} | spec
    if "targetRef" not in given:
        given.setdefault("workload", {"template": template})
    return {
        "apiVersion": SERVING_POOLS.api_version,
        "kind": SERVING_POOLS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": given,
    }


def a_deployment(name: str, namespace: str, replicas: int = 1) -> Object:
    """A Deployment that is not ours."""
    labels = {"app": name}
    spec = {"containers": [{"name": "engine", "image": "engine:1"}], "tolerations": [ON_FAKE_NODES]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def target(name: str, kind: str = "Deployment", api_version: str = "apps/v1") -> Object:
    """A `targetRef`."""
    return {"apiVersion": api_version, "kind": kind, "name": name}


def condition(obj: Object, kind: str = "Ready") -> Object:
    """A condition of an object; empty if it does not have it."""
    conditions = obj.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), {})


def current(pool: Object) -> bool:
    """Whether the operator has looked at the newest spec."""
    return bool(pool.get("status", {}).get("observedGeneration") == pool["metadata"]["generation"])


def ready(pool: Object) -> bool:
    return current(pool) and condition(pool).get("status") == "True"


def because(reason: str, kind: str = "Ready") -> Callable[[Object], bool]:
    """A test of whether a condition has that reason."""
    return lambda obj: condition(obj, kind).get("reason") == reason


def replicas(count: int) -> Callable[[Object], bool]:
    """A test of whether that many are asked for."""
    return lambda obj: bool(obj["spec"].get("replicas") == count)


async def seen(
    kube: Kube,
    resource: Resource,
    name: str,
    namespace: str | None,
    test: Callable[[Object], bool] = lambda _: True,
    seconds: float = 30.0,
) -> Object:
    """Wait until an object exists and passes the test, and return it."""
    last: Object = {}

    async def look() -> Object | None:
        nonlocal last
        try:
            last = await kube.get(resource, name, namespace)
        except NotFound:
            return None
        return last if test(last) else None

    try:
        return await until(look, seconds=seconds)
    except TimeoutError:
        raise AssertionError(f"{resource.kind} {name} did not come to be as expected: {last or 'absent'}") from None


async def pool(
    kube: Kube, name: str, namespace: str, test: Callable[[Object], bool] = ready, seconds: float = 30.0
) -> Object:
    """Wait until a pool passes the test, by default until it is ready, and return it."""
    return await seen(kube, SERVING_POOLS, name, namespace, test, seconds)


async def deployment(kube: Kube, name: str, namespace: str, test: Callable[[Object], bool] = lambda _: True) -> Object:
    """Wait until a Deployment passes the test, and return it."""
    return await seen(kube, DEPLOYMENTS, name, namespace, test)


async def gone(kube: Kube, resource: Resource, name: str, namespace: str | None, seconds: float = 75.0) -> None:
    """Wait until an object does not exist. The garbage collector looks for new kinds every 30 s only."""

    async def look() -> bool:
        try:
            await kube.get(resource, name, namespace)
        except NotFound:
            return True
        return False

    await until(look, seconds=seconds)


async def event(kube: Kube, namespace: str, name: str, reason: str) -> Object:
    """Wait for an Event about a pool, and return it."""

    async def look() -> Object | None:
        selector = f"involvedObject.kind=ServingPool,involvedObject.name={name},reason={reason}"
        found = await kube.list(EVENTS, namespace, field_selector=selector)
        return found.items[0] if found.items else None

    return await until(look)


async def patch_pool(kube: Kube, name: str, namespace: str, **spec: Any) -> Object:
    """Change the spec of a pool."""
    return await kube.merge_patch(SERVING_POOLS, name, {"spec": spec}, namespace)


async def annotate_pool(kube: Kube, name: str, namespace: str, key: str, value: str | None) -> Object:
    """Set an annotation of a pool, or remove it."""
    return await kube.merge_patch(SERVING_POOLS, name, {"metadata": {"annotations": {key: value}}}, namespace)


async def in_background(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a blocking function of the launcher beside the test."""
    return await asyncio.to_thread(function, *arguments)
