"""Fits find the speeds that made the runs."""

from dataclasses import replace

import numpy as np
import pytest

from tests.sim.calibration.sweeps import SETUP, TRUTH, engine, measured, shape, sweep
from trimtab.learn.profiles import fit_positive, slope, solve
from trimtab.sim.calibration.fitting import (
    GUESS,
    Sample,
    fingerprint,
    first_guess,
    fit_accelerator,
    fit_front_end,
    seconds_of,
    tune,
)
from trimtab.sim.calibration.replay import replay, watch
from trimtab.sim.calibration.source import Latency
from trimtab.sim.calibration.stages import stages_of
from trimtab.sim.calibration.tables import DecodeStep, Kernels
from trimtab.sim.hardware import cost_of
from trimtab.sim.profile import FrontEnd

SEVEN, SEVENTY = shape("llama-2-7b"), shape("llama-2-70b")
LONE = np.array([[1.0, 0.0, 1.0, 600.0, 0.0]])
"""One sequence that decodes."""


def test_solve_recovers_exact_coefficients() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(1, 1000, (50, 5))
    truth = np.array([0.01, 2e-5, 1e-4, 1e-7, 2e-9])
    assert solve(features, features @ truth) == pytest.approx(truth, rel=1e-6)


def test_solve_is_not_swayed_by_outliers() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(1, 1000, (60, 5))
    seconds = features @ np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    seconds[:6] *= 2
    assert solve(features, seconds) == pytest.approx((1, 2, 3, 4, 5), rel=0.05)


def test_solve_gives_no_negative_coefficient() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(1, 1000, (50, 3))
    solution = solve(features, features @ np.array([1.0, -1e-3, 1e-3]))
    assert solution.min() >= 0
    assert solution[1] == 0


def test_a_slope_is_that_of_the_line() -> None:
    x = np.arange(1.0, 9.0)
    assert slope(x, 3 + 2 * x) == pytest.approx(2)


def test_without_measurements_a_guess_stays() -> None:
    guess = np.array([1e-6, 5e12])
    assert fit_positive(lambda _: np.array([]), guess, np.ones(2)) == pytest.approx(guess)


def test_measurements_move_a_guess_as_far_as_they_say_and_outliers_do_not() -> None:
    data = np.full(40, 3.0)
    data[:4] = 300.0
    (found,) = fit_positive(lambda p: np.log(p[0] / data) / 0.01, np.array([1.0]), np.array([0.5]))
    assert found == pytest.approx(3.0, rel=0.02)


def test_durations_are_those_of_the_physics() -> None:
    cost = engine().cost
    shapes = np.array([[1.0, 700.0, 3.0, 2000.0, 1e5], [10.0, 0.0, 4.0, 10 * 3000.0, 0.0]])
    mixed = cost.seconds(prefill_tokens=700, decodes=3, context_tokens=2000, attention_pairs=1e5)
    decodes = cost.seconds(prefill_tokens=0, decodes=4, context_tokens=3000, attention_pairs=0)
    assert seconds_of(cost, shapes) == pytest.approx([mixed, 10 * decodes])
    floored = replace(cost, mixed_floor=9.0)
    assert seconds_of(floored, shapes) == pytest.approx([9.0, 10 * decodes])


def test_the_speeds_that_made_a_run_predict_another() -> None:
    train, test = (measured(sweep(per_stage=10, seed=seed)) for seed in (1, 2))
    fitted = fit_accelerator([Sample.of(train, SEVEN)], [], GUESS)
    before, after = (replay(test, stages_of(test), engine(speeds)) for speeds in (GUESS, fitted))
    truth = np.array([r.latency.e2e for r in test.requests])

    def error(latencies: list[Latency]) -> float:
        return float(np.median(np.abs(np.array([latency.e2e for latency in latencies]) / truth - 1)))

    assert error(before) > 0.06
    assert error(after) < 0.01
    assert error(replay(test, stages_of(test), engine(tune([Sample.of(train, SEVEN)], fitted)))) < 0.01


def test_only_the_requests_that_count_are_fitted() -> None:
    run = measured(sweep(per_stage=8))
    slower = [replace(r, decode=5 * r.decode) if n % 2 else r for n, r in enumerate(run.requests)]
    spoiled = replace(run, requests=tuple(slower))
    even = frozenset(range(0, len(run.requests), 2))
    half = fit_accelerator([Sample.of(spoiled, SEVEN, even)], [], GUESS)
    whole = fit_accelerator([Sample.of(spoiled, SEVEN)], [], GUESS)
    good, off, truth = (seconds_of(cost_of(SEVEN, speeds, 1), LONE)[0] for speeds in (half, whole, TRUTH))
    assert abs(good / truth - 1) < 0.01
    assert abs(off / truth - 1) > 0.05


def test_decode_steps_say_what_devices_cost_each_other() -> None:
    talkative = replace(GUESS, per_step_parallel=2e-3, all_reduce_latency={2: 1e-5, 4: 2e-5, 8: 2e-5})
    steps = []
    for batch in (8.0, 16.0, 32.0):
        for devices in (1, 2, 4):
            shape = np.array([[1.0, 0.0, batch, batch * 400, 0.0]])
            seconds = float(seconds_of(cost_of(SEVENTY, talkative, devices), shape)[0])
            steps.append(DecodeStep(SEVENTY, devices, batch, 400.0, seconds))
    fitted = fit_accelerator([], steps, GUESS)
    for devices in (2, 4):
        guessed, said, true = (
            seconds_of(cost_of(SEVENTY, speeds, devices), LONE)[0] for speeds in (GUESS, fitted, talkative)
        )
        assert abs(said / true - 1) < 0.3 * abs(guessed / true - 1)


def test_the_front_end_is_what_is_left_of_a_lone_request() -> None:
    slow = replace(TRUTH, front_end=FrontEnd(0.004, 2e-6))
    run = measured(sweep(per_stage=20), slow)
    found = fit_front_end([Sample.of(run, SEVEN)])
    assert found.per_request == pytest.approx(0.004, rel=0.05)
    assert found.per_prompt_token == pytest.approx(2e-6, rel=0.1)
    assert fit_front_end([]) == GUESS.front_end


def test_kernels_are_where_the_fit_begins() -> None:
    guess = first_guess(Kernels(1e12, 2e14, 3e11), {2: 9e-12})
    assert (guess.weights_per_second, guess.arithmetic_per_second, guess.elementwise_per_second) == (1e12, 2e14, 3e11)
    assert guess.all_reduce_per_byte == {**GUESS.all_reduce_per_byte, 2: 9e-12}
    assert first_guess(None, {}) == GUESS


def test_a_run_is_known_by_its_requests_not_by_its_name() -> None:
    run = sweep()
    assert fingerprint(replace(run, id="other", setup=replace(SETUP, max_num_seqs=9))) == fingerprint(run)
    assert fingerprint(replace(run, requests=run.requests[1:])) != fingerprint(run)
    assert len(watch(run, stages_of(run), engine()).shapes) > len(run.requests)
