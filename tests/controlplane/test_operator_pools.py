"""The operator on a real API server: what pools become, and what keeps them from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.conftest import kubectl as run_kubectl
from tests.support import operators
from tests.support.kubectl import kubectl
from tests.support.operators import (
    ON_FAKE_NODES,
    a_deployment,
    a_pool,
    annotate_pool,
    because,
    condition,
    current,
    deployment,
    event,
    gone,
    patch_pool,
    pool,
    replicas,
    seen,
    target,
)
from tests.support.processes import Running
from trimtab.api import keys
from trimtab.kube import Kube, Object
from trimtab.kube.resources import (
    DEPLOYMENTS,
    HPAS,
    LEASES,
    NODES,
    PDBS,
    POWER_DOMAINS,
    SERVICES,
    SERVING_POOLS,
    SHARED_BUDGETS,
    STATEFUL_SETS,
)

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="module")
def operator(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One operator for the module, ready."""
    run_kubectl(cluster, "create", "namespace", operators.LEASE_NAMESPACE, check=False)
    run_kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    with operators.an_operator(cluster.kubeconfig, tmp_path_factory.mktemp("operator")) as process:
        process.wait_until_ready()
        yield process


pytestmark = pytest.mark.usefixtures("operator")


# Owned workloads


async def test_a_pool_becomes_a_deployment_a_headless_service_and_a_disruption_budget(
    kube: Kube, namespace: str
) -> None:
    created = await kube.create(SERVING_POOLS, a_pool("chat", namespace, replicas=2))
    found = await pool(kube, "chat", namespace)
    owned = [await kube.get(resource, "chat", namespace) for resource in (DEPLOYMENTS, SERVICES, PDBS)]
    for obj in owned:
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("ServingPool", created["metadata"]["uid"], True)
        assert obj["metadata"]["labels"][keys.POOL] == "chat"
    workload, service, budget = (obj["spec"] for obj in owned)
    assert workload["replicas"] == 2
    assert workload["template"]["metadata"]["labels"][keys.POOL] == "chat"
    assert (service["clusterIP"], service["selector"]) == ("None", {keys.POOL: "chat"})
    assert [port["port"] for port in service["ports"]] == [8000]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert condition(found, "CapacityAvailable")["status"] == "True"
    assert {kind: condition(found, kind)["status"] for kind in ("ObjectivesMet", "TelemetryFresh", "WithinPower")} == {
        "ObjectivesMet": "Unknown",
        "TelemetryFresh": "Unknown",
        "WithinPower": "Unknown",
    }


async def test_a_pool_of_zero_replicas_is_ready(kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, replicas=0))
    found = await pool(kube, "chat", namespace)
    assert condition(found)["reason"] == "ScaledToZero"
    assert (await kube.get(DEPLOYMENTS, "chat", namespace))["spec"]["replicas"] == 0


async def test_kubectl_scale_changes_the_pool_and_is_journaled(cluster: Any, kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    await pool(kube, "chat", namespace)
    await kubectl(cluster, "scale", "spool", "chat", "-n", namespace, "--replicas=3")
    await deployment(kube, "chat", namespace, replicas(3))
    found = await pool(kube, "chat", namespace, lambda one: one["status"].get("readyReplicas") == 3)
    entry = found["status"]["recentDecisions"][0]
    assert (entry["knob"], entry["from"], entry["to"], entry["outcome"]) == ("replicas", "1", "3", "Applied")
    scale = await kube.get(SERVING_POOLS, "chat", namespace, "scale")
    assert scale["status"] == {"replicas": 3, "selector": f"{keys.POOL}=chat"}
    done = await pool(kube, "chat", namespace, lambda one: one["status"]["recentDecisions"][0].get("observedEffect"))
    assert done["status"]["recentDecisions"][0]["observedEffect"].startswith("3 of 3 replicas ready")


async def test_a_horizontal_pod_autoscaler_scales_the_pool(kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, scaling={"policy": "External"}))
    await pool(kube, "chat", namespace)
    await kube.create(HPAS, an_autoscaler(namespace, target("chat", "ServingPool", SERVING_POOLS.api_version)))
    await pool(kube, "chat", namespace, replicas(3), seconds=60)
    await deployment(kube, "chat", namespace, replicas(3))


async def test_an_autoscaler_on_the_owned_deployment_keeps_the_replicas(kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    await pool(kube, "chat", namespace)
    await kube.create(HPAS, an_autoscaler(namespace, target("chat")))
    found = await pool(kube, "chat", namespace, because("ScaledByAutoscaler", "KnobContested"))
    assert "HorizontalPodAutoscaler autoscaler" in condition(found, "KnobContested")["message"]
    # The autoscaler may have acted before the operator knew of it; then it acts again, 15 s later.
    await deployment(kube, "chat", namespace, replicas(3))
    await patch_pool(kube, "chat", namespace, engine={"port": 9000})
    await seen(kube, SERVICES, "chat", namespace, lambda one: one["spec"]["ports"][0]["port"] == 9000)
    assert (await kube.get(DEPLOYMENTS, "chat", namespace))["spec"]["replicas"] == 3


async def test_external_scaling_starts_with_the_number_given_and_then_lets_go(kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, replicas=2, scaling={"policy": "External"}))
    await pool(kube, "chat", namespace)
    await deployment(kube, "chat", namespace, lambda one: not _plain_apply_has_replicas(one) and replicas(2)(one))


async def test_waiting_time_is_accepted_and_keeps_the_start_value(kube: Kube, namespace: str) -> None:
    scaling = {"policy": "WaitingTime", "minReplicas": 2, "maxReplicas": 4}
    spec = a_pool("chat", namespace, scaling=scaling)
    del spec["spec"]["replicas"]
    await kube.create(SERVING_POOLS, spec)
    await pool(kube, "chat", namespace)
    await deployment(kube, "chat", namespace, replicas(2))


async def test_drift_of_an_owned_object_is_repaired_and_its_author_named(
    cluster: Any, kube: Kube, namespace: str
) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    await pool(kube, "chat", namespace)
    await kubectl(cluster, "set", "image", "deployment/chat", "engine=other:2", "-n", namespace)
    told = await event(kube, namespace, "chat", "DriftRepaired")
    assert "kubectl-set changed Deployment chat" in told["message"]
    await deployment(kube, "chat", namespace, lambda one: _image(one) == "engine:1")


async def test_a_deleted_owned_object_is_created_again(kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    await pool(kube, "chat", namespace)
    first = await kube.get(SERVICES, "chat", namespace)
    await kube.delete(SERVICES, "chat", namespace)
    uid = first["metadata"]["uid"]
    await seen(kube, SERVICES, "chat", namespace, lambda one: one["metadata"]["uid"] != uid)
    await event(kube, namespace, "chat", "ObjectRecreated")


async def test_an_impossible_template_is_refused_in_the_servers_words_and_the_last_plan_keeps_running(
    kube: Kube, namespace: str
) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    await pool(kube, "chat", namespace)
    bad = {"spec": {"containers": [{"name": "engine", "image": "engine:2", "ports": [{"containerPort": 99999999}]}]}}
    await patch_pool(kube, "chat", namespace, workload={"template": bad})
    found = await pool(kube, "chat", namespace, because("TemplateInvalid"))
    assert "containerPort" in condition(found)["message"]
    assert _image(await kube.get(DEPLOYMENTS, "chat", namespace)) == "engine:1"
    good = {"spec": {"containers": [{"name": "engine", "image": "engine:3"}], "tolerations": [ON_FAKE_NODES]}}
    await patch_pool(kube, "chat", namespace, workload={"template": good})
    await deployment(kube, "chat", namespace, lambda one: _image(one) == "engine:3")
    await pool(kube, "chat", namespace)


async def test_a_template_with_an_unknown_field_is_refused(kube: Kube, namespace: str) -> None:
    template = {"spec": {"containers": [{"name": "engine", "image": "engine:1", "imagge": "x"}]}}
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, workload={"template": template}))
    found = await pool(kube, "chat", namespace, because("TemplateInvalid"))
    assert "imagge" in condition(found)["message"]


async def test_pods_without_a_node_show_as_missing_capacity(kube: Kube, namespace: str) -> None:
    spec = a_pool("chat", namespace)
    spec["spec"]["workload"]["template"]["spec"]["nodeSelector"] = {"no": "such-node"}
    await kube.create(SERVING_POOLS, spec)
    found = await pool(kube, "chat", namespace, because("Unschedulable", "CapacityAvailable"))
    assert "node" in condition(found, "CapacityAvailable")["message"]
    assert condition(found)["status"] == "False"


async def test_a_name_that_somebody_else_uses_is_left_alone(kube: Kube, namespace: str) -> None:
    service = {"metadata": {"name": "chat", "namespace": namespace}, "spec": {"ports": [{"port": 80}]}}
    before = await kube.create(SERVICES, service)
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    found = await pool(kube, "chat", namespace, because("NameTaken"))
    assert "Service chat" in condition(found)["message"]
    assert (await kube.get(SERVICES, "chat", namespace))["spec"] == before["spec"]
    await kube.delete(SERVICES, "chat", namespace)
    await pool(kube, "chat", namespace, seconds=90)


async def test_deleting_a_pool_takes_its_objects_along(kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    found = await pool(kube, "chat", namespace)
    assert "finalizers" not in found["metadata"]
    await kube.delete(SERVING_POOLS, "chat", namespace)
    for resource in (SERVING_POOLS, DEPLOYMENTS, SERVICES, PDBS):
        # The garbage collector looks for new kinds every 30 s, so it may not know ours yet.
        await gone(kube, resource, "chat", namespace)


# Targets


async def test_a_target_is_attached_and_scaled_without_being_owned(kube: Kube, namespace: str) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace, replicas=1))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2, mode="Enforce"))
    found = await deployment(kube, "web", namespace, replicas(2))
    assert "ownerReferences" not in found["metadata"]
    shown = await pool(kube, "chat", namespace)
    assert keys.FINALIZER in shown["metadata"]["finalizers"]
    (held,) = shown["status"]["heldKnobs"]
    assert (held["knob"], held["before"]) == ("replicas", "1")
    assert shown["status"]["selector"] == "app=web"


async def test_a_stateful_set_is_scaled_too(kube: Kube, namespace: str) -> None:
    workload = a_deployment("web", namespace) | {"kind": "StatefulSet"}
    workload["spec"]["serviceName"] = "web"
    await kube.create(STATEFUL_SETS, workload)
    await kube.create(
        SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web", "StatefulSet"), replicas=3, mode="Enforce")
    )
    await seen(kube, STATEFUL_SETS, "web", namespace, replicas(3))


async def test_a_foreign_change_contests_the_knob_until_a_person_resumes_it(
    cluster: Any, kube: Kube, namespace: str
) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2, mode="Enforce"))
    await deployment(kube, "web", namespace, replicas(2))
    await kubectl(cluster, "scale", "deployment", "web", "-n", namespace, "--replicas=5")
    found = await pool(kube, "chat", namespace, because("KnobContested", "KnobContested"))
    assert condition(found, "KnobContested")["message"].startswith("kubectl took replicas of Deployment web")
    assert (await kube.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 5
    await annotate_pool(kube, "chat", namespace, keys.RESUME, "replicas")
    await deployment(kube, "web", namespace, replicas(2))
    done = await pool(kube, "chat", namespace, because("NotContested", "KnobContested"))
    assert done["status"]["heldKnobs"][0]["before"] == "1"
    await pool(kube, "chat", namespace, lambda one: keys.RESUME not in one["metadata"].get("annotations", {}))


async def test_a_target_that_git_applies_is_never_forced(kube: Kube, namespace: str, cluster: Any) -> None:
    async with Kube.connect(cluster.kubeconfig, field_manager="flux") as flux:
        await flux.apply(DEPLOYMENTS, a_deployment("web", namespace, replicas=4))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2, mode="Enforce"))
    found = await pool(kube, "chat", namespace, because("KnobContested", "KnobContested"))
    assert "flux" in condition(found, "KnobContested")["message"]
    assert (await kube.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 4
    assert found["status"]["heldKnobs"] == []


async def test_observe_says_what_it_would_do_and_does_nothing(kube: Kube, namespace: str) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2))
    found = await pool(kube, "chat", namespace, lambda one: one.get("status", {}).get("recentDecisions"))
    (entry,) = found["status"]["recentDecisions"]
    assert (entry["from"], entry["to"], entry["outcome"]) == ("1", "2", "Recorded")
    assert (await kube.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 1


async def test_propose_waits_for_approval_and_enforce_does_not(kube: Kube, namespace: str) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2, mode="Propose"))
    (first,) = await _proposals(kube, namespace)
    assert (first["from"], first["to"]) == ("1", "2")
    assert (await kube.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 1
    await annotate_pool(kube, "chat", namespace, keys.APPROVE, f"nonsense,{first['id']}")
    await deployment(kube, "web", namespace, replicas(2))
    await pool(kube, "chat", namespace, lambda one: one["status"]["proposals"] == [])
    await patch_pool(kube, "chat", namespace, replicas=4)
    (second,) = await _proposals(kube, namespace)
    assert second["id"] != first["id"]
    await patch_pool(kube, "chat", namespace, mode="Enforce")
    await deployment(kube, "web", namespace, replicas(4))
    found = await pool(kube, "chat", namespace, lambda one: one["status"]["proposals"] == [])
    outcomes = [(one["to"], one["outcome"]) for one in found["status"]["recentDecisions"]]
    assert outcomes == [("4", "Applied"), ("4", "Proposed"), ("2", "Applied"), ("2", "Proposed")]


async def test_back_to_observe_nothing_is_written_any_more(kube: Kube, namespace: str) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2, mode="Enforce"))
    await deployment(kube, "web", namespace, replicas(2))
    await patch_pool(kube, "chat", namespace, mode="Observe", replicas=5)
    found = await pool(kube, "chat", namespace, lambda one: one["status"]["recentDecisions"][0]["to"] == "5")
    assert found["status"]["recentDecisions"][0]["outcome"] == "Recorded"
    assert (await kube.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 2


@pytest.mark.parametrize(("policy", "left", "reason"), [("Keep", 3, "Kept"), ("Restore", 1, "Restored")])
async def test_deletion_keeps_or_restores_the_size_of_a_target(
    kube: Kube, namespace: str, policy: str, left: int, reason: str
) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    spec = a_pool("chat", namespace, targetRef=target("web"), replicas=3, mode="Enforce", deletionPolicy=policy)
    await kube.create(SERVING_POOLS, spec)
    await deployment(kube, "web", namespace, replicas(3))
    await kube.delete(SERVING_POOLS, "chat", namespace)
    await gone(kube, SERVING_POOLS, "chat", namespace)
    await deployment(kube, "web", namespace, replicas(left))
    told = await event(kube, namespace, "chat", reason)
    assert "1" in told["message"]


async def test_a_released_pool_gives_its_knob_back_and_stays_quiet(kube: Kube, namespace: str) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    spec = a_pool("chat", namespace, targetRef=target("web"), replicas=3, mode="Enforce", deletionPolicy="Restore")
    await kube.create(SERVING_POOLS, spec)
    await deployment(kube, "web", namespace, replicas(3))
    await annotate_pool(kube, "chat", namespace, keys.RELEASE, "test")
    await deployment(kube, "web", namespace, replicas(1))
    found = await pool(kube, "chat", namespace, lambda one: not one["metadata"].get("finalizers"))
    assert found["status"]["heldKnobs"] == []


async def test_an_autoscaler_on_the_target_is_never_overruled(kube: Kube, namespace: str) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(HPAS, an_autoscaler(namespace, target("web")))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=7, mode="Enforce"))
    found = await pool(kube, "chat", namespace, because("ScaledByAutoscaler", "KnobContested"))
    assert found["status"]["heldKnobs"] == []
    await deployment(kube, "web", namespace, replicas(3))


async def test_two_pools_on_one_target_the_older_holds_it(kube: Kube, namespace: str) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(SERVING_POOLS, a_pool("a-first", namespace, targetRef=target("web"), replicas=2, mode="Enforce"))
    await deployment(kube, "web", namespace, replicas(2))
    await kube.create(SERVING_POOLS, a_pool("b-second", namespace, targetRef=target("web"), replicas=5, mode="Enforce"))
    found = await pool(kube, "b-second", namespace, because("Overlaps"))
    assert f"{namespace}/a-first" in condition(found)["message"]
    assert (await kube.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 2
    await kube.delete(SERVING_POOLS, "a-first", namespace)
    await deployment(kube, "web", namespace, replicas(5))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (target("nothing"), "TargetNotFound"),
        (target("kube-root-ca.crt", "ConfigMap", "v1"), "TargetNotScalable"),
        (target("x", "Nonsense", "example.com/v1"), "TargetNotScalable"),
    ],
)
async def test_a_target_that_cannot_be_scaled_is_named(kube: Kube, namespace: str, given: Object, reason: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=given, mode="Enforce"))
    found = await pool(kube, "chat", namespace, because(reason))
    assert given["name"] in condition(found)["message"]


async def test_a_target_that_appears_later_is_taken_up(kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=2, mode="Enforce"))
    await pool(kube, "chat", namespace, because("TargetNotFound"))
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await deployment(kube, "web", namespace, replicas(2))


# Other kinds


async def test_kinds_without_a_reconciler_say_so(kube: Kube, namespace: str) -> None:
    domain = {
        "apiVersion": POWER_DOMAINS.api_version,
        "kind": "PowerDomain",
        "metadata": {"name": namespace},
        "spec": {"type": "Row", "nodes": {"matchLabels": {"row": namespace}}, "limits": {"powerWatts": 1000}},
    }
    budget = {
        "apiVersion": SHARED_BUDGETS.api_version,
        "kind": "SharedBudget",
        "metadata": {"name": namespace},
        "spec": {"resource": "GPU", "capacity": 4, "members": [{"namespace": "x", "poolRef": {"name": "y"}}]},
    }
    for resource, obj in ((POWER_DOMAINS, domain), (SHARED_BUDGETS, budget)):
        await kube.create(resource, obj)
        found = await seen(kube, resource, namespace, None, current)
        assert (condition(found)["status"], condition(found)["reason"]) == ("Unknown", "NotYetImplemented")
        await kube.delete(resource, namespace)


async def test_the_extenders_wish_to_wake_pods_reaches_a_node(kube: Kube, namespace: str) -> None:
    node = (await kube.list(NODES)).items[0]["metadata"]["name"]
    wish = {keys.PLACEMENT_NODE: node, keys.PLACEMENT_EPOCH: namespace}
    lease = {"metadata": {"name": keys.PLACEMENT_LEASE, "namespace": operators.LEASE_NAMESPACE, "annotations": wish}}
    await kube.apply(LEASES, lease, force=True)
    await seen(
        kube, NODES, node, None, lambda one: one["metadata"]["annotations"].get(keys.PLACEMENT_EPOCH) == namespace
    )


def an_autoscaler(namespace: str, scaled: Object) -> Object:
    """An autoscaler that needs no metrics: fewer replicas than its minimum are too few."""
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    return {
        "metadata": {"name": "autoscaler", "namespace": namespace},
        "spec": {"scaleTargetRef": scaled, "minReplicas": 3, "maxReplicas": 6, "metrics": [metric]},
    }


def _image(obj: Object) -> str:
    return str(obj["spec"]["template"]["spec"]["containers"][0]["image"])


def _plain_apply_has_replicas(obj: Object) -> bool:
    return any(
        one["operation"] == "Apply" and not one.get("subresource") and "f:replicas" in one["fieldsV1"]["f:spec"]
        for one in obj["metadata"]["managedFields"]
    )


async def _proposals(kube: Kube, namespace: str) -> list[Object]:
    found = await pool(kube, "chat", namespace, lambda one: bool(one.get("status", {}).get("proposals")))
    return list(found["status"]["proposals"])
