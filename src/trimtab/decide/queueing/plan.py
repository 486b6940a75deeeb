"""Who runs where and in which order: groups of requests on machines that hold one model at a time.

The vocabulary of the planners. A `Problem` is what is known at one moment, a `Plan` is an order per machine, and `cost`
says how good it is. Times are seconds from that moment, so nothing here needs a clock.

Source: QLM (SoCC 2024), its outline; formulas are our reconstruction [design].
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from typing import NamedTuple

Plan = tuple[tuple[int, ...], ...]
"""For each machine, in the order of `Problem.machines`, the indices of its jobs in the order in which they run."""

ON_TIME = 1e-9
"""Seconds after its deadline that still count as kept, so that the order of additions decides nothing."""

_DIGITS = 6  # of a penalty; smaller differences are noise and do not outweigh a model swap


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is placed as one: a group of requests for one model.

    Attributes:
        key: What the caller knows it by; unique in its problem.
        model: Which model must be resident while it runs.
        deadline_in: Seconds until it must have finished (or started, see `Problem.judge_start`); negative when it is
            late already.
        weight: The penalty of each second that it is late.
        seconds: How long it runs on each machine, without the swap; infinite where it cannot run.
        pinned: The machine that runs it now. It stays there, ahead of everything that is not pinned; pinned jobs of one
            machine keep the order in which the problem lists them. `seconds` is then what is left of it.
        late_penalty: A penalty for being late at all. With `weight` 0 the planners count violations: what cannot be
            saved goes last.
        deviation: The standard deviation of `seconds`; planners do without it, predictions of violations do not.
    """

    key: int
    model: str
    deadline_in: float
    weight: float
    seconds: tuple[float, ...]
    pinned: int | None = None
    late_penalty: float = 0.0
    deviation: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance that serves one model at a time.

    Attributes:
        name: For messages.
        resident: The model that it holds, or will hold when its present swap has ended; None when it holds none.
        swap_seconds: The time to make a model resident, for each model that it can hold.
        busy_for: Seconds until it can begin with its queue.
    """

    name: str
    resident: str | None
    swap_seconds: Mapping[str, float]
    busy_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything that a planner is told.

    Attributes:
        judge_start: Whether a deadline is kept by a job that starts in time; by default it must have finished, which is
            conservative for the time to first token of a group.
        place_only: Whether a plan was made a moment ago, so that new groups are only to be added to it. Planners that
            do not search need not care.

    Raises:
        ValueError: A job fits no machine, a number makes no sense, or a key occurs twice.
    """

    jobs: tuple[Job, ...]
    machines: tuple[Machine, ...]
    judge_start: bool = False
    place_only: bool = False

    def __post_init__(self) -> None:
        for job in self.jobs:
            self._check(job)
        for machine in self.machines:
            if machine.busy_for < 0 or any(seconds < 0 for seconds in machine.swap_seconds.values()):
                raise ValueError(f"machine {machine.name}: times are not negative")
        keys = Counter(job.key for job in self.jobs)
        if len(keys) < len(self.jobs):
            raise ValueError(f"job {keys.most_common(1)[0][0]} is listed more than once")

    def runs(self, job: int, machine: int) -> bool:
        """Whether a job can be placed on a machine."""
        wanted = self.jobs[job]
        if wanted.pinned is not None:
            return wanted.pinned == machine
        return isfinite(wanted.seconds[machine])

    def allowed(self, job: int, machine: int) -> float:
        """Return when a job must have finished on a machine; it is late afterwards."""
        wanted = self.jobs[job]
        return wanted.deadline_in + (wanted.seconds[machine] if self.judge_start else 0.0)

    def pinned(self) -> Plan:
        """Return the plan's unmovable part: what each machine runs now."""
        heads: list[list[int]] = [[] for _ in self.machines]
        for index, job in enumerate(self.jobs):
            if job.pinned is not None:
                heads[job.pinned].append(index)
        return tuple(tuple(head) for head in heads)

    def _check(self, job: Job) -> None:
        if len(job.seconds) != len(self.machines):
            raise ValueError(f"job {job.key}: {len(job.seconds)} run times for {len(self.machines)} machines")
        prices = job.weight, job.late_penalty, job.deviation
        if not all(map(isfinite, (job.deadline_in, *prices))):
            raise ValueError(f"job {job.key}: deadline, weight, penalty and deviation must be finite")
        if min(*prices, *job.seconds) < 0:
            raise ValueError(f"job {job.key}: weight, penalty, deviation and run times are not negative")
        places = [index for index, seconds in enumerate(job.seconds) if isfinite(seconds)]
        if not places:
            raise ValueError(f"job {job.key}: no machine can run {job.model}")
        if job.pinned is not None and job.pinned not in places:
            raise ValueError(f"job {job.key}: pinned to a machine that cannot run it")
        for index in places:
            if job.model not in self.machines[index].swap_seconds:
                raise ValueError(f"job {job.key}: {self.machines[index].name} has no swap time for {job.model}")


class Cost(NamedTuple):
    """How good a plan is; the smallest is the best.

    Attributes:
        penalty: Seconds late times weight, and the penalties of lateness as such, over all jobs; rounded to 1e-6.
        swaps: How often a model is made resident.
        longest: When the last machine ends, in seconds.
    """

    penalty: float
    swaps: int
    longest: float


class Run(NamedTuple):
    """One job of a plan, in time.

    Attributes:
        job: Its index.
        swapped: Whether its model had to be made resident for it.
        start: When it starts, after the swap.
        end: When it has finished.
    """

    job: int
    swapped: bool
    start: float
    end: float


def runs(problem: Problem, plan: Plan) -> Iterator[tuple[int, Run]]:
    """Yield each job of a plan with its machine, machine by machine in the order of running."""
    for index, (machine, order) in enumerate(zip(problem.machines, plan, strict=True)):
        resident, at = machine.resident, machine.busy_for
        for job in order:
            model = problem.jobs[job].model
            start = at + (machine.swap_seconds[model] if model != resident else 0.0)
            end = start + problem.jobs[job].seconds[index]
            yield index, Run(job, model != resident, start, end)
            resident, at = model, end


def cost(problem: Problem, plan: Plan) -> Cost:
    """Return the cost of a plan; jobs that it leaves out cost nothing."""
    penalty, swaps, longest = 0.0, 0, max((machine.busy_for for machine in problem.machines), default=0.0)
    for machine, run in runs(problem, plan):
        job = problem.jobs[run.job]
        late = run.end - problem.allowed(run.job, machine)
        if late > ON_TIME:
            penalty += job.weight * late + job.late_penalty
        swaps += run.swapped
        longest = max(longest, run.end)
    return Cost(round(penalty, _DIGITS), swaps, longest)


def violations(problem: Problem, plan: Plan) -> tuple[int, ...]:
    """Return the jobs that a plan finishes late, in ascending order."""
    return tuple(
        sorted(run.job for machine, run in runs(problem, plan) if run.end - problem.allowed(run.job, machine) > ON_TIME)
    )


def check(problem: Problem, plan: Plan) -> None:
    """Raise ValueError unless a plan runs every job exactly once, where it can run, and pinned ones first."""
    if len(plan) != len(problem.machines):
        raise ValueError(f"a plan for {len(plan)} machines, but there are {len(problem.machines)}")
    if sorted(chain.from_iterable(plan)) != list(range(len(problem.jobs))):
        raise ValueError("a plan runs every job exactly once")
    for machine, (order, head) in enumerate(zip(plan, problem.pinned(), strict=True)):
        if order[: len(head)] != head:
            raise ValueError(f"{problem.machines[machine].name}: what runs stays at the head")
        for job in order:
            if not problem.runs(job, machine):
                raise ValueError(f"{problem.machines[machine].name} cannot run job {problem.jobs[job].key}")
