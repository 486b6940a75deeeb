"""The chart on a real control plane: its pods are real processes under their own service accounts."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.controlplane.conftest import Installed
from tests.support import helm
from tests.support.helm import NAMESPACE
from tests.support.kubectl import kubectl
from tests.support.objects import Case
from tests.support.operators import a_deployment, a_pool, because, condition, current, gone, pool, ready, seen
from tests.support.placement import Hall
from tests.support.until import until
from trimtab.api import crd, keys
from trimtab.kube import EventType, Kube, NotFound, Object, Resource, list_then_watch
from trimtab.kube.resources import (
    CRDS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PDBS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SERVING_POOLS,
    STATEFUL_SETS,
    TRIMTAB_KINDS,
)
from trimtab.local.cluster import LocalCluster

pytestmark = pytest.mark.timeout(300)

SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"
REAL_SAMPLES = SAMPLES.with_name("samples-real")
POOLS = 100
LEADER_GAP_SECONDS = 5.0
TWO_OPERATORS = ("--set", "operator.replicas=2")
OWNED = (DEPLOYMENTS, SERVICES, PDBS)


@pytest.fixture
def release(cluster: LocalCluster, installed: Installed) -> LocalCluster:
    """The cluster on which the chart is installed."""
    del installed
    return cluster


async def _pods(kube: Kube, component: str = "") -> list[Object]:
    selector = "app.kubernetes.io/name=trimtab" + (f",app.kubernetes.io/component={component}" if component else "")
    return (await kube.list(PODS, NAMESPACE, label_selector=selector)).items


async def test_every_pod_of_the_chart_is_a_process_under_its_own_account(release: LocalCluster, kube: Kube) -> None:
    components = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in await _staying(kube)}
    assert components.keys() == {"operator", "extender", "gateway"}
    for component, one in components.items():
        node = await kube.get(NODES, one["spec"]["nodeName"])
        assert node["metadata"]["labels"][keys.NODE_TYPE] == "process"
        assert one["spec"]["serviceAccountName"] == f"trimtab-{component}"
        (container,) = one["status"]["containerStatuses"]
        assert (container["ready"], container["restartCount"]) == (True, 0)
        assert one["status"]["podIP"].startswith("127.")
        assert json.loads(_lines(await _log(release, kube, component))[0])["message"]


async def _log(cluster: LocalCluster, kube: Kube, component: str) -> str:
    """The log of the pod that is there to stay."""
    (name,) = [one["metadata"]["name"] for one in await _staying(kube, component)]
    return await kubectl(cluster, "logs", "-n", NAMESPACE, name)


async def _staying(kube: Kube, component: str = "") -> list[Object]:
    return [one for one in await _pods(kube, component) if "deletionTimestamp" not in one["metadata"]]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("{")]


async def test_the_pods_keep_the_restricted_pod_security_standard(
    release: LocalCluster, kube: Kube, namespace: str
) -> None:
    await kube.merge_patch(
        NAMESPACES, namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    values = "image.registry=registry,scheduler.mode=Deployment,scheduler.image=scheduler"
    rendered = await helm.helm(release.program("helm"), "template", "trimtab", str(helm.CHART), "--set", values)
    templates = {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in yaml.safe_load_all(rendered)
        if one and one["kind"] in {"Deployment", "Job"}
    }
    assert len(templates) == 6
    await until(lambda: _has_account(kube, namespace))
    for name, template in templates.items():
        spec = template["spec"] | {"serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
        await kube.create(PODS, pod, dry_run=True)


async def _has_account(kube: Kube, namespace: str) -> bool:
    return any(one["metadata"]["name"] == "default" for one in (await kube.list(SERVICE_ACCOUNTS, namespace)).items)


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("view", ["list servingpools"], ["create servingpools", "list powerdomains"]),
        (
            "edit",
            ["create servingpools", "patch servingpools/scale"],
            ["patch servingpools/status", "patch powerdomains"],
        ),
    ],
)
async def test_who_views_or_edits_a_namespace_views_or_edits_its_pools(
    release: LocalCluster, kube: Kube, namespace: str, role: str, may: list[str], may_not: list[str]
) -> None:
    """The cluster's own roles take in what the chart adds to them."""
    await kubectl(release, "create", "rolebinding", role, f"--clusterrole={role}", "--user=someone", "-n", namespace)
    await until(lambda: _may(kube, namespace, may[0]))
    for verb_and_kind in may:
        assert await _may(kube, namespace, verb_and_kind), verb_and_kind
    for verb_and_kind in may_not:
        assert not await _may(kube, namespace, verb_and_kind), verb_and_kind


async def _may(kube: Kube, namespace: str, verb_and_kind: str) -> bool:
    verb, _, kind = verb_and_kind.partition(" ")
    resource, _, subresource = kind.partition("/")
    where = namespace if any(one.plural == resource and one.namespaced for one in TRIMTAB_KINDS) else ""
    asked = {"verb": verb, "group": keys.GROUP, "resource": resource, "subresource": subresource, "namespace": where}
    kind_of_review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    review = kind_of_review | {"spec": {"user": "someone", "resourceAttributes": asked}}
    answer = await kube.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
    return bool(answer["status"]["allowed"])


async def test_the_rendered_manifest_is_accepted_as_it_is(release: LocalCluster) -> None:
    """The same objects without Helm; a dry run, since Helm's own are there."""
    manifest = helm.CHART.parents[1] / "manifests" / "install.yaml"
    arguments = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", str(manifest))
    said = await kubectl(release, *arguments)
    assert said.count("serverside-applied") == len(list(yaml.safe_load_all(manifest.read_text(encoding="utf-8"))))


async def test_the_sample_with_a_real_engine_is_accepted(release: LocalCluster, kube: Kube, namespace: str) -> None:
    """The pool, and its pods, into whose template the definition does not look."""
    del release  # the definitions are there
    await until(lambda: _has_account(kube, namespace))
    (path,) = REAL_SAMPLES.glob("*.yaml")
    (sample,) = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one["kind"] == "ServingPool"]
    sample["metadata"]["namespace"] = namespace
    await kube.create(SERVING_POOLS, sample, dry_run=True)
    template = sample["spec"]["workload"]["template"]
    metadata = template["metadata"] | {"name": "real", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    await kube.apply(PODS, pod, dry_run=True)


async def test_the_samples_are_served_and_placed(release: LocalCluster, kube: Kube) -> None:
    """What the demo shows: pods that answer through the gateway, and pods that the extender placed."""
    await kubectl(release, "apply", "--server-side", "-f", str(SAMPLES))
    try:
        for name in ("chat", "summarize"):
            await pool(kube, name, "ai", ready, seconds=60)
        body = {"model": "llama-3.1-8b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        answer = await _ask(f"http://127.0.0.1:{release.ports['gateway']}/v1/chat/completions", body)
        assert answer["usage"]["completion_tokens"] == 4
        pods = (await kube.list(PODS, "ai", label_selector=f"{keys.POOL}=summarize")).items
        racks = [(await kube.get(NODES, one["spec"]["nodeName"]))["metadata"]["labels"][keys.RACK] for one in pods]
        assert len(racks) == 4
        assert racks.count("row-1-rack-0") <= 2, "the limit of that rack leaves room for two"
        other = yaml.safe_load((SAMPLES / "31-budget.yaml").read_text(encoding="utf-8"))
        shown = await kubectl(release, "get", "sbud", other["metadata"]["name"])
        assert "NotYetImplemented" in shown
    finally:
        await kubectl(release, "delete", "--wait=false", "-f", str(SAMPLES))


async def _ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def test_kinds_that_nothing_acts_on_say_so(release: LocalCluster, kube: Kube, namespace: str) -> None:
    del release  # its operator says it
    for resource in TRIMTAB_KINDS:
        if resource != SERVING_POOLS:
            document = Case(resource.kind, "", {"metadata.name": namespace}).document(namespace)
            await kube.create(resource, document)
            found = await seen(kube, resource, namespace, namespace, current)
            assert (condition(found)["status"], condition(found)["reason"]) == ("Unknown", "NotYetImplemented")
            await kube.delete(resource, namespace, namespace)


async def test_a_raised_limit_wakes_rejected_pods(release: LocalCluster, kube: Kube, namespace: str) -> None:
    """The extender, which may not write nodes, asks the operator, which may."""
    hall = Hall(kube, namespace)
    try:
        await hall.build("a")
        await hall.limit("a", 1000)
        await until(lambda: _usable(release, hall.row("a"), 1000))
        await hall.pods("p", 2, watts=700)
        assert (await hall.decided(2))["a"] == 1
        await hall.limit("a", 10_000)
        assert (await hall.bound(2, seconds=30))["a"] == 2
    finally:
        await hall.tear_down()


async def _usable(cluster: LocalCluster, domain: str, watts: int) -> bool:
    url = f"http://127.0.0.1:{cluster.ports['extender']}/v1/state"  # pods come and go in this file, the forward stays
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return any((one["name"], one["usable_watts"]) == (domain, watts) for one in (await answer.json())["domains"])


@pytest.fixture
async def live_pools(release: LocalCluster, kube: Kube, namespace: str) -> str:
    """A namespace with a hundred reconciled pools without replicas."""
    del release  # it reconciles them
    pools = [a_pool(f"pool-{number:03}", namespace, replicas=0) for number in range(POOLS)]
    await asyncio.gather(*(kube.create(SERVING_POOLS, one) for one in pools))
    await until(lambda: _all_current(kube, namespace), seconds=90)
    return namespace


async def _all_current(kube: Kube, namespace: str) -> bool:
    found = (await kube.list(SERVING_POOLS, namespace)).items
    return len(found) == POOLS and all(map(current, found))


async def _owned(kube: Kube, namespace: str) -> dict[tuple[str, str], str]:
    """The uid of every object that the pools of a namespace own."""
    lists = {resource.kind: (await kube.list(resource, namespace)).items for resource in OWNED}
    return {(kind, one["metadata"]["name"]): one["metadata"]["uid"] for kind, found in lists.items() for one in found}


@pytest.fixture
async def two_operators(release: LocalCluster) -> AsyncIterator[None]:
    """One leads, one stands by; afterwards one again."""
    await helm.install(release, *TWO_OPERATORS)
    yield
    await helm.install(release)


@pytest.mark.usefixtures("two_operators")
async def test_an_upgrade_recreates_nothing_and_leads_on_within_seconds(
    release: LocalCluster, kube: Kube, live_pools: str
) -> None:
    """Both operators are replaced, so leadership may be handed over more than once."""
    before = await _owned(kube, live_pools)
    assert len(before) == len(OWNED) * POOLS
    old = await _names(kube, "operator")
    leaders = asyncio.create_task(_longest_gap(kube, old))
    deletions = asyncio.create_task(_deletions(kube, live_pools))

    await helm.install(release, *TWO_OPERATORS, "--set", "operator.podAnnotations.rolled=again")

    await until(lambda: _number_of_operators(kube, 2))
    new = await _names(kube, "operator")
    assert len(old) == len(new) == 2
    assert not old & new, "every pod is another one"
    gap, leader = await asyncio.wait_for(leaders, 60)
    assert leader in new
    print(f"leader gap {gap:.2f} s during helm upgrade --wait of two operators with {POOLS} live pools")
    assert gap < LEADER_GAP_SECONDS
    await kube.merge_patch(SERVING_POOLS, "pool-007", {"spec": {"engine": {"port": 8001}}}, live_pools)
    await pool(kube, "pool-007", live_pools, current)
    assert await _owned(kube, live_pools) == before
    deletions.cancel()
    with suppress(asyncio.CancelledError):
        await deletions


async def _names(kube: Kube, component: str) -> set[str]:
    return {one["metadata"]["name"] for one in await _staying(kube, component)}


async def _longest_gap(kube: Kube, old: set[str]) -> tuple[float, str]:
    """Watch the Lease until a new operator holds it; return for how long nobody led at most, and who leads."""
    field = "metadata.name=trimtab-operator"
    leader, last_beat, longest = "", time.monotonic(), 0.0
    async for event in list_then_watch(kube, LEASES, NAMESPACE, field_selector=field):
        holder = "" if event.type is EventType.SYNCED else event.object["spec"].get("holderIdentity") or ""
        if not holder:
            continue
        now = time.monotonic()
        if leader and holder != leader:
            longest = max(longest, now - last_beat)
        leader, last_beat = holder, now
        if holder not in old:
            return longest, holder
    raise AssertionError("the watch ended")


async def _deletions(kube: Kube, namespace: str) -> None:
    """Fail at the first Deployment that goes away."""
    async for event in list_then_watch(kube, DEPLOYMENTS, namespace):
        assert event.type is not EventType.DELETED, event.object["metadata"]["name"]


async def test_an_operator_refuses_to_act_on_older_definitions(
    release: LocalCluster, kube: Kube, namespace: str
) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, replicas=0))
    await pool(kube, "chat", namespace, current)
    definition = yaml.safe_load(crd.files()[f"{keys.GROUP}_powerdomains.yaml"])
    name = definition["metadata"]["name"]
    await kube.merge_patch(CRDS, name, {"metadata": {"annotations": {keys.SCHEMA_HASH: "of-another-version"}}})
    try:
        await _restart_operator(release)
        refusing = await pool(kube, "chat", namespace, because("SchemaMismatch"))
        assert condition(refusing)["status"] == "False"
        assert name in condition(refusing)["message"]
        await kube.merge_patch(SERVING_POOLS, "chat", {"spec": {"replicas": 1}}, namespace)
        assert "refusing to act on another schema" in await _log(release, kube, "operator")
    finally:
        await kube.merge_patch(CRDS, name, {"metadata": {"annotations": definition["metadata"]["annotations"]}})
    await pool(kube, "chat", namespace, lambda one: current(one) and condition(one)["reason"] != "SchemaMismatch")
    assert (await kube.get(DEPLOYMENTS, "chat", namespace))["spec"]["replicas"] == 1


async def _restart_operator(cluster: LocalCluster) -> None:
    await kubectl(cluster, "rollout", "restart", "-n", NAMESPACE, "deployment/trimtab-operator")
    await kubectl(cluster, "rollout", "status", "-n", NAMESPACE, "deployment/trimtab-operator", "--timeout=60s")


@pytest.mark.parametrize("operators", [1, 0], ids=["by the operator", "without an operator"])
async def test_uninstalling_gives_back_what_is_held_and_leaves_pools_and_their_pods(
    release: LocalCluster, kube: Kube, namespace: str, operators: int
) -> None:
    kinds = (DEPLOYMENTS, STATEFUL_SETS)
    for kind in kinds:
        await kube.create(kind, _theirs(kind, namespace))
        target = {"apiVersion": kind.api_version, "kind": kind.kind, "name": "theirs"}
        held = {"targetRef": target, "replicas": 2, "mode": "Enforce", "deletionPolicy": "Restore"}
        await kube.create(SERVING_POOLS, a_pool(kind.plural, namespace, **held))
    await kube.create(SERVING_POOLS, a_pool("owned", namespace, replicas=0))
    for kind in kinds:
        await seen(kube, kind, "theirs", namespace, lambda one: one["spec"]["replicas"] == 2)
    await pool(kube, "owned", namespace, current)
    before = await _owned(kube, namespace)
    await kubectl(release, "scale", "-n", NAMESPACE, "deployment/trimtab-operator", f"--replicas={operators}")
    await until(lambda: _number_of_operators(kube, operators))

    await helm.uninstall(release)

    try:
        await until(lambda: _no_pods(kube), seconds=90)
        for name in (*(kind.plural for kind in kinds), "owned"):
            left = await kube.get(SERVING_POOLS, name, namespace)
            assert not left["metadata"].get("finalizers")
        for kind in kinds:
            assert (await kube.get(kind, "theirs", namespace))["spec"]["replicas"] == 3, "as before the hold"
        assert await _owned(kube, namespace) == before
        await kube.delete(SERVING_POOLS, "deployments", namespace)
        await gone(kube, SERVING_POOLS, "deployments", namespace)
        with pytest.raises(NotFound):
            await kube.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/trimtab-release")
    finally:
        await helm.install(release)


async def test_there_is_a_way_out_when_the_job_of_the_uninstallation_cannot_run(
    release: LocalCluster, kube: Kube, namespace: str
) -> None:
    """As docs/how-to/uninstall.md says: nothing is removed; release by hand, then leave the hook out."""
    await kube.create(STATEFUL_SETS, _theirs(STATEFUL_SETS, namespace))
    target = {"apiVersion": STATEFUL_SETS.api_version, "kind": STATEFUL_SETS.kind, "name": "theirs"}
    held = {"targetRef": target, "replicas": 2, "mode": "Enforce", "deletionPolicy": "Restore"}
    await kube.create(SERVING_POOLS, a_pool("held", namespace, **held))
    await seen(kube, STATEFUL_SETS, "theirs", namespace, lambda one: one["spec"]["replicas"] == 2)
    try:
        await helm.install(release, "--set", "operator.replicas=0,operator.nodeSelector.nowhere=yes")
        with pytest.raises(AssertionError, match="Job/trimtab-system/trimtab-release not ready"):
            await helm.uninstall(release, "--timeout", "3s")
        assert len((await kube.list(DEPLOYMENTS, NAMESPACE)).items) == 3

        await _trimtab(release, "release", "--all")
        await helm.uninstall(release, "--no-hooks")

        assert (await kube.list(DEPLOYMENTS, NAMESPACE)).items == []
        assert not (await kube.get(SERVING_POOLS, "held", namespace))["metadata"].get("finalizers")
        assert (await kube.get(STATEFUL_SETS, "theirs", namespace))["spec"]["replicas"] == 3, "as before the hold"
    finally:
        await helm.uninstall(release, "--no-hooks")
        await kubectl(release, "delete", "job", "trimtab-release", "-n", NAMESPACE, "--ignore-not-found")
        await helm.install(release)


async def _trimtab(cluster: LocalCluster, *arguments: str) -> None:
    """Run our command line with an administrator's access."""
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig)}
    command = (sys.executable, "-m", "trimtab.cli", *arguments)
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    assert await process.wait() == 0


def _theirs(kind: Resource, namespace: str) -> Object:
    """A workload that is not ours, with three replicas."""
    document = a_deployment("theirs", namespace, replicas=3)
    document["kind"] = kind.kind
    if kind is STATEFUL_SETS:
        document["spec"]["serviceName"] = "theirs"
    return document


async def _number_of_operators(kube: Kube, count: int) -> bool:
    return len(await _pods(kube, "operator")) == count


async def _no_pods(kube: Kube) -> bool:
    return await _pods(kube) == []
