"""One simulated run of the pool: requests of a draw through the production queue, and what their clients would say."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from trimtab.decide.queueing import fcfs
from trimtab.decide.queueing.deadline import DeadlineOrder
from trimtab.decide.queueing.line import Order
from trimtab.decide.queueing.ssjf import ServiceTime, SsjfOrder
from trimtab.model.problem import Problem
from trimtab.sim.engine import Simulation
from trimtab.sim.experiment import Cell, Row
from trimtab.sim.ledger import Fate, Ledger
from trimtab.sim.statistics import attainment, goodput
from trimtab.sim.whatif.case import Case, Level
from trimtab.sim.whatif.draw import Arrival, Speed
from trimtab.sim.whatif.grouped import simulate_groups
from trimtab.sim.world import PoolWorld, ServerKind

GROUPED = "QLM"
POLICIES = ("FCFS", "SSJF", "EDF", GROUPED)
"""Orders of service that can be compared. QLM plans groups, which takes some ten times as long to simulate."""

WARM_UP = 0.2
"""Part of the time at the beginning whose requests are not judged: the pool starts empty."""


def check_policies(names: Sequence[str]) -> None:
    """Refuse what cannot be compared.

    Raises:
        Problem: A policy is unknown, or none is named.
    """
    for name in names or ("",):
        if name not in POLICIES:
            raise Problem(f"there is no policy {name!r} to compare", fix=f"name some of {', '.join(POLICIES)}")


def fitting(case: Case, requests: Sequence[Arrival]) -> list[Arrival]:
    """Return the requests that the engine can hold; it answers the others with an error, as a mistake of the client."""
    return [one for one in requests if one.request.input_tokens + one.request.output_tokens <= case.longest]


def serve(case: Case, policy: str, replicas: int, requests: Sequence[Arrival], speed: Speed) -> Ledger:
    """Serve requests to the last one under a policy, and return what became of each."""
    if policy == GROUPED:
        return simulate_groups(case, replicas, requests, speed)
    return simulate(case, _order(case, policy), replicas, requests, speed)


def _order(case: Case, policy: str) -> Order:
    if policy == "SSJF":
        return SsjfOrder(case.aging_factor, _service_time(case))
    if policy == "EDF":
        return DeadlineOrder({level.name: level.deadline_seconds for level in case.levels})
    return fcfs.order


def _service_time(case: Case) -> ServiceTime:
    """Estimate what an answer takes while the replica is full: a decode iteration for each token."""
    context = case.capacity * int(2 * case.profile.output_length.median_tokens)
    step = case.profile.iteration.seconds(
        prefill_tokens=0, decodes=case.capacity, context_tokens=context, attention_pairs=0.0
    )
    return ServiceTime(case.profile.iteration.base, step)


def simulate(case: Case, order: Order, replicas: int, requests: Sequence[Arrival], speed: Speed) -> Ledger:
    """Serve requests to the last one; those that wait longer than the pool allows are refused, as in production."""
    simulation = Simulation()
    world = PoolWorld(simulation, bounds=case.bounds, order=order)
    kind = ServerKind.of(speed.of(case.profile), config=case.config, capacity=case.capacity)
    world.add_servers(kind, replicas)
    if requests:
        simulation.at(requests[0].request.at_seconds, _Arrives(world, requests))
    simulation.run()
    return world.ledger


@dataclass(slots=True)
class _Arrives:
    """The next request arrives."""

    world: PoolWorld
    requests: Sequence[Arrival]
    place: int = 0

    def __call__(self) -> None:
        arrival = self.requests[self.place]
        self.world.submit(arrival.request, level=arrival.level, predicted_tokens=arrival.predicted)
        self.place += 1
        if self.place < len(self.requests):
            self.world.simulation.at(self.requests[self.place].request.at_seconds, self)


def judge(case: Case, requests: Sequence[Arrival], ledger: Ledger, seconds: float) -> Row:
    """Say what became of the requests that arrived after the warm-up; those refused or not served count as missed."""
    judged = ledger.column("arrived_at") >= WARM_UP * seconds
    names = np.array([arrival.level for arrival in requests])
    met = np.zeros(len(requests), dtype=bool)
    row: dict[str, Cell] = {}
    worst = inf
    for level in case.levels:
        own = judged & (names == level.name)
        met |= own & _met(level, ledger)
        row[f"attainment {level.name}"] = attainment(met[own])
        worst = min(worst, attainment(met[own]) - level.objective)
    spare = worst if worst < inf else nan
    ttft, tpot = ledger.ttft()[judged], ledger.time_per_token()[judged]
    return {
        **row,
        "attainment": attainment(met[judged]),
        "spare": spare,
        "objective met": spare >= 0,
        "goodput": goodput(met, (1 - WARM_UP) * seconds),
        "ttft p50": _quantile(ttft, 50),
        "ttft p95": _quantile(ttft, 95),
        "tpot p95": _quantile(tpot, 95) * 1000,
        "refused": attainment(ledger.column("fate")[judged] != Fate.FINISHED),
    }


def _met(level: Level, ledger: Ledger) -> NDArray[np.bool_]:
    """Say which requests finished within every target of a level; an answer of one token has no time between tokens."""
    finished = ledger.column("fate") == Fate.FINISHED
    ttft, tpot, latency = ledger.ttft(), ledger.time_per_token(), ledger.latency()
    met: NDArray[np.bool_] = (
        finished
        & (ttft <= (inf if level.ttft_seconds is None else level.ttft_seconds))
        & (np.nan_to_num(tpot, nan=0.0) <= (inf if level.tpot_seconds is None else level.tpot_seconds))
        & (latency <= (inf if level.completion_seconds is None else level.completion_seconds))
    )
    return met


def _quantile(values: NDArray[np.float64], percent: float) -> float:
    seen = values[np.isfinite(values)]
    return float(np.percentile(seen, percent)) if seen.size else nan
