from decimal import Decimal
from typing import Any

import pytest

from tests.support.process_node import a_container, a_pod, container
from trimtab.local.process_node.capacity import Ledger
from trimtab.local.process_node.resize import Judged, ResizeVerdict, judge, must_restart, pod_requests


def asking(name: str = "main", **requests: str) -> dict[str, Any]:
    return a_container(name, resources={"requests": requests})


def amounts(**values: float) -> dict[str, Decimal]:
    return {resource: Decimal(str(value)) for resource, value in values.items()}


def test_main_containers_add_up() -> None:
    assert pod_requests(a_pod(containers=[asking("a", cpu="1"), asking("b", cpu="500m", memory="1")])) == amounts(
        cpu=1.5, memory=1
    )


def test_an_init_container_counts_only_where_it_is_larger() -> None:
    pod = a_pod(initContainers=[asking("i", cpu="2", memory="1")], containers=[asking(cpu="1", memory="3")])

    assert pod_requests(pod) == amounts(cpu=2, memory=3)


def test_a_sidecar_adds_to_what_comes_after_it() -> None:
    side = asking("s", cpu="1") | {"restartPolicy": "Always"}
    pod = a_pod(initContainers=[side, asking("i", cpu="3")], containers=[asking(cpu="1")])

    assert pod_requests(pod) == amounts(cpu=4)


@pytest.mark.parametrize(
    ("wanted", "verdict"),
    [
        (amounts(cpu=4), ResizeVerdict.ACCEPTED),
        (amounts(cpu=5), ResizeVerdict.DEFERRED),
        (amounts(cpu=9), ResizeVerdict.INFEASIBLE),
        (amounts(cpu=1, gpu=99), ResizeVerdict.ACCEPTED),
    ],
)
def test_a_resize_waits_for_others_and_never_for_more_than_the_node(
    wanted: dict[str, Decimal], verdict: ResizeVerdict
) -> None:
    assert judge(amounts(cpu=8), [amounts(cpu=4)], wanted).verdict is verdict


def test_a_verdict_says_what_is_short() -> None:
    assert judge(amounts(cpu=8), [], amounts(cpu=9)).message == (
        "Node didn't have enough capacity: cpu, requested: 9, capacity: 8"
    )


@pytest.mark.parametrize(
    ("before", "after", "restart"),
    [("1", "1", False), ("1", "2", True)],
)
def test_a_resize_policy_may_demand_a_restart(before: str, after: str, restart: bool) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]

    def sized(memory: str, cpu: str) -> Any:
        return container(resources={"requests": {"memory": memory, "cpu": cpu}}, resizePolicy=policy)

    assert must_restart(sized(before, "1"), sized(after, "2")) is restart


def test_the_ledger_admits_until_something_is_short() -> None:
    ledger = Ledger({"cpu": "2", "pods": "2"})

    assert ledger.admit("a", amounts(cpu=1)) is None
    assert ledger.admit("b", amounts(cpu=1.5)) == "cpu"
    assert ledger.admit("c", amounts(cpu=1)) is None
    assert ledger.admit("d", amounts(cpu=0)) == "pods"
    assert ledger.admit("e", amounts(gpu=1)) == "gpu"


def test_what_was_not_admitted_is_not_charged() -> None:
    ledger = Ledger({"cpu": "2", "pods": "9"})
    ledger.admit("a", amounts(cpu=3))

    assert ledger.admit("b", amounts(cpu=2)) is None
    assert not ledger.release("a")


def test_a_deferred_resize_fits_once_another_pod_has_left() -> None:
    ledger = Ledger({"cpu": "4", "pods": "9"})
    ledger.admit("a", amounts(cpu=2))
    ledger.admit("b", amounts(cpu=2))
    assert ledger.resize("a", amounts(cpu=3)).verdict is ResizeVerdict.DEFERRED

    assert ledger.release("b")

    assert ledger.resize("a", amounts(cpu=3)) == Judged(ResizeVerdict.ACCEPTED)
    assert ledger.admit("c", amounts(cpu=2)) == "cpu"
