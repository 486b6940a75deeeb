from itertools import count

import pytest

from tests.support.plans import a_problem
from trimtab.decide.queueing.planner import search
from trimtab.sim.planner_pace import moves_per_second, moves_within


def test_a_pace_is_moves_over_the_time_that_a_plan_takes() -> None:
    problem = a_problem(1, 12, 3)
    ticks = count()
    pace = moves_per_second(problem, 500, clock=lambda: 0.25 * next(ticks))
    assert pace == pytest.approx(search(problem, budget_moves=500).evaluated / 0.25)


def test_nine_of_ten_plans_are_at_least_as_fast() -> None:
    problem = a_problem(1, 12, 3)
    passed = iter([at for tenth in range(20) for at in (0.0, 8.0 if tenth < 4 else 1.0)])
    slow = moves_per_second(problem, 500, clock=lambda: next(passed))
    assert slow == pytest.approx(search(problem, budget_moves=500).evaluated / 8.0)


def test_a_time_becomes_a_number_of_moves() -> None:
    assert moves_within(0.1, 2e6) == 200_000
    assert moves_within(-1.0, 2e6) == 0
