"""The waiting line: order, removal, and that removed requests do not pile up."""

import pytest

from trimtab.decide.queueing import Request, fcfs
from trimtab.decide.queueing.line import Line


def a_line(*arrivals: float) -> Line:
    line = Line(fcfs.order)
    for key, arrived_at in enumerate(arrivals, start=1):
        line.push(Request(key, arrived_at))
    return line


def test_requests_leave_in_the_order_of_arrival() -> None:
    line = a_line(3.0, 1.0, 2.0)
    assert [line.pop().arrived_at for _ in range(3)] == [1.0, 2.0, 3.0]


def test_ties_go_to_the_lower_key() -> None:
    line = a_line(1.0, 1.0, 1.0)
    assert [line.pop().key for _ in range(3)] == [1, 2, 3]


def test_any_order_can_rule_while_the_oldest_stays_known() -> None:
    line = Line(lambda request: -request.arrived_at)
    for key in (1, 2, 3):
        line.push(Request(key, float(key)))
    assert [line.pop().key, line.pop().key] == [3, 2]
    oldest = line.oldest()
    assert oldest is not None
    assert oldest.key == 1


def test_a_removed_request_is_never_seen_again() -> None:
    line = a_line(1.0, 2.0, 3.0)
    removed = line.remove(1)
    assert removed is not None
    assert removed.key == 1
    assert line.remove(1) is None
    oldest = line.oldest()
    assert oldest is not None
    assert oldest.key == 2
    assert [line.pop().key, line.pop().key, len(line)] == [2, 3, 0]
    assert line.oldest() is None


def test_a_request_that_waits_cannot_be_pushed_again() -> None:
    line = a_line(1.0)
    with pytest.raises(AssertionError, match="waits once"):
        line.push(Request(1, 1.0))


def test_a_request_may_come_back_to_its_old_place() -> None:
    line = a_line(1.0, 2.0)
    first = line.pop()
    line.push(first)
    assert [line.pop().key, line.pop().key] == [1, 2]


def test_removed_requests_do_not_pile_up() -> None:
    line = a_line(0.0)
    for key in range(2, 10_000):
        line.push(Request(key, float(key)))
        line.remove(key)
    assert len(line._by_rank) < 200
    assert len(line._by_arrival) < 200
    assert line.pop().key == 1
