"""`trimtab whatif`."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.sim.whatif.pools import SLOW, manifest, write_pool, write_trace
from trimtab.cli.whatif import whatif
from trimtab.model.problem import Problem


def invoke(*words: Any) -> Any:
    result = CliRunner().invoke(whatif, list(map(str, words)), standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


def ask(tmp_path: Path, *words: Any) -> Any:
    small = ("--seeds", "2", "--duration", "15", "--load", "3", "--workers", "1", "--out", tmp_path / "out")
    return invoke(
        "-f", write_pool(tmp_path, manifest(**SLOW)), "--trace", write_trace(tmp_path, seconds=90), *small, *words
    )


def test_the_answer_is_printed_and_its_report_written(tmp_path: Path) -> None:
    result = ask(tmp_path, "--compare", "fcfs,edf", "--share", "fast=2", "--share", "slow=1", "--gpu-hour-price", "2")
    assert "enough for" in result.stdout
    assert "EDF" in result.stdout
    assert f"report: {tmp_path / 'out' / 'report.html'}" in result.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "--compare fcfs,edf --share fast=2.0 --share slow=1.0" in page or "--share fast=2 --share slow=1" in page


def test_json_is_the_file(tmp_path: Path) -> None:
    result = ask(tmp_path, "--compare", "FCFS", "--replicas", "3", "--format", "json")
    assert result.stdout == (tmp_path / "out" / "answer.json").read_text()
    values = json.loads(result.stdout)
    assert values["replicas"] == 3
    assert [policy["policy"] for policy in values["policies"]] == ["FCFS"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--compare", "LIFO"), "no policy 'LIFO' to compare\nfix: name some of FCFS, SSJF, EDF, QLM"),
        (("--share", "fast"), "'fast' is not LEVEL=SHARE"),
        (("--share", "fast=x"), "'fast=x' is not LEVEL=SHARE"),
        (("--share", "fast=0"), "all shares are 0"),
        (("--share", "medium=1"), "names no level of the pool"),
        (("--profile", "nothing"), "no profile 'nothing'"),
        (("--trace", "absent"), "neither a file nor a known trace"),
        (("--data", "/no/such/folder"), "does not exist"),
        (("--pool", "other"), "no ServingPool called 'other'"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_fix(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(Problem) as error:
        ask(tmp_path, *words)
    assert message in str(error.value)
