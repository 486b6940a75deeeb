"""The last decisions about one object: what was changed, why, and what was seen of it afterwards.

A journal holds changes only: a decision that repeats the newest one about the same knob is not entered again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from trimtab.model.decision import Action, Outcome
from trimtab.model.knob import Knob
from trimtab.obs.clock import at_time, to_time
from trimtab.obs.wording import say

LENGTH: Final = 10
EFFECT_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision.

    Attributes:
        id: names it within its object.
        at: when it was taken, in seconds since the epoch.
        policy: the policy that asked for it.
        subject: the knob's object, as text.
        knob: the knob's field.
        was: the value before, as text; empty for none.
        value: the value decided, as text; empty when the knob was given back.
        reason: code of the reason.
        message: the reason in words.
        outcome: what became of it.
        predicted: what the policy expects.
        observed: what was seen; empty until then.
    """

    id: str
    at: float
    policy: str
    subject: str
    knob: str
    was: str
    value: str
    reason: str
    message: str
    outcome: Outcome
    predicted: str = ""
    observed: str = ""


Journal = tuple[Entry, ...]


def entry(action: Action, outcome: Outcome, at: float, *, detail: str = "", predicted: str = "") -> Entry:
    """Return the entry for what became of an action; `detail` is the server's word on a refusal."""
    text = say(action.reason)
    name = sha256(f"{action.knob}/{action.was}/{action.value}/{at}".encode()).hexdigest()[:8]
    return Entry(
        id=name,
        at=at,
        policy=action.policy,
        subject=str(action.knob.object),
        knob=action.knob.field,
        was="" if action.was is None else str(action.was),
        value=str(action.value),
        reason=action.reason.code,
        message=f"{text}; {detail}" if detail else text,
        outcome=outcome,
        predicted=predicted,
    )


def record(journal: Journal, new: Entry) -> Journal:
    """Return the journal with `new` on top, unless it repeats the newest entry about its knob; the oldest go."""
    same_knob = (one for one in journal if (one.subject, one.knob) == (new.subject, new.knob))
    newest = next(same_knob, None)
    if newest is not None and _content(newest) == _content(new):
        return journal
    return (new, *journal)[:LENGTH]


def follow(journal: Journal, knob: Knob, value: str, observed: str, at: float, *, reached: bool) -> Journal:
    """Return the journal after a look at the effect of the newest applied entry about `knob`.

    Args:
        journal: the entries, newest first.
        knob: the knob that was looked at.
        value: what it is set to; an entry that decided another value is not judged by it.
        observed: what is seen, in words.
        at: time of the look, in seconds since the epoch.
        reached: whether that is what was predicted. If it is not within 15 minutes, the entry counts as failed.
    """
    for place, one in enumerate(journal):
        if (one.subject, one.knob) != (str(knob.object), knob.field):
            continue
        if one.outcome is not Outcome.APPLIED or one.observed or not one.predicted or one.value != value:
            return journal
        late = at - one.at > EFFECT_SECONDS
        if not reached and not late:
            return journal
        after = f"{observed} after {at - one.at:.0f} s"
        outcome = Outcome.APPLIED if reached else Outcome.FAILED
        return (*journal[:place], replace(one, observed=after, outcome=outcome), *journal[place + 1 :])
    return journal


def to_wire(journal: Journal) -> list[dict[str, Any]]:
    """Return `status.recentDecisions`."""
    return [
        {
            "id": one.id,
            "time": to_time(one.at),
            "policy": one.policy,
            "subject": one.subject,
            "knob": one.knob,
            "from": one.was,
            "to": one.value,
            "reason": one.reason,
            "message": one.message,
            "predictedEffect": one.predicted,
            "observedEffect": one.observed,
            "outcome": one.outcome.value,
        }
        for one in journal
    ]


def from_wire(records: Sequence[dict[str, Any]]) -> Journal:
    """Return the journal that `status.recentDecisions` holds, so that a new process goes on with it."""
    return tuple(
        Entry(
            id=one["id"],
            at=at_time(one["time"]),
            policy=one["policy"],
            subject=one["subject"],
            knob=one["knob"],
            was=one.get("from", ""),
            value=one.get("to", ""),
            reason=one["reason"],
            message=one.get("message", ""),
            outcome=Outcome(one["outcome"]),
            predicted=one.get("predictedEffect", ""),
            observed=one.get("observedEffect", ""),
        )
        for one in records
        if one.get("outcome") in set(Outcome)
    )


def _content(one: Entry) -> tuple[str, ...]:
    return one.was, one.value, one.reason, one.message, one.outcome
