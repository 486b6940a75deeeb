"""All small changes of a plan and what each would save, queue by queue.

A change of one queue leaves the others alone, so what a move saves is the sum of what it saves in the two queues that
it touches. For each queue this module costs every insertion, replacement, removal and reordering at once, as arrays;
after a move only the touched queues are costed again. `tests/property/test_planner.py` holds it to `plan.cost`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.decide.queueing.plan import ON_TIME, Plan, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

SWAP = 1e-7
"""A score is the penalty plus this for each swap: below the 1e-6 at which penalties count as equal."""
GAIN = SWAP / 2
"""A score that is smaller by less is the same; above the rounding of sums, below one swap."""

_BLOCK = 1 << 18  # elements of the largest temporary array: it stays in the cache of a core
_REORDERS = 1 << 16  # elements of the reorderings of one queue; a longer queue moves its jobs less far


class Costs(NamedTuple):
    """Costs of many alternatives of one queue: arrays of one shape."""

    score: Floats
    end: Floats


@dataclass(frozen=True, slots=True)
class Lane:
    """A machine's queue in time; arrays run over its positions.

    Attributes:
        machine: Its index.
        jobs: What runs, in order.
        models: The resident model before each position, and after the last.
        swapped: Whether a position needs a swap.
        ready: When the machine is free for each position, and after the last.
        starts: When a position starts, after its swap.
        late: By how much each ends after its deadline; negative when it has time left.
        paid: The score of what lies ahead of each position, and of the whole queue.
    """

    machine: int
    jobs: Ints
    models: Ints
    swapped: NDArray[np.bool_]
    ready: Floats
    starts: Floats
    late: Floats
    paid: Floats

    @property
    def cost(self) -> tuple[float, float]:
        """Score and end of the queue."""
        return float(self.paid[-1]), float(self.ready[-1])


class Table:
    """A problem as arrays: rows are machines, columns jobs."""

    def __init__(self, problem: Problem) -> None:
        jobs, machines = problem.jobs, problem.machines
        shape = (len(machines), len(jobs))
        names = sorted({job.model for job in jobs})
        number = {name: index for index, name in enumerate(names)}
        self.problem = problem
        self.count = len(jobs)
        self.heads = [len(head) for head in problem.pinned()]
        self.seconds = np.array([job.seconds for job in jobs], dtype=float).reshape(shape[::-1]).T.copy()
        self.runs = np.isfinite(self.seconds)
        self.seconds[~self.runs] = 0.0  # masked by `runs`; an infinity would make NaN of a weight of 0
        self.due = np.array([job.deadline_in for job in jobs]) + self.seconds * problem.judge_start
        self.weight = np.array([job.weight for job in jobs])
        self.late_penalty = np.array([job.late_penalty for job in jobs])
        self.model = np.array([number[job.model] for job in jobs], dtype=np.intp)
        self.movable = np.array([job.pinned is None for job in jobs], dtype=bool)
        self.resident = [number.get(machine.resident or "", -1) for machine in machines]
        self.busy = [machine.busy_for for machine in machines]
        swaps = [[machine.swap_seconds.get(name, 0.0) for name in names] for machine in machines]
        self.swap = np.array(swaps, dtype=float).reshape(len(machines), len(names))[:, self.model]
        """Seconds to make each job's model resident."""
        self._fixed = bool(self.late_penalty.any())

    def penalty(self, late: Floats, jobs: Ints) -> Floats:
        """Return the penalty of jobs that end late by so much; the arrays are broadcast."""
        paid = self.weight[jobs] * np.maximum(late, 0.0)
        return paid + self.late_penalty[jobs] * (late > ON_TIME) if self._fixed else paid

    def lane(self, machine: int, order: Sequence[int]) -> Lane:
        """Return a queue in time."""
        jobs = np.array(order, dtype=np.intp)
        models = np.concatenate(([self.resident[machine]], self.model[jobs]))
        swapped = models[1:] != models[:-1]
        swap, seconds = self.swap[machine, jobs] * swapped, self.seconds[machine, jobs]
        ready = np.concatenate(([0.0], np.cumsum(swap + seconds))) + self.busy[machine]
        late = ready[1:] - self.due[machine, jobs]
        paid = np.concatenate(([0.0], np.cumsum(self.penalty(late, jobs) + SWAP * swapped)))
        return Lane(machine, jobs, models, swapped, ready, ready[:-1] + swap, late, paid)

    def orders(self, machine: int, sequences: Ints) -> Costs:
        """Return the costs of alternatives of a whole queue, one per row of `sequences`."""
        models = self.model[sequences]
        swapped = np.empty(sequences.shape, dtype=bool)
        swapped[:, :1] = models[:, :1] != self.resident[machine]
        swapped[:, 1:] = models[:, 1:] != models[:, :-1]
        ends = np.cumsum(self.seconds[machine][sequences] + self.swap[machine][sequences] * swapped, axis=1)
        ends += self.busy[machine]
        paid = self.penalty(ends - self.due[machine][sequences], sequences) + SWAP * swapped
        return Costs(paid.sum(axis=1), ends.max(axis=1, initial=self.busy[machine]))

    def insert(self, lane: Lane, jobs: Ints) -> Costs:
        """Return the costs of the queue with one more job: a row per job, a column per position behind what runs."""
        return self._splice(lane, jobs, skip=0)

    def replace(self, lane: Lane, jobs: Ints) -> Costs:
        """Return the costs with a job in another's place: a row per job, a column per position behind what runs."""
        return self._splice(lane, jobs, skip=1)

    def _splice(self, lane: Lane, jobs: Ints, skip: int) -> Costs:
        length = max(len(lane.jobs), 1)
        rows = max(_BLOCK // length**2, 1)
        blocks = [self._block(lane, jobs[at : at + rows], skip) for at in range(0, len(jobs), rows)] or [
            self._block(lane, jobs, skip)
        ]
        if len(blocks) == 1:
            return blocks[0]
        return Costs(np.concatenate([block.score for block in blocks]), np.concatenate([block.end for block in blocks]))

    def _block(self, lane: Lane, jobs: Ints, skip: int) -> Costs:
        """Cost the queue up to a position, then each job, then the rest of the queue from `skip` places on."""
        machine, head, length = lane.machine, self.heads[lane.machine], len(lane.jobs)
        models, column = self.model[jobs][:, None], jobs[:, None]
        stop = length + 1 - skip
        fresh = models != lane.models[head:stop]
        end = lane.ready[head:stop] + self.swap[machine][column] * fresh + self.seconds[machine][column]
        score = lane.paid[head:stop] + self.penalty(end - self.due[machine][column], column) + SWAP * fresh
        first = head + skip  # of the jobs that may come after the new one
        tail = lane.jobs[first:]
        if len(tail):
            again = models != lane.models[first + 1 :]
            shift = end[:, : len(tail)] + self.swap[machine, tail] * again - lane.starts[first:]
            swaps = lane.swapped[first:]
            later: Ints = np.cumsum(swaps[::-1])[::-1] - swaps
            score[:, : len(tail)] += self._delayed(lane.late[first:], tail, shift) + SWAP * (again + later)
            end[:, : len(tail)] = lane.ready[-1] + shift
        return Costs(score, end)

    def _delayed(self, late: Floats, jobs: Ints, shift: Floats) -> Floats:
        """Penalties of a tail from each position on (columns), when that tail is shifted by so much (rows)."""
        delayed = shift[:, :, None] + late
        from_here = np.tri(len(jobs)).T  # position p pays for itself and all after it
        fixed = None
        if self._fixed:
            fixed = np.einsum("apj,pj->ap", delayed > ON_TIME, from_here * self.late_penalty[jobs])
        np.maximum(delayed, 0.0, out=delayed)
        paid: Floats = np.einsum("apj,pj->ap", delayed, from_here * self.weight[jobs])
        return paid if fixed is None else paid + fixed


@lru_cache(maxsize=256)
def reorders(length: int) -> Ints:
    """Return the orders of a queue that differ by one job moved or two exchanged, one per row."""
    reach = max(_REORDERS // max(3 * length * length, 1), 1)
    rows = [order for at in range(length) for order in _moved(at, length, reach)]
    return np.array(rows, dtype=np.intp).reshape(-1, length)


def _moved(at: int, length: int, reach: int) -> Iterator[list[int]]:
    for to in range(max(at - reach, 0), min(at + reach + 1, length)):
        order = list(range(length))
        if to not in {at, at - 1}:  # moving one back is moving its neighbor forward
            order.insert(to, order.pop(at))
            yield order
        if to > at + 1:  # neighbors are exchanged by moving one
            order = list(range(length))
            order[at], order[to] = to, at
            yield order


def least(score: Floats, end: Floats) -> Ints:
    """Return, for each row, the column with the smallest score; of equal ones the smallest end, then the first."""
    equal = score <= score.min(axis=1, keepdims=True) + GAIN
    chosen: Ints = np.where(equal, end, np.inf).argmin(axis=1)
    return chosen


class Neighborhood:
    """A plan that is changed in place, and what every move would save.

    Args:
        table: The problem.
        plan: Where to start; changed only by the moves of `improve`.

    Attributes:
        evaluated: How many moves have been costed.
    """

    def __init__(self, table: Table, plan: Plan) -> None:
        machines = range(len(plan))
        self._table = table
        self._orders = [list(order) for order in plan]
        self._lanes = [table.lane(machine, order) for machine, order in enumerate(plan)]
        self._place = np.zeros(table.count, dtype=np.intp)
        for machine in machines:
            self._place[self._lanes[machine].jobs] = machine
        shape = (table.count, len(plan))
        self._insert, self._insert_end = np.full(shape, np.inf), np.full(shape, np.inf)
        self._position = np.zeros(shape, dtype=np.intp)
        self._remove, self._remove_end = np.full(table.count, np.inf), np.full(table.count, np.inf)
        self._replace = np.full((table.count, table.count), np.inf)
        self._replace_end = np.full((table.count, table.count), np.inf)
        self._reorder = np.full(len(plan), np.inf)
        self._reordered = [list(order) for order in plan]
        self._stale = list(machines)
        self.evaluated = 0

    def plan(self) -> Plan:
        """Return the plan as it is now."""
        return tuple(tuple(order) for order in self._orders)

    def improve(self, budget: int) -> bool:
        """Make the best moves that touch different queues; false when none is left that saves anything.

        Args:
            budget: How many moves may be evaluated at the most, to the next full queue.
        """
        while self._stale and self.evaluated < budget:
            self._refresh(self._stale.pop())
        touched = self._take_savings() or self._take_shorter()
        for machine in touched:
            self._lanes[machine] = self._table.lane(machine, self._orders[machine])
            self._place[self._lanes[machine].jobs] = machine
        for machine in touched:
            self._forget(machine)
        self._stale = sorted({*self._stale, *touched}, reverse=True)
        return bool(touched)

    def _forget(self, machine: int) -> None:
        """Drop what is known of a queue that has changed: where the budget ends, nobody costs it again."""
        jobs = self._lanes[machine].jobs
        self._insert[:, machine] = self._reorder[machine] = np.inf
        self._remove[jobs] = self._replace[jobs] = np.inf

    def _refresh(self, machine: int) -> None:
        """Cost everything that can happen to one queue."""
        table, lane = self._table, self._lanes[machine]
        head, (score, _) = table.heads[machine], lane.cost
        jobs = np.flatnonzero(table.movable & table.runs[machine] & (self._place != machine))
        if len(jobs):
            inserted = table.insert(lane, jobs)
            best, row = least(*inserted), np.arange(len(jobs))
            self._position[jobs, machine] = head + best
            self._insert[jobs, machine] = inserted.score[row, best] - score
            self._insert_end[jobs, machine] = inserted.end[row, best]
        here = lane.jobs[head:]
        if len(jobs) and len(here):
            replaced = table.replace(lane, jobs)
            self._replace[np.ix_(here, jobs)] = replaced.score.T - score
            self._replace_end[np.ix_(here, jobs)] = replaced.end.T
        self.evaluated += len(jobs) * (2 * len(here) + 1) + self._rearrange(lane)

    def _rearrange(self, lane: Lane) -> int:
        """Cost what a queue can do by itself: lose a job, or change its order. Return how many moves that were."""
        table, machine, head = self._table, lane.machine, self._table.heads[lane.machine]
        here = lane.jobs[head:]
        if not len(here):
            return 0
        score, _ = lane.cost
        running = lane.jobs[:head]
        without = table.orders(machine, _behind(running, here[_all_but_one(len(here))]))
        self._remove[here], self._remove_end[here] = without.score - score, without.end
        if len(here) > 1:
            sequences = _behind(running, here[reorders(len(here))])
            reordered = table.orders(machine, sequences)
            best = int(least(reordered.score[None], reordered.end[None])[0])
            self._reorder[machine] = reordered.score[best] - score
            self._reordered[machine] = sequences[best].tolist()
        return len(here) + len(reorders(len(here)))

    def _take_savings(self) -> list[int]:
        """Apply the moves that save most, as long as they touch different queues; return the queues."""
        relocate = self._remove[:, None] + self._insert
        exchange = self._replace + self._replace.T
        reorder = self._reorder.copy()
        touched: list[int] = []
        while True:
            moves = (int(relocate.argmin()), int(exchange.argmin()), int(reorder.argmin()))
            savings = [float(saved.flat[at]) for saved, at in zip((relocate, exchange, reorder), moves, strict=True)]
            kind = min(range(3), key=savings.__getitem__)
            if not savings[kind] < -GAIN:
                return touched
            machines = self._apply(kind, moves[kind])
            touched += machines
            theirs = np.isin(self._place, machines)
            relocate[theirs], relocate[:, machines] = np.inf, np.inf
            exchange[theirs], exchange[:, theirs] = np.inf, np.inf
            reorder[machines] = np.inf

    def _take_shorter(self) -> list[int]:
        """Apply a move that costs nothing and lets the last machine end earlier; return the queues."""
        ends = [lane.cost[1] for lane in self._lanes]
        longest = int(np.argmax(ends))
        here = self._lanes[longest].jobs[self._table.heads[longest] :]
        if not len(here):
            return []
        relocate = np.where(
            self._remove[here, None] + self._insert[here] < GAIN,
            np.maximum(self._remove_end[here, None], self._insert_end[here]),
            np.inf,
        )
        exchange = np.where(
            self._replace[here] + self._replace[:, here].T < GAIN,
            np.maximum(self._replace_end[here], self._replace_end[:, here].T),
            np.inf,
        )
        moves = (relocate, exchange)
        kind = int(exchange.min() < relocate.min())
        if not moves[kind].min() < ends[longest] - ON_TIME:
            return []
        row, column = divmod(int(moves[kind].argmin()), moves[kind].shape[1])
        return self._apply(kind, int(here[row]) * moves[kind].shape[1] + column)

    def _apply(self, kind: int, at: int) -> list[int]:
        """Make one move: relocate (0), exchange (1) or reorder (2), by its flat index; return the queues."""
        if kind == 0:
            return self._relocate(*divmod(at, len(self._orders)))
        if kind == 1:
            return self._exchange(*divmod(at, self._table.count))
        self._orders[at] = self._reordered[at]
        return [at]

    def _relocate(self, job: int, machine: int) -> list[int]:
        source = int(self._place[job])
        self._orders[source].remove(job)
        self._orders[machine].insert(int(self._position[job, machine]), job)
        return [source, machine]

    def _exchange(self, one: int, other: int) -> list[int]:
        first, second = int(self._place[one]), int(self._place[other])
        self._orders[first][self._orders[first].index(one)] = other
        self._orders[second][self._orders[second].index(other)] = one
        return [first, second]


def _behind(running: Ints, sequences: Ints) -> Ints:
    """Put what runs ahead of each sequence."""
    return np.hstack((np.broadcast_to(running, (len(sequences), len(running))), sequences))


@lru_cache(maxsize=256)
def _all_but_one(length: int) -> Ints:
    every = np.arange(length)
    return np.array([np.delete(every, at) for at in every], dtype=np.intp).reshape(length, max(length - 1, 0))
