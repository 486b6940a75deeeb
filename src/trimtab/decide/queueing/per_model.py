"""First come, first served, each model on machines of its own; machines that several models share swap as they come."""

from trimtab.decide.queueing.plan import Plan, Problem


def plan(problem: Problem, current: Plan) -> Plan:
    """Give each model its machines by turns, and append its groups to them in the order of their creation."""
    del current
    models = sorted({model for machine in problem.machines for model in machine.swap_seconds})
    loads = [0.0] * len(problem.machines)
    queues: list[list[int]] = [[] for _ in problem.machines]
    for index in sorted(range(len(problem.jobs)), key=lambda job: problem.jobs[job].key):
        job = problem.jobs[index]
        able = [m for m in range(len(problem.machines)) if problem.runs(index, m)]
        turn = models.index(job.model)
        own = able[turn % len(able) :: len(models)] or able
        best = min(own, key=lambda machine: (loads[machine], machine))
        queues[best].append(index)
        loads[best] += job.seconds[best]
    return tuple(tuple(queue) for queue in queues)
