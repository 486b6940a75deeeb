"""The planner: never worse than what it started from, as good as trying everything where that can be done."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.plans import a_problem, brute_force, every_plan
from trimtab.decide.queueing.moves import SWAP, Neighborhood, Table, variants
from trimtab.decide.queueing.plan import ON_TIME, Machine, Plan, Problem, check, cost, runs
from trimtab.decide.queueing.planner import complete, earliest_deadline_first, improve

problems = st.builds(
    a_problem,
    st.integers(0, 10**6),
    st.sampled_from((1, 2, 5, 7, 9)),
    st.integers(1, 4),
    pinned=st.booleans(),
    fixed=st.booleans(),
    partial=st.booleans(),
)


def score(problem: Problem, plan: Plan) -> float:
    """The penalty, not rounded, and the price of swaps; told from the times of the plan alone."""
    total = 0.0
    for machine, run in runs(problem, plan):
        job, late = problem.jobs[run.job], run.end - problem.allowed(run.job, machine)
        total += SWAP * run.swapped
        total += job.weight * late + job.late_penalty if late > ON_TIME else 0.0
    return total


def a_plan(problem: Problem, seed: int) -> Plan:
    numbers = np.random.default_rng(seed)
    orders = [list(head) for head in problem.pinned()]
    for job in numbers.permutation([index for index, job in enumerate(problem.jobs) if job.pinned is None]):
        orders[numbers.choice([m for m in range(len(orders)) if problem.runs(job, m)])].append(int(job))
    return tuple(map(tuple, orders))


@settings(max_examples=60, deadline=None)
@given(problems, st.integers(0, 100))
def test_costing_queues_agrees_with_costing_the_whole_plan(problem: Problem, seed: int) -> None:
    plan, table = a_plan(problem, seed), Table(problem)
    lanes = table.lanes(range(len(plan)), plan)
    assert lanes.costs.score.sum() == pytest.approx(score(problem, plan), abs=1e-9)
    assert lanes.costs.end.max() == pytest.approx(cost(problem, plan).longest)


@settings(max_examples=60, deadline=None)
@given(problems, st.integers(0, 100))
def test_costing_a_changed_queue_agrees_with_costing_it_whole(problem: Problem, seed: int) -> None:
    plan, table = a_plan(problem, seed), Table(problem)
    jobs = np.arange(len(problem.jobs))
    lanes = table.lanes(range(len(plan)), plan)
    new = table.placed(lanes, jobs)
    joined = [table.followed(lanes, jobs, new, skip) for skip in (0, 1)]
    for machine, (order, head) in enumerate(zip(plan, problem.pinned(), strict=True)):
        for job in (job for job in jobs if job not in order and problem.runs(job, machine)):
            for skip, costs in enumerate(joined):
                for at in range(costs.score.shape[2]):
                    found = costs.score[machine, job, at], costs.end[machine, job, at]
                    if len(head) <= at <= len(order) - skip:
                        changed = (*order[:at], int(job), *order[at + skip :])
                        assert found == pytest.approx(_alone(problem, machine, changed), abs=1e-9)
                    else:
                        assert np.isinf(found[0])


def _alone(problem: Problem, machine: int, order: tuple[int, ...]) -> tuple[float, float]:
    """Score and end of one machine's queue."""
    jobs = (problem.jobs[index] for index in order)
    alone = Problem(
        tuple(replace(job, seconds=(job.seconds[machine],), pinned=None) for job in jobs), (problem.machines[machine],)
    )
    plan = (tuple(range(len(order))),)
    return score(alone, plan), cost(alone, plan).longest


@settings(max_examples=60, deadline=None)
@given(problems, st.integers(0, 100))
def test_what_a_round_of_moves_saves_is_what_the_cost_says(problem: Problem, seed: int) -> None:
    before = a_plan(problem, seed)
    neighborhood = Neighborhood(Table(problem), before)
    touched: list[int] = []
    apply = neighborhood._apply

    def recorded(kind: int, at: int) -> list[int]:
        machines = apply(kind, at)
        touched.extend(machines)
        return machines

    neighborhood._apply = recorded
    while neighborhood.improve(10**9):
        after = neighborhood.plan()
        check(problem, after)
        assert cost(problem, after) < cost(problem, before)
        assert len(set(touched)) == len(touched), "moves of one round touch different queues"
        assert all(
            old == new for machine, (old, new) in enumerate(zip(before, after, strict=True)) if machine not in touched
        )
        before = after
        touched.clear()


@settings(max_examples=60, deadline=None)
@given(problems, st.integers(0, 100), st.integers(0, 2000))
def test_a_plan_is_complete_and_never_worse_than_what_was_known(problem: Problem, seed: int, budget: int) -> None:
    start = a_plan(problem, seed)
    plan = improve(problem, start, budget, np.random.default_rng(seed))
    check(problem, plan)
    assert cost(problem, plan) <= min(cost(problem, start), cost(problem, earliest_deadline_first(problem)))


@settings(max_examples=40, deadline=None)
@given(problems, st.integers(0, 100))
def test_a_local_optimum_has_no_better_neighbor(problem: Problem, seed: int) -> None:
    neighborhood = Neighborhood(Table(problem), a_plan(problem, seed))
    while neighborhood.improve(10**9):
        pass
    plan = neighborhood.plan()
    reached = cost(problem, plan)
    for changed in _relocations(problem, plan):
        other = cost(problem, changed)
        assert (other.penalty, other.swaps) >= (reached.penalty - 2e-6, reached.swaps) or other.penalty > (
            reached.penalty - 2e-6
        )


def _relocations(problem: Problem, plan: Plan) -> list[Plan]:
    found = []
    for job in (index for index, job in enumerate(problem.jobs) if job.pinned is None):
        rest = [[other for other in order if other != job] for order in plan]
        for machine, head in enumerate(problem.pinned()):
            if not problem.runs(job, machine):
                continue
            for at in range(len(head), len(rest[machine]) + 1):
                changed = [list(order) for order in rest]
                changed[machine].insert(at, job)
                found.append(tuple(map(tuple, changed)))
    return found


@pytest.mark.parametrize("machines", [1, 2, 3])
def test_the_planner_finds_what_trying_everything_finds(machines: int) -> None:
    for seed in range(100):
        problem = a_problem(
            seed,
            2 + seed % 4,
            machines,
            pinned=seed % 3 == 0,
            fixed=seed % 2 == 0,
            partial=seed % 5 == 0,
        )
        best = cost(problem, brute_force(problem))
        found = cost(problem, improve(problem, generator=np.random.default_rng(seed)))
        assert found[:2] == pytest.approx(best[:2]), seed


def test_it_is_never_worse_than_earliest_deadline_first() -> None:
    for seed in range(1000):
        problem = a_problem(seed, 1 + seed % 12, 1 + seed % 4, pinned=seed % 3 == 0, fixed=seed % 2 == 0)
        plan = improve(problem, budget_moves=seed % 200, generator=np.random.default_rng(seed))
        assert cost(problem, plan) <= cost(problem, earliest_deadline_first(problem))


def test_the_same_numbers_give_the_same_plan() -> None:
    problem = a_problem(5, 30, 4)
    plans = {improve(problem, budget_moves=30_000, generator=np.random.default_rng(3)) for _ in range(2)}
    assert len(plans) == 1


def test_jobs_that_a_plan_leaves_out_are_inserted() -> None:
    problem = a_problem(7, 12, 3, pinned=True)
    partial = tuple(
        (*head, *(job for job in (machine + 5,) if job not in head)) for machine, head in enumerate(problem.pinned())
    )
    whole = complete(problem, partial)
    check(problem, whole)
    for kept, order in zip(partial, whole, strict=True):
        assert [job for job in order if job in kept] == list(kept)


def test_variants_of_a_queue_are_all_different_and_leave_what_runs() -> None:
    rows, lengths = variants(1, 7, 9)
    assert sorted(lengths.tolist()) == [6] * 6 + [7] * (5 * 6 - 5 + 6 * 5 // 2 - 5)
    assert len({tuple(row[:length]) for row, length in zip(rows.tolist(), lengths, strict=True)}) == len(rows)
    for row in rows.tolist():
        assert sorted(row) == list(range(9))
        assert row[0] == 0
        assert row != list(range(9))


def test_an_empty_problem_has_an_empty_plan() -> None:
    machines = (Machine("m", None, {}), Machine("n", None, {}))
    assert improve(Problem((), machines), generator=np.random.default_rng(1)) == ((), ())
    assert list(every_plan(Problem((), machines))) == [((), ())]
