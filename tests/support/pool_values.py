"""Builders of the values that a pool's decisions are made from."""

from dataclasses import replace
from typing import Any

from trimtab.model.decision import Mode, Precedence, Sense, Want
from trimtab.model.knob import REPLICAS, Bounds, Knob
from trimtab.model.pool import Hold, PoolSeen, PoolSpec, Scaling, Target, Workload, Writer
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref

REF = Ref("ServingPool", "ai", "chat")
KNOB = Knob(REF, REPLICAS)
AT = 1_000.0


def a_spec(**changes: Any) -> PoolSpec:
    """A pool that owns its workload and asks for 3 replicas."""
    spec = PoolSpec(
        ref=REF,
        uid="uid-1",
        created_at="2026-01-01T00:00:00Z",
        generation=1,
        target=Target("apps/v1", "Deployment", "chat"),
        owned=True,
        replicas=3,
    )
    return replace(spec, **changes)


def a_foreign_spec(**changes: Any) -> PoolSpec:
    """A pool in mode Enforce that attaches to a Deployment of somebody else."""
    given = {"owned": False, "target": Target("apps/v1", "Deployment", "web"), "mode": Mode.ENFORCE} | changes
    return a_spec(**given)


def a_workload(desired: int = 3, **changes: Any) -> Workload:
    """A Deployment, all of whose replicas are ready."""
    return replace(Workload("7", desired, current=desired, ready=desired), **changes)


def seeing(workload: Workload | None = None, **changes: Any) -> PoolSeen:
    """What is seen of a pool."""
    return replace(PoolSeen(AT, workload), **changes)


def taken_by(*managers: str, desired: int = 5, declarative: bool = False) -> Workload:
    """A workload whose replicas others own."""
    writers = tuple(Writer(manager, declarative) for manager in managers)
    return a_workload(desired, writers=writers)


def a_hold(*, active: bool = True, was: int = 1) -> Hold:
    return Hold(KNOB, was, AT - 10, active=active)


def a_want(
    value: int,
    precedence: Precedence = Precedence.SLO,
    *,
    sense: Sense = Sense.EXACTLY,
    policy: str = "Fixed",
    knob: Knob = KNOB,
) -> Want:
    reason = Reason(ReasonCode.REPLICAS_FROM_SPEC, knob.object, (("replicas", value),))
    return Want(knob, value, precedence, policy, reason, sense)


WAITING = Scaling.WAITING_TIME
EXTERNAL = Scaling.EXTERNAL
BOUNDS = Bounds(1, 8)
