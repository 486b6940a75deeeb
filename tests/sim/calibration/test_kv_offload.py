"""The data set of closed-loop sweeps: what predicts a run, what is reported of it, and the fit of profiles."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.sim.calibration.conversations import COST, FRONT_END, made, write
from trimtab.sim.calibration import kv_offload, sweep_profiles
from trimtab.sim.calibration.kv_offload import KvOffload, predict
from trimtab.sim.calibration.report import figures_of
from trimtab.sim.calibration.source import METRICS, Run
from trimtab.sim.calibration.sweep_fit import Refit, refit
from trimtab.sim.calibration.sweep_profiles import Fits, config_of, shipped_fits, with_speeds
from trimtab.sim.calibration.sweeps import Sweep, read_sweeps
from trimtab.sim.profile import Profile, load_profile, shipped_profiles

SHIPPED = [name for name in shipped_profiles() if name.startswith(sweep_profiles.PROFILES)]


@pytest.fixture(scope="module")
def truth() -> Profile:
    """The profile of the engine that made the runs."""
    tiny = load_profile("tiny")
    return replace(
        tiny, name="truth", iteration=COST, front_end=FRONT_END, max_num_batched_tokens=2048, async_scheduling=True,
        host_kv_blocks=4000, host_kv_answers=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs() -> list[Sweep]:
    return [made(clients=4), made(clients=16), made(clients=4, offload=True)]


def worst(run: Run, quantile: float = 0.5) -> float:
    return max(f.error for f in figures_of(run) if f.quantile == quantile and f.error is not None)


def test_the_profile_that_made_a_run_predicts_it(truth: Profile, runs: list[Sweep]) -> None:
    for sweep in runs:
        run = predict(sweep, runs, Fits({1: truth}, {}))
        assert run.judged
        assert (run.profile, run.requests[0].stage) == ("truth", f"{sweep.clients} clients")
        assert len(run.requests) == len(sweep.requests) - 1, "the first one met a cold server"
        assert worst(run) < 0.01
        assert worst(run, 0.9) < 0.05
        assert "of the prompt tokens were found again" in run.reason
        assert "0 preemptions (the server's: 0)" in run.reason


def test_a_run_is_judged_by_numbers_that_were_fitted_without_it(truth: Profile, runs: list[Sweep]) -> None:
    fits = Fits({1: truth}, {runs[0].fingerprint: {"iteration.base": 0.02, "front_end.per_request": 0.2}})
    unseen, seen = (predict(sweep, runs, fits) for sweep in runs[:2])
    assert unseen.profile == "truth, fitted without this run"
    assert seen.profile == "truth"
    assert worst(unseen) > 0.2 > worst(seen)


def test_limits_are_the_runs_own(truth: Profile, runs: list[Sweep]) -> None:
    plain, offloading = config_of(runs[0], truth), config_of(runs[2], truth)
    assert (plain.max_num_seqs, plain.host_kv_blocks) == (4, 0)
    assert (offloading.host_kv_blocks, offloading.async_scheduling) == (4000, True)
    assert plain.kv_blocks * 16 == pytest.approx(60_000, rel=0.05)
    unseen = replace(runs[0], seconds=())
    assert config_of(unseen, truth).kv_blocks == truth.kv_blocks


def test_speeds_are_named_as_in_a_profile(truth: Profile) -> None:
    other = with_speeds(truth, {"iteration.mixed": 0.5, "front_end.per_prompt_token": 0.25})
    assert (other.iteration.mixed, other.front_end.per_prompt_token) == (0.5, 0.25)
    assert other.iteration.base == truth.iteration.base


def test_a_folder_of_runs_is_reported(tmp_path: Path, runs: list[Sweep]) -> None:
    odd = replace(runs[0], id="tp3_bs4_offloadoff")
    folder = write(tmp_path, [*runs, odd])
    (folder / "vllm-kv-offload" / "big_requests.csv").write_text(
        "exp,user_id,trace_id,success\nbig,u,t,True\nbig,u,t,False\n", encoding="utf-8"
    )
    found = KvOffload().replay(folder, fit=False)
    by_name = {run.id: run for run in found.runs}
    assert not found.problems
    assert set(by_name) == {*(sweep.id for sweep in runs), odd.id, "big"}
    assert by_name[odd.id].reason == "No profile for 3 devices was ever fitted."
    assert "2 requests are recorded, of which 1 failed" in by_name["big"].reason
    assert not by_name["big"].requests
    assert not by_name["big"].judged


def test_runs_that_were_fitted_to_are_also_shown_as_the_fit_makes_them(
    tmp_path: Path, truth: Profile, runs: list[Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, runs)
    read, _ = read_sweeps(folder / "vllm-kv-offload")
    without = {sweep.fingerprint: {"iteration.base": 0.02} for sweep in read if sweep.clients == 4}
    monkeypatch.setattr(kv_offload, "shipped_fits", lambda: Fits({1: truth}, without))
    found = {run.id: run for run in KvOffload().replay(folder, fit=False).runs}
    shown = [name for name in found if name.endswith("(fitted)")]
    assert shown == ["tp1_bs4_offloadoff (fitted)"], "nothing is fitted to runs with offloading"
    assert (found[shown[0]].judged, found[shown[0]].in_fit) == (False, True)
    assert worst(found[shown[0]]) < 0.1 < worst(found["tp1_bs4_offloadoff"])


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    found = KvOffload().replay(tmp_path, fit=False)
    assert not found.runs
    assert "no such folder" in found.problems[0]


@pytest.fixture(scope="module")
def fitted() -> Refit:
    return refit([made(clients=4), made(clients=16), made(clients=4, offload=True)])


def test_a_fit_finds_the_speeds_that_made_the_runs(fitted: Refit, runs: list[Sweep]) -> None:
    profile = fitted.fits.profiles[1]
    for sweep in runs:  # what the fit begins with is 14 to 33 % off
        assert worst(predict(sweep, runs, Fits({1: profile}, {}))) < 0.08
        assert worst(predict(sweep, runs, fitted.fits)) < 0.1, "without the runs of as many clients"
    assert not profile.extrapolated
    assert profile.kv_blocks * 16 == pytest.approx(60_000, rel=0.05)
    assert 0 <= profile.iteration.per_stored_token < 5 * COST.per_stored_token


def test_a_fit_keeps_numbers_without_each_run(fitted: Refit, runs: list[Sweep]) -> None:
    assert set(fitted.fits.without) == {sweep.fingerprint for sweep in runs}
    four, sixteen, four_offloading = (fitted.fits.without[sweep.fingerprint] for sweep in runs)
    assert four == four_offloading != sixteen
    (name, text), *_ = fitted.files.items()
    assert name == "calibration/kv_offload.yaml"
    read = yaml.safe_load(text)
    assert read[runs[0].fingerprint]["iteration.base"] == pytest.approx(four["iteration.base"], rel=1e-5)
    assert np.isfinite([number for speeds in read.values() for number in speeds.values()]).all()


def test_what_ships_covers_one_to_eight_devices() -> None:
    fits = shipped_fits()
    assert sorted(fits.profiles) == [1, 2, 4, 8]
    assert [devices for devices, profile in fits.profiles.items() if profile.extrapolated] == [4]
    sizes = [fits.profiles[devices].kv_blocks for devices in (1, 2, 4, 8)]
    assert sizes == sorted(sizes)
    steps = [fits.profiles[devices].iteration.per_prefill_token for devices in (1, 2, 4, 8)]
    assert steps == sorted(steps, reverse=True), "more devices compute a prompt sooner"
    for profile in fits.profiles.values():
        assert profile.async_scheduling
        assert set(fits.without) or not SHIPPED


DATA = os.environ.get("TRIMTAB_DATA")


@pytest.mark.skipif(not DATA, reason="TRIMTAB_DATA names no folder of data sets")
def test_the_smallest_measured_runs_are_near() -> None:
    folder = Path(DATA or "") / "vllm-kv-offload"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    sweeps, _ = read_sweeps(folder)
    chosen = [sweep for sweep in sweeps if sweep.clients == min(s.clients for s in sweeps)]
    for sweep in chosen:
        run = predict(sweep, sweeps, shipped_fits())
        if run.judged:
            assert {f.metric for f in figures_of(run)} == set(METRICS)
            assert worst(run) < 0.15, run.id
