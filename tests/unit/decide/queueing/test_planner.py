from dataclasses import replace

import numpy as np
import pytest

from tests.support.plans import a_problem
from trimtab.decide.queueing.exact import try_all
from trimtab.decide.queueing.moves import Costs, Neighborhood, Table, least
from trimtab.decide.queueing.plan import Cost, Job, Machine, Plan, Problem, cost
from trimtab.decide.queueing.planner import ONLINE, complete, earliest_deadline_first, improve, worth_replacing


def jobs(models: str, *deadlines: float, seconds: tuple[float, ...] = (10.0,)) -> tuple[Job, ...]:
    return tuple(
        Job(key, model, deadline, 1.0, seconds)
        for key, (model, deadline) in enumerate(zip(models, deadlines, strict=True))
    )


def machine(resident: str | None = "a", name: str = "m", busy_for: float = 0.0) -> Machine:
    return Machine(name, resident, {"a": 5.0, "b": 5.0}, busy_for)


GOLDEN = Problem(jobs("abab", 15.0, 30.0, 60.0, 60.0), (machine(),))


def test_earliest_deadline_first_thrashes_where_the_planner_batches() -> None:
    assert earliest_deadline_first(GOLDEN) == ((0, 1, 2, 3),)
    assert improve(GOLDEN) == ((0, 1, 3, 2),)
    assert cost(GOLDEN, improve(GOLDEN)) == Cost(0.0, 2, 50.0)


def test_earliest_deadline_first_appends_where_a_job_ends_first() -> None:
    problem = Problem(jobs("aab", 3.0, 2.0, 1.0, seconds=(10.0, 10.0)), (machine("a"), machine("b", "n")))
    assert earliest_deadline_first(problem) == ((1, 0), (2,))
    busy = Problem(problem.jobs, (machine("a", busy_for=30.0), machine("b", "n")))
    assert earliest_deadline_first(busy) == ((), (2, 1, 0))


def test_what_runs_stays_at_the_head_and_delays_the_rest() -> None:
    first, *rest = jobs("aab", 99.0, 2.0, 1.0, seconds=(10.0, 10.0))
    problem = Problem((replace(first, pinned=0), *rest), (machine("a"), machine("b", "n")))
    assert earliest_deadline_first(problem) == ((0, 1), (2,))
    assert improve(problem, generator=np.random.default_rng(1))[0][0] == 0


def test_a_job_joins_the_jobs_of_its_model() -> None:
    problem = Problem(jobs("abab", 99.0, 99.0, 99.0, 99.0), (machine(),))
    assert complete(problem, ((0, 1, 3),)) == ((2, 0, 1, 3),)
    assert cost(problem, complete(problem, ((0, 1, 3),))).swaps == 1


def test_a_start_that_is_no_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly once"):
        improve(GOLDEN, ((0, 1, 2, 3, 3),))


def test_without_a_budget_the_best_that_is_known_is_returned() -> None:
    start: Plan = ((3, 2, 1, 0),)
    assert improve(GOLDEN, start, budget_moves=0) == earliest_deadline_first(GOLDEN)
    assert improve(GOLDEN, ((0, 1, 3, 2),), budget_moves=0) == ((0, 1, 3, 2),)


def test_where_no_single_move_helps_another_start_does() -> None:
    problem = a_problem(15, 7, 2)
    found = [cost(problem, improve(problem, generator=np.random.default_rng(1), starts=starts)) for starts in (1, 12)]
    assert found[1] < found[0]
    assert found[1].penalty == pytest.approx(cost(problem, try_all(problem)).penalty)


def test_a_machine_is_not_left_idle_where_work_costs_nothing_there() -> None:
    same = jobs("aaaa", 999.0, 999.0, 999.0, 999.0, seconds=(10.0, 10.0))
    problem = Problem(same, (machine("a"), Machine("n", "a", {"a": 5.0})))
    assert cost(problem, polished(problem, ((0, 1, 2, 3), ()))) == Cost(0.0, 0, 20.0)


def polished(problem: Problem, plan: Plan) -> Plan:
    neighborhood = Neighborhood(Table(problem), plan)
    while neighborhood.improve(10_000):
        pass
    return neighborhood.plan()


def test_a_swap_is_saved_where_nothing_is_late() -> None:
    problem = Problem(jobs("aba", 999.0, 999.0, 999.0), (machine(),))
    assert cost(problem, polished(problem, ((0, 1, 2),))).swaps == 1


def test_of_places_that_cost_the_same_the_one_that_ends_first_is_taken() -> None:
    costs = Costs(np.array([[2.0, 1.0, 1.0 + 1e-9, 1.0]]), np.array([[1.0, 9.0, 5.0, 5.0]]))
    place, (score, end) = least(costs)
    assert (int(place[0]), float(score[0]), float(end[0])) == (2, 1.0 + 1e-9, 5.0)


def test_the_planner_and_the_cost_agree_on_what_is_just_in_time() -> None:
    thirds = tuple(Job(key, "a", 0.3, 0.0, (0.1,), late_penalty=5.0) for key in range(3))
    problem = Problem(thirds, (machine(),))
    assert cost(problem, ((0, 1, 2),)).penalty == 0.0
    assert Table(problem).lanes([0], [[0, 1, 2]]).costs.score[0] == 0.0


def test_no_machine_is_swapped_only_because_it_is_idle() -> None:
    same = jobs("aaa", 999.0, 999.0, 999.0, seconds=(10.0, 10.0))
    problem = Problem(same, (machine("a"), machine("b", "n")))
    assert cost(problem, improve(problem)).swaps == 0


def with_weight(problem: Problem, *weights: float) -> Problem:
    return Problem(
        tuple(replace(job, weight=weight) for job, weight in zip(problem.jobs, weights, strict=True)), problem.machines
    )


def test_a_plan_is_replaced_where_a_violation_disappears() -> None:
    problem = Problem(jobs("aa", 10.0, 19.99), (machine(),))
    barely = with_weight(problem, 1e-3, 1e-3)
    assert cost(barely, ((0, 1),)).penalty < cost(barely, ((1, 0),)).penalty
    assert worth_replacing(barely, ((1, 0),), ((0, 1),)) is True


@pytest.mark.parametrize(("weight", "worth"), [(1.05, False), (1.10, True)])
def test_a_plan_is_replaced_by_one_that_is_better_by_more_than_a_fiftieth(weight: float, worth: bool) -> None:
    problem = with_weight(Problem(jobs("aa", 0.0, 0.0), (machine(),)), 1.0, weight)
    before, after = cost(problem, ((0, 1),)).penalty, cost(problem, ((1, 0),)).penalty
    assert (before, after) == pytest.approx((10 + 20 * weight, 10 * weight + 20))
    assert worth_replacing(problem, ((0, 1),), ((1, 0),)) is worth


def test_a_plan_is_replaced_by_one_with_fewer_swaps_and_no_more_lateness_but_not_by_itself_or_a_worse_one() -> None:
    best, edf = ((0, 1, 3, 2),), ((0, 1, 2, 3),)
    assert worth_replacing(GOLDEN, edf, best)
    assert not worth_replacing(GOLDEN, best, best)
    assert not worth_replacing(GOLDEN, best, edf)


@pytest.mark.parametrize(("groups", "moves"), [(0, 3000), (10, 3000), (50, 15_000), (200, 240_000), (1000, 300_000)])
def test_the_effort_grows_with_the_square_of_the_groups_between_bounds(groups: int, moves: int) -> None:
    assert ONLINE.moves(groups) == moves


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_is_no_worse_than_greedy_insertion_whatever_the_plan_in_force(seed: int) -> None:
    problem = a_problem(seed, 30, 3)
    in_force = tuple(tuple(range(30)) if machine == 0 else () for machine in range(3))
    greedy = complete(problem, problem.pinned())
    assert cost(problem, improve(problem, in_force, 1000, starts=1)) <= cost(problem, greedy)
