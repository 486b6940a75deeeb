"""What holds of a serving pool, condition by condition; what nothing measures is `Unknown` and says so."""

from trimtab.model.pool import PoolSeen, PoolSpec, PoolState, Workload
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.model.verdict import ConditionType, Truth, Verdict


def judge_pool(spec: PoolSpec, state: PoolState, seen: PoolSeen, idle: Reason | None = None) -> tuple[Verdict, ...]:
    """Return every condition of a pool, in the order in which they are shown.

    Args:
        spec: what is asked for.
        state: what the last step remembered.
        seen: what is there.
        idle: the step's first reason, if it explains why nothing was done.
    """
    return (
        _ready(spec, seen),
        _objectives(spec),
        Verdict(ConditionType.TELEMETRY_FRESH, Truth.UNKNOWN, Reason(ReasonCode.NOT_MEASURED, spec.ref)),
        _capacity(spec, seen),
        _contested(spec, state, seen, idle),
        Verdict(ConditionType.WITHIN_POWER, Truth.UNKNOWN, Reason(ReasonCode.NOT_MEASURED, spec.ref)),
    )


def judge_placeholder(ref: Ref) -> tuple[Verdict, ...]:
    """Return the honest conditions of a kind that nothing reconciles yet."""
    return (Verdict(ConditionType.READY, Truth.UNKNOWN, Reason(ReasonCode.NOT_YET_IMPLEMENTED, ref)),)


def _ready(spec: PoolSpec, seen: PoolSeen) -> Verdict:
    truth, reason = _readiness(spec, seen)
    return Verdict(ConditionType.READY, truth, reason)


def _readiness(spec: PoolSpec, seen: PoolSeen) -> tuple[Truth, Reason]:
    if seen.holder is not None:
        words = (
            ("target", f"{spec.target.kind} {spec.target.name}"),
            ("holder", f"{seen.holder.namespace}/{seen.holder.name}"),
        )
        return Truth.FALSE, Reason(ReasonCode.OVERLAPS, spec.ref, words=words)
    if seen.fault is not None:
        return Truth.FALSE, seen.fault
    if seen.workload is None:
        return Truth.UNKNOWN, Reason(ReasonCode.NOT_YET_OBSERVED, spec.ref)
    return _replicas(spec.ref, seen.workload)


def _replicas(ref: Ref, workload: Workload) -> tuple[Truth, Reason]:
    if workload.failure:
        return Truth.FALSE, Reason(ReasonCode.PODS_REFUSED, ref, words=(("detail", workload.failure),))
    if workload.desired == 0:
        return Truth.TRUE, Reason(ReasonCode.SCALED_TO_ZERO, ref)
    numbers = (("ready", workload.ready), ("desired", workload.desired))
    if workload.ready >= workload.desired:
        return Truth.TRUE, Reason(ReasonCode.ALL_REPLICAS_READY, ref, numbers)
    return Truth.FALSE, Reason(ReasonCode.REPLICAS_NOT_READY, ref, numbers)


def _objectives(spec: PoolSpec) -> Verdict:
    code = ReasonCode.NOT_MEASURED if spec.service_levels else ReasonCode.NO_OBJECTIVES
    return Verdict(ConditionType.OBJECTIVES_MET, Truth.UNKNOWN, Reason(code, spec.ref))


def _capacity(spec: PoolSpec, seen: PoolSeen) -> Verdict:
    pods = seen.pods
    if pods is None:
        truth, reason = Truth.UNKNOWN, Reason(ReasonCode.NOT_MEASURED, spec.ref)
    elif pods.unschedulable:
        numbers = (("unschedulable", pods.unschedulable), ("total", pods.total))
        truth, reason = Truth.FALSE, Reason(ReasonCode.UNSCHEDULABLE, spec.ref, numbers, (("detail", pods.message),))
    elif pods.total == 0:
        truth, reason = Truth.UNKNOWN, Reason(ReasonCode.NO_PODS, spec.ref)
    else:
        truth, reason = Truth.TRUE, Reason(ReasonCode.ALL_SCHEDULED, spec.ref)
    return Verdict(ConditionType.CAPACITY_AVAILABLE, truth, reason)


def _contested(spec: PoolSpec, state: PoolState, seen: PoolSeen, idle: Reason | None) -> Verdict:
    truth, reason = Truth.FALSE, Reason(ReasonCode.NOT_CONTESTED, spec.ref)
    if state.contested_by:
        if idle is not None and idle.code is ReasonCode.KNOB_CONTESTED:
            reason = idle
        truth = Truth.TRUE
    elif seen.scaler:
        reason = Reason(ReasonCode.SCALED_BY_AUTOSCALER, spec.ref, words=(("scaler", seen.scaler),))
    return Verdict(ConditionType.KNOB_CONTESTED, truth, reason)
