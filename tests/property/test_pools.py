"""What holds of every step of a pool."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.pool_values import AT, REF, a_foreign_spec, a_hold, a_spec
from trimtab.decide.pools import PoolConfig, step
from trimtab.decide.verdicts import judge_pool
from trimtab.model.decision import Mode
from trimtab.model.knob import Bounds
from trimtab.model.pool import PoolSeen, PoolSpec, PoolState, Scaling, Workload, Writer
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.obs.wording import say

CONFIG = PoolConfig()
counts = st.integers(0, 12)

specs = st.builds(
    lambda owned, mode, scaling, replicas, low, extra: (a_spec if owned else a_foreign_spec)(
        mode=mode, scaling=scaling, replicas=replicas, bounds=Bounds(low, low + extra)
    ),
    st.booleans(),
    st.sampled_from(Mode),
    st.sampled_from(Scaling),
    st.none() | counts,
    st.integers(0, 4),
    st.integers(0, 8),
)
writers = st.lists(st.builds(Writer, st.sampled_from(["kubectl", "flux"]), st.booleans()), max_size=2, unique=True)
workloads = st.builds(
    Workload,
    st.just("7"),
    counts,
    current=counts,
    ready=counts,
    ours=st.booleans(),
    writers=writers.map(lambda found: tuple(sorted(found))),
    failure=st.sampled_from(["", "quota exceeded"]),
)
sights = st.builds(
    PoolSeen,
    st.just(AT),
    st.none() | workloads,
    scaler=st.sampled_from(["", "HorizontalPodAutoscaler x"]),
    holder=st.sampled_from([None, Ref("ServingPool", "ai", "older")]),
    fault=st.sampled_from([None, Reason(ReasonCode.TEMPLATE_INVALID, REF, words=(("detail", "x"),))]),
    resumed=st.booleans(),
    released=st.booleans(),
)
states = st.builds(PoolState, st.none() | st.builds(a_hold, active=st.booleans(), was=counts))


@given(states, specs, sights)
def test_a_step_is_a_function_of_its_arguments(state: PoolState, spec: PoolSpec, seen: PoolSeen) -> None:
    assert step(CONFIG, state, spec, seen) == step(CONFIG, state, spec, seen)


@given(states, specs, sights)
def test_there_is_always_a_reason(state: PoolState, spec: PoolSpec, seen: PoolSeen) -> None:
    decision = step(CONFIG, state, spec, seen)
    assert decision.reasons
    for reason in decision.reasons:
        assert say(reason)


@given(states, specs, sights)
def test_at_most_one_action_and_only_for_a_change_of_what_is_seen(
    state: PoolState, spec: PoolSpec, seen: PoolSeen
) -> None:
    actions = step(CONFIG, state, spec, seen).actions
    assert len(actions) <= 1
    for action in actions:
        assert seen.workload is not None
        assert action.was == seen.workload.desired != action.value
        assert action.decided_on == seen.workload.resource_version


@given(states, specs, sights)
def test_missing_or_troubled_sight_never_causes_an_action(state: PoolState, spec: PoolSpec, seen: PoolSeen) -> None:
    if seen.workload is None or seen.fault or seen.holder or seen.scaler or seen.released:
        assert step(CONFIG, state, spec, seen).actions == ()


@given(states, specs, sights)
def test_a_contested_knob_is_never_turned(state: PoolState, spec: PoolSpec, seen: PoolSeen) -> None:
    decision = step(CONFIG, state, spec, seen)
    assert not (decision.state.contested_by and decision.actions)


@given(states, specs, sights)
def test_propose_and_a_foreign_target_never_act_without_approval(
    state: PoolState, spec: PoolSpec, seen: PoolSeen
) -> None:
    if spec.mode is Mode.PROPOSE and not spec.owned:
        assert step(CONFIG, state, spec, seen).actions == ()


@given(states, specs, sights)
def test_what_scales_by_itself_stays_within_its_bounds(state: PoolState, spec: PoolSpec, seen: PoolSeen) -> None:
    for action in step(CONFIG, state, spec, seen).actions:
        if spec.scaling is not Scaling.FIXED:
            assert spec.bounds.clip(action.value) == action.value


@given(states, specs, sights)
def test_every_condition_is_given_once_and_can_be_said(state: PoolState, spec: PoolSpec, seen: PoolSeen) -> None:
    decision = step(CONFIG, state, spec, seen)
    verdicts = judge_pool(spec, decision.state, seen, decision.reasons[0])
    assert len({verdict.type for verdict in verdicts}) == len(verdicts) == 6
    for verdict in verdicts:
        assert say(verdict.reason)
