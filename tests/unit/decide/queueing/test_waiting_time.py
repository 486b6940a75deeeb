import numpy as np
import pytest

from tests.support.lengths import DEVIATION, MEAN, SKEWNESS, lengths
from trimtab.decide.queueing.plan import Job, Machine, Problem
from trimtab.decide.queueing.waiting_time import (
    Ahead,
    LengthStats,
    Wait,
    behind,
    deviations,
    predicted_violations,
    starts_behind_few,
    wait_in_queue,
)

SLOTS, STEP = 32, 0.03


def test_the_golden_wait_behind_one_group() -> None:
    wait = behind([Ahead(100, 176.8, 145.9, SLOTS / STEP)])
    assert wait.mean == pytest.approx(16.575, abs=5e-4)
    assert wait.deviation == pytest.approx(1.368, abs=5e-4)
    assert wait.bound(2.3263) == pytest.approx(19.757, abs=5e-4)


def test_the_golden_wait_behind_two_groups_and_a_swap() -> None:
    wait = behind([Ahead(50, 176.8, 145.9, 1000), Ahead(20, 300, 200, 500)], swap_seconds=15)
    assert wait.mean == pytest.approx(35.84)
    assert wait.deviation == pytest.approx(2.065, abs=5e-4)


def test_the_golden_starts_behind_few_requests() -> None:
    assert starts_behind_few([10, 20], [30] * 4, 0.1) == pytest.approx((1, 2, 4, 5))
    by_rate = [behind([Ahead(n, 30, 0, 2 / 0.1)]).mean for n in (1, 2, 3, 4)]
    assert by_rate == pytest.approx([1.5, 3, 4.5, 6])


def test_nothing_ahead_is_no_wait() -> None:
    assert behind([]) == Wait(0.0, 0.0)
    assert behind([], swap_seconds=3.0) == Wait(3.0, 0.0)


COVERAGE = {  # requests ahead: shares below the mean and the 90, 95 and 99 % bounds, as published in the paper's notes
    1: (0.56, 0.86, 0.92, 1.00),
    5: (0.52, 0.89, 0.94, 0.987),
    10: (0.51, 0.896, 0.945, 0.988),
    50: (0.50, 0.900, 0.949, 0.989),
    100: (0.50, 0.898, 0.949, 0.990),
    1000: (0.50, 0.900, 0.950, 0.992),  # the notes' 0.52 for the mean is noise of its 4,000 draws
}


@pytest.mark.parametrize("ahead", COVERAGE)
def test_a_bound_covers_what_it_says(ahead: int) -> None:
    numbers = np.random.default_rng(ahead)
    sums = np.concatenate([lengths(numbers, 2000, ahead).sum(axis=1) for _ in range(10)])
    wait = behind([Ahead(ahead, MEAN, DEVIATION, 1.0)])
    covered = [float((sums <= wait.bound(z)).mean()) for z in (0.0, 1.2816, 1.6449, 2.3263)]
    assert covered == pytest.approx(COVERAGE[ahead], abs=0.01)


def test_a_bound_widened_for_skewness_covers_a_heavy_tail_where_the_normal_one_does_not() -> None:
    numbers = np.random.default_rng(7)

    def heavy(*shape: int) -> np.ndarray:
        return np.clip(numbers.lognormal(4.8, 1.0, shape), 1, 4000)

    seen = LengthStats.of(heavy(100_000), prior=LengthStats(0, 0))
    for ahead in (5, 10, 100):
        sums = heavy(20_000, ahead).sum(axis=1)
        wait = behind([Ahead(ahead, seen.mean, seen.deviation, 1.0)])
        assert float((sums <= wait.bound(2.3263)).mean()) < 0.985
        assert float((sums <= wait.bound(deviations(ahead, seen.skewness, 2.3263))).mean()) > 0.988


def test_the_widening_vanishes_for_many_requests_and_for_symmetric_lengths() -> None:
    assert deviations(10**9, 2.0, 2.0) == pytest.approx(2.0, abs=1e-4)
    assert deviations(1, 0.0, 2.0) == deviations(1, -1.0, 2.0) == 2.0
    assert deviations(0.1, 2.0) == deviations(1, 2.0) > deviations(4, 2.0)


ENGINE = {64: 8.8, 256: 40.4, 1024: 167.7}  # the notes' simulated waits of the n-th request, in seconds


@pytest.mark.parametrize("position", ENGINE)
def test_waits_behind_many_requests_repeat_the_published_engine_table(position: int) -> None:
    numbers = np.random.default_rng(position)
    waits = [
        starts_behind_few(numbers.random(SLOTS) * lengths(numbers, SLOTS), lengths(numbers, position), STEP)[-1]
        for _ in range(300)
    ]
    scale = MEAN / 176.8  # the notes drew from lengths with this mean
    assert np.mean(waits) == pytest.approx(ENGINE[position] * scale, rel=0.05)


@pytest.mark.parametrize("position", [4, 16, 64])
def test_the_rate_is_right_for_short_queues_of_an_engine_in_its_steady_state(position: int) -> None:
    """A request that is found running is longer than most: with that in account, the estimate has no bias."""
    numbers = np.random.default_rng(position)
    pool = lengths(numbers, 20_000)
    found = numbers.choice(pool, (1500, SLOTS), p=pool / pool.sum())
    waits = [
        starts_behind_few(running * numbers.random(SLOTS), lengths(numbers, position), STEP)[-1] for running in found
    ]
    estimate = wait_in_queue(position, LengthStats(MEAN, DEVIATION), STEP, SLOTS)
    assert np.mean(waits) == pytest.approx(estimate.mean, rel=0.05)


def test_a_short_queue_waits_for_the_requests_that_end_first_if_that_is_known() -> None:
    stats = LengthStats(30, 0)
    assert wait_in_queue(2, stats, 0.1, 2, [10, 20]).mean == pytest.approx(2)
    assert wait_in_queue(2, stats, 0.1, 2).mean == wait_in_queue(2, stats, 0.1, 2, []).mean == pytest.approx(3)
    assert wait_in_queue(4, stats, 0.1, 2, [10, 20]).mean == pytest.approx(6)


def test_lengths_are_believed_from_fifty_on() -> None:
    prior = LengthStats(100, 50)
    assert LengthStats.of([1.0] * 49, prior) is prior
    assert LengthStats.of([1.0] * 50, prior) == LengthStats(1.0, 0.0, 50)
    seen = LengthStats.of(lengths(np.random.default_rng(1), 200_000), prior)
    assert (seen.mean, seen.deviation) == pytest.approx((MEAN, DEVIATION), rel=0.01)
    assert seen.skewness == pytest.approx(SKEWNESS, abs=0.02)


def a_problem(
    deviations: tuple[float, ...] = (0.0, 0.0, 0.0), *, judge_start: bool = False, weight: float = 1.0
) -> Problem:
    jobs = tuple(
        Job(key, "ab"[key % 2], 24.0, weight, (10.0, 10.0), deviation=deviation)
        for key, deviation in enumerate(deviations)
    )
    machines = tuple(Machine(name, "a", {"a": 5.0, "b": 5.0}) for name in "mn")
    return Problem(jobs, machines, judge_start=judge_start)


def test_a_violation_is_predicted_where_mean_and_margin_pass_the_deadline() -> None:
    found = predicted_violations(a_problem((3.0, 0.0, 4.0)), ((0, 2), (1,)), margin=2.0)
    assert [(v.job, v.machine, v.expected, v.bound) for v in found] == [(2, 0, 20.0, 30.0)]
    assert predicted_violations(a_problem(), ((0, 2), (1,))) == ()


def test_what_costs_nothing_when_it_is_late_violates_nothing() -> None:
    assert predicted_violations(a_problem((3.0, 0.0, 40.0), weight=0.0), ((0, 2), (1,))) == ()


def test_a_start_is_uncertain_only_by_what_runs_before_it() -> None:
    problem = a_problem((3.0, 4.0, 100.0), judge_start=True)
    found = predicted_violations(problem, ((0, 1, 2), ()), margin=1.0)
    assert [(v.job, v.expected, v.bound) for v in found] == [(2, 30.0, 35.0)]
