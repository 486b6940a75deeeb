"""The local cluster that all tests share: what it is made of, what its fake nodes can do."""

import asyncio
import json
import urllib.request
from typing import Any

import pytest

from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube
from trimtab.kube.resources import NODES, PODS
from trimtab.local import owned, ports
from trimtab.local.cluster import LocalCluster, Options
from trimtab.model.problem import Problem

FAKE = {"key": keys.FAKE_TAINT, "operator": "Exists"}


def a_pod(name: str, *, tolerations: list[dict[str, str]] | None = None, **annotations: str) -> dict[str, Any]:
    container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "tolerations": [FAKE] if tolerations is None else tolerations,
            "containers": [container, {**container, "name": "side"}],
        },
    }


async def run(kube: Kube, namespace: str, pod: dict[str, Any]) -> dict[str, Any]:
    pod["metadata"]["namespace"] = namespace
    await kube.create(PODS, pod)
    return await until(lambda: pod_when(kube, namespace, pod["metadata"]["name"], is_running))


async def pod_when(kube: Kube, namespace: str, name: str, condition: Any) -> dict[str, Any] | None:
    pod = await kube.get(PODS, name, namespace=namespace)
    return pod if condition(pod) else None


def is_running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def conditions(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in pod["status"]["conditions"]}


def cpus(pod: dict[str, Any]) -> list[str]:
    return [item["resources"]["requests"]["cpu"] for item in pod["status"]["containerStatuses"]]


async def resize(kube: Kube, namespace: str, name: str, cpu: str) -> None:
    """As `kubectl patch --subresource resize`: by a patch that merges containers by name."""
    pod = await kube.get(PODS, name, namespace=namespace)
    containers = pod["spec"]["containers"]
    containers[0]["resources"]["requests"]["cpu"] = cpu
    await kube.merge_patch(PODS, name, {"spec": {"containers": containers}}, namespace=namespace, subresource="resize")


@pytest.fixture
async def fakes(kube: Kube) -> list[dict[str, Any]]:
    """The fake nodes, which another cluster need not have."""
    found = (await kube.list(NODES, label_selector=f"{keys.NODE_TYPE}=fake")).items
    if not found:
        pytest.skip("needs kwok's fake nodes, and this cluster has none")
    return found


# What it is made of


async def test_every_component_is_well(cluster: LocalCluster) -> None:
    status = await asyncio.to_thread(cluster.status)
    assert status.well, status
    assert [health.component for health in status.components] == [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kwok-controller",
        "prometheus",
        "process-node",
    ]
    assert all(health.pid and health.address for health in status.components)
    assert (status.nodes_ready, status.nodes) == (9, 9)


def test_nothing_listens_where_another_machine_could_reach_it(cluster: LocalCluster) -> None:
    pids = [process.pid for process in owned.processes(cluster.root)]
    found = ports.listeners(pids)
    assert {item.pid for item in found} >= set(pids[:6])
    assert [item for item in found if not ports.is_loopback(item.address)] == []


def test_the_ports_are_as_written_down(cluster: LocalCluster) -> None:
    used = {item.port for item in ports.listeners(process.pid for process in owned.processes(cluster.root))}
    assert used >= {port for name, port in cluster.ports.items() if name not in {"extender", "gateway"}}


async def test_nodes_have_their_place_accelerators_and_taint(kube: Kube, fakes: list[dict[str, Any]]) -> None:
    assert len(fakes) == 8
    assert {node["metadata"]["labels"][keys.RACK] for node in fakes} == {"row-1-rack-0", "row-1-rack-1"}
    for node in fakes:
        assert node["status"]["allocatable"][keys.GPU_RESOURCE] == "8"
        assert keys.FAKE_TAINT in {taint["key"] for taint in node["spec"]["taints"]}
    process = await kube.get(NODES, "process-0")
    assert keys.PROCESS_TAINT in {taint["key"] for taint in process["spec"]["taints"]}


@pytest.mark.usefixtures("fakes")
async def test_a_pod_that_tolerates_nothing_runs_nowhere(kube: Kube, namespace: str) -> None:
    """Else pods of a chart would land on fake nodes and look Ready with no process behind them."""
    pod = a_pod("plain", tolerations=[])
    pod["metadata"]["namespace"] = namespace
    await kube.create(PODS, pod)

    def refused(pod: dict[str, Any]) -> bool:
        scheduled = {item["type"]: item for item in pod["status"].get("conditions", [])}.get("PodScheduled", {})
        return bool(scheduled.get("reason") == "Unschedulable")

    found = await until(lambda: pod_when(kube, namespace, "plain", refused))
    assert "untolerated taint" in conditions(found)["PodScheduled"]["message"]


async def test_the_audit_log_says_who_did_what_to_which_subresource(
    cluster: LocalCluster, kube: Kube, namespace: str
) -> None:
    await run(kube, namespace, a_pod("audited"))
    await resize(kube, namespace, "audited", "2")
    events = [json.loads(line) for line in cluster.audit_log.read_text().splitlines()]
    (event,) = [
        item
        for item in events
        if item.get("objectRef", {}).get("namespace") == namespace and item["objectRef"].get("subresource") == "resize"
    ]
    assert (event["verb"], event["objectRef"]["resource"], event["level"]) == ("patch", "pods", "Metadata")
    assert event["user"]["username"]
    assert "requestObject" not in event


async def test_prometheus_scrapes_the_control_plane(cluster: LocalCluster) -> None:
    wanted = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "prometheus"}

    async def all_up() -> bool:
        return wanted <= {labels["job"] for labels in await asyncio.to_thread(scraped, cluster)}

    assert await until(all_up)


async def test_prometheus_scrapes_an_engine_that_is_a_process_pod(
    cluster: LocalCluster, kube: Kube, namespace: str
) -> None:
    pod = a_pod("engine", tolerations=[{"key": keys.PROCESS_TAINT, "operator": "Exists"}])
    pod["metadata"]["labels"] = {keys.RUN_AS: "process", keys.POOL: "chat"}
    pod["spec"]["nodeSelector"] = {keys.NODE_TYPE: "process"}
    command = ["trimtab", "engine", "--model", "llama-3.1-8b"]
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    port = {"name": "http", "containerPort": 8000}
    pod["spec"]["containers"] = [
        {"name": "engine", "image": "none", "command": command, "env": [address], "ports": [port]}
    ]
    await run(kube, namespace, pod)
    wanted = {"job": "engines", "namespace": namespace, "pod": "engine", "pool": "chat"}

    async def up() -> bool:
        return any(wanted.items() <= labels.items() for labels in await asyncio.to_thread(scraped, cluster))

    assert await until(up, seconds=60)


def scraped(cluster: LocalCluster) -> list[dict[str, str]]:
    """Labels of the targets that Prometheus can reach."""
    address = f"http://127.0.0.1:{cluster.ports['prometheus']}/api/v1/targets?state=active"
    with urllib.request.urlopen(address, timeout=5) as answer:
        targets = json.load(answer)["data"]["activeTargets"]
    return [target["labels"] for target in targets if target["health"] == "up"]


def test_bringing_it_up_again_changes_nothing(cluster: LocalCluster) -> None:
    before = [process.pid for process in owned.processes(cluster.root)]
    cluster.up(Options(nodes=8, disable_qps_limits=True))
    assert [process.pid for process in owned.processes(cluster.root)] == before


def test_bringing_it_up_with_other_options_is_refused(cluster: LocalCluster) -> None:
    with pytest.raises(Problem, match=r"is already up with Options\(nodes=8.*\nfix: .*down"):
        cluster.up(Options(nodes=9, disable_qps_limits=True))
    assert cluster.status().well


# Resize in place, on fake nodes


@pytest.mark.usefixtures("fakes")
async def test_a_pod_is_resized_in_place(kube: Kube, namespace: str) -> None:
    before = await run(kube, namespace, a_pod("worker"))
    assert cpus(before) == ["1", "1"]
    await resize(kube, namespace, "worker", "2")
    after = await until(lambda: pod_when(kube, namespace, "worker", lambda pod: cpus(pod) == ["2", "1"]))
    assert "PodResizePending" not in conditions(after)
    for was, is_ in zip(before["status"]["containerStatuses"], after["status"]["containerStatuses"], strict=True):
        kept = {"name", "image", "ready", "started", "restartCount", "state"}
        assert {key: was[key] for key in kept} == {key: is_[key] for key in kept}
    assert after["status"]["containerStatuses"][0]["allocatedResources"] == {"cpu": "2", "memory": "1Gi"}
    assert after["status"]["observedGeneration"] == after["metadata"]["generation"] == 2


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("verdict", ["Deferred", "Infeasible"])
async def test_a_resize_is_turned_down_as_the_annotation_says(kube: Kube, namespace: str, verdict: str) -> None:
    await run(kube, namespace, a_pod("worker", **{keys.PLAY_RESIZE: verdict}))
    await resize(kube, namespace, "worker", "2")
    pod = await until(lambda: pod_when(kube, namespace, "worker", lambda pod: "PodResizePending" in conditions(pod)))
    pending = conditions(pod)["PodResizePending"]
    assert (pending["status"], pending["reason"], pending["observedGeneration"]) == ("True", verdict, 2)
    assert cpus(pod) == ["1", "1"]
    assert conditions(pod)["Ready"]["status"] == "True"


@pytest.mark.usefixtures("fakes")
async def test_a_deferred_resize_goes_through_later(kube: Kube, namespace: str) -> None:
    await run(kube, namespace, a_pod("worker", **{keys.PLAY_RESIZE: "Deferred"}))
    await resize(kube, namespace, "worker", "2")
    await until(lambda: pod_when(kube, namespace, "worker", lambda pod: "PodResizePending" in conditions(pod)))
    await kube.merge_patch(PODS, "worker", {"metadata": {"annotations": {keys.PLAY_RESIZE: None}}}, namespace=namespace)
    pod = await until(lambda: pod_when(kube, namespace, "worker", lambda pod: cpus(pod) == ["2", "1"]))
    assert "PodResizePending" not in conditions(pod)


@pytest.mark.usefixtures("fakes")
async def test_resizing_twice_ends_with_the_last_size(kube: Kube, namespace: str) -> None:
    await run(kube, namespace, a_pod("worker"))
    for cpu in ("2", "3"):
        await resize(kube, namespace, "worker", cpu)
    assert await until(lambda: pod_when(kube, namespace, "worker", lambda pod: cpus(pod) == ["3", "1"]))
