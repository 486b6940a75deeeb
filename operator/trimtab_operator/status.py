"""Statuses as they are written: states rather than samples, on a change, and seldom when only numbers moved."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

import orjson

from trimtab.actuate.manifests import selector_text
from trimtab.model.pool import PoolSeen, PoolSpec, PoolState, Proposal
from trimtab.model.verdict import Verdict
from trimtab.obs import journal
from trimtab.obs.clock import to_time
from trimtab.obs.journal import Journal
from trimtab.obs.wording import say
from trimtab_operator.records import StatusMemory

Status = dict[str, Any]

_MOVED: Final = 0.05
_MESSAGE_LENGTH: Final = 4000


def pool_status(
    spec: PoolSpec,
    state: PoolState,
    seen: PoolSeen,
    verdicts: Iterable[Verdict],
    history: Journal,
    memory: StatusMemory,
) -> Status:
    """Return the whole status of a pool."""
    workload = seen.workload
    return {
        "observedGeneration": spec.generation,
        "replicas": workload.current if workload else 0,
        "readyReplicas": workload.ready if workload else 0,
        "selector": workload.selector if workload else (selector_text(spec.ref.name) if spec.owned else ""),
        "conditions": conditions(verdicts, spec.generation, seen.at, memory),
        "serviceLevels": [{"name": name, "state": "Unknown"} for name in spec.service_levels],
        "recentDecisions": journal.to_wire(history),
        "proposals": [_proposal(one) for one in state.proposals],
        "heldKnobs": _held(spec, state),
    }


def conditions(verdicts: Iterable[Verdict], generation: int, at: float, memory: StatusMemory) -> list[dict[str, Any]]:
    """Return `status.conditions`; a condition's transition time moves only when its status does."""
    written = []
    for verdict in verdicts:
        since = memory.since.get(verdict.type)
        if since is None or since[0] != verdict.truth:
            since = (verdict.truth.value, to_time(at), verdict.reason.code.value)
        written.append(
            {
                "type": verdict.type.value,
                "status": verdict.truth.value,
                "reason": verdict.reason.code.value,
                "message": say(verdict.reason)[:_MESSAGE_LENGTH],
                "observedGeneration": generation,
                "lastTransitionTime": since[1],
            }
        )
    return written


def remember(memory: StatusMemory, status: Status, at: float) -> None:
    """Note that `status` is what the object shows."""
    memory.states, memory.whole = _digest(_states(status)), _digest(status)
    memory.ready = status.get("readyReplicas", 0)
    memory.at = at
    memory.since = {
        one["type"]: (one["status"], one["lastTransitionTime"], one["reason"]) for one in status.get("conditions", ())
    }


def due(memory: StatusMemory, status: Status, at: float, interval_seconds: float) -> float | None:
    """Return when `status` should be written: `at` for a change of state, later for numbers, None for never."""
    if _digest(status) == memory.whole:
        return None
    if _digest(_states(status)) != memory.states:
        return at
    ready = status.get("readyReplicas", 0)
    if abs(ready - memory.ready) < _MOVED * max(ready, memory.ready, 1):
        return None
    return max(at, memory.at + interval_seconds)


def _states(status: Status) -> Status:
    """Return a status without what moves by itself: counts of ready replicas and the messages that repeat them."""
    shown = {key: value for key, value in status.items() if key != "readyReplicas"}
    return shown | {"conditions": [{**one, "message": ""} for one in status.get("conditions", ())]}


def _digest(status: Status) -> bytes:
    return blake2b(orjson.dumps(status, option=orjson.OPT_SORT_KEYS), digest_size=8).digest()


def _proposal(one: Proposal) -> dict[str, Any]:
    return {
        "id": one.id,
        "time": to_time(one.proposed_at),
        "policy": one.policy,
        "subject": str(one.knob.object),
        "knob": one.knob.field,
        "from": "" if one.was is None else str(one.was),
        "to": str(one.value),
        "reason": one.reason.code.value,
        "message": say(one.reason),
        "predictedEffect": predicted(one.value),
        "expires": to_time(one.expires_at),
    }


def predicted(replicas: int) -> str:
    """Return what a number of replicas is expected to lead to."""
    return f"{replicas} ready replicas"


def _held(spec: PoolSpec, state: PoolState) -> list[dict[str, Any]]:
    if state.hold is None:
        return []
    target = f"{spec.target.kind}/{spec.ref.namespace}/{spec.target.name}"
    hold = state.hold
    return [{"target": target, "knob": hold.knob.field, "before": str(hold.was), "since": to_time(hold.since)}]
