from dataclasses import replace

import pytest

from tests.support.pool_values import AT, KNOB
from trimtab.model.decision import Action, Outcome, Precedence
from trimtab.model.reason import Reason, ReasonCode
from trimtab.obs import journal
from trimtab.obs.journal import EFFECT_SECONDS, LENGTH, Entry


def an_action(value: int = 3, was: int | None = 1) -> Action:
    reason = Reason(ReasonCode.REPLICAS_FROM_SPEC, KNOB.object, (("replicas", value),))
    return Action(KNOB, was, value, Precedence.SLO, "Fixed", reason, "7", AT + 30)


def an_entry(value: int = 3, outcome: Outcome = Outcome.APPLIED, at: float = AT) -> Entry:
    return journal.entry(an_action(value), outcome, at, predicted=f"{value} ready replicas")


def test_an_entry_tells_what_why_and_what_is_expected() -> None:
    entry = an_entry()
    assert (entry.was, entry.value, entry.reason, entry.message) == (
        "1",
        "3",
        "ReplicasFromSpec",
        "spec.replicas asks for 3",
    )
    assert entry.predicted == "3 ready replicas"


def test_a_refusal_carries_the_servers_words() -> None:
    entry = journal.entry(an_action(), Outcome.REFUSED, AT, detail="quota exceeded")
    assert entry.message == "spec.replicas asks for 3; quota exceeded"


def test_the_newest_is_first_and_the_oldest_go() -> None:
    found: journal.Journal = ()
    for value in range(LENGTH + 5):
        found = journal.record(found, an_entry(value, at=AT + value))
    assert len(found) == LENGTH
    assert found[0].value == str(LENGTH + 4)


def test_a_repeated_no_op_is_not_entered() -> None:
    once = journal.record((), an_entry(outcome=Outcome.RECORDED))
    assert journal.record(once, an_entry(outcome=Outcome.RECORDED, at=AT + 99)) == once


def test_the_same_change_with_another_outcome_is_entered() -> None:
    once = journal.record((), an_entry(outcome=Outcome.PROPOSED))
    assert len(journal.record(once, an_entry(outcome=Outcome.APPLIED))) == 2


def test_a_reached_effect_is_noted_once() -> None:
    found = journal.record((), an_entry())
    after = journal.follow(found, KNOB, "3", "3 of 3 replicas ready", AT + 12, reached=True)
    assert after[0].observed == "3 of 3 replicas ready after 12 s"
    assert journal.follow(after, KNOB, "3", "2 of 3 replicas ready", AT + 50, reached=True) == after


def test_an_effect_that_is_not_there_yet_is_waited_for_and_then_failed() -> None:
    found = journal.record((), an_entry())
    assert journal.follow(found, KNOB, "3", "0 of 3 replicas ready", AT + 12, reached=False) == found
    late = journal.follow(found, KNOB, "3", "0 of 3 replicas ready", AT + EFFECT_SECONDS + 1, reached=False)
    assert late[0].outcome is Outcome.FAILED


def test_another_value_is_not_the_effect_of_the_entry() -> None:
    found = journal.record((), an_entry(3))
    assert journal.follow(found, KNOB, "5", "5 of 5 replicas ready", AT + 1, reached=True) == found


@pytest.mark.parametrize("outcome", [Outcome.RECORDED, Outcome.PROPOSED, Outcome.REFUSED])
def test_only_what_was_applied_has_an_effect(outcome: Outcome) -> None:
    found = journal.record((), an_entry(outcome=outcome))
    assert journal.follow(found, KNOB, "3", "3 of 3", AT + 1, reached=True) == found


def test_the_wire_brings_back_what_was_written() -> None:
    found = (replace(an_entry(), observed="3 of 3 replicas ready after 2 s"), an_entry(5, Outcome.REFUSED))
    assert journal.from_wire(journal.to_wire(found)) == found


def test_entries_of_a_newer_version_are_passed_over() -> None:
    records = journal.to_wire((an_entry(),))
    records[0]["outcome"] = "SomethingNew"
    assert journal.from_wire(records) == ()
