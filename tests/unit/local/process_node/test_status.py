from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.process_node import a_container, a_pod, container
from trimtab.local.process_node import status
from trimtab.local.process_node.resize import Judged, ResizeVerdict
from trimtab.local.process_node.spec import Pod
from trimtab.local.process_node.status import ContainerView, PodView, Refusal, Running, State, Terminated, Waiting

NOW = 1_800_000_000.0
NOW_TEXT = "2027-01-15T08:00:00Z"
RUNNING = Running(NOW)


def ended(code: int) -> Terminated:
    return Terminated(code, NOW - 5, NOW, "Error" if code else "Completed")


def a_view(*containers: ContainerView, **fields: Any) -> PodView:
    return PodView("127.20.0.1", "127.20.1.0", NOW, containers=containers, prepared=True, **fields)


def main(state: State, **fields: Any) -> ContainerView:
    return ContainerView(container(), state, **fields)


def condition(pod: Pod, view: PodView, kind: str) -> dict[str, Any]:
    found = {c["type"]: c for c in status.conditions(pod, view, (), NOW)}
    return found[kind]


@pytest.mark.parametrize(
    ("policy", "states", "phase"),
    [
        ("Always", [Waiting()], "Pending"),
        ("Always", [RUNNING], "Running"),
        ("Always", [RUNNING, Waiting()], "Pending"),
        ("Always", [ended(0)], "Running"),
        ("Always", [ended(1)], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("OnFailure", [ended(1)], "Running"),
        ("Never", [ended(0)], "Succeeded"),
        ("Never", [ended(1)], "Failed"),
        ("Never", [ended(0), ended(2)], "Failed"),
        ("Never", [ended(0), RUNNING], "Running"),
    ],
)
def test_phases(policy: str, states: list[State], phase: str) -> None:
    names = [f"c{index}" for index in range(len(states))]
    pod = a_pod(restartPolicy=policy, containers=[a_container(name) for name in names])
    views = [ContainerView(container(name), state) for name, state in zip(names, states, strict=True)]

    assert status.phase(pod, a_view(*views)) == phase


def test_a_container_between_two_starts_does_not_make_its_pod_pending() -> None:
    assert status.phase(a_pod(), a_view(main(Waiting("CrashLoopBackOff"), last=ended(1)))) == "Running"


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (137, "Failed")])
def test_a_deleted_pod_ends_in_a_final_phase(code: int, phase: str) -> None:
    assert status.phase(a_pod(), a_view(main(ended(code)), leaving=True)) == phase


@pytest.mark.parametrize(
    ("policy", "init", "phase"),
    [("Always", ended(1), "Pending"), ("Never", ended(1), "Failed"), ("Never", RUNNING, "Pending")],
)
def test_a_pod_with_an_unfinished_init_container(policy: str, init: State, phase: str) -> None:
    pod = a_pod(restartPolicy=policy, initContainers=[a_container("first")])
    view = a_view(main(Waiting()), inits=(ContainerView(container("first"), init),))

    assert status.phase(pod, view) == phase
    assert condition(pod, view, "Initialized")["message"] == "containers with incomplete status: [first]"


def test_a_sidecar_lets_the_next_container_start_once_it_has_started() -> None:
    sidecar = ContainerView(container("side", restartPolicy="Always"), RUNNING)

    assert not status.init_done(sidecar)
    assert status.init_done(replace(sidecar, started=True))


def test_a_finished_pod_whose_sidecar_was_stopped_has_succeeded() -> None:
    pod = a_pod(restartPolicy="Never", initContainers=[a_container("side", restartPolicy="Always")])
    sidecar = ContainerView(container("side", restartPolicy="Always"), ended(143))

    assert status.phase(pod, a_view(main(ended(0)), inits=(sidecar,))) == "Succeeded"


def test_a_ready_pod_is_ready_in_every_condition() -> None:
    found = status.conditions(a_pod(), a_view(main(RUNNING, ready=True, started=True)), (), NOW)

    assert {c["type"]: c["status"] for c in found} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }
    assert {c["observedGeneration"] for c in found} == {1}


def test_an_unready_container_is_named() -> None:
    ready = condition(a_pod(), a_view(main(RUNNING)), "Ready")

    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [main]"


def test_a_readiness_gate_holds_the_pod_back_but_not_its_containers() -> None:
    pod = a_pod(readinessGates=[{"conditionType": "trimtab.dev/warm"}])
    view = a_view(main(RUNNING, ready=True))

    assert condition(pod, view, "ContainersReady")["status"] == "True"
    assert condition(pod, view, "Ready")["reason"] == "ReadinessGatesNotReady"

    opened = replace(pod, status={"conditions": [{"type": "trimtab.dev/warm", "status": "True"}]})
    assert condition(opened, view, "Ready")["status"] == "True"


def test_a_refused_pod_has_failed_and_says_why() -> None:
    written = status.pod_status(a_pod(), a_view(refusal=Refusal("OutOfcpu", "too big")), (), NOW)

    assert (written["phase"], written["reason"], written["message"]) == ("Failed", "OutOfcpu", "too big")


@pytest.mark.parametrize("verdict", [ResizeVerdict.DEFERRED, ResizeVerdict.INFEASIBLE])
def test_a_pending_resize_has_its_reason(verdict: ResizeVerdict) -> None:
    pending = condition(a_pod(), a_view(main(RUNNING), resize=Judged(verdict, "cpu is short")), "PodResizePending")

    assert (pending["status"], pending["reason"], pending["message"]) == ("True", verdict.value, "cpu is short")


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    view = a_view(main(RUNNING, ready=True))
    first = status.conditions(a_pod(), view, (), NOW)

    later = status.conditions(a_pod(), view, first, NOW + 60)
    unready = status.conditions(a_pod(), a_view(main(RUNNING)), later, NOW + 120)

    assert later == first
    assert {c["type"] for c in unready if c["lastTransitionTime"] != NOW_TEXT} == {"ContainersReady", "Ready"}


def test_a_running_container_is_written_with_the_resources_that_make_a_resize_acceptable() -> None:
    spec = container(resources={"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}})
    view = ContainerView(spec, RUNNING, last=ended(3), restarts=2, ready=True, started=True, container_id="process://7")

    written = status.container_status(replace(view, program="/venv/bin/trimtab"))

    assert written["state"] == {"running": {"startedAt": NOW_TEXT}}
    assert written["lastState"]["terminated"]["exitCode"] == 3
    assert written["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    assert written["allocatedResources"] == {"cpu": "1"}
    assert (written["restartCount"], written["containerID"]) == (2, "process://7")
    assert written["imageID"] == "file:///venv/bin/trimtab"


def test_a_signal_and_a_message_are_written_only_if_there_are_any() -> None:
    killed = status.container_status(main(replace(ended(137), signal=9, message="boom")))["state"]["terminated"]
    plain = status.container_status(main(ended(1)))["state"]["terminated"]

    assert (killed["signal"], killed["message"]) == (9, "boom")
    assert not plain.keys() & {"signal", "message", "containerID"}


def test_a_container_that_ran_when_the_node_died_is_found_killed() -> None:
    before = main(RUNNING, restarts=4, container_id="process://7")

    found = status.recover(container(), [status.container_status(before)], NOW + 60)

    assert isinstance(found.state, Terminated)
    assert (found.state.exit_code, found.state.reason) == (137, "ContainerStatusUnknown")
    assert (found.state.started_at, found.state.finished_at) == (NOW, NOW + 60)
    assert found.restarts == 4


@given(code=st.integers(0, 255), restarts=st.integers(0, 9), signal=st.integers(0, 31), message=st.text(max_size=9))
def test_an_end_survives_being_written_and_read(code: int, restarts: int, signal: int, message: str) -> None:
    end = Terminated(code, NOW - 60, NOW, "Error", message, signal)
    before = main(end, last=end, restarts=restarts)

    found = status.recover(container(), [status.container_status(before)], NOW + 60)

    assert (found.state, found.last, found.restarts) == (end, end, restarts)


def test_a_container_without_a_status_is_new() -> None:
    assert status.recover(container(), [{"name": "other"}], NOW) == ContainerView(container())
