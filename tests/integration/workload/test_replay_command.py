"""`trimtab replay` as a person runs it: a process, its output, its files, its exit code."""

import asyncio
import csv
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.openai_server import OpenAIServer, Script
from trimtab.cli.replay import replay as replay_command
from trimtab.model.problem import Problem

HEADS = Path(__file__).parents[2] / "data" / "traces"


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


async def start(*arguments: str, folder: Path, **variables: str) -> Process:
    environment = {name: value for name, value in os.environ.items() if name != "TRIMTAB_DATA"} | variables
    command = (sys.executable, "-m", "trimtab.cli", "replay", *arguments)
    return await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE)


async def replay(*arguments: str, folder: Path, **variables: str) -> tuple[int | None, str, str]:
    process = await start(*arguments, folder=folder, **variables)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_table_and_files(server: OpenAIServer, tmp_path: Path) -> None:
    code, out, err = await replay(
        *("--url", server.url, "--duration", "60s", "--speed", "30", "--out", "figures"),
        *("--level", "interactive:ttft=2s:0.7", "--level", "batch:completion=1h:0.3"),
        folder=tmp_path,
    )
    assert code == 0, err
    assert "191 ok" in out
    assert "interactive: TTFT ≤ 2 s" in out
    assert "model m" in err
    with (tmp_path / "figures" / "requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 191 == len(server.received) - 1  # one asked for the models
    assert {row["level"] for row in rows} == {"interactive", "batch"}
    summary = json.loads((tmp_path / "figures" / "summary.json").read_text())
    assert summary["total"]["met"] == sum(int(row["met"]) for row in rows)
    assert (tmp_path / "figures" / "replay.png").read_bytes().startswith(b"\x89PNG")


async def test_json_is_all_that_standard_output_has(server: OpenAIServer, tmp_path: Path) -> None:
    code, out, _ = await replay(
        *("--url", server.url, "--trace", "servegen-mm-image", "--start", "12h", "--duration", "30s", "--speed", "30"),
        *("--format", "json", "--data", str(HEADS)),
        folder=tmp_path,
    )
    record = json.loads(out)
    assert code == 0
    assert record["about"]["trace"] == "servegen-mm-image"
    assert record["total"]["offered"] == record["about"]["plannedRequests"]
    assert len(list((tmp_path / "replays").iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_replay_prints_what_it_has(number: int, server: OpenAIServer, tmp_path: Path) -> None:
    reached = asyncio.Event()

    def behave(count: int, _request: object) -> Script:
        if count == 20:
            reached.set()
        return Script(hang=count % 2 == 0)

    server.behave = behave
    process = await start("--url", server.url, "--speed", "50", "--model", "m", "--out", "o", folder=tmp_path)
    await reached.wait()
    process.send_signal(number)
    out, err = await process.communicate()
    assert process.returncode == 130, err
    assert b"unfinished" in out
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["about"]["complete"] is False


async def test_api_key_and_headers_are_sent(server: OpenAIServer, tmp_path: Path) -> None:
    code, _, err = await replay(
        *("--url", server.url, "--duration", "5s", "--speed", "50", "--header", "X-Tenant: search"),
        folder=tmp_path,
        OPENAI_API_KEY="sk-1",
    )
    assert code == 0, err
    assert {request.headers["authorization"] for request in server.received} == {"Bearer sk-1"}
    assert {request.headers["x-tenant"] for request in server.received} == {"search"}


async def test_list_and_check_need_no_server(tmp_path: Path) -> None:
    code, out, _ = await replay("--list", "--data", str(HEADS), folder=tmp_path)
    assert code == 0
    assert out.count("\n    ") == 5
    code, out, _ = await replay("--check", "--trace", "mooncake-conversation", "--data", str(HEADS), folder=tmp_path)
    assert code == 0
    assert "120 requests in 42.0 s" in out
    assert not (tmp_path / "replays").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--trace", "azure-conv"], 2, "--url is missing"),
        (["--trace", "nope"], 1, "known: azure-conv"),
        (["--url", "localhost:1"], 1, "is not an http or https URL"),
        (["--url", "http://127.0.0.1:1", "--model", "m"], 1, "cannot connect to 127.0.0.1:1"),
        (["--url", "http://127.0.0.1:1", "--level", "a:ttft=1s", "--level", "a:ttft=2s"], 2, "two levels are called a"),
        (["--url", "http://127.0.0.1:1", "--header", "nonsense"], 2, "is not NAME:VALUE"),
        (["--speed", "0"], 2, "--speed"),
        (["--speed", "nan"], 2, "--speed"),
        (["--duration", "soon"], 2, "is not a duration"),
        (["--url", "http://127.0.0.1:1", "--out", "/proc/nowhere"], 1, "cannot write to /proc/nowhere"),
        (["--url", "http://127.0.0.1:1", "--trace", "azure-conv", "--rate-scale", "2"], 1, "another speed"),
    ],
)
def test_wrong_usage(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(replay_command, arguments)
    assert message in (str(result.exception) if isinstance(result.exception, Problem) else result.output)
    assert result.exit_code == code


async def test_malformed_trace_names_file_row_and_field(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,0,4\n")
    code, _, err = await replay("--url", "http://127.0.0.1:1", "--trace", "t.csv", folder=tmp_path)
    assert code == 1
    assert "t.csv, row 2, ContextTokens: 0 tokens; a request has at least 1" in err


async def test_full_disk_loses_the_files_and_not_the_figures(server: OpenAIServer, tmp_path: Path) -> None:
    """The table is printed before anything is written."""
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "requests.csv").symlink_to("/dev/full")
    code, out, err = await replay(
        *("--url", server.url, "--duration", "5s", "--speed", "50", "--out", "o"), folder=tmp_path
    )
    assert code == 1
    assert "outcomes: " in out
    assert "cannot write to o: No space left on device" in err
    assert "fix: free some space, or pass --out with another folder" in err


async def test_wrong_model_says_which_there_are(server: OpenAIServer, tmp_path: Path) -> None:
    code, _, err = await replay("--url", server.url, "--model", "llama", folder=tmp_path)
    assert code == 1
    assert "does not offer llama" in err
    assert "one of: m" in err
