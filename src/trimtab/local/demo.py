"""What `trimtab demo` does besides replaying: installs Trimtab on a local cluster, applies the samples, and watches."""

import asyncio
import math
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

import trimtab
from trimtab.api import keys
from trimtab.api.serving_pool import ServingPool
from trimtab.kube import Kube
from trimtab.kube.errors import Unavailable
from trimtab.kube.resources import EVENTS, NODES, PODS, POWER_DOMAINS, SERVING_POOLS, Resource
from trimtab.kube.watch import EventType, list_then_watch
from trimtab.local.cluster import LocalCluster
from trimtab.model.problem import Problem
from trimtab.workload.gather import fetch
from trimtab.workload.level import ServiceLevel
from trimtab.workload.report import FIGURE_FILES
from trimtab.workload.wire import AnswerLost, Client, Target

NAME = "demo"
"""The cluster's name."""

NAMESPACE = "ai"
"""Where the samples are."""

POOL = "chat"
"""The sample pool that answers."""

SYSTEM = "trimtab-system"
"""Where Trimtab is installed."""

_GATEWAY_SELECTOR = "app.kubernetes.io/component=gateway"
_METRICS_PORT = 9090
COUNTS_SECONDS = 1.0
"""How old `Seen.waiting` and `Seen.in_flight` may be."""

_POLL_SECONDS = 0.2
_HELM_SECONDS = 120
_DEFAULT_SHARE = 0.85
# Warnings that only say what a local cluster is, and the routine of controllers.
_QUIET_REASONS = frozenset({"FieldsNotHonored", "NoPods", "SuccessfulCreate", "ScalingReplicaSet", "Pulled", "Created"})


@dataclass(frozen=True, slots=True)
class Checkout:
    """The parts of a source checkout that the demo needs.

    Attributes:
        root: the checkout.
    """

    root: Path

    @property
    def chart(self) -> Path:
        """Return the Helm chart."""
        return self.root / "helm" / "trimtab"

    @property
    def samples(self) -> Path:
        """Return the folder of sample objects."""
        return self.root / "manifests" / "samples"

    @property
    def figures(self) -> Path:
        """Return where the demo leaves its figures."""
        return self.root / "out" / "demo"


def find_checkout() -> Checkout:
    """Return the checkout that this package runs from.

    Raises:
        Problem: the package was installed without one.
    """
    checkout = Checkout(Path(trimtab.__file__).resolve().parents[2])
    for needed in (checkout.chart / "Chart.yaml", checkout.samples):
        if not needed.exists():
            raise Problem(
                f"the demo needs {needed.relative_to(checkout.root)}, which only a source checkout has",
                fix="clone the repository and run `make demo` there",
            )
    return checkout


def install(cluster: LocalCluster, checkout: Checkout) -> None:
    """Install Trimtab by its chart, or upgrade it, and wait until its processes are ready.

    Raises:
        Problem: Helm failed; its last lines say why.
    """
    values = str(checkout.chart / "values-local.yaml")
    arguments = (
        "upgrade",
        "--install",
        "trimtab",
        str(checkout.chart),
        "-n",
        SYSTEM,
        "--create-namespace",
        "-f",
        values,
    )
    _run(cluster, "helm", *arguments, "--wait", "--timeout", f"{_HELM_SECONDS}s")


def apply_samples(cluster: LocalCluster, checkout: Checkout) -> None:
    """Apply `manifests/samples` as a person would.

    Raises:
        Problem: kubectl failed; its last lines say why.
    """
    _run(cluster, "kubectl", "apply", "-f", str(checkout.samples))


def _run(cluster: LocalCluster, program: str, *arguments: str) -> None:
    helm_home = {f"HELM_{kind}_HOME": str(cluster.root / "helm" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    environment = os.environ | helm_home | {"KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run(
        [cluster.program(program), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise Problem(
            f"`{program} {arguments[0]}` failed: {said}",
            fix=f"`trimtab cluster status --name {cluster.name}` and `kubectl -n {SYSTEM} get pods` say more",
        )


def engine_speed(pool: ServingPool) -> float:
    """Return how many times faster than real the pool's simulated engines run: the `--speed` of their command."""
    template = pool.spec.workload.template if pool.spec.workload else {}
    for container in template.get("spec", {}).get("containers", ()):
        found = re.search(r"--speed[= ]([0-9.]+)", " ".join(container.get("args", ())))
        if found:
            return float(found.group(1))
    return 1.0


def service_levels(pool: ServingPool) -> tuple[ServiceLevel, ...]:
    """Return the pool's service levels; most requests ask for the default one, the others share the rest."""
    declared = pool.spec.service_levels
    others = max(1, len(declared) - 1)
    return tuple(
        ServiceLevel(
            level.name,
            ttft_seconds=_seconds(level.ttft_milliseconds),
            tpot_seconds=_seconds(level.tpot_milliseconds),
            completion_seconds=level.completion_seconds,
            share=_DEFAULT_SHARE if level.default else (1 - _DEFAULT_SHARE) / others,
        )
        for level in declared
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


@dataclass(slots=True)
class Seen:
    """The cluster as the watches show it.

    Attributes:
        pools: ServingPools by namespace/name.
        pods: pods of the samples by name.
        nodes: nodes by name.
        domains: PowerDomains by name.
        events: Events worth telling, by name.
        waiting: requests that wait in the gateway, by pool.
        in_flight: requests that engines work on, by pool.
    """

    pools: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    pods: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    nodes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    domains: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    events: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    in_flight: dict[str, float] = field(default_factory=dict)

    def latest_events(self, count: int) -> list[Mapping[str, Any]]:
        """Return the latest Events, oldest first."""
        return sorted(self.events.values(), key=_event_time)[-count:]

    def placements(self) -> list["Placement"]:
        """Return where each pool's pods are, by pool and rack."""
        found: dict[tuple[str, str], Placement] = {}
        for name in sorted(self.pods):
            pod = self.pods[name]
            pool = pod["metadata"].get("labels", {}).get(keys.POOL, "")
            node = pod["spec"].get("nodeName", "")
            if not pool or not node:
                continue
            rack = self.nodes.get(node, {}).get("metadata", {}).get("labels", {}).get(keys.RACK, "")
            place = found.setdefault((pool, rack), Placement(pool, rack, [], 0.0, self._limit(rack)))
            place.nodes.append(node)
            place.watts += float(pod["metadata"].get("annotations", {}).get(keys.WATTS, 0))
        return [found[key] for key in sorted(found)]

    def _limit(self, rack: str) -> float | None:
        limit = self.domains.get(rack, {}).get("spec", {}).get("limits", {}).get("powerWatts")
        return None if limit is None else float(limit)

    def unplaced(self) -> int:
        """Return how many pods have no node."""
        return sum(not pod["spec"].get("nodeName") for pod in self.pods.values())


@dataclass(slots=True)
class Placement:
    """The pods of one pool in one rack.

    Attributes:
        pool: the pool.
        rack: the rack; empty for the node whose pods are processes.
        nodes: the node of each pod.
        watts: what the pods declare together.
        limit_watts: what the rack's PowerDomain allows; None without one.
    """

    pool: str
    rack: str
    nodes: list[str]
    watts: float
    limit_watts: float | None


@asynccontextmanager
async def watching(kube: Kube) -> AsyncIterator[Seen]:
    """Keep a `Seen` up to date while the block runs."""
    seen = Seen()
    tasks = [
        asyncio.create_task(coroutine)
        for coroutine in (
            _keep(kube, SERVING_POOLS, seen.pools, None),
            _keep(kube, PODS, seen.pods, NAMESPACE),
            _keep(kube, NODES, seen.nodes, None),
            _keep(kube, POWER_DOMAINS, seen.domains, None),
            _keep_events(kube, seen),
            _keep_counts(kube, seen),
        )
    ]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(kube: Kube, resource: Resource, store: dict[str, Mapping[str, Any]], namespace: str | None) -> None:
    async for event in list_then_watch(kube, resource, namespace):
        if event.type is EventType.SYNCED:
            continue
        name = event.object["metadata"]["name"]
        if resource is SERVING_POOLS:
            name = f"{event.object['metadata']['namespace']}/{name}"
        if event.type is EventType.DELETED:
            store.pop(name, None)
        else:
            store[name] = event.object


async def _keep_events(kube: Kube, seen: Seen) -> None:
    async for event in list_then_watch(kube, EVENTS, NAMESPACE):
        if event.type is EventType.SYNCED or event.object.get("reason") in _QUIET_REASONS:
            continue
        name = event.object["metadata"]["name"]
        if event.type is EventType.DELETED:
            seen.events.pop(name, None)
        else:
            seen.events[name] = event.object


def _event_time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


async def _keep_counts(kube: Kube, seen: Seen) -> None:
    while True:
        waiting: dict[str, float] = {}
        in_flight: dict[str, float] = {}
        for address in await _gateway_addresses(kube):
            for family in text_string_to_metric_families(await _metrics(address)):
                store = {"trimtab_gateway_waiting": waiting, "trimtab_gateway_in_flight": in_flight}.get(family.name)
                for sample in family.samples if store is not None else ():
                    pool = sample.labels["pool"]
                    store[pool] = store.get(pool, 0.0) + sample.value  # type: ignore[index,union-attr]
        seen.waiting, seen.in_flight = waiting, in_flight
        await asyncio.sleep(COUNTS_SECONDS)


async def _gateway_addresses(kube: Kube) -> list[str]:
    """Return where the gateways are; none while the API server does not answer."""
    try:
        pods = await kube.list(PODS, namespace=SYSTEM, label_selector=_GATEWAY_SELECTOR)
    except Unavailable:
        return []
    return [address for pod in pods.items if (address := pod.get("status", {}).get("podIP"))]


async def _metrics(address: str) -> str:
    """Return a gateway's metrics; nothing while it does not answer, as when it is being replaced."""
    client = Client(Target(address, _METRICS_PORT, "", None))
    try:
        _, body = await fetch(client, "/metrics", patience_seconds=2.0)
    except (AnswerLost, TimeoutError):
        return ""
    finally:
        client.close()
    return body.decode()


async def wait_until_ready(seen: Seen, pool: str, *, patience_seconds: float) -> ServingPool:
    """Return a pool once it is Ready.

    Raises:
        Problem: it is not in time; its own condition says why.
    """
    condition: Mapping[str, Any] = {}
    for _ in range(math.ceil(patience_seconds / _POLL_SECONDS)):
        found = seen.pools.get(pool, {})
        condition = condition_of(found, "Ready")
        if condition.get("status") == "True":
            return ServingPool.model_validate(found)
        await asyncio.sleep(_POLL_SECONDS)
    why = condition.get("message") or "it has no Ready condition: does the operator run?"
    raise Problem(
        f"pool {pool} is not Ready after {patience_seconds:g} s: {why}",
        fix=f"`kubectl -n {NAMESPACE} describe spool,pods` and `kubectl -n {SYSTEM} logs deploy/trimtab-operator`",
    )


def condition_of(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return one condition of an object's status; empty where it has none."""
    conditions: Iterable[Mapping[str, Any]] = obj.get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == kind), {})


async def scale(kube: Kube, replicas: int) -> None:
    """Scale the answering pool as `kubectl scale` does."""
    await kube.merge_patch(
        SERVING_POOLS, POOL, {"spec": {"replicas": replicas}}, namespace=NAMESPACE, subresource="scale"
    )


async def delete_one_engine(kube: Kube, seen: Seen) -> str:
    """Delete the pool's first pod, as a failing node or an impatient person would; returns its name."""
    mine = sorted(name for name, pod in seen.pods.items() if pod["metadata"].get("labels", {}).get(keys.POOL) == POOL)
    if mine:
        await kube.delete(PODS, mine[0], namespace=NAMESPACE)
    return mine[0] if mine else ""


def remove(cluster: LocalCluster, figures: Path) -> bool:
    """Take the cluster down and delete the figures; says whether there was anything."""
    there = [path for name in FIGURE_FILES if (path := figures / name).exists()]
    for path in there:
        path.unlink()
    if there and not any(figures.iterdir()):
        figures.rmdir()
    return cluster.down() or bool(there)
