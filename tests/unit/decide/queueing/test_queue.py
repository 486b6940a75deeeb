"""The queue's decisions on single events, with literals."""

import pytest

from trimtab.decide.queueing import Bounds, Decision, Dispatch, Endpoint, PoolQueue, Request
from trimtab.decide.queueing.queue import NOTHING
from trimtab.model.reason import ReasonCode
from trimtab.model.ref import Ref
from trimtab.obs.wording import say

POOL = Ref("ServingPool", "ai", "chat")


def a_queue(*endpoints: Endpoint, **bounds: float) -> PoolQueue:
    queue = PoolQueue(POOL, Bounds(**bounds))  # type: ignore[arg-type]
    queue.set_endpoints(endpoints, 0.0)
    return queue


def request(key: int, at: float = 0.0) -> Request:
    return Request(key, at)


def codes(decision: Decision) -> list[ReasonCode]:
    return [refusal.reason.code for refusal in decision.refusals]


def test_a_request_goes_to_an_idle_engine_at_once() -> None:
    queue = a_queue(Endpoint("a", 1))
    assert queue.arrive(request(1), 0.0) == Decision((Dispatch(request(1), "a"),))
    assert (queue.waiting, queue.fleet.total_in_flight) == (0, 1)


def test_a_request_waits_when_all_engines_are_full_and_goes_when_one_is_free() -> None:
    queue = a_queue(Endpoint("a", 1))
    queue.arrive(request(1), 0.0)
    assert queue.arrive(request(2), 1.0) == NOTHING
    assert queue.finish("a", 2.0, 2.0).dispatches == (Dispatch(request(2), "a"),)


def test_a_full_line_refuses_with_numbers_and_an_estimate() -> None:
    queue = a_queue(Endpoint("a", 1), max_requests=2)
    queue.arrive(request(1), 0.0)
    queue.finish("a", 30.0, 30.0)
    for key in (2, 3, 4):
        queue.arrive(request(key, 30.0), 30.0)
    (refusal,) = queue.arrive(request(5, 31.0), 31.0).refusals
    assert refusal.reason.code is ReasonCode.QUEUE_FULL
    assert refusal.reason.subject == POOL
    assert refusal.retry_after_seconds == 60  # two wait, one slot, thirty seconds each
    assert say(refusal.reason) == "2 requests already wait, as many as this pool allows"


def test_a_line_without_places_still_serves_who_need_not_wait() -> None:
    queue = a_queue(Endpoint("a", 1), max_requests=0)
    assert queue.arrive(request(1), 0.0).dispatches
    assert codes(queue.arrive(request(2), 0.0)) == [ReasonCode.QUEUE_FULL]


def test_who_waits_too_long_is_refused_on_time_and_not_before() -> None:
    queue = a_queue(Endpoint("a", 1), max_waiting_seconds=10.0)
    queue.arrive(request(1), 0.0)
    queue.arrive(request(2, 5.0), 5.0)
    assert queue.next_due() == 15.0
    assert queue.step(14.9) == NOTHING
    decision = queue.step(15.0)
    assert codes(decision) == [ReasonCode.QUEUE_TIMEOUT]
    assert say(decision.refusals[0].reason) == "The request waited 10 s, as long as this pool allows"
    assert queue.next_due() is None


def test_a_free_place_is_given_even_to_who_is_overdue() -> None:
    queue = a_queue(Endpoint("a", 1), max_waiting_seconds=10.0)
    queue.arrive(request(1), 0.0)
    queue.arrive(request(2), 0.0)
    assert queue.finish("a", 11.0).dispatches == (Dispatch(request(2), "a"),)


def test_without_a_ready_engine_requests_wait_only_a_moment() -> None:
    queue = a_queue(max_seconds_without_endpoint=3.0)
    assert queue.arrive(request(1, 1.0), 1.0) == NOTHING
    assert queue.next_due() == 4.0
    assert codes(queue.step(4.0)) == [ReasonCode.NO_READY_ENDPOINT]


def test_the_moment_begins_when_the_last_engine_leaves() -> None:
    queue = a_queue(Endpoint("a", 1), max_seconds_without_endpoint=3.0)
    queue.arrive(request(1), 0.0)
    queue.arrive(request(2), 0.0)
    queue.update_endpoint(Endpoint("a", 1, ready=False), 50.0)
    assert queue.next_due() == 53.0
    queue.update_endpoint(Endpoint("a", 1), 52.0)
    assert queue.next_due() == 600.0


def test_a_request_that_was_handed_back_keeps_its_place() -> None:
    queue = a_queue(Endpoint("a", 1))
    queue.arrive(request(1, 0.0), 0.0)
    queue.arrive(request(2, 1.0), 1.0)
    queue.update_endpoint(Endpoint("a", 1, ready=False), 2.0)
    queue.hand_back(request(1, 0.0), "a", 2.0)
    decision = queue.update_endpoint(Endpoint("a", 2), 3.0)
    assert [dispatch.request.key for dispatch in decision.dispatches] == [1, 2]


def test_a_withdrawn_request_is_gone() -> None:
    queue = a_queue(Endpoint("a", 1))
    queue.arrive(request(1), 0.0)
    queue.arrive(request(2), 0.0)
    assert queue.withdraw(2)
    assert not queue.withdraw(2)
    assert queue.finish("a", 1.0) == NOTHING


def test_new_bounds_hold_for_those_who_wait_already() -> None:
    queue = a_queue(Endpoint("a", 1))
    queue.arrive(request(1), 0.0)
    queue.arrive(request(2), 0.0)
    queue.bounds = Bounds(max_waiting_seconds=5.0)
    assert codes(queue.step(5.0)) == [ReasonCode.QUEUE_TIMEOUT]


def test_requests_that_were_cut_short_do_not_set_the_pace() -> None:
    queue = a_queue(Endpoint("a", 1))
    queue.arrive(request(1), 0.0)
    queue.finish("a", 5.0)
    assert queue.service_seconds is None


@pytest.mark.parametrize("count", [10, 1000])
def test_the_whole_line_moves_when_engines_come(count: int) -> None:
    queue = a_queue()
    for key in range(count):
        queue.arrive(request(key, float(key) / count), float(key) / count)
    decision = queue.set_endpoints([Endpoint("a", count), Endpoint("b", count)], 2.0)
    assert [dispatch.request.key for dispatch in decision.dispatches] == list(range(count))
    assert queue.fleet.in_flight("a") == queue.fleet.in_flight("b") == count / 2
