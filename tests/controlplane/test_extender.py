"""The extender behind a real kube-scheduler: where pods go, what users read when they do not, what it sees itself."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.conftest import kubectl
from tests.support.extender import Extender, charged, known, nudging, start_extender
from tests.support.placement import Hall, gone
from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import AlreadyExists, Kube
from trimtab.kube.resources import NODES, PODS, SERVING_POOLS
from trimtab.local.cluster import LocalCluster

PROFILE = {"accelerator": "nvidia-h100", "watts": {"idle": 100, "busy": 700}}


@pytest.fixture(scope="module")
def extender(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Extender]:
    """The extender where the cluster's scheduler looks for it."""
    with start_extender(cluster, tmp_path_factory.mktemp("extender") / "extender.log") as running:
        yield running


@pytest.fixture
async def hall(kube: Kube, namespace: str, extender: Extender) -> AsyncIterator[Hall]:
    del extender  # it runs
    hall = Hall(kube, namespace)
    yield hall
    await hall.tear_down()


@pytest.fixture
async def nudges(kube: Kube) -> AsyncIterator[None]:
    async with nudging(kube):
        yield


async def test_pods_go_where_there_is_power_and_wait_where_there_is_none(hall: Hall, extender: Extender) -> None:
    await hall.build("a", "b")
    await hall.limit("a", 1500)
    await hall.limit("b", 2200)
    await known(extender, hall, a=1500, b=2200)
    await hall.pods("p", 7, watts=700)
    assert await hall.decided(7) == Counter({"a": 2, "b": 3, "": 2})
    await charged(extender, hall.row("a"), 1400)
    await charged(extender, hall.row("b"), 2100)


async def test_the_reason_reads_well_in_kubectl_describe(hall: Hall, extender: Extender, cluster: LocalCluster) -> None:
    await hall.build("a", "b")
    await hall.limit("a", 1000)
    await hall.limit("b", 500)
    await known(extender, hall, a=1000, b=500)
    await hall.pods("first", watts=700)
    await hall.bound(1)
    await charged(extender, hall.row("a"), 700)
    await hall.pods("second", watts=700)
    full = f"2 node(s) in power domain {hall.row('a')} with 300 W of 1000 W left for a pod of 700 W"
    small = f"2 node(s) in power domain {hall.row('b')} whose 500 W cannot power a pod of 700 W"
    await hall.refused("second-0", full, small)
    described = kubectl(cluster, "describe", "pod", "second-0", "-n", hall.namespace)
    assert "FailedScheduling" in described
    assert full in described
    assert small in described


async def test_the_emptier_domain_comes_first(hall: Hall, extender: Extender) -> None:
    await hall.build("a", "b")
    await hall.limit("a", 10_000)
    await hall.limit("b", 10_000)
    await known(extender, hall, a=10_000, b=10_000)
    await hall.pods("heavy", watts=3000, row="a")
    await hall.bound(1)
    await charged(extender, hall.row("a"), 3000)
    for index in range(4):
        await hall.pods(f"light-{index}", watts=300)
        await hall.bound(2 + index)
        await charged(extender, hall.row("b"), 300 * (index + 1))
    assert await hall.rows_of_pods() == Counter({"a": 1, "b": 4})


async def test_a_burst_spreads_over_equal_domains(hall: Hall, extender: Extender) -> None:
    rows = ("a", "b", "c", "d")
    await hall.build(*rows)
    for row in rows:
        await hall.limit(row, 10_000)
    await known(extender, hall, **dict.fromkeys(rows, 10_000))
    await hall.pods("p", 32, watts=1000)
    found = await hall.bound(32)
    assert min(found[row] for row in rows) >= 4, found


async def test_a_parent_limits_all_its_rows_together(hall: Hall, extender: Extender) -> None:
    await hall.build("a", "b")
    await hall.limit_site("hall", 1500)
    for row in ("a", "b"):
        await hall.limit(row, 10_000, parent="hall")
    await known(extender, hall, hall=1500, a=10_000, b=10_000)
    await hall.pods("p", 4, watts=700)
    rows = await hall.decided(4)
    assert rows[""] == 2
    waiting = [
        pod["metadata"]["name"]
        for pod in (await hall.kube.list(PODS, hall.namespace)).items
        if not pod["spec"].get("nodeName")
    ]
    await hall.refused(waiting[0], f"4 node(s) in power domain {hall.row('hall')} with 100 W of 1500 W left")


async def test_pods_of_a_pool_draw_what_its_profiles_say(hall: Hall, extender: Extender) -> None:
    await hall.build("a")
    await hall.limit("a", 1500)
    pool: dict[str, Any] = {
        "metadata": {"name": "chat", "namespace": hall.namespace},
        "spec": {
            "models": [{"name": "llama", "variants": [{"name": "bf16", "profiles": [PROFILE]}]}],
            "replicas": 0,
            "workload": {"template": {"spec": {"containers": [{"name": "engine", "image": "engine:1"}]}}},
        },
    }
    await hall.kube.apply(SERVING_POOLS, pool)
    await known(extender, hall, a=1500)
    await hall.pods("p", 3, labels={keys.POOL: "chat"})
    assert await hall.decided(3) == Counter({"a": 2, "": 1})


async def test_a_domain_that_is_not_enforced_turns_nobody_away(hall: Hall, extender: Extender) -> None:
    await hall.build("a")
    await hall.limit("a", 100, mode="Observe")
    await known(extender, hall, a=100)
    before = extender.metric("trimtab_extender_nodes_total", outcome="watched")
    await hall.pods("p", 2, watts=700)
    assert await hall.bound(2) == Counter({"a": 2})
    assert extender.metric("trimtab_extender_nodes_total", outcome="watched") == before + 4


async def test_more_accelerators_than_a_node_has_are_still_refused(hall: Hall, extender: Extender) -> None:
    """`ignoredByScheduler: false`: the scheduler goes on counting accelerators itself."""
    await hall.build("a", count=1)
    await hall.limit("a", 100_000)
    await known(extender, hall, a=100_000)
    await hall.pods("p", 3, watts=700, gpus=4)
    assert await hall.decided(3) == Counter({"a": 2, "": 1})
    waiting = next(
        pod["metadata"]["name"]
        for pod in (await hall.kube.list(PODS, hall.namespace)).items
        if not pod["spec"].get("nodeName")
    )
    await hall.refused(waiting, "1 Insufficient nvidia.com/gpu")


async def test_other_pods_opt_in_with_the_placement_resource(hall: Hall, extender: Extender) -> None:
    """No node advertises it, and the scheduler does not look for it: `ignoredByScheduler: true`."""
    await hall.build("a")
    await hall.limit("a", 500)
    await known(extender, hall, a=500)
    await hall.pods("p", 2, watts=400, requests={keys.PLACEMENT_RESOURCE: "1"})
    assert await hall.decided(2) == Counter({"a": 1, "": 1})


async def test_pods_that_request_nothing_of_ours_are_never_sent(hall: Hall, extender: Extender) -> None:
    await hall.build("a")
    before = extender.metric("trimtab_extender_answer_seconds_count", verb="filter")
    await hall.pods("plain", 5, requests={"cpu": "100m"})
    await hall.bound(5)
    assert extender.metric("trimtab_extender_answer_seconds_count", verb="filter") == before
    await hall.pods("gpu", 1)
    await hall.bound(6)
    assert extender.metric("trimtab_extender_answer_seconds_count", verb="filter") == before + 1


async def test_undeclared_pods_go_anywhere_and_are_said_to(hall: Hall, extender: Extender) -> None:
    await hall.build("a")
    await hall.limit("a", 1)
    await known(extender, hall, a=1)
    before = extender.metric("trimtab_extender_unchecked_total", reason="undeclared")
    await hall.pods("p", 2)
    await hall.bound(2)
    assert extender.metric("trimtab_extender_unchecked_total", reason="undeclared") == before + 2
    assert f"undeclared {hall.namespace}" not in extender.process.log.read_text()  # the key is no message
    assert "declares no watts" in extender.process.log.read_text()


async def bind(kube: Kube, namespace: str, pod: str, node: str) -> None:
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": node}}
    await kube.request("POST", PODS.path(namespace, pod, "binding"), body)


async def test_pods_that_another_scheduler_binds_are_charged_on_sight_and_counted(
    hall: Hall, extender: Extender
) -> None:
    await hall.build("a", count=1)
    await hall.limit("a", 1000)
    await known(extender, hall, a=1000)
    counts = {reason: bypassed(extender, reason) for reason in ("missed", "not_sent", "claims")}
    await hall.pods("other", watts=400, schedulerName="somebody-else")
    await hall.pods("pool", watts=300, requests={"cpu": "1"}, schedulerName="somebody-else")
    claims = [{"name": "gpu", "resourceClaimName": "gpu"}]
    await hall.pods("dra", watts=200, requests={"cpu": "1"}, schedulerName="somebody-else", resourceClaims=claims)
    for name in ("other-0", "pool-0", "dra-0"):
        await bind(hall.kube, hall.namespace, name, f"{hall.row('a')}-0")
    await charged(extender, hall.row("a"), 900)
    for reason, before in counts.items():
        assert bypassed(extender, reason) == before + 1, reason
    await hall.pods("ours", watts=200)
    await hall.refused("ours-0", "with 100 W of 1000 W left for a pod of 200 W")
    await until(lambda: said(extender, "bound without passing here"))


async def said(extender: Extender, words: str) -> bool:
    return words in extender.process.log.read_text()


def bypassed(extender: Extender, reason: str) -> float:
    return extender.metric("trimtab_extender_bypassed_pods_total", reason=reason)


@pytest.mark.usefixtures("nudges")
async def test_a_pod_that_is_deleted_makes_room(hall: Hall, extender: Extender) -> None:
    await hall.build("a")
    await hall.limit("a", 700)
    await known(extender, hall, a=700)
    await hall.pods("old", watts=700)
    await hall.bound(1)
    await hall.pods("new", watts=700)
    await hall.refused("new-0", "power domain")
    await hall.kube.delete(PODS, "old-0", hall.namespace, grace_seconds=0)
    await until(lambda: gone(hall.kube, "old-0", hall.namespace))
    assert await hall.bound(1) == Counter({"a": 1})


@pytest.mark.usefixtures("nudges")
async def test_a_raised_limit_wakes_the_pods_that_wait_for_it(hall: Hall, extender: Extender) -> None:
    """A changed PowerDomain is no event for the scheduler: without the nudge they would wait for minutes."""
    await hall.build("a")
    await hall.limit("a", 100)
    await known(extender, hall, a=100)
    await hall.pods("p", 3, watts=700)
    assert await hall.decided(3) == Counter({"": 3})
    await hall.limit("a", 10_000)
    assert await hall.bound(3, seconds=20) == Counter({"a": 3})
    nodes = (await hall.kube.list(NODES, label_selector=f"{keys.ROW}={hall.row('a')}")).items
    assert [node for node in nodes if keys.PLACEMENT_EPOCH in node["metadata"]["annotations"]]


async def test_a_higher_priority_evicts_nobody_for_power(hall: Hall, extender: Extender) -> None:
    """The scheduler's preemption knows nothing of power: it must neither evict nor fail."""
    await hall.build("a")
    await hall.limit("a", 1000)
    await known(extender, hall, a=1000)
    with suppress(AlreadyExists):
        path = "/apis/scheduling.k8s.io/v1/priorityclasses"
        await hall.kube.request("POST", path, {"metadata": {"name": "test-urgent"}, "value": 1000})
    await hall.pods("low", watts=700)
    await hall.bound(1)
    await hall.pods("high", watts=700, priorityClassName="test-urgent")
    message = await hall.refused("high-0", "with 300 W of 1000 W left", "Preemption is not helpful")
    assert "expected at least one victim" not in message
    assert await hall.rows_of_pods() == Counter({"a": 1, "": 1})


async def test_the_shipped_configuration_is_the_one_that_the_scheduler_runs(cluster: LocalCluster) -> None:
    shipped = yaml.safe_load((Path(__file__).parents[2] / "manifests" / "scheduler-config.yaml").read_text())
    configured = next(cluster.root.rglob("scheduler.yaml"), None)
    assert configured is not None
    running_with = yaml.safe_load(configured.read_text())
    port = cluster.ports["extender"]
    wanted = shipped["extenders"][0] | {"urlPrefix": f"http://127.0.0.1:{port}/v1"}
    found = running_with["extenders"][0]
    assert {key: found[key] for key in wanted if key != "managedResources"} == {
        key: value for key, value in wanted.items() if key != "managedResources"
    }
    assert {(one["name"], one.get("ignoredByScheduler", False)) for one in found["managedResources"]} == {
        (one["name"], one["ignoredByScheduler"]) for one in wanted["managedResources"]
    }
