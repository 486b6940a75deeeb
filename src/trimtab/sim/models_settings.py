"""The settings of the experiment `qlm`: machines, models, service levels, and how much is asked of them."""

from trimtab.decide.queueing.models_queue import Level
from trimtab.sim.models_runs import Site, kind, machines
from trimtab.sim.models_workload import Demand, Workload

SWAPS = (0.5, 3.0, 15.0, 60.0)
"""Seconds of a model swap that are compared."""

SEVERAL_MODELS = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
SEVERAL_REQUESTS = 3500
SEVERAL_MACHINES = 4
BATCH_1_SECONDS = 60.0
BATCH_2_SECONDS = 120.0
BATCH_1_WEIGHT = 2.0
"""What a missed promise of batch-1 costs where one of batch-2 costs 1; chosen on pilot seeds. Only QLM weighs."""

LOADS = {0.5: 0.743, 3.0: 0.665, 15.0: 0.372, 60.0: 0.060}
"""Arrivals over capacity where `EDF late last` averages 90 % on pilot seeds, by the seconds of a swap.

Found by `python -m trimtab.sim.models_pilot`.
"""


def several_site(swap_seconds: float, batch_2_seconds: float = BATCH_2_SECONDS) -> Site:
    """Four machines that share four models."""
    levels = {"batch-1": Level(BATCH_1_SECONDS, BATCH_1_WEIGHT), "batch-2": Level(batch_2_seconds)}
    return Site(machines(SEVERAL_MACHINES, tuple(SEVERAL_MODELS), swap_seconds), levels)


def several_workload() -> Workload:
    """Jobs of two sizes; a large one takes a machine longer than its promise, so that it must be shared out."""
    return Workload(SEVERAL_MODELS, {"batch-1": Demand(0.4, 10.0), "batch-2": Demand(0.6, 250.0)})


def several_horizon(rate: float) -> float:
    """How long the several-model workload is run: until every promise of its last request is due."""
    return SEVERAL_REQUESTS / rate + BATCH_2_SECONDS


SINGLE_REQUESTS = 2000
SINGLE_MACHINES = 2
SINGLE_LOADS = (0.8, 1.0, 1.2, 1.4, 1.6)
INTERACTIVE_SECONDS, HOUR_SECONDS = 20.0, 3600.0
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
