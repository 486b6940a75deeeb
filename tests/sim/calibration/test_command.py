"""`trimtab lab calibrate` as a user runs it: on what ships, on other folders, on faulty ones."""

import gzip
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from tests.sim.calibration.sweeps import SETUP, TRUTH, measured, sweep, write
from trimtab.cli.calibrate import calibrate
from trimtab.cli.calibrate_view import show
from trimtab.model.problem import Problem
from trimtab.sim.calibration import ground_truth
from trimtab.sim.calibration.fitting import fingerprint
from trimtab.sim.calibration.ground_truth import FOLDER
from trimtab.sim.calibration.report import Report, figures_of
from trimtab.sim.calibration.shipped import SHIPPED
from trimtab.sim.calibration.source import METRICS, Compared, Latency, Run
from trimtab.sim.hardware import load_accelerator
from trimtab.sim.profile import load_profile


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(calibrate, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result


def report(*arguments: object) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(run(*arguments, "--format", "json").stdout)
    return values


def rows(values: dict[str, Any], run_id: str) -> list[dict[str, Any]]:
    return [row for row in values["runs"] if row["id"] == run_id]


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_DATA", raising=False)


def test_runs_that_the_speeds_were_not_fitted_to_meet_every_bar() -> None:
    """The bars of the specification, on the two recorded runs, each predicted from speeds fitted without it."""
    values = report()
    said = values["summary"]
    assert (said["judged_runs"], said["within_bars"]) == (2, 2)
    assert said["missed"] == []
    judged = [row for row in values["runs"] if row["judged"]]
    assert {row["metric"] for row in judged} == {"ttft", "time_between_tokens", "e2e"}
    for row in judged:
        bar = {("all", 0.5): 0.1, ("all", 0.9): 0.2}.get((row["stage"], row["quantile"]), 0.2)
        assert row["error"] <= bar, row
        assert row["error"] == pytest.approx(abs(row["predicted"] - row["measured"]) / row["measured"])
    for stage in ("synchronous", "throughput"):
        assert any(row["stage"] == stage for row in judged)
    assert sum(row["stage"].startswith("constant") and row["metric"] == "e2e" for row in judged) == 20


def test_what_a_profile_was_fitted_to_is_reported_and_not_judged() -> None:
    values = report()
    fitted = [row for row in values["runs"] if row["id"].endswith("(fitted)")]
    assert fitted
    assert {(row["judged"], row["reason"]) for row in fitted} == {(False, "The profile was fitted to this run.")}
    medians = [row for row in fitted if (row["stage"], row["quantile"]) == ("all", 0.5)]
    assert max(row["error"] for row in medians) < 0.03


def test_the_same_data_gives_the_same_bytes_under_any_hash_seed() -> None:
    here = run("--format", "json").stdout_bytes
    command = [sys.executable, "-c", "from trimtab.cli.calibrate import calibrate; calibrate()", "--format", "json"]
    for seed in ("1",):
        done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        assert done.stdout == here


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with other runs: of a model that was fitted, one that was not, one that nobody knows, and so on."""
    data = tmp_path_factory.mktemp("data")
    fitted = load_accelerator("h100")
    assert fitted is not None
    folder = data / FOLDER
    known = measured(sweep(), fitted.accelerator)
    write(replace(known, id="known"), folder)
    setups = {
        "wider": replace(SETUP, tensor_parallel=2),
        "larger": replace(SETUP, model="meta-llama/Llama-2-70b-hf", tensor_parallel=4),
        "chat": replace(SETUP, model="codellama/CodeLlama-34b-hf", prefix_tokens=64),
        "too-large": replace(SETUP, model="meta-llama/Llama-2-70b-hf"),
        "unknown": replace(SETUP, model="nobody/knows-9b"),
        "narrow": replace(SETUP, max_num_batched_tokens=32),
    }
    for name, setup in setups.items():
        write(replace(known, id=name, setup=setup), folder)
    write(replace(known, id="elsewhere"), folder, gpu="abacus")
    write(replace(known, id="quantized"), folder, quantization="awq")
    broken = write(replace(known, id="broken"), folder)
    broken.write_bytes(gzip.compress(gzip.decompress(broken.read_bytes()).replace(b"latency.e2e", b"latency.total")))
    return data


@pytest.fixture(scope="module")
def values(other: Path) -> dict[str, Any]:
    """What is said of them."""
    return report("--data", other)


def test_any_run_of_the_format_is_predicted(values: dict[str, Any]) -> None:
    for name in ("known", "wider", "larger", "chat"):
        mine = rows(values, name)
        assert {row["n"] for row in mine if (row["stage"], row["metric"]) == ("all", "ttft")} == {len(sweep().requests)}
        assert any(row["judged"] for row in mine)
    profiles = values["summary"]["profiles"]
    assert profiles["known"] == {"profile": "llama-2-7b-h100", "extrapolated": False}
    assert profiles["wider"]["extrapolated"]
    assert profiles["larger"]["extrapolated"]


def test_a_run_that_an_engine_with_these_speeds_recorded_is_predicted(values: dict[str, Any]) -> None:
    medians = [r for r in rows(values, "known") if (r["stage"], r["quantile"]) == ("all", 0.5)]
    assert max(row["error"] for row in medians) < 0.06, "up to what tuning to the recorded run changed"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unknown", "The shape of nobody/knows-9b is not known"),
        ("elsewhere", "No speeds of the accelerator abacus"),
        ("quantized", "is not known"),
        ("too-large", "the KV cache would hold 0"),
        ("narrow", "max_num_batched_tokens is 32, below max_num_seqs"),
    ],
)
def test_a_run_that_cannot_be_predicted_is_listed_with_the_reason(
    values: dict[str, Any], name: str, reason: str
) -> None:
    (row,) = rows(values, name)
    assert (row["n"], row["judged"], row["metric"]) == (0, False, None)
    assert reason in row["reason"]


def test_the_table_lists_everything_too(other: Path, values: dict[str, Any]) -> None:
    said = "".join(run("--data", other).stdout.split())
    for each in (*values["summary"]["not_judged"], *values["summary"]["missed"]):
        assert each["id"] in said
        assert each["reason"].replace(" ", "") in said


def compared(error: float, stage: str = "only", n: int = 20) -> tuple[Compared, ...]:
    """Requests whose first token takes 1 s and is predicted to take more."""
    return (Compared(stage, Latency(1.0, 11.0, 11), Latency(1.0 + error, 11.0 + error, 11)),) * n


def shown(width: int, *runs: Run) -> str:
    """What the terminal shows of some runs."""
    figures = tuple(each for run in runs for each in figures_of(run))
    text = io.StringIO()
    show(Report(runs, figures, (), (), ()), Console(file=text, width=width, highlight=False))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_the_tables_fit_the_terminal_and_mark_what_misses(width: int) -> None:
    plain = Run(
        "other", "set", {}, "", extrapolated=False, in_fit=False, requests=(), judged=False, reason="No profile."
    )
    long_name = "of-a-model-with-a-long-name-on-eight-devices, fitted without this run"
    good, bad, staged = (
        replace(plain, id=name, profile=long_name, requests=requests, judged=True, reason="")
        for name, requests in (
            ("tp8_bs128_offloadoff (fitted)", compared(0.05)),
            ("tp8_bs128_offloadon", compared(0.15)),
            ("in-stages", (*compared(0.01, "slow"), *compared(0.3, "fast", 4))),
        )
    )
    text = shown(width, good, bad, staged, plain, replace(plain, id="another"))
    assert max(map(len, text.splitlines())) <= width
    lines = [line.split() for line in text.splitlines()]
    assert ["tp8_bs128_offloadoff", "(fitted)", "20", "+5.0", "+5.0", "+0.0", "+0.0", "+0.5", "+0.5"] in lines
    assert ["tp8_bs128_offloadon", "20", "+15.0!", "+15.0", "+0.0", "+0.0", "+1.4", "+1.4"] in lines
    assert ["fast", "4", "+30.0!", "+30.0", "+0.0", "+0.0", "+2.7", "+2.7"] in lines
    said = " ".join(text.split())
    assert "1 of 3 judged runs meet every bar" in said
    assert "Missed: tp8_bs128_offloadon, median of the time to first token: +15.0 % where 10 % is allowed" in said
    assert "Missed: in-stages, fast, median of the time to first token: +30.0 % where 20 % is allowed" in said
    assert "Not judged: other, another. No profile." in said


def test_a_malformed_run_is_named_and_the_others_are_reported(values: dict[str, Any]) -> None:
    (problem,) = (p for p in values["summary"]["problems"] if "broken" in p)
    assert "broken_otel_requests.csv.gz, row 1, latency.e2e: the column is missing" in problem


def test_a_folder_without_the_data_set_is_a_remark(tmp_path: Path) -> None:
    values = report("--data", tmp_path)
    assert not [row for row in values["runs"] if row["n"]]
    assert any(FOLDER in problem for problem in values["summary"]["problems"])
    (tmp_path / FOLDER).mkdir()
    assert any(
        "no file *_otel_requests.csv" in problem for problem in report("--data", tmp_path)["summary"]["problems"]
    )


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Problem, match="is not there"):
        CliRunner().invoke(calibrate, ["--data", str(tmp_path / "nowhere")], catch_exceptions=False)
    monkeypatch.setenv("TRIMTAB_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(Problem, match="elsewhere"):
        CliRunner().invoke(calibrate, [], catch_exceptions=False)


def test_the_environment_names_the_folder(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_DATA", str(other))
    assert rows(report(), "larger")


def test_the_folder_of_a_report(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "deep" / "report"
    write(measured(sweep(per_stage=4)), data / FOLDER)
    said = run("--data", data, "--out", out).stdout
    assert "index.html" in said
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    for word in ("synchronous", "throughput", "time between tokens", "whole run", "judged runs meet every bar"):
        assert word in page
    assert "http:" not in page
    assert "https:" not in page, "it needs nothing of the network"
    (picture,) = out.glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    values = report("--data", data)
    assert json.loads((out / "calibration.json").read_text()) == values
    lines = (out / "figures.csv").read_text().splitlines()
    assert lines[0].startswith("id,stage,n,metric,quantile")
    assert len(lines) == len(values["runs"]) + 1
    assert not (out / "profiles").exists(), "nothing was fitted"


def test_what_ships_is_what_the_speeds_were_fitted_to() -> None:
    runs, problems = ground_truth.read_all(SHIPPED / FOLDER)
    assert problems == []
    fitted = load_accelerator("h100")
    assert fitted is not None
    assert {fingerprint(r) for r in runs} == set(fitted.without)
    assert (SHIPPED / FOLDER / "LICENSE").exists()
    assert "Apache-2.0" in (SHIPPED / FOLDER / "ATTRIBUTION.md").read_text()


def test_a_fit_is_kept_and_can_be_loaded(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for seed, name in ((1, "one"), (2, "two")):
        write(replace(measured(sweep(seed=seed), TRUTH), id=name), data / FOLDER)
    values = report("--data", data, "--fit", "--out", out)
    assert {row["id"] for row in values["runs"]} == {"one", "one (fitted)", "two", "two (fitted)"}
    judged = [row for row in values["runs"] if row["judged"] and (row["stage"], row["quantile"]) == ("all", 0.5)]
    assert len(judged) == 6
    assert max(row["error"] for row in judged) < 0.05, "each was predicted from the other one"
    notes = " ".join(values["summary"]["notes"])
    assert "one: fitted to the first half of its requests" in notes
    assert any("No table of kernels of h100" in problem for problem in values["summary"]["problems"])
    profile = load_profile(str(out / "profiles" / "llama-2-7b-h100.yaml"))
    assert not profile.extrapolated
    assert profile.iteration.weights == pytest.approx(5.08e-3, rel=0.15)
    others = [load_profile(str(path)) for path in sorted((out / "profiles").glob("*.yaml"))]
    derived = [other for other in others if other.extrapolated]
    assert derived
    for metric in METRICS:
        usual, worst = (getattr(errors, metric) for errors in (profile.errors, profile.worst_errors))
        assert 0 < usual < worst < 0.15
        assert all(getattr(other.errors, metric) > usual for other in derived)
        assert all(getattr(other.worst_errors, metric) > 1.99 * worst for other in derived)
    assert f"at worst time to first token {profile.worst_errors.ttft:.1%}" in profile.error
    speeds = yaml.safe_load((out / "accelerators" / "h100.yaml").read_text())
    assert len(speeds["without"]) == 2
    assert speeds["tuned"] == ["llama-2-7b-h100"]


def test_evaluation_never_refits_what_ships(other: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(SHIPPED.parents[1].rglob("*.yaml"))}
    report("--data", other)
    assert {path: path.read_bytes() for path in before} == before


def test_a_damaged_file_is_a_remark(tmp_path: Path) -> None:
    path = write(sweep(), tmp_path / FOLDER)
    path.write_bytes(gzip.compress(b"x" * 1000)[:40])
    problems = report("--data", tmp_path)["summary"]["problems"]
    assert any(path.name in problem for problem in problems)
