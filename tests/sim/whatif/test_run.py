"""One simulated run: who met the level, who was refused, what an order changes."""

from dataclasses import replace

import numpy as np
import pytest

from tests.sim.whatif.pools import SLOW, case
from trimtab.decide.queueing.deadline import DeadlineOrder
from trimtab.decide.queueing.request import Request
from trimtab.model.problem import Problem
from trimtab.sim.ledger import Fate
from trimtab.sim.profile import FrontEnd
from trimtab.sim.whatif.draw import Arrival, Speed
from trimtab.sim.whatif.run import POLICIES, check_policies, fitting, judge, serve
from trimtab.workload.request import TraceRequest

CASE = case(shares={"fast": 1, "slow": 1})


def arrivals(count: int, gap: float, levels: tuple[str, ...] = ("fast",), tokens: int = 100) -> list[Arrival]:
    return [
        Arrival(TraceRequest(number * gap, 50, tokens), levels[number % len(levels)], float(tokens))
        for number in range(count)
    ]


def judged(requests: list[Arrival], replicas: int = 1, policy: str = "FCFS", pool: object = CASE) -> dict[str, object]:
    ledger = serve(pool, policy, replicas, requests, Speed())  # type: ignore[arg-type]
    return dict(judge(pool, requests, ledger, requests[-1].request.at_seconds + 1))  # type: ignore[arg-type]


def test_an_idle_pool_meets_everything() -> None:
    row = judged(arrivals(40, 2.0, ("fast", "slow")))
    assert (row["attainment fast"], row["attainment slow"], row["attainment"]) == (100, 100, 100)
    assert row["objective met"]
    assert row["spare"] == 5.0  # the nearest objective is 95 %
    assert row["refused"] == 0


def test_what_is_refused_or_late_is_missed_and_the_worst_level_decides() -> None:
    overload = arrivals(4000, 0.005, ("fast", "slow"))
    row = judged(overload)
    assert row["attainment fast"] < 50  # type: ignore[operator]
    assert not row["objective met"]
    assert row["spare"] == min(row["attainment fast"] - 90, row["attainment slow"] - 95)  # type: ignore[operator]


def test_more_replicas_never_hurt_much_and_help_an_overload() -> None:
    overload = arrivals(2500, 0.003)
    met = [judged(overload, replicas)["attainment"] for replicas in (1, 2, 4, 8)]
    assert met == sorted(met)  # type: ignore[type-var]
    assert met[-1] > met[0]  # type: ignore[operator]


def test_requests_of_the_warm_up_are_not_judged() -> None:
    requests = [*arrivals(10, 0.001), *(Arrival(TraceRequest(10.0 + n, 50, 20), "fast", None) for n in range(10))]
    ledger = serve(CASE, "FCFS", 1, requests, Speed())
    assert judge(CASE, requests, ledger, 20.0)["goodput"] == pytest.approx(10 / 16)


def test_what_the_engine_cannot_hold_is_left_out() -> None:
    pool = case(args=("--profile=tiny", "--max-model-len=300"))
    short, long = arrivals(10, 1.0, tokens=250), arrivals(10, 1.0, tokens=251)
    assert fitting(pool, [*short, *long]) == short


def test_a_slower_engine_meets_less() -> None:
    requests = arrivals(600, 0.03)
    seconds = requests[-1].request.at_seconds
    quick = serve(CASE, "FCFS", 1, requests, Speed(0.5))
    slow = serve(CASE, "FCFS", 1, requests, Speed(3.0))
    assert np.nanmean(slow.latency()) > 2 * np.nanmean(quick.latency())
    assert judge(CASE, requests, quick, seconds)["attainment"] >= judge(CASE, requests, slow, seconds)["attainment"]  # type: ignore[operator]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_waits_for_the_whole_front_end(policy: str) -> None:
    front = FrontEnd(per_request=0.5, per_prompt_token=0.01, busy_per_request=0.25)
    slow = replace(CASE, profile=replace(CASE.profile, front_end=front))
    requests = arrivals(3, 0.0, tokens=2)
    late = (
        serve(slow, policy, 1, requests, Speed(front_end=2.0)).ttft() - serve(CASE, policy, 1, requests, Speed()).ttft()
    )
    assert late == pytest.approx([2.0, 2.5, 3.0], abs=0.02), "50 tokens, each after half a second more; twice as slow"


def test_deadlines_go_before_arrival_and_unknown_levels_last() -> None:
    order = DeadlineOrder({"fast": 0.5, "slow": 60})
    early, late = Request(1, 10.0, level="slow"), Request(2, 20.0, level="fast")
    assert order(late) < order(early)
    assert order(Request(3, 0.0)) == float("inf")


def test_edf_serves_those_in_a_hurry_first() -> None:
    mixed = arrivals(2500, 0.005, ("slow", "fast"))
    by_arrival, by_deadline = judged(mixed), judged(mixed, policy="EDF")
    assert by_deadline["attainment fast"] > by_arrival["attainment fast"]  # type: ignore[operator]


def test_planned_groups_serve_those_in_a_hurry_first_and_refuse_nobody() -> None:
    pool = case(shares={"fast": 1, "slow": 1}, **SLOW)
    mixed = arrivals(150, 0.06, ("slow", "fast"))
    by_arrival, by_group = judged(mixed, pool=pool), judged(mixed, policy="QLM", pool=pool)
    assert by_group["attainment fast"] > by_arrival["attainment fast"]  # type: ignore[operator]
    assert by_group["refused"] == 0


@pytest.mark.parametrize("policy", ["SSJF", "QLM"])
def test_every_request_ends_once(policy: str) -> None:
    requests = arrivals(100, 0.005, ("fast", "slow"))
    ledger = serve(CASE, policy, 1, requests, Speed())
    assert len(ledger) == 100
    assert Fate.OPEN not in set(ledger.fate)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(Problem, match="no policy 'LIFO'"):
        check_policies(["FCFS", "LIFO"])
