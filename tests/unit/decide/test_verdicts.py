import pytest

from tests.support.pool_values import REF, a_foreign_spec, a_hold, a_spec, a_workload, seeing, taken_by
from trimtab.decide.pools import PoolConfig, step
from trimtab.decide.verdicts import judge_placeholder, judge_pool
from trimtab.model.pool import Pods, PoolSeen, PoolSpec, PoolState
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.model.verdict import ConditionType, Truth, Verdict
from trimtab.obs.wording import say

FAULT = Reason(ReasonCode.TEMPLATE_INVALID, REF, words=(("detail", "spec.containers[0].image: Required value"),))


def verdict(
    kind: ConditionType, seen: PoolSeen, spec: PoolSpec | None = None, state: PoolState | None = None
) -> Verdict:
    spec, state = spec or a_spec(), state or PoolState()
    decision = step(PoolConfig(), state, spec, seen)
    found = judge_pool(spec, decision.state, seen, decision.reasons[0])
    return next(one for one in found if one.type is kind)


@pytest.mark.parametrize(
    ("seen", "truth", "code"),
    [
        (seeing(a_workload(3)), Truth.TRUE, ReasonCode.ALL_REPLICAS_READY),
        (seeing(a_workload(3, ready=2)), Truth.FALSE, ReasonCode.REPLICAS_NOT_READY),
        (seeing(a_workload(0)), Truth.TRUE, ReasonCode.SCALED_TO_ZERO),
        (seeing(a_workload(3, failure="exceeded quota")), Truth.FALSE, ReasonCode.PODS_REFUSED),
        (seeing(None), Truth.UNKNOWN, ReasonCode.NOT_YET_OBSERVED),
        (seeing(a_workload(3), fault=FAULT), Truth.FALSE, ReasonCode.TEMPLATE_INVALID),
        (seeing(a_workload(3), holder=Ref("ServingPool", "ai", "older")), Truth.FALSE, ReasonCode.OVERLAPS),
    ],
)
def test_ready_summarizes(seen: PoolSeen, truth: Truth, code: ReasonCode) -> None:
    found = verdict(ConditionType.READY, seen)
    assert (found.truth, found.reason.code) == (truth, code)


def test_an_overlap_names_the_holder_before_any_fault() -> None:
    found = verdict(ConditionType.READY, seeing(None, fault=FAULT, holder=Ref("ServingPool", "ai", "older")))
    assert "ai/older" in say(found.reason)


def test_pods_that_do_not_fit_show_the_schedulers_words() -> None:
    seen = seeing(a_workload(3, ready=1), pods=Pods(3, 1, 2, "0/8 nodes are available"))
    found = verdict(ConditionType.CAPACITY_AVAILABLE, seen)
    assert (found.truth, say(found.reason)) == (Truth.FALSE, "2 of 3 pods have no node: 0/8 nodes are available")


@pytest.mark.parametrize(
    ("pods", "truth", "code"),
    [
        (Pods(3, 3), Truth.TRUE, ReasonCode.ALL_SCHEDULED),
        (Pods(), Truth.UNKNOWN, ReasonCode.NO_PODS),
        (None, Truth.UNKNOWN, ReasonCode.NOT_MEASURED),
    ],
)
def test_capacity_is_known_only_where_pods_are_seen(pods: Pods | None, truth: Truth, code: ReasonCode) -> None:
    found = verdict(ConditionType.CAPACITY_AVAILABLE, seeing(a_workload(3), pods=pods))
    assert (found.truth, found.reason.code) == (truth, code)


def test_a_contest_names_who_took_what_and_how_to_take_it_back() -> None:
    found = verdict(ConditionType.KNOB_CONTESTED, seeing(taken_by("kubectl")), a_foreign_spec(), PoolState(a_hold()))
    assert found.truth is Truth.TRUE
    assert say(found.reason) == (
        "kubectl took replicas of Deployment web; to take it back: kubectl trimtab resume spool/chat -n ai replicas"
    )


def test_an_autoscaler_is_no_contest_but_is_named() -> None:
    found = verdict(ConditionType.KNOB_CONTESTED, seeing(a_workload(3), scaler="HorizontalPodAutoscaler web"))
    assert (found.truth, found.reason.code) == (Truth.FALSE, ReasonCode.SCALED_BY_AUTOSCALER)
    assert "HorizontalPodAutoscaler web" in say(found.reason)


@pytest.mark.parametrize(
    "kind", [ConditionType.OBJECTIVES_MET, ConditionType.TELEMETRY_FRESH, ConditionType.WITHIN_POWER]
)
def test_what_nothing_measures_is_unknown(kind: ConditionType) -> None:
    found = verdict(kind, seeing(a_workload(3)), a_spec(service_levels=("interactive",)))
    assert (found.truth, found.reason.code) == (Truth.UNKNOWN, ReasonCode.NOT_MEASURED)


def test_a_pool_without_service_levels_has_no_objectives_to_meet() -> None:
    found = verdict(ConditionType.OBJECTIVES_MET, seeing(a_workload(3)))
    assert (found.truth, found.reason.code) == (Truth.UNKNOWN, ReasonCode.NO_OBJECTIVES)


def test_a_placeholder_is_honest() -> None:
    (found,) = judge_placeholder(Ref("PowerDomain", "", "row-1"))
    assert (found.type, found.truth, found.reason.code) == (
        ConditionType.READY,
        Truth.UNKNOWN,
        ReasonCode.NOT_YET_IMPLEMENTED,
    )
