"""Earliest deadline first, with requests that are late already behind all others: overload does not drag them along."""

from trimtab.decide.queueing.edf import appended, due
from trimtab.decide.queueing.plan import Plan, Problem


def plan(problem: Problem, current: Plan) -> Plan:
    """Append the groups that cost something to be late in the order of deadlines, then the others."""
    del current
    return appended(
        problem, sorted(range(len(problem.jobs)), key=lambda job: (is_late(problem, job), due(problem, job)))
    )


def is_late(problem: Problem, job: int) -> bool:
    """Whether nothing is lost if a group is later still."""
    return not problem.jobs[job].late_penalty and not problem.jobs[job].weight
