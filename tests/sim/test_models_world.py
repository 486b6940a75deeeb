"""Machines that share several models, as events: conservation, swaps, progress kept, determinism."""

import os
import subprocess
import sys
from dataclasses import replace
from math import isnan

import pytest

from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import Level
from trimtab.decide.queueing.policy import Policy
from trimtab.sim.engine import Simulation
from trimtab.sim.experiment import Setting
from trimtab.sim.ledger import Fate
from trimtab.sim.models_runs import EDF, FCFS, POLICIES, QLM, kind, run
from trimtab.sim.models_settings import mixed_site, several_site, several_workload, single_workload
from trimtab.sim.models_tables import run_several
from trimtab.sim.models_world import Arrival, MachineKind, ModelKind, ModelsWorld
from trimtab.sim.profile import FrontEnd, load_profile

LEVELS = {"batch-1": Level(60.0), "batch-2": Level(120.0)}


def world(policy: Policy, arrivals: list[Arrival], swap_seconds: float = 3.0, count: int = 2) -> ModelsWorld:
    machines = {f"m{n}": (kind(("a", "b", "c", "d"), swap_seconds), "a" if n else None) for n in range(count)}
    made = ModelsWorld(Simulation(), policy, LEVELS, machines, MeanLengths(180.0))
    made.feed(arrivals)
    return made


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_every_request_ends_once_with_every_token_made_once(policy: Policy) -> None:
    arrivals = several_workload().arrivals(1, 150, 2.0)
    ran = world(policy, arrivals)
    ran.simulation.run()
    ledger = ran.ledger
    assert len(ledger) == len(arrivals)
    assert set(ledger.fate) == {Fate.FINISHED}
    assert list(ledger.produced) == [arrival.output_tokens for arrival in arrivals]
    assert ran.queue.waiting == 0
    times = zip(ledger.arrived_at, ledger.first_token_at, ledger.ended_at, strict=True)
    assert all(arrived < first <= ended for arrived, first, ended in times)


def test_a_model_that_is_nowhere_costs_its_swap() -> None:
    ran = world(EDF, [Arrival(0.0, "b", "batch-1", 100, 10)], swap_seconds=7.0, count=1)
    ran.simulation.run()
    assert ran.swaps == 1
    assert ran.swap_seconds == 7.0
    assert 7.0 < ran.ledger.first_token_at[0] < 7.2


def test_an_evicted_request_goes_on_where_it_stopped() -> None:
    arrivals = [Arrival(0.0, "a", "batch-2", 100, 400), Arrival(5.0, "b", "batch-1", 100, 10)]
    evicting, draining = world(EDF, arrivals, count=1), world(replace(EDF, evicts=False), arrivals, count=1)
    for ran in (evicting, draining):
        ran.simulation.run()
    assert (evicting.evictions, draining.evictions) == (1, 0)
    assert evicting.ledger.first_token_at[0] == draining.ledger.first_token_at[0]
    assert evicting.ledger.first_token_at[1] < draining.ledger.first_token_at[1]
    assert list(evicting.ledger.produced) == list(draining.ledger.produced) == [400, 10]
    busy = [ran.busy_seconds("m0") for ran in (evicting, draining)]
    assert busy[0] == pytest.approx(busy[1], rel=0.02), "its prompt is computed again, its answer is not"


def slow_to_take_in(front_end: FrontEnd, arrivals: list[Arrival], policy: Policy = EDF) -> ModelsWorld:
    """One machine with one model at first, and a front end."""
    model = ModelKind.of(replace(load_profile("tiny"), front_end=front_end), swap_seconds=1.0)
    made = ModelsWorld(
        Simulation(), policy, LEVELS, {"m": (MachineKind(8, {"a": model, "b": model}), "a")}, MeanLengths(180.0)
    )
    made.feed(arrivals)
    made.simulation.run()
    return made


def test_a_front_end_takes_requests_in_one_after_another() -> None:
    front_end = FrontEnd(per_request=2.0, per_prompt_token=0.01, busy_per_request=0.5)
    arrivals = [Arrival(0.0, "a", "batch-1", 100, 10), Arrival(0.25, "a", "batch-1", 100, 10)]
    with_it, without = slow_to_take_in(front_end, arrivals), slow_to_take_in(FrontEnd(), arrivals)
    late = [a - b for a, b in zip(with_it.ledger.first_token_at, without.ledger.first_token_at, strict=True)]
    assert late == [pytest.approx(3.0, abs=0.02), pytest.approx(3.25, abs=0.02)]
    assert list(with_it.ledger.produced) == [10, 10]


def test_what_a_front_end_has_can_be_evicted() -> None:
    arrivals = [Arrival(0.0, "a", "batch-2", 100, 400), Arrival(5.0, "b", "batch-1", 100, 10)]
    ran = slow_to_take_in(FrontEnd(per_request=8.0), arrivals)
    assert ran.evictions == 1
    assert list(ran.ledger.produced) == [400, 10]
    assert set(ran.ledger.fate) == {Fate.FINISHED}
    assert ran.ledger.first_token_at[1] < ran.ledger.first_token_at[0]


def test_what_runs_at_the_horizon_counts_by_its_first_token() -> None:
    ran = world(FCFS, [Arrival(0.0, "a", "batch-1", 100, 400), Arrival(3.0, "b", "batch-1", 100, 400)], count=1)
    ran.simulation.run(until=10.0)
    ran.note_open()
    assert set(ran.ledger.fate) == {Fate.OPEN}
    assert 3.0 < ran.ledger.first_token_at[0] < 4.0
    assert isnan(ran.ledger.first_token_at[1])


def test_a_request_that_no_machine_can_hold_ends_at_once() -> None:
    ran = world(QLM, [Arrival(0.0, "a", "batch-1", 10_000_000, 10), Arrival(0.0, "a", "batch-1", 10, 10)])
    ran.simulation.run()
    assert list(ran.ledger.fate) == [Fate.TOO_LONG, Fate.FINISHED]


def test_work_follows_speed() -> None:
    site = mixed_site(4.0)
    row = run(QLM, site, single_workload().arrivals(1, 400, site.capacity()), 200.0)
    assert 70.0 < sum(float(row[f"share_fast-{n}"] or 0.0) for n in (0, 1)) < 90.0


def test_a_plan_for_swaps_swaps_less_than_the_order_of_deadlines() -> None:
    site = several_site(15.0)
    arrivals = several_workload().arrivals(1, 900, 3.5)
    edf, qlm = (run(policy, site, arrivals, 400.0) for policy in (EDF, QLM))
    assert float(qlm["swaps"] or 0.0) < float(edf["swaps"] or 0.0)
    assert float(qlm["attained"] or 0.0) >= float(edf["attained"] or 0.0)


_SCRIPT = """
from trimtab.sim.experiment import Setting
from trimtab.sim.models_tables import run_several
print(run_several(3, Setting("x", {"swap_seconds": 3.0, "load": 0.8, "requests": 120}), None))
"""


def test_the_same_seed_gives_the_same_rows_under_another_hash_seed() -> None:
    setting = Setting("x", {"swap_seconds": 3.0, "load": 0.8, "requests": 120})
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    told = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(run_several(3, setting, None))


def test_what_has_no_first_token_at_the_horizon_is_missed_however_late_it_is_due() -> None:
    site = several_site(3.0, batch_2_seconds=3600.0)
    assert run(EDF, site, [Arrival(0.0, "a", "batch-2", 100, 10)], 0.01)["attained"] == 0.0
    assert run(EDF, site, [Arrival(0.0, "a", "batch-2", 100, 10)], 5.0)["attained"] == 100.0
