"""How many moves the planner of the several-model queue evaluates in a second, here and now.

Decisions count work, not time, so that they are the same everywhere. A process that may spend so many milliseconds on a
plan measures its own pace, once, with a problem like those it will meet, and turns the time into a number of moves.
"""

from collections.abc import Callable
from statistics import quantiles
from time import perf_counter

from trimtab.decide.queueing.plan import Problem
from trimtab.decide.queueing.planner import BUDGET, search

_ROUNDS = 20


def moves_per_second(problem: Problem, budget_moves: int = BUDGET, clock: Callable[[], float] = perf_counter) -> float:
    """Measure the pace of a first plan of a problem; nine of ten plans are at least as fast.

    Args:
        problem: About as large as those to come: small problems are slower per move.
        budget_moves: About as many as will be used: what is done once per plan weighs less in a large budget.
        clock: In seconds.
    """
    paces = []
    for _ in range(_ROUNDS):
        started = clock()
        evaluated = search(problem, budget_moves=budget_moves).evaluated
        paces.append(evaluated / max(clock() - started, 1e-9))
    return quantiles(paces, n=10)[0]


def moves_within(seconds: float, pace: float) -> int:
    """Return how many moves fit a time, at a pace from `moves_per_second`."""
    return max(int(seconds * pace), 0)
