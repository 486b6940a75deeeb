"""One step of a serving pool: how many replicas its workload should have, and what holds of the pool.

`Fixed` carries the number that a person wrote, `External` the number that an autoscaler wrote to the pool's `/scale`.
`WaitingTime` keeps the start value and says that nothing measures waiting yet. The number travels in the Deployment
that we apply, or through the workload's `/scale`; where an autoscaler owns the workload itself, nobody writes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from trimtab.decide.arbiter import Ruling, arbitrate
from trimtab.model.decision import Action, Decision, Mode, Precedence, Want
from trimtab.model.knob import Bounds
from trimtab.model.pool import Carrier, Hold, PoolSeen, PoolSpec, PoolState, Proposal, Scaling, Workload
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """How long things stay valid.

    Attributes:
        proposal_seconds: how long a proposal waits for approval.
        action_seconds: how long an action may wait before it is void.
    """

    proposal_seconds: float = 3600.0
    action_seconds: float = 30.0


def holders(pools: Iterable[PoolSpec]) -> Mapping[tuple[str, str, str, str], Ref]:
    """Return who holds each claimed workload: the oldest pool, then the first by namespace and name."""
    held: dict[tuple[str, str, str, str], PoolSpec] = {}
    for pool in pools:
        first = held.get(pool.claim)
        if first is None or pool.seniority < first.seniority:
            held[pool.claim] = pool
    return {claim: pool.ref for claim, pool in held.items()}


def carrier(spec: PoolSpec, scaler: str) -> Carrier:
    """Return which write moves the replicas: an autoscaler on the workload itself shuts everybody else out."""
    if scaler:
        return Carrier.NOBODY
    return Carrier.APPLY if spec.owned and spec.scaling is Scaling.FIXED else Carrier.SCALE


def rule(spec: PoolSpec, others: Iterable[Want] = ()) -> Ruling | None:
    """Return the arbiter's ruling on the pool's replicas; None when nobody wants anything.

    Args:
        spec: the pool.
        others: what policies beyond the pool's own scaling want of its replicas.
    """
    own = _own_want(spec)
    wants = [*others] if own is None else [own, *others]
    bounds = Bounds() if spec.scaling is Scaling.FIXED else spec.bounds
    rulings = arbitrate(wants, {spec.knob: bounds})
    return rulings[0] if rulings else None


def start_replicas(spec: PoolSpec) -> int | None:
    """Return the number of replicas that a new workload begins with; None leaves it to the server's default."""
    if spec.scaling is Scaling.FIXED:
        return spec.replicas
    start = spec.bounds.low if spec.replicas is None else spec.replicas
    return None if start is None else spec.bounds.clip(start)


def _own_want(spec: PoolSpec) -> Want | None:
    if spec.replicas is None or spec.scaling is Scaling.WAITING_TIME:
        return None
    code = ReasonCode.REPLICAS_FROM_SPEC if spec.scaling is Scaling.FIXED else ReasonCode.REPLICAS_FROM_SCALE
    reason = Reason(code, spec.ref, (("replicas", spec.replicas),))
    return Want(spec.knob, spec.replicas, Precedence.SLO, spec.scaling, reason)


def step(
    config: PoolConfig, state: PoolState, spec: PoolSpec, seen: PoolSeen, others: Iterable[Want] = ()
) -> Decision[PoolState]:
    """Return what is to be done about the pool's replicas, and why.

    Missing data never cause an action: without a workload, under a fault or an overlap, nothing is done.

    Args:
        config: how long things stay valid.
        state: what the last step remembered.
        spec: what is asked for.
        seen: what is there.
        others: what policies beyond the pool's own scaling want of its replicas.
    """
    idle = _why_idle(spec, seen)
    if idle is not None or seen.workload is None:
        return Decision(replace(state, proposals=(), contested_by=()), reasons=() if idle is None else (idle,))
    state = replace(state, hold=_hold_now(state.hold, seen, seen.workload))
    state = replace(state, contested_by=() if spec.owned else _contest(spec, state, seen, seen.workload))
    if state.contested_by:
        reason = Reason(ReasonCode.KNOB_CONTESTED, spec.ref, words=_contest_words(spec, state.contested_by))
        return Decision(replace(state, proposals=()), reasons=(reason,))
    return _pursue(config, state, spec, seen, rule(spec, others))


def _pursue(
    config: PoolConfig, state: PoolState, spec: PoolSpec, seen: PoolSeen, ruling: Ruling | None
) -> Decision[PoolState]:
    assert seen.workload is not None
    if ruling is None or ruling.value is None or ruling.winner is None:
        return Decision(replace(state, proposals=()), reasons=(_nothing_wanted(spec),))
    reasons = _lost(spec, ruling)
    if ruling.value == seen.workload.desired:
        return Decision(replace(state, proposals=()), reasons=(ruling.winner.reason, *reasons))
    action = Action(
        knob=spec.knob,
        was=seen.workload.desired,
        value=ruling.value,
        precedence=ruling.winner.precedence,
        policy=ruling.winner.policy,
        reason=_cause(spec, seen.workload, ruling.winner),
        decided_on=seen.workload.resource_version,
        valid_until=seen.at + config.action_seconds,
    )
    if spec.owned or spec.mode is not Mode.PROPOSE:  # what we own is kept as specified in every mode
        return Decision(replace(state, proposals=()), (action,), (action.reason, *reasons))
    return _propose(config, state, spec, seen, action, reasons)


def _propose(
    config: PoolConfig,
    state: PoolState,
    spec: PoolSpec,
    seen: PoolSeen,
    action: Action,
    reasons: tuple[Reason, ...],
) -> Decision[PoolState]:
    """Wait for approval: act on an approved proposal, renew one that expired or no longer says what is wanted."""
    pending = next((one for one in state.proposals if _says(one, action) and one.expires_at > seen.at), None)
    if pending is None:
        pending = _proposal(config, spec, seen.at, action)
    elif pending.id in seen.approvals:
        return Decision(replace(state, proposals=()), (action,), (action.reason, *reasons))
    waiting = Reason(ReasonCode.WAITS_FOR_APPROVAL, spec.ref, words=(("id", pending.id),))
    return Decision(replace(state, proposals=(pending,)), reasons=(waiting, *reasons))


def _says(proposal: Proposal, action: Action) -> bool:
    return (proposal.knob, proposal.was, proposal.value) == (action.knob, action.was, action.value)


def _proposal(config: PoolConfig, spec: PoolSpec, at: float, action: Action) -> Proposal:
    text = f"{spec.uid}/{action.knob}/{action.was}/{action.value}/{at}"
    name = sha256(text.encode()).hexdigest()[:8]
    return Proposal(
        name, action.knob, action.was, action.value, action.policy, action.reason, at, at + config.proposal_seconds
    )


def _why_idle(spec: PoolSpec, seen: PoolSeen) -> Reason | None:
    if seen.holder is not None:
        return Reason(ReasonCode.OVERLAPS, spec.ref, words=_overlap_words(spec, seen.holder))
    if seen.released:
        return Reason(ReasonCode.RELEASED, spec.ref)
    if seen.fault is not None:
        return seen.fault
    if seen.scaler:
        return Reason(ReasonCode.SCALED_BY_AUTOSCALER, spec.ref, words=(("scaler", seen.scaler),))
    if seen.workload is None:
        return Reason(ReasonCode.WORKLOAD_MISSING, spec.ref, words=_target_words(spec))
    return None


def _nothing_wanted(spec: PoolSpec) -> Reason:
    if spec.scaling is Scaling.WAITING_TIME:
        return Reason(ReasonCode.POLICY_NOT_YET_IMPLEMENTED, spec.ref, words=(("policy", spec.scaling),))
    return Reason(ReasonCode.NO_REPLICAS_GIVEN, spec.ref, words=(("policy", spec.scaling),))


def _hold_now(hold: Hold | None, seen: PoolSeen, workload: Workload) -> Hold | None:
    """Return the hold with whether our value is in it: seen once it stays so until a person resumes the knob."""
    if hold is None:
        return None
    return replace(hold, active=(hold.active or workload.ours) and not seen.resumed)


def _contest(spec: PoolSpec, state: PoolState, seen: PoolSeen, workload: Workload) -> tuple[str, ...]:
    """Return the managers that keep us from a foreign knob: any of them once we hold it, else the declarative ones."""
    if state.hold is not None and state.hold.active:
        return tuple(writer.manager for writer in workload.writers)
    if seen.resumed or state.hold is not None or spec.replicas == workload.desired:
        return ()
    return tuple(writer.manager for writer in workload.writers if writer.declarative)


def _cause(spec: PoolSpec, workload: Workload, winner: Want) -> Reason:
    """Return the winner's reason, or that somebody else moved replicas which are ours to keep."""
    if not (spec.owned and workload.writers and not workload.ours):
        return winner.reason
    managers = ", ".join(writer.manager for writer in workload.writers)
    return Reason(ReasonCode.REPLICAS_REPAIRED, spec.ref, winner.reason.numbers, (("managers", managers),))


def _lost(spec: PoolSpec, ruling: Ruling) -> tuple[Reason, ...]:
    assert ruling.value is not None
    return tuple(
        Reason(
            ReasonCode.GAVE_WAY,
            spec.ref,
            (("wanted", want.value), ("allowed", ruling.value)),
            (("policy", want.policy), ("winner", ruling.winner.policy if ruling.winner else "")),
        )
        for want in ruling.losers
    )


def begin_hold(state: PoolState, action: Action, at: float) -> PoolState:
    """Return the state in which a foreign knob is about to be written; the value before our first write is kept."""
    return state if state.hold is not None else replace(state, hold=Hold(action.knob, action.was or 0, at))


def confirm_hold(state: PoolState) -> PoolState:
    """Return the state once our value is in the knob: from here on, another manager's value contests it."""
    return state if state.hold is None else replace(state, hold=replace(state.hold, active=True))


def _target_words(spec: PoolSpec) -> tuple[tuple[str, str], ...]:
    return (("target", f"{spec.target.kind} {spec.target.name}"),)


def _overlap_words(spec: PoolSpec, holder: Ref) -> tuple[tuple[str, str], ...]:
    return (*_target_words(spec), ("holder", f"{holder.namespace}/{holder.name}"))


def _contest_words(spec: PoolSpec, managers: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return (
        *_target_words(spec),
        ("knob", spec.knob.field),
        ("managers", ", ".join(managers)),
        ("object", f"spool/{spec.ref.name} -n {spec.ref.namespace}"),
    )
