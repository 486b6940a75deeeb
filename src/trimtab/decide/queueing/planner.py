"""The planner that runs online: good starts, each improved until no small change helps.

Starts are the plan in force, a greedy insertion, earliest deadline first, and more from random numbers; each is
polished by moving single jobs and exchanging pairs. Because the plan in force and earliest deadline first are among the
starts, the result is never worse than either. Work is counted in moves evaluated, so equal arguments give equal plans
on any machine.

Source: QLM (SoCC 2024) describes an exact planner; this one is our replacement for it [design].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from trimtab.decide.queueing.moves import Costs, Ints, Neighborhood, Table, least
from trimtab.decide.queueing.plan import Cost, Plan, Problem, check, cost, runs, violations

_AHEAD = 16  # jobs whose insertion is costed at once; what is costed too early is costed again

WORTH = 0.02
"""By which share a plan must be better to replace the one in force."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a plan is worth: the one setting of QLM, of `benchmarks/planner.py` and of the experiments.

    Costing all moves of a plan once takes about twice the square of the number of groups.

    Attributes:
        least: Moves that may be evaluated however few groups there are.
        per_pair: Moves for each pair of groups.
        most: Moves however many groups there are.
        starts: How many starts are polished at the most.
    """

    least: int = 3000
    per_pair: float = 6.0
    most: int = 300_000
    starts: int = 12

    def moves(self, groups: int) -> int:
        """Return how many moves may be evaluated for one plan."""
        return min(max(self.least, round(self.per_pair * groups**2)), self.most)


ONLINE = Effort()
BUDGET, STARTS = ONLINE.most, ONLINE.starts


class Found(NamedTuple):
    """What a search came to.

    Attributes:
        plan: The best one.
        evaluated: How many moves were costed.
    """

    plan: Plan
    evaluated: int


def earliest_deadline_first(problem: Problem) -> Plan:
    """Append each job, by deadline, to the machine where it ends first; what runs stays at the head."""
    orders = [list(head) for head in problem.pinned()]
    free = [(machine.resident, machine.busy_for) for machine in problem.machines]
    for machine, run in runs(problem, problem.pinned()):
        free[machine] = problem.jobs[run.job].model, run.end
    for index in by_deadline(problem):
        job = problem.jobs[index]
        ends = [
            (at + (problem.machines[machine].swap_seconds[job.model] if model != job.model else 0.0) + seconds, machine)
            for machine, ((model, at), seconds) in enumerate(zip(free, job.seconds, strict=True))
            if problem.runs(index, machine)
        ]
        end, machine = min(ends)
        orders[machine].append(index)
        free[machine] = job.model, end
    return tuple(tuple(order) for order in orders)


def by_deadline(problem: Problem) -> list[int]:
    """Return the jobs that can still be placed, the most urgent first."""
    waiting = (index for index, job in enumerate(problem.jobs) if job.pinned is None)
    return sorted(waiting, key=lambda index: (problem.jobs[index].deadline_in, index))


def complete(problem: Problem, plan: Plan) -> Plan:
    """Insert the jobs that a plan leaves out, by deadline, each where it costs least.

    Args:
        problem: What is to be planned.
        plan: Some of its jobs in order, what runs at the heads.
    """
    return _Planning(Table(problem)).inserted(plan)


def improve(
    problem: Problem,
    start: Plan | None = None,
    budget_moves: int | None = None,
    generator: np.random.Generator | None = None,
    starts: int = STARTS,
) -> Plan:
    """Return the best plan found; see `search`."""
    return search(problem, start, budget_moves, generator, starts).plan


def search(
    problem: Problem,
    start: Plan | None = None,
    budget_moves: int | None = None,
    generator: np.random.Generator | None = None,
    starts: int = STARTS,
) -> Found:
    """Look for the best plan.

    Args:
        problem: What is to be planned.
        start: The plan in force; it may leave out jobs that came later, which are inserted first.
        budget_moves: About how many moves may be evaluated, by default as many as `ONLINE` allows; those of a few
            queues are always costed together.
        generator: Where further starts come from; without it there are only those that need none.
        starts: How many starts are polished at the most.

    Returns:
        A plan that costs no more than `start`, completed, or than earliest deadline first; and the work it took. With
            any budget left for it, it costs no more than greedy insertion either.

    Raises:
        ValueError: `start` is no plan of this problem.
    """
    budget = ONLINE.moves(len(problem.jobs)) if budget_moves is None else budget_moves
    planning = _Planning(Table(problem))
    known = planning.greedy if start is None else planning.inserted(start)
    check(problem, known)
    best = min(known, earliest_deadline_first(problem), key=planning.cost)
    if planning.evaluated < budget:
        best = min(best, planning.greedy, key=planning.cost)
    tried: set[Plan] = set()
    for make in islice(planning.starts(best, generator), starts):
        if planning.evaluated >= budget:
            break
        plan = make()
        if plan not in tried:
            best = planning.best = min(best, planning.polished(plan, budget), key=planning.cost)
            tried.add(plan)
        if planning.cannot_improve(best):
            break
    return Found(best, planning.evaluated)


def worth_replacing(problem: Problem, current: Plan, proposed: Plan) -> bool:
    """Whether a plan is so much better than the one in force that it is worth the change.

    It is where a violation disappears, or where the first part of the cost that differs is smaller by more than 2 %.
    """
    now, then = cost(problem, current), cost(problem, proposed)
    if then >= now:
        return False
    if len(violations(problem, proposed)) < len(violations(problem, current)):
        return True
    before, after = next((a, b) for a, b in zip(now, then, strict=True) if a != b)
    return after < before * (1 - WORTH)


class _Planning:
    """One search: the problem as arrays, the best plan so far, and how many moves were evaluated."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._problem = table.problem
        self.evaluated = 0

    def cost(self, plan: Plan) -> Cost:
        return cost(self._problem, plan)

    def cannot_improve(self, plan: Plan) -> bool:
        """Whether nothing is late and no model is loaded that need not be; a polished plan is then good enough."""
        problem = self._problem
        needed = {job.model for job in problem.jobs} - {machine.resident for machine in problem.machines}
        reached = self.cost(plan)
        return reached.penalty == 0 and reached.swaps <= len(needed)

    @cached_property
    def greedy(self) -> Plan:
        """Every job where it costs least, by deadline."""
        return self.inserted(self._problem.pinned())

    def starts(self, best: Plan, generator: np.random.Generator | None) -> Iterator[Callable[[], Plan]]:
        """Yield what makes the plans to polish: the best that is known, those that need no luck, then others."""
        self.best = best
        yield lambda: best
        yield lambda: self.greedy
        yield lambda: earliest_deadline_first(self._problem)
        while generator is not None and self._table.movable.any():
            yield partial(self._rebuilt, generator)
            yield partial(self._scattered, generator)

    def polished(self, plan: Plan, budget: int) -> Plan:
        """Improve a plan until no move helps or the budget is spent."""
        neighborhood = Neighborhood(self._table, plan)
        while self.evaluated + neighborhood.evaluated < budget:
            if not neighborhood.improve(budget - self.evaluated):
                break
        self.evaluated += neighborhood.evaluated
        return neighborhood.plan()

    def inserted(self, plan: Plan) -> Plan:
        """Insert the jobs that are left out, by deadline, where they cost least."""
        orders = [list(order) for order in plan]
        placed = {job for order in orders for job in order}
        missing = np.array([job for job in by_deadline(self._problem) if job not in placed], dtype=np.intp)
        for first in range(0, len(missing), _AHEAD):
            self._insert(orders, missing[first : first + _AHEAD])
        return tuple(tuple(order) for order in orders)

    def _insert(self, orders: list[list[int]], jobs: Ints) -> None:
        """Insert a few jobs; after each, only the queue that took it is costed again for those to come."""
        shape = (len(orders), len(jobs))
        best, position = Costs(np.empty(shape), np.empty(shape)), np.zeros(shape, dtype=np.intp)
        changed = list(range(len(orders)))
        for turn, job in enumerate(jobs):
            places, costs = self._joining(changed, orders, jobs[turn:])
            position[changed, turn:], best.score[changed, turn:], best.end[changed, turn:] = places, *costs
            chosen = int(least(Costs(best.score[:, turn], best.end[:, turn]))[0])
            orders[chosen].insert(int(position[chosen, turn]), int(job))
            changed = [chosen]

    def _joining(self, machines: Sequence[int], orders: Sequence[Sequence[int]], jobs: Ints) -> tuple[Ints, Costs]:
        """Return the best place for each job in some queues, by queue and job, and what it adds to the score."""
        table = self._table
        lanes = table.lanes(machines, [orders[machine] for machine in machines])
        costs = table.followed(lanes, jobs, table.placed(lanes, jobs), skip=0)
        self.evaluated += costs.score.size
        places, (score, end) = least(costs)
        return places, Costs(np.where(table.runs[machines][:, jobs], score - lanes.costs.score[:, None], np.inf), end)

    def _rebuilt(self, generator: np.random.Generator) -> Plan:
        """Take a random share of the jobs out of the best plan and insert them again."""
        out = generator.random(self._table.count) < generator.uniform(0.1, 0.6)
        out &= self._table.movable
        return self.inserted(tuple(tuple(job for job in order if not out[job]) for order in self.best))

    def _scattered(self, generator: np.random.Generator) -> Plan:
        """Put every job on a random machine, in random order."""
        orders = [list(head) for head in self._problem.pinned()]
        for job in generator.permutation(np.flatnonzero(self._table.movable)):
            orders[generator.choice(np.flatnonzero(self._table.runs[:, job]))].append(int(job))
        return tuple(tuple(order) for order in orders)
