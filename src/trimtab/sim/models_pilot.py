"""At which loads the several-model tables are run: where earliest deadline first, late ones last, keeps about 90 %.

A load is found by bisection on pilot seeds, which are never reported. It takes minutes, so the result is stored in
`trimtab.sim.models_settings`, with what was kept there and how sure that is:

    python -m trimtab.sim.models_pilot loads

QLM's constants were chosen on pilot seeds as well; what another choice does, `sensitivity` tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt
from statistics import mean, stdev

import click

from trimtab.decide.queueing.policy import Policy
from trimtab.sim.models_runs import LATE_LAST, QLM, run
from trimtab.sim.models_settings import (
    HOUR_ARRIVAL_SECONDS,
    HOUR_LOADS,
    LOADS,
    SEVERAL_REQUESTS,
    PilotLoad,
    hour_horizon,
    hour_site,
    hour_workload,
    several_horizon,
    several_site,
    several_workload,
)
from trimtab.sim.streams import PILOT

TARGET = 90.0
PILOT_SEEDS = tuple(PILOT + i for i in range(24))
_STEPS = 5

Outcomes = Callable[[float, float], Sequence[float]]
"""What is kept at a swap time and a load, in %, by pilot seed."""


def find_load(attained: Callable[[float], float], low: float, high: float, steps: int = _STEPS) -> float:
    """Return the load between two bounds at which attainment, which falls with load, passes the target."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if attained(middle) > TARGET else (low, middle)
    return (low + high) / 2


def minutes(swap_seconds: float, load: float) -> Sequence[float]:
    """The outcomes where batch-2 is due within two minutes."""
    site = several_site(swap_seconds)
    rate = load * site.capacity()
    return [
        _kept(run(LATE_LAST, site, several_workload().arrivals(seed, SEVERAL_REQUESTS, rate), several_horizon(rate)))
        for seed in PILOT_SEEDS
    ]


def hour(swap_seconds: float, load: float) -> Sequence[float]:
    """The outcomes where batch-2 is due within an hour."""
    site = hour_site(swap_seconds)
    rate = load * site.capacity()
    requests = round(rate * HOUR_ARRIVAL_SECONDS)
    return [
        _kept(run(LATE_LAST, site, hour_workload().arrivals(seed, requests, rate), hour_horizon()))
        for seed in PILOT_SEEDS
    ]


def _kept(row: object) -> float:
    assert isinstance(row, dict)
    return float(row["attained"])


def pilot(outcomes: Outcomes, swap_seconds: float, around: float) -> PilotLoad:
    """Find the load for one swap time, within 30 % of a first guess."""
    load = round(find_load(lambda load: mean(outcomes(swap_seconds, load)), 0.7 * around, 1.3 * around), 3)
    reached = outcomes(swap_seconds, load)
    return PilotLoad(load, round(mean(reached), 2), round(stdev(reached) / sqrt(len(reached)), 2))


VARIANTS = {
    "as it is": QLM,
    "reserve 0": replace(QLM, reserve=0.0),
    "reserve 0.1": replace(QLM, reserve=0.1),
    "reserve 0.3": replace(QLM, reserve=0.3),
    "price of a second late 0": replace(QLM, tardiness=0.0),
    "price of a second late 0.01": replace(QLM, tardiness=0.01),
    "price of a second late 0.5": replace(QLM, tardiness=0.5),
    "price of a switch 0 s": replace(QLM, switch_seconds=0.0),
    "price of a switch 10 s": replace(QLM, switch_seconds=10.0),
    "judged by the end of a group": replace(QLM, judge_start=False),
}
"""QLM's constants, one changed at a time."""
_SENSITIVITY_SEEDS = PILOT_SEEDS[:6]


def sensitivity(policy: Policy, swap_seconds: float) -> float:
    """What a policy keeps of the promises of the two-minute workload, in %, averaged over a few pilot seeds."""
    site = several_site(swap_seconds)
    rate = LOADS[swap_seconds].load * site.capacity()
    return mean(
        _kept(run(policy, site, several_workload().arrivals(seed, SEVERAL_REQUESTS, rate), several_horizon(rate)))
        for seed in _SENSITIVITY_SEEDS
    )


@click.group()
def main() -> None:
    """What is chosen on pilot seeds."""


@main.command("sensitivity")
@click.option("--swap-seconds", type=click.Choice(list(map(str, LOADS))), default="15.0", show_default=True)
def print_sensitivity(swap_seconds: str) -> None:
    """Print what QLM keeps with one of its constants changed."""
    for name, policy in VARIANTS.items():
        click.echo(f"{name}: {sensitivity(policy, float(swap_seconds)):.2f} %")


@main.command("loads")
@click.option("--only", type=click.Choice(["minutes", "hour"]), help="Of the two workloads, only this one.")
def print_loads(only: str | None) -> None:
    """Find the load for each swap time and print it, with what is kept there; starts from the stored loads."""
    for name, outcomes, stored in (("minutes", minutes, LOADS), ("hour", hour, HOUR_LOADS)):
        for swap_seconds, guess in stored.items():
            if only in (None, name):
                click.echo(f"{name}, {swap_seconds:g} s: {pilot(outcomes, swap_seconds, guess.load)}")


if __name__ == "__main__":
    main()
