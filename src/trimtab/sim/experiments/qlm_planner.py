"""Planners of the several-model queue against each other: how good their plans are, and what they cost to find.

A part of the experiment `qlm`. How long planning takes depends on the machine and is told by `benchmarks/planner.py`;
here work is counted: moves that were costed, nodes of a search tree that were visited.
"""

from collections.abc import Iterator
from math import log10, prod
from pathlib import Path

import numpy as np

from trimtab.decide.queueing.exact import MOST_JOBS, Program, try_all
from trimtab.decide.queueing.plan import Job, Machine, Plan, Problem, check, cost
from trimtab.decide.queueing.planner import complete, earliest_deadline_first, search
from trimtab.sim.experiment import Cell, Claim, Metric, Part, Plot, Row, Setting
from trimtab.sim.streams import stream

EDF, GREEDY = "earliest deadline first", "greedy insertion"
ONE, TWELVE = "local search, one start", "local search, 12 starts"
PROGRAM, ALL = "integer program", "all plans"

SWAP_SECONDS = 15.0
MODELS = ("a", "b", "c")
_MEAN_SECONDS = 20.0  # of a group
_MOST_FOR_PROGRAM = 6  # groups; it takes seconds for them, and for two more up to minutes
_NODES = 3000


def draw(seed: int, groups: int, machines: int) -> Problem:
    """Draw a problem: three models, exponential run times, machines of different speed, more work than can be on time.

    Args:
        seed: Equal seeds give equal problems.
        groups: How many wait.
        machines: How many there are.
    """
    numbers = stream(seed, f"{groups} groups, {machines} machines", "planning problem")
    until = _MEAN_SECONDS * groups / machines
    return Problem(
        tuple(_job(key, until, machines, numbers) for key in range(groups)),
        tuple(_machine(index, numbers) for index in range(machines)),
    )


def _job(key: int, until: float, machines: int, numbers: np.random.Generator) -> Job:
    seconds = numbers.exponential(_MEAN_SECONDS) * numbers.uniform(0.7, 1.5, machines)
    urgency = 0.3 if numbers.random() < 0.5 else 1.0  # noqa: PLR2004 - half the groups are interactive
    deadline = numbers.uniform(0.0, 1.3) * urgency * until
    weight = float(numbers.choice([1, 2, 5]))
    return Job(key, str(numbers.choice(MODELS)), float(deadline), weight, tuple(map(float, seconds)))


def _machine(index: int, numbers: np.random.Generator) -> Machine:
    return Machine(f"m{index}", str(numbers.choice(MODELS)), dict.fromkeys(MODELS, SWAP_SECONDS))


def run(seed: int, setting: Setting, data: Path | None) -> list[Row]:  # noqa: ARG001 - needs no data
    """Plan one problem with every planner that can do it in seconds."""
    groups, machines = int(setting.values["groups"] or 0), int(setting.values["machines"] or 0)
    problem = draw(seed, groups, machines)
    plans = list(_plans(problem, seed))
    best = min(cost(problem, plan).penalty for _, plan, _, _ in plans)
    return [_row(problem, best, *plan) for plan in plans]


def _plans(problem: Problem, seed: int) -> Iterator[tuple[str, Plan, int, bool | None]]:
    """Each planner with its plan, its work, and whether it has proved it to be the best."""
    jobs, machines = len(problem.jobs), len(problem.machines)
    yield EDF, earliest_deadline_first(problem), jobs * machines, None
    yield GREEDY, complete(problem, problem.pinned()), jobs * (jobs - 1) // 2 + jobs * machines, None
    one, twelve = search(problem, starts=1), search(problem, generator=stream(seed, "planner", "further starts"))
    yield ONE, one.plan, one.evaluated, None
    yield TWELVE, twelve.plan, twelve.evaluated, None
    if jobs <= _MOST_FOR_PROGRAM:
        program = Program(problem)
        result = program.solve(_NODES, 0.0)
        if result.x is not None:
            yield PROGRAM, program.plan(result.x), int(result.mip_node_count), result.status == 0
    if jobs <= MOST_JOBS:
        every = prod(range(machines, machines + jobs))  # orders of the jobs with the gaps between the machines
        yield ALL, try_all(problem), every, True


def _row(problem: Problem, best: float, policy: str, plan: Plan, work: int, proved: bool | None) -> Row:  # noqa: FBT001
    check(problem, plan)
    reached = cost(problem, plan)
    return {
        "policy": policy,
        "penalty": reached.penalty,
        "excess": 100 * (reached.penalty - best) / max(best, 1.0),
        "swaps": reached.swaps,
        "longest": reached.longest,
        "work": work,
        "magnitude": log10(work),
        "proved": None if proved is None else 100.0 * proved,
    }


def _setting(groups: int, machines: int) -> Setting:
    values: dict[str, Cell] = {"groups": groups, "machines": machines, "size": f"{groups} on {machines}"}
    return Setting(f"{groups} groups, {machines} machines", values)


SMALL = tuple(_setting(groups, machines) for groups, machines in ((4, 2), (6, 2), (8, 2), (8, 4)))
LARGE = tuple(_setting(groups, machines) for groups, machines in ((50, 8), (100, 16), (200, 16)))

PART = Part(
    name="planners",
    title="What a better plan costs to find",
    about=(
        "Random problems with three models, 15 s to swap, machines of different speed and more work than can be on "
        "time. The penalty is the weighted seconds by which groups end after their deadlines; the excess is how far it "
        "lies above the best plan that any of the planners found, which for up to eight groups is the best there is, "
        "because all plans are tried. Work is moves costed by greedy insertion and local search, nodes visited by the "
        "integer program, and the number of plans where all are tried: it explodes for the exact planners, which are "
        "therefore left out of the larger problems. That the local search is near the best plan of large problems is "
        "not shown by this table: there nobody knows the best plan. Nor is the work of different planners comparable: "
        "a node of the search tree is a linear program, a move a few additions."
    ),
    settings=SMALL + LARGE,
    run=run,
    metrics=(
        Metric("penalty", "weighted seconds late", "s", relative=True),
        Metric("excess", "above the best plan found", "%"),
        Metric("swaps", "model swaps"),
        Metric("longest", "last machine ends", "s"),
        Metric("work", "moves, nodes or plans"),
        Metric("magnitude", "the same, as a power of ten"),
        Metric("proved", "proved best", "%", better="higher"),
    ),
    baseline=EDF,
    seeds=10,
    plots=(
        Plot("size", "excess", "groups on machines", "above the best plan found"),
        Plot("size", "magnitude", "groups on machines", "moves, nodes or plans (power of ten)"),
    ),
    claims=(
        Claim("Local search plans better than earliest deadline first.", TWELVE, EDF, "penalty"),
        Claim("Local search plans better than greedy insertion alone.", TWELVE, GREEDY, "penalty"),
        Claim(
            "Local search from 12 starts is within 5 % of the integer program.",
            TWELVE,
            PROGRAM,
            "penalty",
            settings=tuple(setting.name for setting in SMALL[:2]),
            margin=0.05,
        ),
        Claim(
            "Local search from 12 starts is within 5 % of the best plan there is.",
            TWELVE,
            ALL,
            "penalty",
            settings=tuple(setting.name for setting in SMALL),
            margin=0.05,
        ),
    ),
    seconds_per_run=2.0,
)
