"""What a policy proposes, what the arbiter rules, what the actuator did."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Generic, TypeVar

from trimtab.model.knob import Knob
from trimtab.model.reason import Reason

S = TypeVar("S")


class Precedence(IntEnum):
    """Who wins when two policies want different values of one knob: the lower number."""

    SAFETY = 0
    BUDGET = 1
    SLO = 2
    EFFICIENCY = 3


class Mode(StrEnum):
    """What policies may change: nothing, nothing without approval, or what they decide."""

    OBSERVE = "Observe"
    PROPOSE = "Propose"
    ENFORCE = "Enforce"


class Sense(StrEnum):
    """How a wanted value binds: exactly, from below, or from above."""

    EXACTLY = "Exactly"
    AT_LEAST = "AtLeast"
    AT_MOST = "AtMost"


@dataclass(frozen=True, slots=True)
class Want:
    """What one policy wants of one knob.

    Attributes:
        knob: which knob.
        value: the wanted value, in the knob's own unit.
        precedence: the policy's class.
        policy: the policy's name.
        reason: why.
        sense: whether `value` is the goal or a limit.
    """

    knob: Knob
    value: int
    precedence: Precedence
    policy: str
    reason: Reason
    sense: Sense = Sense.EXACTLY


@dataclass(frozen=True, slots=True)
class Action:
    """One value for one knob, to be written only while the world is as it was decided on.

    Attributes:
        knob: which knob.
        was: the value seen when deciding; None when the field was absent.
        value: the value to write.
        precedence: the class of the policy that won.
        policy: the policy that won.
        reason: why.
        decided_on: resource version of the object that was seen.
        valid_until: time after which the action is void, in seconds since the epoch.
    """

    knob: Knob
    was: int | None
    value: int
    precedence: Precedence
    policy: str
    reason: Reason
    decided_on: str
    valid_until: float


class Outcome(StrEnum):
    """What became of an action. Every one but `STALE` is shown to people."""

    RECORDED = "Recorded"  # mode Observe: what would have been done
    PROPOSED = "Proposed"  # mode Propose: waits for approval
    APPLIED = "Applied"  # written, and the server accepted it
    REFUSED = "Refused"  # the API server said no
    EXPIRED = "Expired"  # nobody approved it in time
    FAILED = "Failed"  # applied, and the predicted effect was not seen in time
    STALE = "Stale"  # the world moved, or the action's time ran out: dropped and decided again


@dataclass(frozen=True, slots=True)
class Applied:
    """What the actuator did with one action.

    Attributes:
        action: which one.
        outcome: what became of it.
        detail: the API server's own words when it refused.
        resource_version: of the object after the write; empty when nothing was written.
    """

    action: Action
    outcome: Outcome
    detail: str = ""
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Decision(Generic[S]):
    """The result of one step of a policy.

    Attributes:
        state: what the policy remembers for its next step.
        actions: what is to be done.
        reasons: why, also for what is not done.
    """

    state: S
    actions: tuple[Action, ...] = ()
    reasons: tuple[Reason, ...] = ()
