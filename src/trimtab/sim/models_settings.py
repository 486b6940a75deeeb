"""The settings of the experiment `qlm`: machines, models, service levels, and how much is asked of them."""

from dataclasses import dataclass

from trimtab.decide.queueing.models_queue import Level
from trimtab.sim.models_runs import Site, kind, machines
from trimtab.sim.models_workload import MEAN_ANSWER, Demand, Workload

SWAPS = (0.5, 3.0, 15.0, 60.0)
"""Seconds of a model swap that are compared."""

SEVERAL_MODELS = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
SEVERAL_REQUESTS = 3500
SEVERAL_MACHINES = 4
BATCH_1_SECONDS = 60.0
BATCH_2_SECONDS, HOUR_SECONDS = 120.0, 3600.0
BATCH_1_WEIGHT = 2.0
"""What a missed promise of batch-1 costs where one of batch-2 costs 1; chosen on pilot seeds. Only QLM weighs."""


@dataclass(frozen=True, slots=True)
class PilotLoad:
    """Arrivals over capacity where `EDF late last` keeps about 90 %.

    Found by `python -m trimtab.sim.models_pilot loads`.

    Attributes:
        load: The load.
        attained: What it kept there on the pilot seeds, in %, on average.
        error: The standard error of that average.
    """

    load: float
    attained: float
    error: float


LOADS = {
    0.5: PilotLoad(0.861, 90.45, 1.91),
    3.0: PilotLoad(0.75, 90.75, 1.94),
    15.0: PilotLoad(0.41, 89.22, 2.13),
    60.0: PilotLoad(0.0663, 89.76, 0.94),
}
"""Where batch-2 is due within two minutes, by the seconds of a swap."""
HOUR_LOADS = {
    0.5: PilotLoad(3.362, 89.92, 1.20),
    3.0: PilotLoad(3.362, 90.32, 1.28),
    15.0: PilotLoad(3.194, 89.86, 1.31),
    60.0: PilotLoad(1.844, 88.99, 1.32),
}
"""Where batch-2 is due within an hour, by the seconds of a swap."""


def several_site(swap_seconds: float, batch_2_seconds: float = BATCH_2_SECONDS) -> Site:
    """Four machines that share four models."""
    return Site(machines(SEVERAL_MACHINES, tuple(SEVERAL_MODELS), swap_seconds), _levels(batch_2_seconds))


def _levels(batch_2_seconds: float) -> dict[str, Level]:
    return {"batch-1": Level(BATCH_1_SECONDS, BATCH_1_WEIGHT), "batch-2": Level(batch_2_seconds)}


def several_workload() -> Workload:
    """Jobs of two sizes; a large one takes a machine longer than its promise, so that it must be shared out."""
    return Workload(SEVERAL_MODELS, {"batch-1": Demand(0.4, 10.0), "batch-2": Demand(0.6, 250.0)})


def several_horizon(rate: float) -> float:
    """How long the several-model workload is run: until every promise of its last request is due."""
    return SEVERAL_REQUESTS / rate + BATCH_2_SECONDS


HOUR_MACHINES = 2
HOUR_ARRIVAL_SECONDS = 1200.0
HOUR_ANSWER_TIMES = 16.0
"""How many times as long answers are as usual, so that some thousand requests keep machines busy for over an hour."""


def hour_site(swap_seconds: float) -> Site:
    """Two machines that share four models, and an hour for batch-2."""
    answer = MEAN_ANSWER * HOUR_ANSWER_TIMES
    shared = machines(HOUR_MACHINES, tuple(SEVERAL_MODELS), swap_seconds, answer)
    return Site(shared, _levels(HOUR_SECONDS), answer)


def hour_workload() -> Workload:
    """Jobs with long answers, the larger of which are due within an hour."""
    demands = {"batch-1": Demand(0.2, 10.0), "batch-2": Demand(0.8, 100.0)}
    return Workload(SEVERAL_MODELS, demands, answer_times=HOUR_ANSWER_TIMES)


def hour_horizon() -> float:
    """How long it is run: until every promise of its last request is due."""
    return HOUR_ARRIVAL_SECONDS + HOUR_SECONDS


SINGLE_REQUESTS = 1200
SINGLE_MACHINES = 2
SINGLE_LOADS = (1.0, 1.5, 2.0, 2.4)
INTERACTIVE_SECONDS = 20.0
SINGLE_LEVELS = {
    "interactive": Level(INTERACTIVE_SECONDS),
    "batch-1": Level(BATCH_1_SECONDS),
    "batch-2": Level(HOUR_SECONDS),
}
"""The levels of the paper."""


def single_site(count: int = SINGLE_MACHINES) -> Site:
    """Machines that hold the one model that there is."""
    return Site(machines(count, ("a",), 0.0), SINGLE_LEVELS)


def single_workload() -> Workload:
    """Single requests for one model, as many of each level."""
    return Workload({"a": 1.0}, {level: Demand(1 / 3) for level in SINGLE_LEVELS})


def mixed_site(slowdown: float) -> Site:
    """Two machines and two that take so many times as long for everything, for one model."""
    fast = {f"fast-{number}": (kind(("a",), 0.0), "a") for number in range(2)}
    slow = {f"slow-{number}": (kind(("a",), 0.0, slowdown), "a") for number in range(2)}
    return Site({**fast, **slow}, SINGLE_LEVELS)


def mega_workload(share: float) -> Workload:
    """Interactive requests and batch requests, a share of which have a very long prompt."""
    return Workload({"a": 1.0}, {"interactive": Demand(0.5), "batch-1": Demand(0.5, mega_share=2 * share)})
