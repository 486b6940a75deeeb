"""Orders by predicted length over arbitrary jobs: nobody starves, nothing is lost, no slot is idle while jobs wait."""

from dataclasses import dataclass, field
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.decide.queueing import Bounds, Decision, Endpoint, PoolQueue, Request
from trimtab.decide.queueing.ssjf import PAPER, Guard, SsjfOrder
from trimtab.model.ref import Ref
from trimtab.sim.slots import MAX_TOKENS, Jobs, Served, draw_jobs, noisy_predictions, serve, serve_batches

tokens = st.integers(1, 511)
factors = st.sampled_from([0.0, 0.5, 1.0, 5.0, 10.0, 20.0, 1000.0, inf])
slots = st.integers(1, 4)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Jobs, np.ndarray]:
    """Jobs and what is predicted of them, with gaps that make queues and ties."""
    rows = draw(st.lists(st.tuples(st.floats(0, 12), tokens, tokens), min_size=1, max_size=40))
    gaps, lengths, predicted = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return Jobs(np.cumsum(gaps), lengths, np.zeros(len(rows))), predicted


@given(worlds(), st.floats(0, 50), slots)
def test_nobody_is_overtaken_by_one_that_comes_after_the_window(
    world: tuple[Jobs, np.ndarray], factor: float, count: int
) -> None:
    jobs, predicted = world
    began = serve(jobs.arrived, jobs.seconds, jobs.keys(predicted, factor), slots=count).began
    window = factor * PAPER.seconds_per_token * predicted
    later = jobs.arrived[None, :] - jobs.arrived[:, None]  # [i, j]: how much later j comes than i
    overtakes = began[None, :] < began[:, None]
    assert not (overtakes & (later > window[:, None] + 1e-6)).any()


@given(worlds(), slots)
def test_a_wait_behind_the_window_is_bounded_by_the_work_that_may_go_first(
    world: tuple[Jobs, np.ndarray], count: int
) -> None:
    """Once the window is over, only those who came within it stand before a job, so it is served in finite time."""
    jobs, predicted = world
    began = serve(jobs.arrived, jobs.seconds, jobs.keys(predicted, 10.0), slots=count).began
    closes = jobs.arrived + 10.0 * PAPER.seconds_per_token * predicted
    for job in range(len(began)):
        before = jobs.arrived <= closes[job] + 1e-6
        assert began[job] <= closes[job] + jobs.seconds[before].sum() + 1e-6


@given(worlds(), slots)
def test_the_ends_of_the_factor_are_arrival_and_the_pure_order(world: tuple[Jobs, np.ndarray], count: int) -> None:
    jobs, predicted = world

    def begins(keys: np.ndarray) -> list[float]:
        return serve(jobs.arrived, jobs.seconds, keys, slots=count).began.tolist()

    assert begins(jobs.keys(predicted, 0.0)) == begins(np.arange(len(predicted), dtype=np.float64))
    assert begins(jobs.keys(predicted, 1e7)) == begins(jobs.keys(predicted, inf)) == begins(predicted)


@given(worlds(), factors, slots, st.booleans())
def test_every_job_is_served_once_and_no_slot_is_idle_while_one_waits(
    world: tuple[Jobs, np.ndarray], factor: float, count: int, guarded: bool
) -> None:
    jobs, predicted = world
    guard, estimates = (Guard(20.0, 3.0), PAPER.fixed_seconds + 0.02 * predicted) if guarded else (None, None)
    keys = jobs.keys(predicted, factor)
    served = serve(jobs.arrived, jobs.seconds, keys, slots=count, guard=guard, estimates=estimates)
    assert (served.ended - served.began).sum() == pytest.approx(jobs.seconds.sum())
    assert (served.began >= jobs.arrived).all()
    check_no_slot_is_idle(served, count)


def check_no_slot_is_idle(served: Served, count: int) -> None:
    """Between a job's arrival and its begin all slots serve others, one job each."""
    for at in np.unique(np.concatenate([served.arrived, served.ended])):
        busy = np.count_nonzero((served.began <= at) & (at < served.ended))
        waiting = np.count_nonzero((served.arrived <= at) & (at < served.began))
        assert busy <= count
        assert busy == count or not waiting


@given(worlds(), factors)
def test_one_slot_is_done_with_everything_at_the_same_time_in_any_order(
    world: tuple[Jobs, np.ndarray], factor: float
) -> None:
    jobs, predicted = world
    first = serve(jobs.arrived, jobs.seconds, jobs.arrived)
    other = serve(jobs.arrived, jobs.seconds, jobs.keys(predicted, factor))
    assert other.time_until(1.0) == pytest.approx(first.time_until(1.0))


@pytest.mark.parametrize(("rate", "count", "jobs"), [(2.0, 4, 50), (10.0, 4, 50), (0.99, 4, 1000)])
def test_throughput_over_the_whole_run_is_that_of_first_come_first_served(rate: float, count: int, jobs: int) -> None:
    ratios = []
    for seed in range(1_000_000, 1_000_060):
        world = draw_jobs(seed, jobs, rate)
        keys = (world.arrived, world.keys(world.predicted(1.0), inf), world.keys(world.predicted(1.0), 10.0))
        first, pure, aged = (serve(world.arrived, world.seconds, k, slots=count).time_until(1.0) for k in keys)
        ratios.append((first / pure, first / aged))
    assert np.mean(ratios, axis=0) == pytest.approx([1.0, 1.0], abs=0.02)


@given(worlds(), factors, st.integers(1, 6), st.floats(0, 20))
def test_batches_hold_together_and_serve_every_job_once(
    world: tuple[Jobs, np.ndarray], factor: float, size: int, wait: float
) -> None:
    jobs, predicted = world
    served = serve_batches(jobs.arrived, jobs.seconds, jobs.keys(predicted, factor), size=size, longest_wait=wait)
    free_at = -inf
    for begin in np.unique(served.began):
        batch = served.began == begin
        assert np.count_nonzero(batch) <= size
        assert begin >= max(free_at, jobs.arrived[batch].max())
        free_at = begin + jobs.seconds[batch].max()
        assert served.ended[batch] == pytest.approx(free_at)


@given(st.lists(st.tuples(tokens, st.floats(-6, 6)), min_size=1), st.floats(0, 5), st.integers(1, 2000))
def test_predictions_stay_below_the_limit(rows: list[tuple[int, float]], sigma: float, limit: int) -> None:
    lengths, noise = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    assert (noisy_predictions(lengths, noise, sigma, limit) <= limit).all()
    assert (noisy_predictions(lengths, noise, sigma) <= MAX_TOKENS).all()


# --- the production queue -------------------------------------------------------------------------------------------

arrive = st.tuples(st.just("arrive"), st.one_of(st.none(), tokens.map(float)))
finish = st.tuples(st.just("finish"), st.integers(0, 9))
hand_back = st.tuples(st.just("hand_back"), st.integers(0, 9))
withdraw = st.tuples(st.just("withdraw"), st.integers(0, 9))
wait = st.tuples(st.just("wait"), st.floats(0, 30))
events = st.lists(st.one_of(arrive, arrive, finish, hand_back, withdraw, wait), max_size=100)


@dataclass
class World:
    """Drives the queue of a pool and checks every dispatch against the keys that its requests were admitted with."""

    order: SsjfOrder
    queue: PoolQueue
    at: float = 0.0
    admitted: dict[int, float] = field(default_factory=dict)
    waiting: dict[int, Request] = field(default_factory=dict)
    running: list[tuple[Request, str]] = field(default_factory=list)

    def arrive(self, predicted: float | None) -> None:
        request = Request(len(self.admitted) + 1, self.at, predicted_tokens=predicted)
        self.admitted[request.key] = self.order(request)
        self.waiting[request.key] = request
        self.took(self.queue.arrive(request, self.at))

    def finish(self, which: int) -> None:
        if self.running:
            _, endpoint = self.running.pop(which % len(self.running))
            self.took(self.queue.finish(endpoint, self.at, 1.0))

    def hand_back(self, which: int) -> None:
        if self.running:
            request, endpoint = self.running.pop(which % len(self.running))
            self.waiting[request.key] = request
            self.took(self.queue.hand_back(request, endpoint, self.at))

    def withdraw(self, which: int) -> None:
        if self.waiting:
            key = sorted(self.waiting)[which % len(self.waiting)]
            del self.waiting[key]
            assert self.queue.withdraw(key)

    def wait(self, seconds: float) -> None:
        self.at += seconds
        self.took(self.queue.step(self.at))

    def took(self, decision: Decision) -> None:
        assert not decision.refusals
        for dispatch in decision.dispatches:
            rank = min((self.admitted[key], key) for key in self.waiting)
            assert dispatch.request == self.waiting.pop(rank[1])
            self.running.append((dispatch.request, dispatch.endpoint))
        room = sum(self.queue.fleet.in_flight(name) < 2 for name in ("a", "b"))
        assert not room or not self.waiting, "an engine has room while requests wait"


@given(events, factors)
@settings(max_examples=60)
def test_the_pools_queue_serves_the_lowest_key_given_at_admission(happenings: list[tuple], factor: float) -> None:
    order = SsjfOrder(factor)
    world = World(order, PoolQueue(Ref("ServingPool", "ai", "chat"), Bounds(10**6, 1e9, 1e9), order))
    world.queue.set_endpoints([Endpoint("a", 2), Endpoint("b", 2)], 0.0)
    for name, *arguments in happenings:
        getattr(world, name)(*arguments)
    while world.running:
        world.finish(0)
    assert world.queue.waiting == 0
    assert not world.waiting
