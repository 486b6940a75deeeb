"""The profile that is written."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.sim.profiling.known import known_engine, measured
from trimtab.model.problem import Problem
from trimtab.sim.profile import Profile, load_profile
from trimtab.sim.profiling.document import check_writable, fields_of, profile_of, text_of, write
from trimtab.sim.profiling.rows import UNKNOWNS
from trimtab.sim.profiling.session import Result

AT = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture(scope="module")
def result() -> Result:
    return measured(known_engine(noise=0.02))


@pytest.fixture(scope="module")
def profile(result: Result) -> Profile:
    return profile_of(result, name="mine", accelerator="NVIDIA L4", tensor_parallel=2, at=AT)


def test_what_is_written_can_be_loaded(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    write(path, text_of(profile))
    loaded = load_profile(str(path))
    assert loaded.iteration.base == pytest.approx(profile.iteration.base, rel=1e-5)
    assert loaded.front_end.per_request == pytest.approx(profile.front_end.per_request, rel=1e-5)
    assert set(loaded.intervals) == set(UNKNOWNS)
    assert (loaded.accelerator, loaded.tensor_parallel, loaded.name) == ("NVIDIA L4", 2, "mine")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.yaml"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_intervals_hold_their_values(profile: Profile) -> None:
    raw = yaml.safe_load(text_of(profile))
    for name, (low, high) in raw["intervals"].items():
        part, field = name.split(".")
        assert low <= raw[part][field] <= high


def test_the_error_is_that_of_the_phase_not_fitted(result: Result, profile: Profile) -> None:
    medians = {f.metric: abs(f.error) for f in result.judged if f.quantile == 0.5}
    assert profile.errors.ttft == medians["time to first token"]
    assert profile.errors.e2e == medians["end to end"]
    assert f"{result.requests} requests of mixed lengths from {result.clients} clients" in profile.error


def test_what_was_assumed_is_in_the_source(result: Result) -> None:
    noted = replace(result, notes=("the cache is a guess",))
    profile = profile_of(noted, name="x", accelerator="", tensor_parallel=1, at=AT)
    assert "Note: the cache is a guess." in profile.source
    assert "2026-11-24" in profile.source
    assert "sleep and wake times (0" in profile.source


def test_json_has_each_number_with_its_interval(result: Result, profile: Profile) -> None:
    fields = fields_of(result, profile)
    assert set(fields["values"]) == set(UNKNOWNS)
    assert all(v["low"] <= v["value"] <= v["high"] for v in fields["values"].values())
    assert {f["metric"] for f in fields["held_out"]} >= {"time to first token", "time between tokens", "end to end"}
    assert fields["profile"]["name"] == "mine"


def test_a_place_that_cannot_be_written_is_found_before_measuring(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.yaml")
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    for bad in (tmp_path / "new.txt", tmp_path / "nowhere" / "new.yaml", folder):
        with pytest.raises(Problem):
            check_writable(bad)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="cannot write"):
        write(tmp_path / "nowhere" / "x.yaml", "text")
    path = tmp_path / "x.yaml"
    path.write_text("old")
    write(path, "new")
    assert path.read_text() == "new"
