"""Earliest deadline first: no estimate of waiting decides the order, and models are swapped as the order demands."""

from collections.abc import Iterable

from trimtab.decide.queueing.plan import Plan, Problem


def plan(problem: Problem, current: Plan) -> Plan:
    """Append each group, in the order of deadlines, to the queue that ends with it first [qlm.md §3.5]."""
    del current
    return appended(problem, sorted(range(len(problem.jobs)), key=lambda job: due(problem, job)))


def due(problem: Problem, job: int) -> tuple[float, int]:
    """Rank a group by its deadline, ties by its creation."""
    return problem.jobs[job].deadline_in, problem.jobs[job].key


def appended(problem: Problem, order: Iterable[int]) -> Plan:
    """Append groups in a given order, each to the queue that ends with it first; equal ends go to the first queue."""
    ends = [machine.busy_for for machine in problem.machines]
    residents = [machine.resident for machine in problem.machines]
    queues: list[list[int]] = [[] for _ in problem.machines]
    for index in order:
        job = problem.jobs[index]
        best, end = -1, float("inf")
        for number, machine in enumerate(problem.machines):
            if not problem.runs(index, number):
                continue
            swap = 0.0 if residents[number] == job.model else machine.swap_seconds[job.model]
            if ends[number] + swap + job.seconds[number] < end:
                best, end = number, ends[number] + swap + job.seconds[number]
        queues[best].append(index)
        ends[best], residents[best] = end, job.model
    return tuple(tuple(queue) for queue in queues)
