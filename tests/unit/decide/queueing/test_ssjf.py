"""The key with aging, the guard, and the production queue that is ordered by them."""

from math import inf

import pytest

from trimtab.api.serving_pool import Queue
from trimtab.decide.queueing import Bounds, Decision, Endpoint, PoolQueue, Request, fcfs
from trimtab.decide.queueing.drift import DriftGuard, DriftPolicy
from trimtab.decide.queueing.lengths import BINS, Outcome, Prediction, bin_of
from trimtab.decide.queueing.line import Order
from trimtab.decide.queueing.ssjf import PAPER, Guard, ServiceTime, SsjfOrder, key, priority
from trimtab.model.ref import Ref

POOL = Ref("ServingPool", "ai", "chat")
LONG, SHORT = 507.0, 20.0


def a_queue(order: Order, capacity: int = 1) -> PoolQueue:
    """A queue whose one engine is busy, so that what arrives waits."""
    queue = PoolQueue(POOL, Bounds(), order)
    queue.set_endpoints([Endpoint("a", capacity)], 0.0)
    for number in range(capacity):
        queue.arrive(Request(-1 - number, 0.0), 0.0)
    return queue


def wait(queue: PoolQueue, *requests: Request) -> None:
    for request in requests:
        assert queue.arrive(request, request.arrived_at) == Decision()


def served(queue: PoolQueue, at: float) -> list[int]:
    """Let the engine end one request after the other; returns the order of service."""
    order = []
    while queue.waiting:
        (dispatch,) = queue.finish("a", at).dispatches
        order.append(dispatch.request.key)
    return order


def predicted(key: int, at: float, tokens: float | None) -> Request:
    return Request(key, at, predicted_tokens=tokens)


def test_an_answer_of_100_tokens_takes_2_1_seconds_on_the_papers_engine() -> None:
    assert PAPER.of(100) == pytest.approx(2.1, abs=1e-12)


@pytest.mark.parametrize(
    ("arrived_at", "tokens", "expected"), [(0.0, LONG, 102.4), (90.0, SHORT, 95.0), (98.0, SHORT, 103.0)]
)
def test_the_key_is_arrival_plus_ten_times_the_estimate(arrived_at: float, tokens: float, expected: float) -> None:
    assert key(arrived_at, PAPER.of(tokens), 10.0) == pytest.approx(expected, abs=1e-12)
    assert SsjfOrder()(predicted(1, arrived_at, tokens)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("short_arrives_at", "first"), [(90.0, 2), (98.0, 1)])
def test_a_short_request_overtakes_a_long_one_within_the_window_only(short_arrives_at: float, first: int) -> None:
    queue = a_queue(SsjfOrder())
    wait(queue, predicted(1, 0.0, LONG), predicted(2, short_arrives_at, SHORT))
    assert served(queue, 100.0)[0] == first


def test_engines_with_integer_priorities_get_the_key_in_tenths_of_seconds() -> None:
    assert priority(0.0, PAPER.of(LONG)) == 1024
    assert priority(90.0, PAPER.of(SHORT)) == 950
    assert priority(1_000_090.0, PAPER.of(SHORT), since=1_000_000.0) == 950


def test_bins_contain_their_left_edge() -> None:
    assert [bin_of(tokens, BINS) for tokens in (41, 42, 141, 294, 503)] == [0, 1, 2, 3, 4]


def test_an_infinite_factor_is_the_pure_order_and_ties_keep_the_order_of_arrival() -> None:
    queue = a_queue(SsjfOrder(inf))
    wait(queue, *(predicted(n, float(n), tokens) for n, tokens in enumerate([300.0, 5.0, 300.0, 5.0, 40.0])))
    assert served(queue, 9.0) == [1, 3, 4, 0, 2]


@pytest.mark.parametrize("order", [fcfs.order, SsjfOrder(0.0)])
def test_a_factor_of_zero_is_first_come_first_served(order: Order) -> None:
    queue = a_queue(order)
    wait(queue, *(predicted(n, float(n), tokens) for n, tokens in enumerate([300.0, 5.0, 100.0, 5.0])))
    assert served(queue, 9.0) == [0, 1, 2, 3]


@pytest.mark.parametrize("tokens", [None, 77.0])
def test_a_constant_prediction_or_none_at_all_is_first_come_first_served(tokens: float | None) -> None:
    queue = a_queue(SsjfOrder(1000.0))
    wait(queue, *(predicted(n, n / 7, tokens) for n in range(20)))
    assert served(queue, 9.0) == list(range(20))


def test_a_request_without_a_prediction_is_taken_for_a_typical_one() -> None:
    queue = a_queue(SsjfOrder(10.0, typical_tokens=200.0))
    wait(queue, predicted(1, 0.0, None), predicted(2, 0.1, 190.0), predicted(3, 0.2, 210.0))
    assert served(queue, 1.0) == [2, 1, 3]


def test_a_request_that_is_handed_back_has_its_old_place() -> None:
    queue = a_queue(SsjfOrder())
    first = predicted(1, 0.0, SHORT)
    wait(queue, first, predicted(2, 1.0, LONG))
    assert queue.finish("a", 2.0).dispatches[0].request == first
    assert queue.hand_back(first, "a", 50.0).dispatches[0].request == first


def test_the_longest_wait_is_still_refused_first_although_it_is_not_first_in_line() -> None:
    queue = a_queue(SsjfOrder(inf))
    queue.bounds = Bounds(max_waiting_seconds=10.0)
    wait(queue, predicted(1, 0.0, LONG), predicted(2, 5.0, SHORT))
    assert [refusal.request.key for refusal in queue.step(10.0).refusals] == [1]


@pytest.mark.parametrize(("factor", "order"), [(0, [1, 2, 3]), (1, [1, 3, 2]), (10, [3, 1, 2]), (1000, [3, 1, 2])])
def test_the_aging_factor_of_a_pool_is_the_factor_of_the_key(factor: int, order: list[int]) -> None:
    spec = Queue.model_validate({"orderWithinGroup": "SSJF", "agingFactor": factor})
    queue = a_queue(SsjfOrder(aging_factor=float(spec.aging_factor)))
    wait(queue, predicted(1, 0.0, 100.0), predicted(2, 1.0, LONG), predicted(3, 8.0, SHORT))
    assert served(queue, 9.0) == order


def test_the_default_factor_of_a_pool_is_the_one_that_was_measured() -> None:
    assert SsjfOrder() == SsjfOrder(aging_factor=float(Queue().aging_factor))


def test_a_slower_engine_widens_the_window() -> None:
    slow = SsjfOrder(10.0, ServiceTime(0.1, 0.04))
    queue = a_queue(slow)
    wait(queue, predicted(1, 0.0, LONG), predicted(2, 98.0, SHORT))
    assert served(queue, 99.0) == [2, 1]


def test_where_the_drift_guard_closes_its_gate_requests_go_as_they_come_and_back_again() -> None:
    guard = DriftGuard(DriftPolicy(window=50, every=10, least=20))
    orders = []
    for good in (True, False, True):
        for n in range(60):
            tokens = 10 + 7 * n % 101
            guess = float(tokens if good else 60)
            guard.observe(Outcome(tokens, predicted=Prediction(guess, guess, guess)))
        queue = a_queue(SsjfOrder())
        trusted = guard.order == "ssjf"
        wait(queue, *(predicted(n, float(n), tokens if trusted else None) for n, tokens in enumerate((LONG, SHORT))))
        orders.append(served(queue, 5.0))
    assert orders == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("waited", "estimate", "takes"),
    [(100.0, 50.0, False), (100.1, 50.0, True), (10.0, 1.0, False), (10.1, 1.0, True), (0.0, 0.1, False)],
)
def test_the_guard_takes_the_oldest_beyond_either_bound(waited: float, estimate: float, takes: bool) -> None:
    assert Guard().takes(waited, estimate) is takes
