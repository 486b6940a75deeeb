"""The integer program beside the planner that runs online: for experiments, far too slow to run online itself."""

from dataclasses import dataclass, field

from trimtab.decide.queueing.exact import solve
from trimtab.decide.queueing.plan import Plan, Problem, cost
from trimtab.decide.queueing.policy import Planner
from trimtab.decide.queueing.qlm import Qlm


@dataclass(slots=True)
class Oracle:
    """The better of two plans: the online planner's, and what the integer program finds where that one has a penalty.

    It counts how often the program was of use, so one object serves one run.

    Attributes:
        online: The planner that runs online.
        most_groups: How many groups the integer program is given at the most.
        node_limit: Nodes of its search tree.
        late: Problems for which the online planner's plan had a penalty.
        solved: Of those, how many the program found a plan for.
        proved: Of those, how many it found the best plan for, and proved it.
        better: Of those, how many it found a better plan for.
    """

    online: Planner = field(default_factory=Qlm)
    most_groups: int = 5
    node_limit: int = 200
    late: int = 0
    solved: int = 0
    proved: int = 0
    better: int = 0

    def __call__(self, problem: Problem, current: Plan) -> Plan:
        """Return the plan with the smaller penalty; the online planner's where they are equal."""
        online = self.online(problem, current)
        penalty = cost(problem, online).penalty
        if not penalty:
            return online
        self.late += 1
        solution = solve(problem, self.node_limit) if len(problem.jobs) <= self.most_groups else None
        if solution is None:
            return online
        self.solved += 1
        self.proved += solution.proved
        if cost(problem, solution.plan).penalty >= penalty:
            return online
        self.better += 1
        return solution.plan
