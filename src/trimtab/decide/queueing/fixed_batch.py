"""A scheduler for batches of fixed latency, as SHEPHERD is one: fair where every request of a model takes equally long.

Answers of language models do not, so it plans with the longest answer allowed and lets a batch run to its end before
the next one begins. This is a stub in the spirit of the paper (Zhang et al., NSDI 2023), not a reproduction [recalled].
"""

from dataclasses import dataclass

from trimtab.decide.queueing.edf import appended, due
from trimtab.decide.queueing.plan import Plan, Problem


@dataclass(frozen=True, slots=True)
class FixedBatch:
    """The scheduler.

    Attributes:
        worst: The longest answer allowed, as a multiple of the mean one.
    """

    worst: float

    def __call__(self, problem: Problem, current: Plan) -> Plan:
        """Order batches by deadline, those behind that miss theirs even if a machine begins with them at once."""
        del current

        def rank(job: int) -> tuple[bool, tuple[float, int]]:
            wanted = problem.jobs[job]
            return wanted.deadline_in < self.worst * min(wanted.seconds), due(problem, job)

        return appended(problem, sorted(range(len(problem.jobs)), key=rank))
