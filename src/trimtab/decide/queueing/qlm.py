"""QLM's plan: as few requests late as the multi-start planner finds, and no machine idle that could help.

The planner alone would let a machine stand idle as long as nothing is predicted late, because a swap costs and an idle
machine does not. But what has been served before the next burst comes cannot be late after it. So work is spread over
machines wherever that gains more time than the swap takes [design].
"""

from dataclasses import dataclass

from trimtab.decide.queueing import late_last
from trimtab.decide.queueing.plan import Plan, Problem, cost
from trimtab.decide.queueing.planner import ONLINE, Effort, complete, improve, worth_replacing
from trimtab.decide.queueing.waiting_time import P99, predicted_violations


@dataclass(frozen=True, slots=True)
class Qlm:
    """The planner, and when it is asked.

    Attributes:
        effort: How much work a plan is worth.
        margin: How many standard deviations of its wait above the mean a group must be in time, or a plan is searched.
        payback: How many times its swap a spread group must gain.
    """

    effort: Effort = ONLINE
    margin: float = P99
    payback: float = 1.0

    def __call__(self, problem: Problem, current: Plan) -> Plan:
        """Return the current plan with new groups added, or a better one where somebody is predicted to be late.

        Where nobody is late in the order of deadlines, and no model must be swapped for it, there is nothing to plan.
        A better plan takes the place of the current one only if it is worth the change [qlm.md §3.6].
        """
        simple = late_last.plan(problem, current)
        if cost(problem, simple)[:2] == (0.0, 0):
            return simple
        plan = complete(problem, current)
        if not problem.place_only and predicted_violations(problem, plan, self.margin):
            moves = self.effort.moves(len(problem.jobs))
            found = improve(problem, plan, moves, None, self.effort.starts)
            plan = found if worth_replacing(problem, plan, found) else plan
        spread = self._spread(problem, plan)
        return spread if cost(problem, spread).penalty <= cost(problem, plan).penalty else plan

    def _spread(self, problem: Problem, plan: Plan) -> Plan:
        """Move groups from the end of the longest queue to where they end earlier, swap and payback counted."""
        queues = [list(queue) for queue in plan]
        ends = [self._end(problem, machine, queue) for machine, queue in enumerate(queues)]
        for _ in problem.jobs:
            longest = max(range(len(queues)), key=lambda machine: ends[machine])
            if not queues[longest]:
                break
            job = queues[longest][-1]
            others = [other for other in range(len(queues)) if other != longest and problem.runs(job, other)]
            if not others or not problem.jobs[job].weight:
                break
            best, machine = min(
                (self._end(problem, other, [*queues[other], job], self.payback), other) for other in others
            )
            if best >= ends[longest]:
                break
            queues[machine].append(queues[longest].pop())
            for touched in (longest, machine):
                ends[touched] = self._end(problem, touched, queues[touched])
        return tuple(tuple(queue) for queue in queues)

    def _end(self, problem: Problem, machine: int, queue: list[int], payback: float = 0.0) -> float:
        """When a queue ends; the swap to its last group, if there is one, counts `payback` times more."""
        resident, at, swap = problem.machines[machine].resident, problem.machines[machine].busy_for, 0.0
        for job in queue:
            model = problem.jobs[job].model
            swap = problem.machines[machine].swap_seconds[model] if model != resident else 0.0
            at, resident = at + swap + problem.jobs[job].seconds[machine], model
        return at + payback * swap
