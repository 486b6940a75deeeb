"""Runs of requests on the calibrated engine under several orders: one seed of what the tables of SSJF compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from pathlib import Path

import numpy as np

from trimtab.decide.queueing import fcfs
from trimtab.decide.queueing.rank import kendall_tau
from trimtab.decide.queueing.ssjf import AGING_FACTOR, SsjfOrder
from trimtab.sim.experiment import Cell, Row, Setting
from trimtab.sim.ledger import Ledger
from trimtab.sim.ordered_pool import Demand, Engine, full_pace, run
from trimtab.sim.slot_runs import AGED, FCFS, ORACLE, PURE, SWEPT, longest_of, number_of
from trimtab.sim.slots import Floats
from trimtab.sim.statistics import WarmUp, warm_up
from trimtab.sim.streams import PILOT

AGED_1 = "SSJF, aging 1"

_PILOT_SEEDS = 10


def run_engine(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve requests of a recorded trace on the calibrated engine behind the production queue."""
    del data
    return _run(seed, setting, {AGED_1: 1.0, AGED: AGING_FACTOR, PURE: inf})


def run_engine_aging(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve with one aging factor on the calibrated engine."""
    del data
    return _run(seed, setting, {SWEPT: number_of(setting.values["aging_factor"])})


@dataclass(frozen=True, slots=True)
class _Case:
    """An engine and what arrives at it.

    Attributes:
        load: Arrivals over what the engine serves while its batch is full.
        steady: Whether the warm-up is left out; else everything counts.
    """

    engine: Engine
    load: float
    requests: int
    steady: bool

    @classmethod
    def of(cls, setting: Setting) -> "_Case":
        """Read it from a setting."""
        values = setting.values
        engine = Engine(
            str(values["profile"]), int(number_of(values["sequences"])), int(number_of(values.get("capacity", 0)))
        )
        load = number_of(values["load"])
        return cls(engine, load, int(number_of(values["requests"])), load < 1)

    def draw(self, seed: int) -> Demand:
        """Draw what arrives under a seed."""
        return self.engine.demand(seed, self.requests, self.load * full_pace(self.engine).rate)

    def serve(self, demand: Demand, predicted: Floats | None, aging_factor: float) -> Ledger:
        """Serve it in the order of these predictions, or first come, first served without any."""
        order = fcfs.order if predicted is None else SsjfOrder(aging_factor, full_pace(self.engine).service)
        return run(self.engine, demand.requests, predicted, order)


def _run(seed: int, setting: Setting, factors: Mapping[str, float]) -> list[dict[str, Cell]]:
    case = _Case.of(setting)
    demand = case.draw(seed)
    warm = _warm_up(case) if case.steady else None
    policies: dict[str, tuple[Floats | None, float]] = {FCFS: (None, 0.0)}
    policies |= {policy: (demand.predicted, factor) for policy, factor in factors.items()}
    policies[ORACLE] = demand.answers, inf
    return [
        {
            "policy": policy,
            **_figures(case.serve(demand, predicted, factor), warm),
            "tau": None if predicted is None else kendall_tau(predicted, demand.answers),
        }
        for policy, (predicted, factor) in policies.items()
    ]


@lru_cache(maxsize=64)
def _warm_up(case: _Case) -> WarmUp:
    """Find the warm-up on pilot seeds, under first come, first served and under the pure order."""
    series: tuple[list[Floats], list[Floats]] = ([], [])
    for seed in range(PILOT, PILOT + _PILOT_SEEDS):
        demand = case.draw(seed)
        series[0].append(case.serve(demand, None, 0.0).latency())
        series[1].append(case.serve(demand, demand.predicted, inf).latency())
    return longest_of([warm_up(np.array(values)) for values in series])


def _figures(ledger: Ledger, warm: WarmUp | None) -> dict[str, Cell]:
    """Say what became of the requests after the warm-up; nothing where the rest cannot be called steady."""
    drop = warm.drop if warm else 0
    latency, ttft = ledger.latency()[drop:], ledger.ttft()[drop:]
    queued = (ledger.column("dispatched_at") - ledger.column("arrived_at"))[drop:]
    figures: dict[str, Cell] = {
        "mean": float(latency.mean()),
        "p99": float(np.percentile(latency, 99)),
        "ttft": float(ttft.mean()),
        "ttft_p99": float(np.percentile(ttft, 99)),
        "queued": float(np.mean(queued > 0) * 100),
        "rate": len(ledger) / float(ledger.column("ended_at").max()),
    }
    known = figures if warm is None or warm.steady else dict.fromkeys(figures)
    return {**known, "warm_up_requests": drop, "steady": warm.steady if warm else None}
