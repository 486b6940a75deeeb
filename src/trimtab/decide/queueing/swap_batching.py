"""Earliest deadline first with swap batching: a model that has been made resident serves all that waits for it.

The batch is closed when it begins: what comes for the same model later waits for its next turn, unless nothing else is
waiting for the machine. So no model keeps a machine for ever.
"""

from dataclasses import dataclass, field

from trimtab.decide.queueing.edf import due
from trimtab.decide.queueing.plan import Plan, Problem


@dataclass(slots=True)
class _Turns:
    """One machine's queue: a batch that has begun, and one batch for each model after it."""

    begun: list[int] = field(default_factory=list)
    later: dict[str, list[int]] = field(default_factory=dict)  # in the order in which the models come up
    end: float = 0.0

    def order(self) -> tuple[int, ...]:
        return (*self.begun, *(job for batch in self.later.values() for job in batch))


def plan(problem: Problem, current: Plan) -> Plan:
    """Let each machine end its batch; then by deadlines, a model's groups together on the queue that ends first."""
    turns = [_begun(problem, machine, queue) for machine, queue in enumerate(current)]
    placed = {job for turn in turns for job in turn.begun}
    for job in sorted(set(range(len(problem.jobs))) - placed, key=lambda job: due(problem, job)):
        _join(problem, turns, job)
    return tuple(turn.order() for turn in turns)


def _begun(problem: Problem, machine: int, queue: tuple[int, ...]) -> _Turns:
    """The batch of the resident model at the head of a queue."""
    turn = _Turns(end=problem.machines[machine].busy_for)
    for job in queue:
        if problem.jobs[job].model != problem.machines[machine].resident:
            break
        turn.begun.append(job)
        turn.end += problem.jobs[job].seconds[machine]
    return turn


def _join(problem: Problem, turns: list[_Turns], job: int) -> None:
    """Add a group to the queue that then ends first."""
    wanted = problem.jobs[job]

    def end(machine: int) -> tuple[float, int]:
        turn = turns[machine]
        resident = problem.machines[machine].resident
        follows = wanted.model in turn.later or (not turn.later and wanted.model == resident)
        swap = 0.0 if follows else problem.machines[machine].swap_seconds[wanted.model]
        return turn.end + swap + wanted.seconds[machine], machine

    best = min((machine for machine in range(len(turns)) if problem.runs(job, machine)), key=end)
    turns[best].end = end(best)[0]
    turns[best].later.setdefault(wanted.model, []).append(job)
