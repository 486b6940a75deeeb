import math

import pytest

from trimtab.decide.queueing.plan import Cost, Job, Machine, Problem, check, cost, runs, violations


def job(key: int, model: str = "a", deadline: float = 100.0, *seconds: float, **more: object) -> Job:
    return Job(key, model, deadline, more.pop("weight", 1.0), seconds or (10.0,), **more)  # type: ignore[arg-type]


def machine(name: str = "m0", resident: str | None = "a", swap: float = 5.0, busy_for: float = 0.0) -> Machine:
    return Machine(name, resident, {"a": swap, "b": swap}, busy_for)


@pytest.fixture
def golden() -> Problem:
    """The example of the paper's notes: models a, b, a, b, 10 s each, 5 s to swap."""
    deadlines = (15.0, 30.0, 60.0, 60.0)
    jobs = tuple(job(key, "ab"[key % 2], deadline) for key, deadline in enumerate(deadlines))
    return Problem(jobs, (machine(),))


def test_the_golden_example_has_two_swaps_in_its_best_order_and_three_by_deadline(golden: Problem) -> None:
    assert cost(golden, ((0, 1, 3, 2),)) == Cost(0.0, 2, 50.0)
    assert cost(golden, ((0, 1, 2, 3),)) == Cost(0.0, 3, 55.0)


def test_a_swap_delays_the_job_that_needs_it(golden: Problem) -> None:
    assert [(run.swapped, run.start, run.end) for _, run in runs(golden, ((1, 3, 0),))] == [
        (True, 5.0, 15.0),
        (False, 15.0, 25.0),
        (True, 30.0, 40.0),
    ]


def test_the_penalty_is_weight_times_seconds_late_plus_the_penalty_of_being_late() -> None:
    late, in_time = job(1, "a", 4.0, weight=2.0, late_penalty=7.0), job(2, "a", 20.0, weight=9.0, late_penalty=9.0)
    problem = Problem((late, in_time), (machine(),))
    assert cost(problem, ((0, 1),)) == Cost(2.0 * 6.0 + 7.0, 0, 20.0)
    assert violations(problem, ((0, 1),)) == (0,)
    assert violations(problem, ((1, 0),)) == (0,)


def test_penalties_that_differ_by_rounding_are_the_same_and_others_are_not() -> None:
    def late_by(seconds: float) -> Cost:
        return cost(Problem((job(1, "a", 10.0 - seconds),), (machine(),)), ((0,),))

    assert late_by(3.0) == late_by(3.0 + 1e-8)
    assert late_by(3.0) < late_by(3.00001)


def test_a_busy_machine_begins_later() -> None:
    problem = Problem((job(1),), (machine(busy_for=3.0),))
    assert cost(problem, ((0,),)).longest == 13.0
    assert cost(Problem((), (machine(busy_for=3.0),)), ((),)).longest == 3.0


def test_a_deadline_can_be_judged_by_the_start() -> None:
    jobs = (job(1, "a", 0.0), job(2, "a", 10.0))
    assert violations(Problem(jobs, (machine(),), judge_start=True), ((0, 1),)) == ()
    assert violations(Problem(jobs, (machine(),)), ((0, 1),)) == (0, 1)


def test_a_job_that_ends_on_its_deadline_keeps_it_however_the_sum_was_rounded() -> None:
    jobs = tuple(job(key, "a", 0.3, 0.1) for key in range(3))
    assert sum((0.1, 0.1, 0.1)) > 0.3
    assert violations(Problem(jobs, (machine(),)), ((0, 1, 2),)) == ()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (((0, 1),), "for 1 machines"),
        (((0, 1), ()), "exactly once"),
        (((0, 1, 2), (2,)), "exactly once"),
        (((1, 0, 2), ()), "stays at the head"),
        (((1,), (0, 2)), "stays at the head"),
        (((0, 2), (1,)), "m1 cannot run job 11"),
    ],
)
def test_a_plan_is_checked(plan: tuple[tuple[int, ...], ...], message: str) -> None:
    problem = Problem(
        (job(10, "a", 9.0, 1.0, 1.0, pinned=0), job(11, "a", 9.0, 1.0, math.inf), job(12, "b", 9.0, 1.0, 1.0)),
        (machine(), machine("m1")),
    )
    check(problem, ((0, 1), (2,)))
    with pytest.raises(ValueError, match=message):
        check(problem, plan)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (job(1, "a", 9.0, 1.0), "1 run times for 2 machines"),
        (job(1, "a", 9.0, math.inf, math.inf), "no machine can run a"),
        (job(1, "a", math.nan, 1.0, 1.0), "finite"),
        (job(1, "a", 9.0, -1.0, 1.0), "not negative"),
        (job(1, "a", 9.0, 1.0, 1.0, weight=-1.0), "not negative"),
        (job(1, "a", 9.0, 1.0, 1.0, deviation=-1.0), "not negative"),
        (job(1, "a", 9.0, math.inf, 1.0, pinned=0), "pinned"),
        (job(1, "c", 9.0, 1.0, math.inf), "m0 has no swap time for c"),
        (job(7, "a", 9.0, 1.0, 1.0), "job 7 is listed more than once"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(wrong: Job, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem((job(7, "a", 9.0, 1.0, 1.0), wrong), (machine(), machine("m1")))


def test_a_machine_with_a_negative_time_is_refused() -> None:
    with pytest.raises(ValueError, match="m0"):
        Problem((), (machine(swap=-1.0),))
