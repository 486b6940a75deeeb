from dataclasses import replace

import pytest

from tests.support.pool_values import (
    AT,
    BOUNDS,
    EXTERNAL,
    REF,
    WAITING,
    a_foreign_spec,
    a_hold,
    a_spec,
    a_want,
    a_workload,
    seeing,
    taken_by,
)
from trimtab.decide.pools import PoolConfig, begin_hold, carrier, confirm_hold, holders, rule, start_replicas, step
from trimtab.model.decision import Decision, Mode, Precedence, Sense
from trimtab.model.knob import Bounds
from trimtab.model.pool import Carrier, PoolSeen, PoolSpec, PoolState
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref

CONFIG = PoolConfig(proposal_seconds=60)


def decide(spec: PoolSpec, seen: PoolSeen, state: PoolState | None = None) -> Decision[PoolState]:
    return step(CONFIG, state or PoolState(), spec, seen)


def codes(decision: Decision[PoolState]) -> list[ReasonCode]:
    return [reason.code for reason in decision.reasons]


# Who carries the number


@pytest.mark.parametrize(
    ("spec", "scaler", "expected"),
    [
        (a_spec(), "", Carrier.APPLY),
        (a_spec(scaling=EXTERNAL), "", Carrier.SCALE),
        (a_spec(scaling=WAITING), "", Carrier.SCALE),
        (a_foreign_spec(), "", Carrier.SCALE),
        (a_spec(), "HorizontalPodAutoscaler x", Carrier.NOBODY),
        (a_foreign_spec(), "HorizontalPodAutoscaler x", Carrier.NOBODY),
    ],
)
def test_who_moves_the_replicas(spec: PoolSpec, scaler: str, expected: Carrier) -> None:
    assert carrier(spec, scaler) is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (a_spec(), 3),
        (a_spec(replicas=9, bounds=BOUNDS), 9),
        (a_spec(replicas=9, bounds=BOUNDS, scaling=EXTERNAL), 8),
        (a_spec(replicas=None, bounds=BOUNDS, scaling=WAITING), 1),
        (a_spec(replicas=None, scaling=EXTERNAL), None),
    ],
)
def test_what_a_workload_starts_with(spec: PoolSpec, expected: int | None) -> None:
    assert start_replicas(spec) == expected


# What is wanted


def test_a_person_under_fixed_is_not_bound_by_minimum_and_maximum() -> None:
    ruling = rule(a_spec(replicas=9, bounds=BOUNDS))
    assert ruling is not None
    assert ruling.value == 9


def test_an_autoscaler_on_the_pool_is_bound_and_told() -> None:
    decision = decide(a_spec(replicas=9, bounds=BOUNDS, scaling=EXTERNAL), seeing(a_workload(3)))
    (action,) = decision.actions
    assert action.value == 8
    assert codes(decision) == [ReasonCode.REPLICAS_FROM_SCALE, ReasonCode.GAVE_WAY]
    assert dict(decision.reasons[1].numbers) == {"wanted": 9, "allowed": 8}


def test_a_budget_of_another_policy_gives_the_lower_number() -> None:
    cap = a_want(2, Precedence.BUDGET, sense=Sense.AT_MOST, policy="Equilibrium")
    decision = step(CONFIG, PoolState(), a_spec(), seeing(a_workload(3)), [cap])
    assert [action.value for action in decision.actions] == [2]


def test_waiting_time_keeps_what_is_there_and_says_that_it_cannot_do_more() -> None:
    decision = decide(a_spec(scaling=WAITING, replicas=2), seeing(a_workload(5)))
    assert decision.actions == ()
    assert codes(decision) == [ReasonCode.POLICY_NOT_YET_IMPLEMENTED]


def test_external_scaling_without_a_number_wants_nothing() -> None:
    decision = decide(a_foreign_spec(scaling=EXTERNAL, replicas=None), seeing(a_workload(5)))
    assert decision.actions == ()
    assert codes(decision) == [ReasonCode.NO_REPLICAS_GIVEN]


# When nothing may be done


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (seeing(None), ReasonCode.WORKLOAD_MISSING),
        (seeing(a_workload(5), holder=Ref("ServingPool", "ai", "older")), ReasonCode.OVERLAPS),
        (seeing(a_workload(5), released=True), ReasonCode.RELEASED),
        (seeing(a_workload(5), scaler="HorizontalPodAutoscaler x"), ReasonCode.SCALED_BY_AUTOSCALER),
        (seeing(a_workload(5), fault=Reason(ReasonCode.TEMPLATE_INVALID, REF)), ReasonCode.TEMPLATE_INVALID),
    ],
)
@pytest.mark.parametrize("spec", [a_spec(), a_foreign_spec()])
def test_a_reason_to_stay_idle_is_given_and_nothing_is_done(spec: PoolSpec, seen: PoolSeen, code: ReasonCode) -> None:
    decision = decide(spec, seen)
    assert decision.actions == ()
    assert codes(decision) == [code]


def test_what_is_as_wanted_is_left_alone() -> None:
    assert decide(a_spec(), seeing(a_workload(3))).actions == ()


# Acting


def test_an_action_carries_what_it_was_decided_on_and_until_when() -> None:
    (action,) = decide(a_spec(), seeing(a_workload(5))).actions
    assert (action.was, action.value, action.decided_on) == (5, 3, "7")
    assert action.valid_until == AT + CONFIG.action_seconds


def test_what_we_own_is_kept_as_specified_in_every_mode() -> None:
    for mode in Mode:
        assert len(decide(a_spec(mode=mode), seeing(a_workload(5))).actions) == 1


def test_a_foreign_hand_on_owned_replicas_is_named() -> None:
    decision = decide(a_spec(), seeing(taken_by("kubectl")))
    assert codes(decision) == [ReasonCode.REPLICAS_REPAIRED]
    assert dict(decision.reasons[0].words) == {"managers": "kubectl"}


# Contests


def test_a_manager_that_takes_a_held_knob_contests_it() -> None:
    decision = decide(a_foreign_spec(), seeing(taken_by("kubectl", "vpa")), PoolState(a_hold()))
    assert decision.actions == ()
    assert decision.state.contested_by == ("kubectl", "vpa")
    assert codes(decision) == [ReasonCode.KNOB_CONTESTED]


def test_the_contest_ends_when_the_manager_no_longer_owns_the_field() -> None:
    state = PoolState(a_hold(), contested_by=("kubectl",))
    decision = decide(a_foreign_spec(), seeing(a_workload(5)), state)
    assert decision.state.contested_by == ()
    assert len(decision.actions) == 1


def test_a_person_ends_the_contest_and_the_value_before_the_hold_is_kept() -> None:
    decision = decide(a_foreign_spec(), seeing(taken_by("kubectl"), resumed=True), PoolState(a_hold(was=1)))
    (action,) = decision.actions
    state = confirm_hold(begin_hold(decision.state, action, AT))
    assert state.hold is not None
    assert (state.hold.was, state.hold.active) == (1, True)


def test_who_merely_created_the_target_does_not_contest_the_first_hold() -> None:
    decision = decide(a_foreign_spec(), seeing(taken_by("kubectl-create")))
    (action,) = decision.actions
    state = begin_hold(decision.state, action, AT)
    assert state.hold is not None
    assert (state.hold.was, state.hold.active) == (5, False)


def test_who_applies_the_target_from_git_contests_it_from_the_start() -> None:
    decision = decide(a_foreign_spec(), seeing(taken_by("flux", declarative=True)))
    assert decision.state.contested_by == ("flux",)
    assert decide(a_foreign_spec(), seeing(taken_by("flux", declarative=True), resumed=True)).actions


def test_a_hold_found_in_a_status_becomes_active_when_our_value_is_seen() -> None:
    state = PoolState(a_hold(active=False))
    decision = decide(a_foreign_spec(), seeing(a_workload(3, ours=True)), state)
    assert decision.state.hold is not None
    assert decision.state.hold.active


# Proposals


def test_propose_waits_and_repeats_itself_only_as_the_same_proposal() -> None:
    spec, seen = a_foreign_spec(mode=Mode.PROPOSE), seeing(a_workload(5))
    first = decide(spec, seen)
    assert first.actions == ()
    (proposal,) = first.state.proposals
    assert (proposal.was, proposal.value, proposal.expires_at) == (5, 3, AT + 60)
    later = decide(spec, replace(seen, at=AT + 30), first.state)
    assert later.state.proposals == first.state.proposals


def test_an_approved_proposal_is_carried_out_once() -> None:
    spec, seen = a_foreign_spec(mode=Mode.PROPOSE), seeing(a_workload(5))
    first = decide(spec, seen)
    approval = frozenset({first.state.proposals[0].id})
    second = decide(spec, replace(seen, approvals=approval), first.state)
    assert len(second.actions) == 1
    assert second.state.proposals == ()


def test_an_expired_proposal_is_not_carried_out_but_made_anew() -> None:
    spec, seen = a_foreign_spec(mode=Mode.PROPOSE), seeing(a_workload(5))
    first = decide(spec, seen)
    old = first.state.proposals[0].id
    second = decide(spec, replace(seen, at=AT + 61, approvals=frozenset({old})), first.state)
    assert second.actions == ()
    assert second.state.proposals[0].id != old


def test_a_proposal_of_another_number_replaces_the_old_one() -> None:
    seen = seeing(a_workload(5))
    first = decide(a_foreign_spec(mode=Mode.PROPOSE), seen)
    second = decide(a_foreign_spec(mode=Mode.PROPOSE, replicas=2), seen, first.state)
    assert [one.value for one in second.state.proposals] == [2]


def test_leaving_propose_drops_what_waited() -> None:
    seen = seeing(a_workload(5))
    first = decide(a_foreign_spec(mode=Mode.PROPOSE), seen)
    second = decide(a_foreign_spec(), seen, first.state)
    assert second.state.proposals == ()
    assert len(second.actions) == 1


# Overlap


def test_the_oldest_claimant_holds_then_namespace_and_name() -> None:
    old = a_spec(ref=Ref("ServingPool", "z", "z"), created_at="2026-01-01T00:00:00Z")
    young = a_spec(ref=Ref("ServingPool", "z", "a"), created_at="2026-01-02T00:00:00Z")
    assert list(holders([young, old]).values()) == [old.ref]
    same_age = replace(young, created_at=old.created_at)
    assert list(holders([old, same_age]).values()) == [same_age.ref]


def test_versions_of_a_kind_are_the_same_claim() -> None:
    one = a_foreign_spec()
    other = a_foreign_spec(target=replace(one.target, api_version="apps/v1beta1"))
    assert one.claim == other.claim


def test_bounds_that_cross_give_the_upper_one() -> None:
    assert Bounds(5, 2).clip(9) == 2
