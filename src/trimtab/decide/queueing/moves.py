"""All small changes of a plan and what each would save.

A change of one queue leaves the others alone, so what a move saves is the sum of what it saves in the two queues that
it touches. `Table` costs every insertion, replacement, removal and reordering of queues at once, as arrays; after a
move `Neighborhood` costs only the touched queues again. `tests/property/test_planner.py` holds both to `plan.cost`.
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
Bools = NDArray[np.bool_]

SWAP = 1e-7
"""A score is the penalty plus this for each swap: below the 1e-6 at which penalties count as equal."""
GAIN = SWAP / 2
"""A score that is smaller by less is the same; above the rounding of sums, below one swap."""

_BLOCK = 1 << 17  # elements of the largest temporary array: it stays in the cache of a core
_REORDERS = 1 << 16  # elements of the reorderings of one queue; a longer queue moves its jobs less far


class Costs(NamedTuple):
    """Scores and ends of alternatives of queues: two arrays of one shape."""

    score: Floats
    end: Floats


@dataclass(frozen=True, slots=True)
class Lanes:
    """Some machines' queues in time, one per row; shorter ones are filled up with work that weighs nothing.

    Attributes:
        machines: Their indices.
        jobs: What runs at each position.
        filled: Whether a position holds a job.
        models: The resident model before each position, and after the last.
        swap: Seconds to make the model of each position resident.
        ready: When the machine is free for each position, and after the last.
        starts: When each position starts, after its swap.
        late: By how much each ends after its deadline; negative when it has time left.
        later: How many swaps follow behind each position.
        paid: The score of what lies ahead of each position, and of the whole queue.
        lengths: How many jobs each queue holds.
        heads: How many of them run already.
    """

    machines: Ints
    jobs: Ints
    filled: Bools
    models: Ints
    swap: Floats
    ready: Floats
    starts: Floats
    late: Floats
    later: Ints
    paid: Floats
    lengths: Ints
    heads: Ints

    @property
    def costs(self) -> Costs:
        """Score and end of each queue."""
        return Costs(self.paid[:, -1], self.ready[:, -1])


class Table:
    """A problem as arrays: rows are machines, columns jobs."""

    def __init__(self, problem: Problem) -> None:
        jobs, machines = problem.jobs, problem.machines
        names = sorted({job.model for job in jobs})
        number = {name: index for index, name in enumerate(names)}
        self.problem = problem
        self.count = len(jobs)
        self.heads = np.array([len(head) for head in problem.pinned()], dtype=np.intp)
        seconds = np.array([job.seconds for job in jobs], dtype=float).reshape(len(jobs), len(machines)).T
        self.runs = np.isfinite(seconds)
        self.seconds = np.where(self.runs, seconds, 0.0)  # masked by `runs`; infinite times 0 would be NaN
        self.due = np.array([job.deadline_in for job in jobs]) + self.seconds * problem.judge_start
        self.weight = np.array([job.weight for job in jobs])
        self.late_penalty = np.array([job.late_penalty for job in jobs])
        self.model = np.array([number[job.model] for job in jobs], dtype=np.intp)
        self.movable = np.array([job.pinned is None for job in jobs], dtype=bool)
        self.resident = np.array([number.get(machine.resident or "", -1) for machine in machines], dtype=np.intp)
        self.busy = np.array([machine.busy_for for machine in machines])
        swaps = [[machine.swap_seconds.get(name, 0.0) for name in names] for machine in machines]
        self.swap = np.array(swaps, dtype=float).reshape(len(machines), len(names))[:, self.model]
        """Seconds to make each job's model resident."""
        self._late_costs, self._miss_costs = bool(self.weight.any()), bool(self.late_penalty.any())

    def penalty(self, end: Floats, due: Floats, jobs: Ints) -> Floats:
        """Return the penalty of jobs that end at a time and are due at another; the arrays are broadcast."""
        late = end - due
        paid = self.weight[jobs] * np.maximum(late, 0.0)
        if self._miss_costs:
            paid += self.late_penalty[jobs] * (late > ON_TIME)
        return paid

    def lanes(self, machines: Sequence[int], orders: Sequence[Sequence[int]]) -> Lanes:
        """Return queues in time: for each of some machines the order of its jobs."""
        rows = np.array(machines, dtype=np.intp)
        lengths = np.array([len(order) for order in orders], dtype=np.intp)
        jobs = np.zeros((len(orders), int(lengths.max(initial=0))), dtype=np.intp)
        filled = np.arange(jobs.shape[1]) < lengths[:, None]
        jobs[filled] = [job for order in orders for job in order]
        models = np.hstack((self.resident[rows, None], self.model[jobs]))
        swapped = (models[:, 1:] != models[:, :-1]) & filled
        at = rows[:, None], jobs
        swap = self.swap[at]
        loads = swap * swapped
        ready = _summed(self.busy[rows], loads + self.seconds[at] * filled)
        late = ready[:, 1:] - self.due[at]
        paid = _summed(np.zeros(len(rows)), self.penalty(ready[:, 1:], self.due[at], jobs) * filled + SWAP * swapped)
        later = np.cumsum(swapped[:, ::-1], axis=1)[:, ::-1] - swapped
        starts = ready[:, :-1] + loads
        return Lanes(rows, jobs, filled, models, swap, ready, starts, late, later, paid, lengths, self.heads[rows])

    def placed(self, lanes: Lanes, jobs: Ints) -> Costs:
        """Return what queues cost up to a new job that runs before each position or at the end, by queue and job.

        Args:
            lanes: The queues.
            jobs: The jobs that may come; whether a machine runs them is for the caller to know.
        """
        at = lanes.machines[:, None], jobs
        fresh = self.model[jobs][:, None] != lanes.models[:, None]
        end = lanes.ready[:, None] + self.swap[at][..., None] * fresh + self.seconds[at][..., None]
        score = lanes.paid[:, None] + self.penalty(end, self.due[at][..., None], jobs[:, None]) + SWAP * fresh
        return Costs(score, end)

    def followed(self, lanes: Lanes, jobs: Ints, new: Costs, skip: int) -> Costs:
        """Return what queues cost with a new job and the rest behind it.

        Args:
            lanes: The queues.
            jobs: The new jobs.
            new: What `placed` says of them.
            skip: 0 to insert before a position, 1 to replace what is there.

        Returns:
            By queue, job and position. What runs already cannot change; it and positions that do not exist score
            infinity.
        """
        places = lanes.jobs.shape[1] + 1 - skip
        filled = lanes.filled[:, None, skip:]
        again = (self.model[jobs][:, None] != lanes.models[:, None, 1 + skip :]) & filled
        rest = slice(0, again.shape[2])  # where something may follow
        shift = new.end[..., rest] + lanes.swap[:, None, skip:] * again - lanes.starts[:, None, skip:]
        score, end = new.score[..., :places].copy(), new.end[..., :places].copy()
        score[..., rest] += self._delayed(lanes, shift, skip) + SWAP * (again + lanes.later[:, None, skip:])
        end[..., rest] = np.where(filled, lanes.ready[:, -1:, None] + shift, end[..., rest])
        position = np.arange(places)
        free = (position >= lanes.heads[:, None]) & (position <= lanes.lengths[:, None] - skip)
        return Costs(np.where(free[:, None], score, np.inf), end)

    def orders(self, machines: Ints, sequences: Ints, lengths: Ints) -> Costs:
        """Return the costs of whole queues, one per row of `sequences`, of which the first so many jobs count."""
        filled = np.arange(sequences.shape[1]) < lengths[:, None]
        at = machines[:, None], sequences
        models = np.hstack((self.resident[machines, None], self.model[sequences]))
        swapped = (models[:, 1:] != models[:, :-1]) & filled
        ends = _summed(self.busy[machines], (self.seconds[at] + self.swap[at] * swapped) * filled)
        paid = self.penalty(ends[:, 1:], self.due[at], sequences) * filled + SWAP * swapped
        return Costs(paid.sum(axis=1), ends[:, -1])

    def _delayed(self, lanes: Lanes, shift: Floats, skip: int) -> Floats:
        """Penalties of each queue's rest from each position on, when it is shifted by so much."""
        from_here = (np.tri(lanes.jobs.shape[1], dtype=bool).T[skip:] & lanes.filled[:, None]).astype(float)
        paid = np.zeros(shift.shape)
        if not (self._miss_costs or self._late_costs):
            return paid
        delayed = shift[..., None] + lanes.late[:, None, None]
        if self._miss_costs:
            prices = from_here * self.late_penalty[lanes.jobs][:, None]
            paid += np.einsum("qapj,qpj->qap", (delayed > ON_TIME).astype(float), prices)
        if self._late_costs:
            prices = from_here * self.weight[lanes.jobs][:, None]
            paid += np.einsum("qapj,qpj->qap", np.maximum(delayed, 0.0, out=delayed), prices)
        return paid


def _summed(first: Floats, rows: Floats) -> Floats:
    """Return the running sums of rows that begin with a number each; one column more than the rows."""
    return np.cumsum(np.hstack((first[:, None], rows)), axis=1)


@lru_cache(maxsize=1024)
def variants(head: int, length: int, width: int) -> tuple[Ints, Ints]:
    """Return every order of a queue that differs by one job less, one job moved, or two exchanged.

    Args:
        head: How many jobs run already and stay where they are.
        length: How many there are.
        width: How many positions a row has; those behind the queue are of no account.

    Returns:
        The positions that each order takes its jobs from, one order per row, and how many of them count: one less than
        `length` in the first rows, which leave out one job each.
    """
    reach = max(_REORDERS // max(3 * (length - head) * width, 1), 1)
    every = list(range(width))
    rows = [[*every[:at], *every[at + 1 :], at] for at in range(head, length)]
    shorter = len(rows)
    rows += (order for at in range(head, length) for order in _moved(every, at, (head, length), reach))
    counts = np.full(len(rows), length, dtype=np.intp)
    counts[:shorter] -= 1
    return np.array(rows, dtype=np.intp).reshape(len(rows), width), counts


def _moved(every: list[int], at: int, limits: tuple[int, int], reach: int) -> Iterator[list[int]]:
    for to in range(max(at - reach, limits[0]), min(at + reach + 1, limits[1])):
        order = every.copy()
        if to not in {at, at - 1}:  # moving one back is moving its neighbor forward
            order.insert(to, order.pop(at))
            yield order
        if to > at + 1:  # neighbors are exchanged by moving one
            order = every.copy()
            order[at], order[to] = to, at
            yield order


def least(costs: Costs) -> tuple[Ints, Costs]:
    """Return where the last axis has its smallest score, and what it costs there; of equal ones the smallest end."""
    equal = costs.score <= costs.score.min(axis=-1, keepdims=True) + GAIN
    chosen: Ints = np.where(equal, costs.end, np.inf).argmin(axis=-1)
    at = (*np.indices(chosen.shape, sparse=True), chosen)
    return chosen, Costs(costs.score[at], costs.end[at])


class Neighborhood:
    """A plan that is changed in place, and what every move would save.

    Args:
        table: The problem.
        plan: Where to start; changed only by the moves of `improve`.

    Attributes:
        evaluated: How many moves have been costed.
    """

    def __init__(self, table: Table, plan: Plan) -> None:
        self.evaluated = 0
        self._table = table
        self._orders = [list(order) for order in plan]
        self._jobs = np.flatnonzero(table.movable)
        self._place = np.zeros(table.count, dtype=np.intp)
        for machine, order in enumerate(plan):
            self._place[list(order)] = machine
        shape = (table.count, len(plan))
        self._insert, self._insert_end = np.full(shape, np.inf), np.full(shape, np.inf)
        self._position = np.zeros(shape, dtype=np.intp)
        self._remove, self._remove_end = np.full(table.count, np.inf), np.full(table.count, np.inf)
        self._replace, self._replace_end = (np.full((table.count, table.count), np.inf) for _ in range(2))
        self._reorder = np.full(len(plan), np.inf)
        self._reordered = [list(order) for order in plan]
        self._end = np.zeros(len(plan))
        self._stale = list(range(len(plan)))

    def plan(self) -> Plan:
        """Return the plan as it is now."""
        return tuple(tuple(order) for order in self._orders)

    def improve(self, budget: int) -> bool:
        """Make the best moves that touch different queues; false when none is left that saves anything.

        Args:
            budget: How many moves may be evaluated, to the next few queues.
        """
        if not len(self._jobs):
            return False
        while self._stale and self.evaluated < budget:
            self._refresh()
        touched = self._take_savings() or self._take_shorter()
        for machine in touched:
            self._place[self._orders[machine]] = machine
        for machine in touched:
            self._forget(machine)
        self._stale = sorted({*self._stale, *touched})
        return bool(touched)

    def _forget(self, machine: int) -> None:
        """Drop what is known of a queue that has changed: where the budget ends, nobody costs it again."""
        jobs = self._orders[machine]
        self._insert[:, machine] = self._reorder[machine] = np.inf
        self._remove[jobs] = self._replace[jobs] = np.inf

    def _refresh(self) -> None:
        """Cost everything that can happen to some stale queues, as many as fit the cache."""
        lengths = [len(self._orders[machine]) for machine in self._stale]
        many = max(_BLOCK // max(len(self._jobs) * max(lengths) ** 2, 1), 1)
        machines, self._stale = self._stale[:many], self._stale[many:]
        lanes = self._table.lanes(machines, [self._orders[machine] for machine in machines])
        self._end[machines] = lanes.costs.end
        rows = max(_BLOCK // max(len(machines) * lanes.jobs.shape[1] ** 2, 1), 1)
        if len(self._orders) > 1:
            for first in range(0, len(self._jobs), rows):
                self._exchange_with_others(lanes, self._jobs[first : first + rows])
        self._change_alone(lanes)

    def _exchange_with_others(self, lanes: Lanes, jobs: Ints) -> None:
        """Cost what queues can do with a job from elsewhere: take it in, or take it for one of theirs."""
        machines, score = lanes.machines, lanes.costs.score
        may = self._table.runs[machines][:, jobs] & (self._place[jobs] != machines[:, None])
        new = self._table.placed(lanes, jobs)
        position, insert = least(self._table.followed(lanes, jobs, new, skip=0))
        at = jobs[:, None], machines
        self._position[at], self._insert_end[at] = position.T, insert.end.T
        self._insert[at] = np.where(may, insert.score - score[:, None], np.inf).T
        replace = self._table.followed(lanes, jobs, new, skip=1)
        waits = lanes.filled & (np.arange(lanes.jobs.shape[1]) >= lanes.heads[:, None])
        saved = np.where(may[..., None], replace.score - score[:, None, None], np.inf)
        out = lanes.jobs[waits][:, None], jobs
        self._replace[out] = saved.transpose(0, 2, 1)[waits]
        self._replace_end[out] = replace.end.transpose(0, 2, 1)[waits]
        self.evaluated += int((may.sum(axis=1) * (2 * waits.sum(axis=1) + 1)).sum())

    def _change_alone(self, lanes: Lanes) -> None:
        """Cost what queues can do by themselves: lose a job, or change their order."""
        width = lanes.jobs.shape[1]
        changes = [
            variants(int(head), int(length), width) for head, length in zip(lanes.heads, lanes.lengths, strict=True)
        ]
        counts = [len(rows) for rows, _ in changes]
        sequences = np.concatenate([jobs[rows] for jobs, (rows, _) in zip(lanes.jobs, changes, strict=True)])
        lengths = np.concatenate([kept for _, kept in changes])
        costs = self._table.orders(np.repeat(lanes.machines, counts), sequences, lengths)
        saved = costs.score - np.repeat(lanes.costs.score, counts)
        self.evaluated += len(sequences)
        first = 0
        for machine, head, length, count in zip(lanes.machines, lanes.heads, lanes.lengths, counts, strict=True):
            without, reordered = slice(first, first + length - head), slice(first + length - head, first + count)
            here = self._orders[machine][head:]
            self._remove[here], self._remove_end[here] = saved[without], costs.end[without]
            if length - head > 1:
                best, found = least(Costs(saved[reordered], costs.end[reordered]))
                self._reorder[machine] = found.score
                self._reordered[machine] = sequences[reordered.start + int(best), :length].tolist()
            first += count

    def _take_savings(self) -> list[int]:
        """Apply the moves that save most, as long as they touch different queues; return the queues."""
        relocate = self._remove[:, None] + self._insert
        exchange = self._replace + self._replace.T
        reorder = self._reorder.copy()
        tables = (relocate, exchange, reorder)
        touched: list[int] = []
        while True:
            moves = [int(table.argmin()) for table in tables]
            savings = [float(table.flat[at]) for table, at in zip(tables, moves, strict=True)]
            kind = min(range(3), key=savings.__getitem__)
            if not savings[kind] < -GAIN:
                return touched
            machines = self._apply(kind, moves[kind])
            touched += machines
            for machine in machines:
                theirs = self._place == machine
                relocate[theirs], exchange[theirs], exchange[:, theirs] = np.inf, np.inf, np.inf
                relocate[:, machine] = reorder[machine] = np.inf

    def _take_shorter(self) -> list[int]:
        """Apply a move that costs nothing and lets the last machine end earlier; return the queues."""
        longest = int(self._end.argmax())
        here = np.array(self._orders[longest][self._table.heads[longest] :], dtype=np.intp)
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
        kind, ends = min(enumerate((relocate, exchange)), key=lambda kind_and_ends: float(kind_and_ends[1].min()))
        if not ends.min() < self._end[longest] - ON_TIME:
            return []
        row, column = divmod(int(ends.argmin()), ends.shape[1])
        return self._apply(kind, int(here[row]) * ends.shape[1] + column)

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
