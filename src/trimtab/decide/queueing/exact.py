"""The best plan of all, for problems small enough: an integer program, and trying everything.

Both are oracles for offline use: they say how far the planner that runs online is from the optimum. The program is
QLM's with its published defects put right [design]: groups may share a machine, every swap is charged where it happens,
and lateness is paid for instead of forbidden, so an overload has a best plan too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from trimtab.decide.queueing.moves import Floats, Ints, Table
from trimtab.decide.queueing.plan import Plan, Problem, check

NODES = 20_000
GAP = 1e-3
MOST_JOBS = 8
"""How many waiting jobs `try_all` takes: 109,601 orders per machine."""

_SWAP = 1e-4  # the price of a swap, so that `swap` is whole by itself and plans without lateness have few
_END = 1e-5  # the price of a second by which a machine ends later


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver found.

    Attributes:
        plan: The best plan that it knows.
        proved: Whether no plan is better, to the gap that was asked for.
        bound: No plan has an objective below this.
    """

    plan: Plan
    proved: bool
    bound: float


def solve(problem: Problem, node_limit: int = NODES, gap: float = GAP) -> Solution | None:
    """Solve the integer program, within a number of nodes of its search tree; never within a time.

    Args:
        problem: With more than about eight jobs this takes minutes.
        node_limit: Nodes that may be visited.
        gap: The relative gap at which the search ends.

    Returns:
        None where the limit was reached before any plan was found.
    """
    if not problem.jobs:
        return Solution(problem.pinned(), proved=True, bound=0.0)
    program = Program(problem)
    result = program.solve(node_limit, gap)
    if result.x is None:
        return None
    plan = program.plan(result.x)
    check(problem, plan)
    return Solution(plan, result.status == 0, float(result.mip_dual_bound))


class Program:
    """The integer program of a problem.

    Variables, by number: `place[g, i, s]` is 1 where job i has slot s of machine g; `swap[g, s, m]` is 1 where model m
    is made resident before it; `end[g, s]` and `late[i]` are seconds; `missed[i]` is 1 where job i is late.
    """

    def __init__(self, problem: Problem) -> None:
        table = Table(problem)
        machines, jobs = table.seconds.shape
        self._problem, self._table = problem, table
        self._models = [np.flatnonzero(table.model == model) for model in range(int(table.model.max()) + 1)]
        self._horizon = float(max(table.busy) + table.seconds.max(axis=0).sum() + jobs * table.swap.max())
        self._size = 0
        self.place = self._variables(machines, jobs, jobs)
        self.swap = self._variables(machines, jobs, len(self._models))
        self.end = self._variables(machines, jobs)
        self.late = self._variables(jobs)
        self.missed = self._variables(jobs)
        self._rows: list[tuple[Ints, Floats]] = []
        self._least: list[float] = []
        self._slots()
        self._times()
        self._lateness()

    def solve(self, node_limit: int, gap: float) -> OptimizeResult:
        """Return the solver's answer."""
        integral = np.zeros(self._size)
        integral[self.place.ravel()] = integral[self.missed] = 1
        columns = np.concatenate([variables for variables, _ in self._rows])
        factors = np.concatenate([factors for _, factors in self._rows])
        starts = np.cumsum([0, *(len(variables) for variables, _ in self._rows)])
        matrix = csr_array((factors, columns, starts), shape=(len(self._rows), self._size))
        return milp(
            self._objective(),
            integrality=integral,
            bounds=self._bounds(),
            constraints=LinearConstraint(matrix, lb=np.array(self._least)),
            options={"node_limit": node_limit, "mip_rel_gap": gap},
        )

    def plan(self, values: Floats) -> Plan:
        """Return the plan that the values of the variables say."""
        placed = values[self.place] > 0.5  # noqa: PLR2004 - a binary variable, to the solver's tolerance
        return tuple(tuple(int(job) for job in np.nonzero(machine.T)[1]) for machine in placed)

    def _variables(self, *shape: int) -> Ints:
        first = self._size
        self._size += int(np.prod(shape))
        return np.arange(first, self._size, dtype=np.intp).reshape(shape)

    def _at_least(self, bound: float, *terms: tuple[float | Floats, Ints | np.intp]) -> None:
        """Demand that the sum of factors times variables is at least a bound."""
        variables = [np.atleast_1d(variables).ravel() for _, variables in terms]
        factors = [np.broadcast_to(factor, of.shape) for (factor, _), of in zip(terms, variables, strict=True)]
        self._rows.append((np.concatenate(variables), np.concatenate(factors)))
        self._least.append(bound)

    def _objective(self) -> Floats:
        price = np.zeros(self._size)
        price[self.swap.ravel()], price[self.end[:, -1]] = _SWAP, _END
        price[self.late], price[self.missed] = self._table.weight, self._table.late_penalty
        return price

    def _bounds(self) -> Bounds:
        lowest, highest = np.zeros(self._size), np.full(self._size, np.inf)
        highest[self.place] = self._table.runs[:, :, None]
        highest[self.swap.ravel()] = highest[self.missed] = 1
        for machine, head in enumerate(self._problem.pinned()):
            for slot, job in enumerate(head):
                highest[self.place[:, job]] = 0
                lowest[self.place[machine, job, slot]] = highest[self.place[machine, job, slot]] = 1
        return Bounds(lowest, highest)

    def _slots(self) -> None:
        """Each job has one slot, each slot at most one job, and there are no holes."""
        for job in range(self._table.count):
            self._at_least(1, (1, self.place[:, job]))
            self._at_least(-1, (-1, self.place[:, job]))
        for machine in self.place:
            self._at_least(-1, (-1, machine[:, 0]))
            for slot in range(1, self._table.count):
                self._at_least(0, (1, machine[:, slot - 1]), (-1, machine[:, slot]))

    def _times(self) -> None:
        """A slot ends after the one before, a swap where the model differs, and its job."""
        table = self._table
        for machine, (place, swap, end) in enumerate(zip(self.place, self.swap, self.end, strict=True)):
            costs = np.array([table.swap[machine, jobs[0]] for jobs in self._models])
            for slot in range(table.count):
                for model, jobs in enumerate(self._models):
                    held = float(slot == 0 and table.resident[machine] == model)
                    before = [(1.0, place[jobs, slot - 1])] if slot else []
                    self._at_least(-held, (1, swap[slot, model]), (-1, place[jobs, slot]), *before)
                work = [(-table.seconds[machine], place[:, slot]), (-costs, swap[slot])]
                previous = [(-1.0, end[slot - 1])] if slot else []
                self._at_least(0.0 if slot else table.busy[machine], (1.0, end[slot]), *work, *previous)

    def _lateness(self) -> None:
        """A job ends with its slot, and is as late as that is after its deadline; other slots are of no account."""
        for (machine, job), due in np.ndenumerate(self._table.due):
            if self._table.runs[machine, job]:
                self._behind(machine, job, float(due))
        longest = max(self._horizon - float(self._table.due.min()), 0.0)
        for job in np.flatnonzero(self._table.late_penalty):
            self._at_least(0, (longest, self.missed[job]), (-1, self.late[job]))

    def _behind(self, machine: int, job: int, since: float) -> None:
        """Let a job be late at least by the time from a moment to the end of its slot, if the machine runs it."""
        most = self._horizon - since
        if most > 0:
            for end, place in zip(self.end[machine], self.place[machine, job], strict=True):
                self._at_least(-since - most, (1, self.late[job]), (-1, end), (-most, place))


def try_all(problem: Problem) -> Plan:
    """Return the plan with the smallest penalty, and of those the fewest swaps, of all there are.

    What a machine's queue costs does not depend on the other queues. So the best order of every set of jobs is found
    for each machine, and then the best way to divide the jobs into such sets.

    Raises:
        ValueError: There are more than eight jobs to place.
    """
    table = Table(problem)
    movable = np.flatnonzero(table.movable)
    if len(movable) > MOST_JOBS:
        raise ValueError(f"{len(movable)} jobs to place; all plans are tried for at most {MOST_JOBS}")
    best: dict[int, tuple[float, Plan]] = {0: (0.0, ())}
    for machine, head in enumerate(problem.pinned()):
        best = _divided(best, _best_orders(table, machine, head, movable))
    return best[(1 << len(movable)) - 1][1]


def _best_orders(
    table: Table, machine: int, head: Sequence[int], movable: Ints
) -> dict[int, tuple[float, tuple[int, ...]]]:
    """For each set of jobs that a machine can run, as bits: the smallest score, and its order."""
    can = np.flatnonzero(table.runs[machine, movable])
    found: dict[int, tuple[float, tuple[int, ...]]] = {}
    for count in range(len(can) + 1):
        chosen = can[_permutations(len(can), count)]
        running = np.broadcast_to(np.array(head, dtype=np.intp), (len(chosen), len(head)))
        sequences = np.hstack((running, movable[chosen])).astype(np.intp)
        every = np.full(len(chosen), machine), sequences, np.full(len(chosen), sequences.shape[1])
        scores = table.orders(*every).score
        members = (1 << chosen).sum(axis=1)
        rows = np.lexsort((scores, members))
        sets, first = np.unique(members[rows], return_index=True)
        for bits, row in zip(sets, rows[first], strict=True):
            found[int(bits)] = float(scores[row]), tuple(sequences[row].tolist())
    return found


def _divided(
    so_far: dict[int, tuple[float, Plan]], orders: dict[int, tuple[float, tuple[int, ...]]]
) -> dict[int, tuple[float, Plan]]:
    """Give one more machine a set of the jobs that are left, for each set that is placed then."""
    best: dict[int, tuple[float, Plan]] = {}
    for placed, (score, plan) in so_far.items():
        for members, (more, order) in orders.items():
            total = score + more
            if not members & placed and total < best.get(members | placed, (np.inf,))[0]:
                best[members | placed] = total, (*plan, order)
    return best


@lru_cache(maxsize=64)
def _permutations(count: int, length: int) -> Ints:
    orders = list(permutations(range(count), length))
    return np.array(orders, dtype=np.intp).reshape(len(orders), length)
