"""The journal of requests that ended."""

from typing import Any

from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab_gateway.journal import Journal, Record


def a_record(request_id: str, **changes: Any) -> Record:
    record = Record(request_id, "chat", "llama", "", "e1", "ok", 0.1, 0.2, 0.3, 1)
    return record._replace(**changes)


def test_the_newest_come_first_and_the_oldest_are_forgotten() -> None:
    journal = Journal(3)
    for number in range(5):
        journal.add(a_record(str(number)))
    assert [record.request_id for record in journal.latest(10)] == ["4", "3", "2"]
    assert [record.request_id for record in journal.latest(2)] == ["4", "3"]
    assert journal.find("1") == []


def test_records_are_found_by_pool_outcome_and_id() -> None:
    journal = Journal(10)
    journal.add(a_record("a", outcome="error"))
    journal.add(a_record("b", pool="other"))
    journal.add(a_record("a"))
    assert [record.request_id for record in journal.latest(9, outcome="error")] == ["a"]
    assert [record.request_id for record in journal.latest(9, pool="other")] == ["b"]
    assert [record.outcome for record in journal.find("a")] == ["ok", "error"]


def test_a_refusal_is_explained_in_words() -> None:
    reason = Reason(ReasonCode.QUEUE_FULL, Ref("ServingPool", "ai", "chat"), (("waiting", 7.0),))
    wire = a_record("a", outcome="rate_limited", reason=reason).to_wire()
    assert wire["reason"] == "7 requests already wait, as many as this pool allows"
    assert (wire["request_id"], wire["total_seconds"]) == ("a", 0.3)
    assert a_record("a").to_wire()["reason"] is None
