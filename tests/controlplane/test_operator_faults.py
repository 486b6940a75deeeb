"""The operator when things break: servers restarted, processes killed, objects gone behind its back."""

import asyncio
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.conftest import kubectl as run_kubectl
from tests.support import operators
from tests.support.operators import (
    a_deployment,
    a_pool,
    because,
    condition,
    current,
    deployment,
    gone,
    holder,
    in_background,
    livez,
    patch_pool,
    pool,
    ready,
    replicas,
    seen,
    target,
)
from tests.support.processes import Running
from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube, KubeError
from trimtab.kube.resources import CRDS, DEPLOYMENTS, NAMESPACES, PDBS, SERVICES, SERVING_POOLS
from trimtab.local import owned

FOLDER = Path(__file__).parents[2] / "crds"
POOLS = 40


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: Any) -> None:
    run_kubectl(cluster, "create", "namespace", operators.LEASE_NAMESPACE, check=False)
    run_kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(FOLDER))


class Operators:
    """Starts operators that end with the test."""

    def __init__(self, stack: ExitStack, kubeconfig: Path, logs: Path) -> None:
        self._stack = stack
        self._kubeconfig = kubeconfig
        self._logs = logs

    def start(self, **settings: object) -> Running:
        return self._stack.enter_context(operators.an_operator(self._kubeconfig, self._logs, **settings))

    async def leader(self, **settings: object) -> Running:
        process = self.start(**settings)
        await in_background(process.wait_until_ready)
        return process


@pytest.fixture
def start(cluster: Any, tmp_path: Path) -> Iterator[Operators]:
    with ExitStack() as stack:
        yield Operators(stack, cluster.kubeconfig, tmp_path)


async def create_pools(kube: Kube, namespace: str, count: int = POOLS, **spec: Any) -> None:
    for number in range(count):
        await kube.create(SERVING_POOLS, a_pool(f"pool-{number:02d}", namespace, **spec))


async def all_as_specified(kube: Kube, namespace: str, count: int, replicas: int) -> bool:
    """Whether each pool was looked at and each of its objects is there exactly once and as asked for.

    Not whether its pods are ready: after an outage the controllers of Kubernetes may take a minute to notice.
    """
    try:
        pools = (await kube.list(SERVING_POOLS, namespace)).items
        workloads = (await kube.list(DEPLOYMENTS, namespace)).items
        others = [len((await kube.list(resource, namespace)).items) for resource in (SERVICES, PDBS)]
    except KubeError:
        return False
    asked = all(one["spec"]["replicas"] == replicas for one in workloads)
    return len(pools) == len(workloads) == count and others == [count, count] and asked and all(map(current, pools))


async def uids(kube: Kube, namespace: str) -> set[str]:
    return {one["metadata"]["uid"] for one in (await kube.list(DEPLOYMENTS, namespace)).items}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("component", ["kube-apiserver", "etcd"])
async def test_a_restarted_server_under_load_loses_nothing(
    cluster: Any, kube: Kube, namespace: str, start: Operators, component: str
) -> None:
    operator = await start.leader()
    await create_pools(kube, namespace)
    changing = asyncio.create_task(_scale_all(kube, namespace, 2))
    await in_background(_kill_and_restart, cluster, component)
    await changing
    await until(lambda: all_as_specified(kube, namespace, POOLS, 2), seconds=90)
    assert operator.process.poll() is None
    assert livez(operator) == 200


async def _scale_all(kube: Kube, namespace: str, count: int) -> None:
    for number in range(POOLS):
        await until(lambda number=number: _scaled(kube, f"pool-{number:02d}", namespace, count), seconds=60)


async def _scaled(kube: Kube, name: str, namespace: str, count: int) -> bool:
    try:
        await patch_pool(kube, name, namespace, replicas=count)
    except KubeError:
        return False
    return True


def _kill_and_restart(cluster: Any, name: str) -> None:
    """Kill one component, as a crash would, and have the launcher bring it back."""
    (component,) = [one for one in cluster.components() if one.name == name]
    for process in owned.processes(cluster.root):
        if component.runs_as(process):
            _kill(process.pid)
    cluster.restart(name)


def _kill(pid: int) -> None:
    """Kill a process and wait until it is gone: until then it may still hold its port."""
    with os.fdopen(os.pidfd_open(pid)) as handle:
        signal.pidfd_send_signal(handle.fileno(), signal.SIGKILL)
        select.select([handle], [], [])


async def test_an_operator_killed_in_the_middle_leaves_nothing_twice_and_nothing_out(
    kube: Kube, namespace: str, start: Operators
) -> None:
    first = await start.leader()
    creating = asyncio.create_task(create_pools(kube, namespace))
    await until(lambda: _some_but_not_all(kube, namespace))
    first.process.kill()
    await creating
    before = await uids(kube, namespace)
    start.start()
    await until(lambda: all_as_specified(kube, namespace, POOLS, 1), seconds=60)
    assert before <= await uids(kube, namespace)


async def _some_but_not_all(kube: Kube, namespace: str) -> bool:
    return 0 < len((await kube.list(DEPLOYMENTS, namespace)).items) < POOLS


async def test_of_two_operators_one_leads_both_are_ready_and_the_handover_is_fast(
    kube: Kube, namespace: str, start: Operators
) -> None:
    first = await start.leader(identity="first")
    await until(lambda: _led_by(kube, "first"))
    second = await start.leader(identity="second")
    assert first.is_ready
    assert second.is_ready
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    before = await pool(kube, "chat", namespace)
    workload = await deployment(kube, "chat", namespace)
    first.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    await patch_pool(kube, "chat", namespace, replicas=2)
    after = await deployment(kube, "chat", namespace, replicas(2))
    gap = time.monotonic() - began
    assert gap < 5
    assert await in_background(first.process.wait, 10) == 0
    assert await holder(kube) == "second"
    assert after["metadata"]["uid"] == workload["metadata"]["uid"]
    assert before["metadata"]["uid"] == (await pool(kube, "chat", namespace))["metadata"]["uid"]


async def _led_by(kube: Kube, identity: str) -> bool:
    return await holder(kube) == identity


async def test_a_leader_whose_lease_is_taken_ends(kube: Kube, start: Operators) -> None:
    operator = await start.leader(identity="robbed")
    await until(lambda: _led_by(kube, "robbed"))
    lease = "/apis/coordination.k8s.io/v1/namespaces/trimtab-system/leases/trimtab-operator"
    taken = {
        "spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60, "renewTime": "2100-01-01T00:00:00.000000Z"}
    }
    await kube.request("PATCH", lease, taken, content_type="application/merge-patch+json")
    try:
        assert await in_background(operator.process.wait, 40) == 1
    finally:
        await kube.request("DELETE", lease)


async def test_a_pool_deleted_while_the_operator_is_down_is_not_brought_back(
    kube: Kube, namespace: str, start: Operators
) -> None:
    first = await start.leader()
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    held = a_pool("held", namespace, targetRef=target("web"), replicas=3, mode="Enforce", deletionPolicy="Restore")
    await kube.create(SERVING_POOLS, held)
    await kube.create(SERVING_POOLS, a_pool("owned", namespace))
    await deployment(kube, "web", namespace, replicas(3))
    await pool(kube, "owned", namespace)
    first.process.terminate()
    await in_background(first.process.wait, 15)
    for name in ("held", "owned"):
        await kube.delete(SERVING_POOLS, name, namespace)
    await gone(kube, DEPLOYMENTS, "owned", namespace)
    await start.leader()
    await gone(kube, SERVING_POOLS, "held", namespace)
    await deployment(kube, "web", namespace, replicas(1))
    await kube.create(SERVING_POOLS, a_pool("later", namespace))
    await pool(kube, "later", namespace)
    assert {one["metadata"]["name"] for one in (await kube.list(DEPLOYMENTS, namespace)).items} == {"web", "later"}


async def test_a_deleted_namespace_goes_with_everything_in_it(kube: Kube, start: Operators) -> None:
    operator = await start.leader()
    name = f"doomed-{os.getpid()}"
    await kube.create(NAMESPACES, {"metadata": {"name": name}})
    await create_pools(kube, name, 5)
    await kube.create(DEPLOYMENTS, a_deployment("web", name))
    await kube.create(SERVING_POOLS, a_pool("held", name, targetRef=target("web"), replicas=3, mode="Enforce"))
    await deployment(kube, "web", name, replicas(3))
    await kube.delete(NAMESPACES, name)
    await gone(kube, NAMESPACES, name, None, seconds=60)
    assert operator.is_ready


async def test_an_old_schema_is_refused_until_it_is_replaced(
    cluster: Any, kube: Kube, namespace: str, start: Operators
) -> None:
    crd = f"{SERVING_POOLS.plural}.{SERVING_POOLS.group}"
    old = {"metadata": {"annotations": {keys.SCHEMA_HASH: "0123456789abcdef"}}}
    await kube.merge_patch(CRDS, crd, old)
    try:
        operator = await start.leader()
        await kube.create(SERVING_POOLS, a_pool("chat", namespace))
        found = await pool(kube, "chat", namespace, because("SchemaMismatch"))
        assert condition(found)["status"] == "False"
        assert "kubectl apply --server-side -f crds/" in condition(found)["message"]
        assert operator.process.poll() is None
        assert operator.log.read_text().count("refusing to act") == 1
        assert (await kube.list(DEPLOYMENTS, namespace)).items == []
    finally:
        run_kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(FOLDER))
    await pool(kube, "chat", namespace)


async def test_a_proposal_that_nobody_approves_expires(kube: Kube, namespace: str, start: Operators) -> None:
    await start.leader(proposal_seconds=1)
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2, mode="Propose"))

    def expired(one: Any) -> bool:
        return any(entry["outcome"] == "Expired" for entry in one.get("status", {}).get("recentDecisions", ()))

    found = await pool(kube, "chat", namespace, expired)
    outcomes = [entry["outcome"] for entry in found["status"]["recentDecisions"]]
    assert outcomes == ["Expired", "Proposed"]
    assert (await kube.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 1


async def test_a_new_leader_writes_nothing_that_is_as_it_should_be(
    kube: Kube, namespace: str, start: Operators
) -> None:
    first = await start.leader()
    await create_pools(kube, namespace, 5)
    for number in range(5):
        await pool(kube, f"pool-{number:02d}", namespace)
    first.process.terminate()
    await in_background(first.process.wait, 15)
    before = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in await _everything(kube, namespace)}
    second = await start.leader()
    await kube.create(SERVING_POOLS, a_pool("last", namespace))
    await seen(kube, SERVING_POOLS, "last", namespace, ready)
    after = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in await _everything(kube, namespace)}
    assert {name: after[name] for name in before} == before
    assert second.is_ready


async def _everything(kube: Kube, namespace: str) -> list[Any]:
    found = []
    for resource in (SERVING_POOLS, DEPLOYMENTS, SERVICES, PDBS):
        for item in (await kube.list(resource, namespace)).items:
            item["metadata"]["name"] = f"{resource.plural}/{item['metadata']['name']}"
            found.append(item)
    return found
