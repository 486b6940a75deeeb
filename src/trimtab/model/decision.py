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
    """What became of an action."""

    APPLIED = "Applied"  # written, and the server accepted it
    OBSERVED = "Observed"  # mode Observe: what would have been done
    PROPOSED = "Proposed"  # mode Propose: waits for approval
    EXPIRED = "Expired"  # nobody approved it in time
    WITHDRAWN = "Withdrawn"  # no longer wanted before anybody approved it
    STALE = "Stale"  # the world moved, or the action's time ran out: dropped and decided again
    REFUSED = "Refused"  # the API server said no
    REACHED = "Reached"  # applied, and the predicted effect was seen
    MISSED = "Missed"  # applied, and the predicted effect was not seen in time
    RELEASED = "Released"  # the knob was given back


@dataclass(frozen=True, slots=True)
class Applied:
    """What the actuator did with one action.

    Attributes:
        action: which one.
        outcome: what became of it.
        detail: the API server's own words when it refused.
    """

    action: Action
    outcome: Outcome
    detail: str = ""


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
