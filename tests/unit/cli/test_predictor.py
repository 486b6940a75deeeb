"""`trimtab predictor train` and `evaluate`."""

import json
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.unit.learn.made_up import log_rows, write_log
from trimtab.cli.main import COMMANDS
from trimtab.cli.predictor import predictor
from trimtab.model.problem import Problem
from trimtab.workload.fault import TraceError

ROW = "arrived_at,input_tokens,output_tokens\n"


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: Any) -> None:
    monkeypatch.delenv("TRIMTAB_DATA", raising=False)


def invoke(*words: Any) -> Any:
    result = CliRunner().invoke(predictor, [str(word) for word in words], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


def test_a_log_with_text_trains_and_is_judged_by_what_it_trained(tmp_path: Path) -> None:
    log, later = (write_log(tmp_path / f"{seed}.jsonl", log_rows(900, seed=seed)) for seed in (1, 2))
    weights = tmp_path / "weights.json"
    made = invoke(
        "train", "--log", log, "--features", "history,lexical", "--out", weights, "--name", "mine", "--format", "json"
    )
    (held_out,) = json.loads(made.stdout)["held_out"]
    assert held_out["tau"] > 0.4, "only the text tells short answers from long ones"
    judged = json.loads(invoke("evaluate", "--log", later, "--weights", weights, "--format", "json").stdout)
    by_name = {result["predictor"]: result for result in judged["results"]}
    assert list(by_name) == ["constant", "tenant-history", "mine"]
    assert by_name["mine"]["tau"] > 0.4
    assert abs(by_name["tenant-history"]["tau"]) < 0.1
    assert by_name["mine"]["order"] == "ssjf"
    assert by_name["mine"]["notes"] == ["2.jsonl: not trained on it"]
    for secret in ("Secret", "essay"):
        assert secret not in weights.read_text()
        assert secret not in made.output
    assert json.loads(weights.read_text())["made_by"] == (
        "trimtab predictor train --log 1.jsonl --features history,lexical --seconds-per-token 0.02"
    )


def test_text_is_asked_for_where_it_is_needed(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "text"} for row in log_rows(900, seed=1)]
    log = write_log(tmp_path / "log.jsonl", rows)
    with pytest.raises(Problem, match=r"900 of 900 requests have no text\nfix: log the prompts in a column `text`"):
        invoke("train", "--log", log, "--features", "history,lexical", "--out", tmp_path / "w.json")
    assert not (tmp_path / "w.json").exists()


def test_the_table_says_what_is_judged_and_what_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [f"2024-01-01 00:{at // 60:02}:{at % 60:02},{at % 4 * 100 + 50},{at % 4 * 90 + 9}" for at in range(1_000)]
    (folder / "AzureLLMInferenceTrace_conv.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n"
    )
    (folder / "AzureLLMInferenceTrace_tiny.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,1,1\n"
    )
    (folder / "broken_rates.csv").write_text("client,t_s,rate_rps,cv,dist,p1,p2\n1,0,1,1,Gamma,1,1\n")
    text = invoke("evaluate", "--data", folder).stdout
    assert "Judged by the last 20 % of the requests" in text
    assert "azure-conv" in text
    assert "skipped azure-tiny: 0 requests of known length to judge by, of at least 100" in text
    assert "skipped servegen-broken: " in text
    assert "ends are not recorded; taken as arrival + 0.1 s + 0.02 s per token" in text
    whole = json.loads(invoke("evaluate", "--data", folder, "--part", "whole", "--format", "json").stdout)
    assert [result["requests"] for result in whole["results"]] == [1_000] * 3


def test_judging_changes_no_weights(tmp_path: Path) -> None:
    from trimtab.learn.shipped import SHIPPED

    weights = Path(shutil.copy(SHIPPED, tmp_path / "w.json"))
    before = weights.read_bytes()
    log = write_log(tmp_path / "log.csv", [dict(list(row.items())[:4]) for row in log_rows(600, seed=3)])
    invoke("evaluate", "--log", log, "--weights", weights)
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (ROW, "no request in the file"),
        ("arrived_at,input_tokens\n1,2\n", "row 1, output_tokens: the column is missing"),
        (ROW + "1,2,x\n", "row 2, output_tokens: 'x' is not a finite number"),
    ],
)
def test_a_log_that_cannot_be_read_is_named_by_file_row_and_field(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "log.csv"
    log.write_text(text)
    for words in (("train", "--out", tmp_path / "w.json"), ("evaluate",)):
        with pytest.raises(TraceError, match=message):
            invoke(*words, "--log", log)


def test_too_short_a_log_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(ROW + "1,2,3\n")
    with pytest.raises(Problem, match="1 requests of known length to train on, of at least 200"):
        invoke("train", "--log", log, "--out", tmp_path / "w.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--log", "x.csv", "--features", "astrology"), "name each of history, metadata, lexical, embedding at most"),
        (("--log", "x.csv", "--features", "history,history"), "at most once"),
        (("--log", "x.csv", "--features", "embedding"), "--features embedding and --encoder go together"),
        ((), "name at least one --trace or --log"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_read(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        invoke("train", "--out", tmp_path / "w.json", *words)


def test_nothing_is_learned_from_requests_that_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "svc_rates.csv").write_text("client,t_s,rate_rps,cv,dist,p1,p2\n1,0,1,1,Gamma,1,1\n")
    with pytest.raises(TraceError, match="train from a recording"):
        invoke("train", "--trace", "servegen-svc", "--data", tmp_path, "--out", tmp_path / "w.json")


def test_traces_and_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="neither a file nor a known trace"):
        invoke("evaluate", "--trace", "no-such-trace")
    missing = json.loads(
        invoke("evaluate", "--log", write_log(tmp_path / "l.jsonl", log_rows(600, 4)), "--format", "json").stdout
    )
    assert missing["skipped"] == []


def test_the_command_is_listed() -> None:
    assert COMMANDS["predictor"][0] == "trimtab.cli.predictor:predictor"
