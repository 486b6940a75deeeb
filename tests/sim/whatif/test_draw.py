"""Draws: the same for every policy, like the recording, as wrong as the profile says it may be."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tests.sim.whatif.pools import case, write_trace
from trimtab.sim.profile import Errors, FrontEnd, load_profile
from trimtab.sim.whatif.draw import BLOCK_SECONDS, Speed, draw_requests, draw_speed, recorded, stated_errors

CASE = case(shares={"fast": 3, "slow": 1})


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trace(tmp_path_factory.mktemp("trace"))


def test_a_draw_is_the_same_each_time_and_another_for_another_seed(trace: Path) -> None:
    source = recorded(str(trace), None, predict=False)
    first = draw_requests(source, CASE.levels, 3, 1.0, 120)
    assert draw_requests(source, CASE.levels, 3, 1.0, 120) == first
    assert draw_requests(source, CASE.levels, 4, 1.0, 120) != first
    times = [arrival.request.at_seconds for arrival in first]
    assert times == sorted(times)
    assert times[-1] < 120


def test_a_higher_load_brings_the_same_requests_closer_together(trace: Path) -> None:
    source = recorded(str(trace), None, predict=False)
    low = draw_requests(source, CASE.levels, 3, 1.0, 120)
    high = draw_requests(source, CASE.levels, 3, 2.0, 120)
    whole = [arrival for arrival in low if arrival.request.at_seconds < 4 * BLOCK_SECONDS]
    for one, other in zip(whole, high, strict=False):
        assert one.request.at_seconds == pytest.approx(2 * other.request.at_seconds)
        assert (one.level, one.request.output_tokens) == (other.level, other.request.output_tokens)
    assert len(high) == pytest.approx(2 * len(low), rel=0.2)


def test_draws_resemble_the_recording(trace: Path) -> None:
    source = recorded(str(trace), None, predict=False)
    drawn = [arrival for seed in range(12) for arrival in draw_requests(source, CASE.levels, seed, 1.0, 120)]
    assert len(drawn) / 12 / 120 == pytest.approx(4.0, rel=0.1)
    recorded_mean = np.mean([request.output_tokens for request in source.trace.requests])
    assert np.mean([arrival.request.output_tokens for arrival in drawn]) == pytest.approx(recorded_mean, rel=0.03)
    assert np.mean([arrival.level == "fast" for arrival in drawn]) == pytest.approx(0.75, abs=0.03)


def test_predictions_go_with_their_requests(trace: Path) -> None:
    source = recorded(str(trace), None)
    assert source.foresight is not None
    lengths = tuple(float(request.output_tokens) for request in source.trace.requests)
    chosen = replace(source, foresight=replace(source.foresight, predicted=lengths))
    for arrival in draw_requests(chosen, CASE.levels, 0, 1.5, 60):
        assert arrival.predicted == arrival.request.output_tokens


def test_lengths_that_nobody_can_predict_get_no_predictions(trace: Path) -> None:
    seen = recorded(str(trace), None).foresight  # drawn uniformly: nothing tells a long answer from a short one
    assert seen is not None
    assert seen.tau < 0.3
    assert seen.trusted < 0.1
    assert not seen.substituted


def test_half_of_the_draws_are_further_off_than_the_median_error() -> None:
    profile = replace(load_profile("tiny"), errors=Errors(ttft=0.2, time_between_tokens=0.05, e2e=0.1))
    speeds = [draw_speed(profile, seed) for seed in range(800)]
    iterations = np.array([speed.iteration for speed in speeds])
    fronts = np.array([speed.front_end for speed in speeds])
    assert np.median(np.abs(np.log(iterations))) == pytest.approx(np.log(1.1), rel=0.12)
    assert np.median(np.abs(np.log(fronts))) == pytest.approx(np.log(1.2), rel=0.12)
    assert np.mean(iterations > 1) == pytest.approx(0.5, abs=0.05)


def test_a_profile_that_states_no_error_gets_one_and_a_larger_one_where_it_is_extrapolated() -> None:
    profile = replace(load_profile("tiny"), errors=Errors(), extrapolated=False)
    assert stated_errors(profile) == (0.1, 0.1)
    assert stated_errors(replace(profile, extrapolated=True)) == (0.2, 0.2)


def test_a_slower_engine_is_slower_in_everything_but_counts() -> None:
    cost = replace(load_profile("tiny").iteration, split_decodes=7.0, per_prefill_token=1e-4)
    slower = Speed(iteration=2.0, front_end=3.0)
    work = {"prefill_tokens": 100, "decodes": 5, "context_tokens": 1000, "attention_pairs": 500.0}
    assert slower.cost(cost).seconds(**work) == pytest.approx(2 * cost.seconds(**work))
    assert slower.cost(cost).split_decodes == 7


def test_a_slower_front_end_is_slower_in_everything() -> None:
    names = [f.name for f in fields(FrontEnd)]
    front = FrontEnd(**{name: float(place + 1) for place, name in enumerate(names)})
    assert Speed(front_end=3.0).front(front) == FrontEnd(**{n: 3.0 * (p + 1) for p, n in enumerate(names)})
    profile = replace(load_profile("tiny"), front_end=front)
    drawn = Speed(iteration=2.0, front_end=3.0).of(profile)
    assert drawn.iteration.base == 2 * profile.iteration.base
    assert drawn.front_end == Speed(front_end=3.0).front(front)
    assert replace(drawn, iteration=profile.iteration, front_end=front) == profile, "all else stays"
