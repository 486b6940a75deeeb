"""The experiment on queues of several models: small runs of each table, and the choice of loads."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from trimtab.decide.queueing import edf
from trimtab.decide.queueing.exact import try_all
from trimtab.decide.queueing.oracle import Oracle
from trimtab.decide.queueing.plan import cost
from trimtab.decide.queueing.policy import Policy
from trimtab.sim.experiment import Row, Setting
from trimtab.sim.experiments import qlm_planner
from trimtab.sim.experiments.qlm import EXPERIMENT
from trimtab.sim.models_pilot import PILOT_SEEDS, find_load, pilot
from trimtab.sim.models_runs import LATE_LAST, POLICIES, QLM, kind, run
from trimtab.sim.models_settings import (
    HOUR_ARRIVAL_SECONDS,
    SEVERAL_REQUESTS,
    hour_horizon,
    hour_site,
    hour_workload,
    several_horizon,
    several_site,
    several_workload,
)

PARTS = {part.name: part for part in EXPERIMENT.parts()}
SMALL = {"rates": 80, "swaps": 700, "hour": 80, "mega": 60, "ablation": 80, "oracle": 40, "mixed": 80, "estimates": 80}


def small(name: str) -> tuple[Setting, Sequence[Row]]:
    setting = PARTS[name].settings[-1]
    setting = replace(setting, values={**setting.values, "requests": SMALL[name]})
    return setting, PARTS[name].run(7, setting, None)


@pytest.mark.parametrize("name", SMALL)
def test_each_row_has_the_metrics_and_claims_speak_of_its_policies(name: str) -> None:
    part = PARTS[name]
    _, rows = small(name)
    policies = [row["policy"] for row in rows]
    assert len(set(policies)) == len(policies)
    for row in rows:
        assert {metric.name for metric in part.metrics} <= set(row)
        assert 0.0 <= float(row["attained"] or 0.0) <= 100.0
    assert part.baseline in policies
    for claim in part.claims:
        assert {claim.policy, claim.against} <= set(policies)
        assert claim.metric in {metric.name for metric in part.metrics}
        assert set(claim.settings) <= {setting.name for setting in part.settings}


def test_levels_make_up_the_whole() -> None:
    _, rows = small("swaps")
    for row in rows:
        classes = [float(row["batch_1"] or 0.0), float(row["batch_2"] or 0.0)]
        assert row["worst"] == min(classes)
        assert min(classes) <= float(row["attained"] or 0.0) <= max(classes)


def curve(knee: float) -> Callable[[float], float]:
    return lambda load: 100.0 - 10.0 * load / knee


def test_the_pilot_finds_the_load_that_keeps_ninety_percent() -> None:
    assert find_load(curve(0.4), 0.05, 1.3, steps=20) == pytest.approx(0.4, abs=1e-4)


def test_pilot_seeds_are_never_reported() -> None:
    assert max(part.seeds or EXPERIMENT.seeds for part in PARTS.values()) < min(PILOT_SEEDS)


def test_the_pilot_tells_what_is_kept_where_and_how_sure_that_is() -> None:
    found = pilot(lambda swap, load: [curve(swap)(load) - 1.0, curve(swap)(load) + 1.0], 0.4, 0.5)
    assert found.load == pytest.approx(0.4, abs=0.01)
    assert found.attained == pytest.approx(90.0, abs=0.3)
    assert found.error == pytest.approx(1.0)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_nothing_is_kept_where_no_machine_can_start_anything(policy: Policy) -> None:
    site = several_site(swap_seconds=4000.0, batch_2_seconds=3600.0)
    away = {name: (kind, None) for name, (kind, _) in site.machines.items()}
    arrivals = hour_workload().arrivals(3, 40, 0.5)
    row = run(policy, replace(site, machines=away), arrivals, 3700.0)
    assert (row["attained"], row["worst"], row["goodput"]) == (0.0, 0.0, 0.0)


def test_runs_last_until_every_promise_is_due() -> None:
    last = max(arrival.at_seconds for arrival in hour_workload().arrivals(3, 500, 500 / HOUR_ARRIVAL_SECONDS))
    longest = max(level.ttft_seconds for level in hour_site(3.0).levels.values())
    assert last + longest <= hour_horizon()
    last = max(arrival.at_seconds for arrival in several_workload().arrivals(3, SEVERAL_REQUESTS, 2.0))
    longest = max(level.ttft_seconds for level in several_site(3.0).levels.values())
    assert last + longest <= several_horizon(2.0)


def test_what_waits_longer_than_an_hour_is_missed_in_the_hour_table() -> None:
    site = hour_site(3.0)
    rate = 8.0 * site.capacity()
    requests = round(rate * HOUR_ARRIVAL_SECONDS)
    row = run(LATE_LAST, site, hour_workload().arrivals(3, requests, rate), hour_horizon())
    assert 5.0 < float(row["batch_2"] or 0.0) < 80.0


def test_a_queue_that_believes_in_fast_machines_expects_shorter_waits() -> None:
    speeds = [replace(kind(("a",), 1.0), believed=times).instance("m", "a").speeds["a"] for times in (1.0, 2.0)]
    assert speeds[1].tokens_per_second == 2.0 * speeds[0].tokens_per_second
    assert speeds[1].first_token_seconds(500) == pytest.approx(speeds[0].first_token_seconds(500) / 2.0)


def test_what_a_queue_believes_changes_its_plans_but_not_the_load() -> None:
    site = several_site(15.0)
    wrong = replace(site, machines={n: (replace(k, believed=0.5), r) for n, (k, r) in site.machines.items()})
    assert wrong.capacity() == site.capacity()
    arrivals = several_workload().arrivals(3, 700, 6.0)
    assert run(QLM, wrong, arrivals, 240.0) != run(QLM, site, arrivals, 240.0)


def test_the_integer_program_is_asked_only_where_a_plan_has_a_penalty() -> None:
    late = qlm_planner.draw(3, 4, 2)
    oracle = Oracle(online=edf.plan)
    plan = oracle(late, ((), ()))
    assert (oracle.late, oracle.solved, oracle.proved, oracle.better) == (1, 1, 1, 1)
    assert cost(late, plan).penalty == pytest.approx(cost(late, try_all(late)).penalty, rel=0.01)
    patient = replace(late, jobs=tuple(replace(job, deadline_in=1e6) for job in late.jobs))
    assert oracle(patient, ((), ())) == edf.plan(patient, ((), ()))
    assert oracle.late == 1


def test_the_integer_program_is_not_asked_about_many_groups() -> None:
    problem = qlm_planner.draw(3, 8, 2)
    oracle = Oracle(online=edf.plan)
    assert oracle(problem, ((), ())) == edf.plan(problem, ((), ()))
    assert (oracle.late, oracle.solved) == (1, 0)
