"""The exact planners agree with trying every plan, and with each other; the online planner is near them."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.plans import a_problem, brute_force
from trimtab.decide.queueing.exact import Program, solve, try_all
from trimtab.decide.queueing.plan import Cost, Job, Machine, Plan, Problem, check, cost, violations
from trimtab.decide.queueing.planner import earliest_deadline_first, improve


def compact(problem: Problem, plan: Plan) -> float:
    """How much lateness the program may accept for a compact plan: its price of swaps and of the machines' ends."""
    reached = cost(problem, plan)
    return 1e-4 * reached.swaps + 1e-5 * reached.longest * len(plan)


def assert_optimal(problem: Problem, plan: Plan, best: Cost) -> None:
    check(problem, plan)
    assert cost(problem, plan).penalty <= best.penalty + compact(problem, plan)


@pytest.mark.parametrize("seed", range(12))
def test_the_program_finds_what_trying_everything_finds(seed: int) -> None:
    problem = a_problem(
        seed,
        2 + seed % 3,
        1 + seed % 3,
        pinned=seed % 3 == 1,
        fixed=seed % 2 == 0,
        partial=seed > 8,
    )
    solution = solve(problem, gap=0.0)
    assert solution is not None
    assert solution.proved
    assert_optimal(problem, solution.plan, cost(problem, brute_force(problem)))
    assert solution.bound <= cost(problem, solution.plan).penalty + compact(problem, solution.plan) + 1e-6


def test_trying_all_orders_machine_by_machine_finds_what_trying_all_plans_finds() -> None:
    for seed in range(60):
        problem = a_problem(
            seed, 1 + seed % 5, 1 + seed % 3, pinned=seed % 3 == 1, fixed=seed % 2 == 0, partial=seed % 5 == 4
        )
        plan = try_all(problem)
        check(problem, plan)
        assert cost(problem, plan)[:2] == pytest.approx(cost(problem, brute_force(problem))[:2])


@pytest.mark.parametrize("machines", [2, 4])
def test_the_online_planner_is_within_a_twentieth_of_the_best_plan_of_seven_jobs(machines: int) -> None:
    for seed in range(10):
        problem = a_problem(seed, 7, machines, fixed=seed % 2 == 0)
        best = cost(problem, try_all(problem))
        found = cost(problem, improve(problem, generator=np.random.default_rng(seed)))
        slack = 0.01 * max(job.deadline_in for job in problem.jobs)
        assert best.penalty - 2e-6 <= found.penalty <= 1.05 * best.penalty + slack


def test_swaps_are_whole_although_the_program_does_not_ask_for_it() -> None:
    for seed in range(4):
        program = Program(a_problem(seed, 4, 2))
        values = program.solve(node_limit=10_000, gap=0.0).x[program.swap]
        assert values == pytest.approx(np.rint(values), abs=1e-6)
        assert values.sum() > 0


def equal_jobs(models: str, deadline: float = 100.0) -> tuple[Job, ...]:
    return tuple(Job(key, model, deadline, 1.0, (10.0,)) for key, model in enumerate(models))


def machine(resident: str) -> Machine:
    return Machine("m", resident, dict.fromkeys("abc", 5.0))


def test_more_groups_than_machines_have_a_plan() -> None:
    jobs = tuple(replace(job, seconds=(10.0, 10.0)) for job in equal_jobs("aabb"))
    problem = Problem(jobs, (machine("a"), machine("b")))
    solution = solve(problem)
    assert solution is not None
    assert cost(problem, solution.plan) == Cost(0.0, 0, 20.0)


def test_models_whose_numbers_are_far_apart_have_a_plan_on_one_machine() -> None:
    problem = Problem(equal_jobs("acac"), (machine("a"),))
    solution = solve(problem)
    assert solution is not None
    assert cost(problem, solution.plan) == Cost(0.0, 1, 45.0)


def test_an_overload_has_a_best_plan() -> None:
    problem = Problem(equal_jobs("aba", deadline=9.0), (machine("a"),))
    solution = solve(problem)
    assert solution is not None
    assert solution.proved
    assert cost(problem, solution.plan).penalty == pytest.approx(1 + 11 + 26)


def test_the_golden_example_is_solved_by_all_planners() -> None:
    jobs = tuple(
        replace(job, deadline_in=deadline)
        for job, deadline in zip(equal_jobs("abab"), (15.0, 30.0, 60.0, 60.0), strict=True)
    )
    problem = Problem(jobs, (machine("a"),))
    solution = solve(problem)
    assert solution is not None
    for plan in (solution.plan, try_all(problem), improve(problem), brute_force(problem)):
        assert plan == ((0, 1, 3, 2),)
    assert cost(problem, earliest_deadline_first(problem)) == Cost(0.0, 3, 55.0)


def test_a_penalty_for_being_late_at_all_counts_violations() -> None:
    jobs = tuple(
        Job(key, "a", deadline, 0.0, (10.0,), late_penalty=1.0) for key, deadline in enumerate((9.0, 10.0, 20.0))
    )
    problem = Problem(jobs, (machine("a"),))
    solution = solve(problem)
    assert solution is not None
    for plan in (solution.plan, try_all(problem), improve(problem)):
        assert violations(problem, plan) == (0,)


@pytest.mark.parametrize("seed", range(4))
def test_the_fewest_violations_are_found_where_only_they_count(seed: int) -> None:
    drawn = a_problem(seed, 4, 1 + seed % 2)
    jobs = tuple(replace(job, weight=0.0, late_penalty=job.weight) for job in drawn.jobs)
    problem = Problem(jobs, drawn.machines)
    solution = solve(problem, gap=0.0)
    assert solution is not None
    best = cost(problem, brute_force(problem)).penalty
    for plan in (solution.plan, try_all(problem), improve(problem, generator=np.random.default_rng(seed))):
        assert cost(problem, plan).penalty == best


def test_a_node_limit_ends_the_search_with_what_is_known() -> None:
    problem = a_problem(1, 6, 2)
    solution = solve(problem, node_limit=1)
    assert solution is None or not solution.proved
    if solution is not None:
        check(problem, solution.plan)


def test_trying_all_plans_of_many_jobs_is_refused() -> None:
    with pytest.raises(ValueError, match="9 jobs"):
        try_all(a_problem(1, 9, 2))


def test_no_jobs_are_planned_as_they_are() -> None:
    problem = Problem((), (machine("a"),))
    solution = solve(problem)
    assert solution is not None
    assert solution.plan == try_all(problem) == ((),)
