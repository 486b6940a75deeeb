"""The exact planner as a policy, where it can be solved: for experiments, far too slow to run online."""

from dataclasses import dataclass

from trimtab.decide.queueing.exact import solve
from trimtab.decide.queueing.plan import Plan, Problem
from trimtab.decide.queueing.planner import improve


@dataclass(frozen=True, slots=True)
class Oracle:
    """The integer program for few groups, the local search for more.

    Attributes:
        most_groups: How many the integer program is given at the most.
        node_limit: Nodes of its search tree.
        budget_moves: Of the local search.
    """

    most_groups: int = 5
    node_limit: int = 200
    budget_moves: int = 3000

    def __call__(self, problem: Problem, current: Plan) -> Plan:
        """Return the best plan that either finds."""
        if len(problem.jobs) <= self.most_groups:
            solution = solve(problem, self.node_limit)
            if solution is not None:
                return solution.plan
        return improve(problem, current, self.budget_moves, None, 1)
