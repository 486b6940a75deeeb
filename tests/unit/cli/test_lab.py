"""`trimtab lab list` and `run`."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.sim.lab.toy import TOY
from trimtab.cli import lab as module
from trimtab.cli.lab import lab
from trimtab.cli.main import cli
from trimtab.model.problem import Problem
from trimtab.sim import experiments as package


@pytest.fixture(autouse=True)
def toys(monkeypatch: Any) -> None:
    monkeypatch.setattr(package, "experiments", lambda: {"toy": TOY})
    monkeypatch.setattr(module, "experiments", lambda: {"toy": TOY})
    monkeypatch.delenv("TRIMTAB_DATA", raising=False)


def invoke(*words: Any) -> Any:
    result = CliRunner().invoke(lab, words, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


def test_the_list_shows_parts_needs_seeds_and_time() -> None:
    text = invoke("list").stdout
    for wanted in ("toy", "main", "made-up-set", "8", "< 1 s", "?"):
        assert wanted in text
    (listed,) = json.loads(invoke("list", "--format", "json").stdout)["experiments"]
    assert [part["rough_seconds"] for part in listed["parts"]] == [pytest.approx(0.048), None, None]
    assert listed["parts"][2]["needs"] == ["made-up-set"]


def test_a_run_writes_its_folder_and_says_where(tmp_path: Any) -> None:
    result = invoke("run", "toy", "--seeds", "2", "--workers", "1", "--out", str(tmp_path / "new" / "out"))
    assert result.return_value == 0
    assert "The main table (2 seeds)" in result.stdout
    assert "not run: needy" in result.stdout
    assert f"report: {tmp_path / 'new' / 'out' / 'report.html'}" in result.stdout
    assert (tmp_path / "new" / "out" / "main-1.png").is_file()


def test_json_on_the_terminal_is_the_file(tmp_path: Any) -> None:
    words = ("run", "toy", "--part", "forest", "--quick", "--workers", "1", "--format", "json", "--out", str(tmp_path))
    assert invoke(*words).stdout == (tmp_path / "result.json").read_text()


def test_an_unknown_experiment_gets_a_suggestion() -> None:
    with pytest.raises(Problem, match=r"no experiment 'tuy'\nfix: did you mean toy\?"):
        invoke("run", "tuy")
    with pytest.raises(Problem, match="fix: name one of toy"):
        invoke("run", "something-else")


def test_an_unknown_part_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="its parts are main, forest, needy"):
        invoke("run", "toy", "--part", "nope", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_data_folder_must_be_there(tmp_path: Any) -> None:
    with pytest.raises(Problem, match="does not exist\nfix: correct --data"):
        invoke("run", "toy", "--data", str(tmp_path / "absent"))


def test_the_output_must_be_a_folder(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="is a file"):
        invoke("run", "toy", "--out", str(tmp_path / "file"))


def test_help_shows_attached_commands_without_importing_them() -> None:
    text = CliRunner().invoke(cli, ["lab", "--help"], prog_name="trimtab").output
    assert "calibrate" in text
    assert "list" in text
    assert "run" in text


def test_experiments_are_found_in_their_package(monkeypatch: Any) -> None:
    monkeypatch.undo()
    found = package.experiments()
    assert all(name == experiment.name and experiment.parts() for name, experiment in found.items())
    assert list(found) == sorted(found)
