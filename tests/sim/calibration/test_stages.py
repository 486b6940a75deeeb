"""The stages of a sweep, found from the arrivals alone."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.calibration.sweeps import request, sweep
from trimtab.sim.calibration.recorded import ClientStage, RecordedRun
from trimtab.sim.calibration.stages import Stage, stages_of


def names(run: RecordedRun) -> list[tuple[str, int]]:
    return [(stage.name, stage.stop - stage.start) for stage in stages_of(run)]


def with_arrivals(arrivals: list[float], rate_type: str = "sweep", e2e: float = 0.5) -> RecordedRun:
    first = request(-60.0)
    run = replace(sweep(), first=first, requests=tuple(request(at, e2e=e2e) for at in arrivals))
    return replace(run, setup=replace(run.setup, rate_type=rate_type))


def test_a_sweep_is_cut_into_its_stages() -> None:
    assert names(sweep(per_stage=8, rates=(0.7, 0.8, 4.0))) == [
        ("synchronous", 8),
        ("throughput", 8),
        ("constant 0.7/s", 8),
        ("constant 0.8/s", 8),
        ("constant 4/s", 8),
    ]


def test_only_the_first_stage_has_one_client() -> None:
    stages = stages_of(sweep())
    assert [stage.chained for stage in stages] == [True, False, False, False]
    assert [stage.waits for stage in stages] == [True, True, False, False]


def test_rates_that_differ_by_a_few_percent_are_told_apart_though_arrivals_jitter() -> None:
    rng = np.random.default_rng(5)
    run = sweep(per_stage=20, rates=(0.50, 0.52, 0.54))
    shaken = tuple(replace(r, arrived_at=r.arrived_at + float(rng.uniform(0, 0.02))) for r in run.requests[40:])
    found = names(replace(run, requests=(*run.requests[:40], *shaken)))
    assert [n for _, n in found] == [20, 20, 20, 20, 20]


def test_fast_stages_of_much_the_same_rate_are_told_apart_by_the_pause_between() -> None:
    rng = np.random.default_rng(8)
    beats = [np.arange(25) / rate + rng.uniform(0, 0.02, 25) for rate in (9.0, 9.1, 9.2)]
    arrivals = [float(t) for start, beat in zip((0, 6, 12), beats, strict=True) for t in start + beat]
    assert [n for _, n in names(with_arrivals(arrivals, "constant", e2e=0.3))] == [25, 25, 25]


def test_a_request_that_is_not_recorded_does_not_end_its_stage() -> None:
    run = sweep(per_stage=12, rates=(0.5, 0.6))
    missing = {30, 31, 40}  # of the two constant rates
    left = tuple(r for n, r in enumerate(run.requests) if n not in missing)
    assert [n for _, n in names(replace(run, requests=left))] == [12, 12, 10, 11]


def test_a_hole_in_the_synchronous_stage_does_not_end_it() -> None:
    run = sweep(per_stage=10)
    left = tuple(r for n, r in enumerate(run.requests) if n != 4)
    assert names(replace(run, requests=left))[:2] == [("synchronous", 9), ("throughput", 10)]


@pytest.mark.parametrize("kind", ["synchronous", "throughput", "concurrent", "poisson"])
def test_a_load_of_one_kind_is_one_stage(kind: str) -> None:
    run = with_arrivals([0.0, 0.1, 3.0, 9.0], kind)
    assert names(run) == [(kind, 4)]
    assert stages_of(run)[0].waits is (kind != "poisson")


def test_constant_rates_without_a_sweep() -> None:
    arrivals = [*np.arange(0, 10, 1.0), *np.arange(30, 33, 0.25)]
    assert names(with_arrivals(arrivals, "constant", e2e=0.05)) == [("constant 1/s", 10), ("constant 4/s", 12)]


def test_long_runs_on_an_idle_engine_are_cut_too() -> None:
    slow, fast = np.arange(1500) * 2.0, np.arange(1500) * 1.5
    arrivals = [*slow, *(slow[-1] + 10 + fast)]
    assert names(with_arrivals(arrivals, "constant", e2e=0.1)) == [("constant 0.5/s", 1500), ("constant 0.667/s", 1500)]


def test_a_sweep_that_stops_early() -> None:
    assert names(with_arrivals([0.0, 0.6, 1.2])) == [("synchronous", 3)]
    assert names(with_arrivals([0.0, 0.6, 0.7, 0.8])) == [("synchronous", 1), ("throughput", 3)]
    assert names(with_arrivals([0.0])) == [("synchronous", 1)]


def test_the_clients_word_comes_first() -> None:
    stages = (
        ClientStage("synchronous", 0.0, 7),
        ClientStage("constant 7/s", 6.5, 6),
        ClientStage("constant 9/s", 11, 12),
    )
    run = replace(sweep(per_stage=6), client_stages=stages)
    assert names(run) == [("synchronous", 6), ("constant 7/s", 6), ("constant 9/s", 12)]


def test_a_record_of_other_requests_is_not_believed() -> None:
    run = sweep(per_stage=6)
    other = replace(run, client_stages=(ClientStage("synchronous", 0.0, 7), ClientStage("throughput", 1.2, 17)))
    assert stages_of(other) == stages_of(run)


def test_stages_of_the_same_rate_have_different_names() -> None:
    run = with_arrivals([*np.arange(0, 8, 1.0), *np.arange(50, 58, 1.0), *np.arange(99, 107, 1.0)], "constant", e2e=0.1)
    assert names(run) == [("constant 1/s", 8), ("constant 1/s (2)", 8), ("constant 1/s (3)", 8)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40), st.sampled_from(["sweep", "constant", "poisson"]))
def test_stages_are_all_requests_once(gaps: list[float], kind: str) -> None:
    run = with_arrivals(list(np.cumsum(gaps)), kind)
    stages: list[Stage] = stages_of(run)
    assert stages[0].start == 0
    assert stages[-1].stop == len(gaps)
    assert all(a.stop == b.start for a, b in pairwise(stages))
    assert len({stage.name for stage in stages}) == len(stages)
