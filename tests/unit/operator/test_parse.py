from typing import Any

import pytest

from tests.support.pool_values import KNOB
from trimtab.kube.resources import DEPLOYMENTS, SERVICES
from trimtab_operator.parse import parse_owned, parse_pod, parse_scaler, parse_state

US = "trimtab-operator"


def a_pod(*conditions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    labels = {"trimtab.dev/pool": "chat"}
    return {"metadata": {"name": "p", "labels": labels} | metadata, "status": {"conditions": list(conditions)}}


def test_a_pod_is_ready_waiting_or_without_a_node() -> None:
    assert parse_pod(a_pod({"type": "Ready", "status": "True"})).ready
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/8 nodes"}
    assert parse_pod(a_pod(refused)).unschedulable == "0/8 nodes"
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    assert parse_pod(a_pod(gated)).unschedulable == ""
    assert parse_pod(a_pod(deletionTimestamp="2026-01-01T00:00:00Z")).leaving


def test_an_autoscaler_of_keda_is_called_by_its_own_name() -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    plain = {"metadata": {"name": "h", "namespace": "ai"}, "spec": {"scaleTargetRef": reference}}
    assert parse_scaler(plain) == (("ai", "apps", "Deployment", "web"), "HorizontalPodAutoscaler h")
    plain["metadata"]["ownerReferences"] = [{"kind": "ScaledObject", "name": "queue"}]
    assert parse_scaler(plain)[1] == "ScaledObject queue (KEDA)"


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}, "a in (x,y)"),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}]}, "a notin (x)"),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "!a"),
        ({}, ""),
    ],
)
def test_a_selector_is_shown_as_scale_shows_it(selector: dict[str, Any], text: str) -> None:
    metadata = {"name": "web", "namespace": "ai", "uid": "u", "resourceVersion": "5"}
    seen = parse_owned(DEPLOYMENTS, {"metadata": metadata, "spec": {"selector": selector}}, US)
    assert seen.workload is not None
    assert seen.workload.selector == text


def test_a_deployment_that_cannot_make_pods_says_why() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    obj = {
        "metadata": {"name": "web", "namespace": "ai", "uid": "u", "resourceVersion": "5", "generation": 2},
        "spec": {},
        "status": {"conditions": [failure], "observedGeneration": 1},
    }
    workload = parse_owned(DEPLOYMENTS, obj, US).workload
    assert workload is not None
    assert (workload.failure, workload.settled, workload.desired) == ("exceeded quota", False, 1)


def test_a_service_is_no_workload() -> None:
    metadata = {"name": "web", "namespace": "ai", "uid": "u", "resourceVersion": "5"}
    assert parse_owned(SERVICES, {"metadata": metadata, "spec": {}}, US).workload is None


def test_what_an_earlier_process_remembered_is_read_back() -> None:
    held = {"target": "Deployment/ai/web", "knob": "replicas", "before": "2", "since": "2026-01-01T00:00:00Z"}
    proposal = {
        "id": "abc",
        "knob": "replicas",
        "from": "2",
        "to": "4",
        "policy": "Fixed",
        "reason": "ReplicasFromSpec",
        "time": "2026-01-01T00:00:00Z",
        "expires": "2026-01-01T01:00:00Z",
    }
    contested = {"type": "KnobContested", "status": "True"}
    status = {"heldKnobs": [held], "proposals": [proposal], "conditions": [contested]}
    state = parse_state({"status": status}, KNOB)
    assert state.hold is not None
    assert (state.hold.was, state.hold.active) == (2, True)
    assert [(one.id, one.was, one.value) for one in state.proposals] == [("abc", 2, 4)]
    assert state.proposals[0].expires_at - state.proposals[0].proposed_at == 3600
    assert state.contested_by
    assert parse_state({}, KNOB).hold is None
