"""Random planning problems, and the best plan found by trying all."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product

import numpy as np

from trimtab.decide.queueing.plan import Job, Machine, Plan, Problem, cost


def a_problem(
    seed: int,
    jobs: int,
    machines: int,
    *,
    pinned: bool = False,
    fixed: bool = False,
    partial: bool = False,
) -> Problem:
    """Return a problem with three models, more work than can be on time, and machines of different speed.

    Args:
        seed: Equal seeds give equal problems.
        jobs: How many.
        machines: How many.
        pinned: Whether some machines run a job already.
        fixed: Whether being late costs something as such.
        partial: Whether some machines cannot run some models.
    """
    numbers = np.random.default_rng(seed)
    names = ("a", "b", "c")
    horizon = 20.0 * jobs / machines
    listed = [_job(key, names, horizon, machines, numbers) for key in range(jobs)]
    if fixed:
        listed = [replace(job, late_penalty=float(numbers.choice([0, 30]))) for job in listed]
    if partial:
        listed = [replace(job, seconds=_some(job, names)) for job in listed]
    if pinned:
        listed = [_started(job, machines) if numbers.random() < 0.6 else job for job in listed]
    return Problem(tuple(listed), tuple(_machine(index, names, numbers) for index in range(machines)))


def _job(key: int, names: tuple[str, ...], horizon: float, machines: int, numbers: np.random.Generator) -> Job:
    seconds = (1 + numbers.exponential(20.0)) * numbers.uniform(0.7, 1.5, machines)
    deadline = numbers.uniform(0, 1.3) * horizon * numbers.choice([0.3, 1.0])
    weight = float(numbers.choice([1, 2, 5]))
    return Job(key, str(numbers.choice(names)), float(deadline), weight, tuple(map(float, seconds)))


def _machine(index: int, names: tuple[str, ...], numbers: np.random.Generator) -> Machine:
    swaps = {name: float(numbers.uniform(5, 25)) for name in names}
    resident = str(numbers.choice(names)) if numbers.random() < 0.8 else None
    return Machine(f"m{index}", resident, swaps, float(numbers.uniform(0, 10)))


def _some(job: Job, names: tuple[str, ...]) -> tuple[float, ...]:
    """Leave model k out on machine k, where there is another machine."""
    taken = names.index(job.model)
    if len(job.seconds) == 1:
        return job.seconds
    return tuple(math.inf if machine == taken else seconds for machine, seconds in enumerate(job.seconds))


def _started(job: Job, machines: int) -> Job:
    """Pin the jobs with the lowest keys, one for each machine that can run its job."""
    place = job.key
    return replace(job, pinned=place) if place < machines and math.isfinite(job.seconds[place]) else job


def every_plan(problem: Problem) -> Iterator[Plan]:
    """Yield all plans; there are N! (N + W - 1)! / (W - 1)! / N! of them without restrictions."""
    heads = problem.pinned()
    movable = [index for index, job in enumerate(problem.jobs) if job.pinned is None]
    places = [[m for m in range(len(heads)) if problem.runs(job, m)] for job in movable]
    for chosen in product(*places):
        theirs = [[job for job, place in zip(movable, chosen, strict=True) if place == m] for m in range(len(heads))]
        for orders in product(*(permutations(group) for group in theirs)):
            yield tuple((*head, *order) for head, order in zip(heads, orders, strict=True))


def brute_force(problem: Problem) -> Plan:
    """Return the plan with the smallest cost of all."""
    return min(every_plan(problem), key=lambda plan: cost(problem, plan))
