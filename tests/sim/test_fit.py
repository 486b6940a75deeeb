"""Fitting finds the numbers that made the data, and says how far off it is when nothing does."""

import csv
import gzip
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from trimtab.model.problem import Problem
from trimtab.sim import fit
from trimtab.sim.fit import Measured
from trimtab.sim.profile import IterationCost, load_profile, parse_profile
from trimtab.sim.serving import EngineConfig

TRUTH = IterationCost(0.01, 2e-5, 1e-4, 1e-7, 2e-9)
CONFIG = EngineConfig(kv_blocks=2000, max_num_seqs=64, max_num_batched_tokens=1024)


def world(requests: int = 120) -> list[Measured]:
    """Requests of random shapes and what they take under `TRUTH`."""
    rng = np.random.default_rng(7)
    at = np.cumsum(rng.exponential(0.3, requests))
    empty = [Measured(float(t), int(rng.integers(5, 900)), int(rng.integers(1, 120)), 0, 0, 0, 0) for t in at]
    lived = fit.replay(empty, CONFIG, TRUTH)
    truth = np.array(astuple(TRUTH))
    return [
        replace(m, ttft=life.ttft, e2e=life.e2e, prefill=float(life.prefill @ truth), decode=float(life.decode @ truth))
        for m, life in zip(empty, lived, strict=True)
    ]


def test_solve_recovers_exact_coefficients() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(1, 1000, (50, 5))
    cost = fit.solve(features, features @ np.array(astuple(TRUTH)))
    assert astuple(cost) == pytest.approx(astuple(TRUTH), rel=1e-6)


def test_solve_is_not_swayed_by_outliers() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(1, 1000, (60, 5))
    seconds = features @ np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    seconds[:6] *= 2
    assert astuple(fit.solve(features, seconds)) == pytest.approx((1, 2, 3, 4, 5), rel=0.05)


def test_solve_gives_no_negative_coefficient() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(1, 1000, (50, 5))
    cost = fit.solve(features, features @ np.array([1.0, 1e-2, -1e-3, 1e-3, 1e-3]))
    assert min(astuple(cost)) >= 0
    assert cost.per_decode_sequence == 0


def test_a_trace_gives_back_the_costs_that_made_it() -> None:
    requests = world()
    start = IterationCost(0.02, 1e-5, 5e-5, 1e-8, 1e-9)
    cost = fit.fit_trace(requests, CONFIG, start)
    assert astuple(cost) == pytest.approx(astuple(TRUTH), rel=1e-3)
    assert "end to end 0.0% (p90 0.0%)" in fit.judge_trace(requests, CONFIG, cost)


def test_the_judgement_is_honest_about_a_wrong_cost() -> None:
    wrong = replace(TRUTH, base=TRUTH.base * 2)
    words = fit.judge_trace(world(40), CONFIG, wrong)
    assert "0.0%" not in words


def test_times_of_a_replay_are_the_features_times_the_costs() -> None:
    for life in fit.replay(world(30), CONFIG, TRUTH):
        spent = float((life.prefill + life.decode) @ np.array(astuple(TRUTH)))
        assert spent <= life.e2e + 1e-9


def test_the_cold_first_request_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "run_otel_requests.csv.gz"
    names = (
        "arrival_s", "usage.prompt_tokens", "usage.completion_tokens", "latency.time_to_first_token", "latency.e2e",
        "latency.time_in_model_prefill", "latency.time_in_model_decode",
    )  # fmt: skip
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(
            [[0.0, 10, 5, 9.0, 9.9, 9.0, 0.9], [2.0, 11, 5, 0.1, 0.5, 0.1, 0.4], [1.0, 12, 1, 0.2, 0.2, 0.2, 0]]
        )
    requests = fit.read_requests(tmp_path / "*_otel_requests.csv.gz")
    assert [(r.arrived_at, r.prompt_tokens) for r in requests] == [(1.0, 12), (2.0, 11)]


def test_step_times_become_a_profile(tmp_path: Path) -> None:
    folder = tmp_path / "splitwise-perf"
    folder.mkdir()
    lines = ["model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel"]
    for prompt, batch in [(128, 1), (512, 1), (1024, 1), (2048, 1), (512, 2), (512, 4), (512, 16), (512, 64)]:
        prefill = 1000 * TRUTH.seconds(
            prefill_tokens=prompt * batch, decodes=0, context_tokens=0, attention_pairs=batch * prompt**2 / 2
        )
        decode = 1000 * TRUTH.seconds(
            prefill_tokens=0, decodes=batch, context_tokens=batch * (prompt + 64), attention_pairs=0
        )
        lines.append(f"llama2-70b,h100-80gb,{prompt},{batch},128,{prefill},{decode},8")
    (folder / "perf_model_llama2-70b.csv").write_text("\n".join(lines))
    profile = fit.llama_2_70b(tmp_path, "h100-80gb", "some accelerator", 8)
    assert astuple(profile.iteration) == pytest.approx(astuple(TRUTH), rel=1e-3)
    assert "prefill 0.0% of 2" in profile.error


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no file matches"):
        fit.llama_2_7b_h100(tmp_path)
    with pytest.raises(Problem, match="is not there"):
        fit.llama_2_70b(tmp_path, "h100-80gb", "", 8)


def test_a_rendered_profile_can_be_read() -> None:

    profile = load_profile("llama-2-7b-h100")
    assert parse_profile(yaml.safe_load(fit.render(profile))) == profile


def test_a_relative_is_scaled_and_marked() -> None:
    parent = load_profile("llama-2-7b-h100")
    child = fit.llama_31_8b_h100(parent)
    assert child.extrapolated
    assert child.iteration.base > parent.iteration.base
    assert child.iteration.per_context_token == pytest.approx(parent.iteration.per_context_token / 4)
    assert parent.name in child.source
