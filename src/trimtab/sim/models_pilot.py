"""At which load the several-model experiment is run: where earliest deadline first, late ones last, keeps 90 %.

The load is found by bisection on pilot seeds, which are never reported. It takes minutes, so the result is stored:

    python -m trimtab.sim.models_pilot
"""

from collections.abc import Callable
from functools import partial
from statistics import mean

import click

from trimtab.sim.models_runs import LATE_LAST, run
from trimtab.sim.models_settings import SEVERAL_REQUESTS, SWAPS, several_horizon, several_site, several_workload
from trimtab.sim.streams import PILOT

TARGET = 90.0
PILOT_SEEDS = tuple(PILOT + i for i in range(6))
_STEPS = 6


def find_load(attained: Callable[[float], float], low: float, high: float, steps: int = _STEPS) -> float:
    """Return the load between two bounds at which attainment, which falls with load, passes the target."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if attained(middle) > TARGET else (low, middle)
    return (low + high) / 2


def attained(swap_seconds: float, load: float) -> float:
    """What the pilot's policy keeps at a load, in %, averaged over the pilot seeds."""
    site = several_site(swap_seconds)
    rate = load * site.capacity()
    outcomes = []
    for seed in PILOT_SEEDS:
        arrivals = several_workload().arrivals(seed, SEVERAL_REQUESTS, rate)
        outcomes.append(float(run(LATE_LAST, site, arrivals, several_horizon(rate))["attained"] or 0.0))
    return mean(outcomes)


@click.command()
def main() -> None:
    """Find the load for each swap time and print it, with what it comes to."""
    for swap_seconds in SWAPS:
        load = find_load(partial(attained, swap_seconds), 0.05, 1.3)
        click.echo(f"{swap_seconds:g} s: load {load:.3f}, {attained(swap_seconds, load):.2f} %")


if __name__ == "__main__":
    main()
