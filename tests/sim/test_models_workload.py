"""Workloads of the several-model queue."""

import numpy as np
import pytest

from trimtab.sim.models_settings import mega_workload, several_workload, single_workload
from trimtab.sim.models_workload import MEAN_ANSWER, MEAN_PROMPT, Demand, Workload


def test_rate_shares_and_lengths_are_as_asked_for() -> None:
    workload = Workload({"a": 3.0, "b": 1.0}, {"fast": Demand(0.25), "slow": Demand(0.75, 4.0)})
    arrivals = workload.arrivals(1, 20_000, 5.0)
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)
    assert np.mean([arrival.level == "fast" for arrival in arrivals]) == pytest.approx(0.25, abs=0.02)
    assert np.mean([arrival.model == "a" for arrival in arrivals]) == pytest.approx(0.75, abs=0.02)
    assert np.mean([arrival.output_tokens for arrival in arrivals]) == pytest.approx(MEAN_ANSWER, rel=0.02)
    assert np.mean([arrival.input_tokens for arrival in arrivals]) == pytest.approx(MEAN_PROMPT, rel=0.03)


def test_they_come_in_order_and_the_same_seed_gives_the_same() -> None:
    arrivals = several_workload().arrivals(1, 500, 2.0)
    times = [arrival.at_seconds for arrival in arrivals]
    assert times == sorted(times)
    assert arrivals == several_workload().arrivals(1, 500, 2.0)
    assert arrivals != several_workload().arrivals(2, 500, 2.0)


def test_another_rate_brings_the_same_requests_closer_together() -> None:
    slow, fast = (single_workload().arrivals(1, 300, rate) for rate in (1.0, 2.0))
    assert [a.at_seconds for a in fast] == pytest.approx([a.at_seconds / 2 for a in slow])
    assert [(a.level, a.output_tokens) for a in fast] == [(a.level, a.output_tokens) for a in slow]


def test_a_job_arrives_at_once_and_asks_for_one_model() -> None:
    workload = Workload({"a": 1.0, "b": 1.0}, {"slow": Demand(1.0, 20.0)})
    jobs: dict[float, set[str]] = {}
    for arrival in workload.arrivals(1, 400, 1.0):
        jobs.setdefault(arrival.at_seconds, set()).add(arrival.model)
    assert 10 <= len(jobs) <= 40
    assert all(len(models) == 1 for models in jobs.values())


def test_very_long_prompts_have_their_share() -> None:
    arrivals = mega_workload(0.1).arrivals(1, 4000, 1.0)
    assert np.mean([arrival.input_tokens == 6000 for arrival in arrivals]) == pytest.approx(0.1, abs=0.02)
    assert not any(arrival.input_tokens == 6000 for arrival in arrivals if arrival.level == "interactive")
