"""`trimtab profile` as a person runs it, against a simulated engine whose costs are known."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.support.openai_server import OpenAIServer
from trimtab.cli.profile import is_loopback
from trimtab.cli.profile import profile as command
from trimtab.model.problem import Problem
from trimtab.sim.profile import SHIPPED, load_profile

TRUE = {"base": 0.008, "per_prefill_token": 6e-5, "per_decode_sequence": 6e-4, "per_context_token": 1e-7}


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A profile so slow that a busy machine hardly matters."""
    raw = yaml.safe_load((SHIPPED / "tiny.yaml").read_text(encoding="utf-8"))
    raw |= {"iteration": {**TRUE, "per_attention_pair": 1e-9}, "max_num_seqs": 4, "max_model_len": 1024}
    path = tmp_path / "slow.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.fixture
async def engine(slow: Path) -> AsyncIterator[str]:
    options = ("--model", "m", "--profile", str(slow), "--port", "0", "--log-format", "json", "--api-key", "secret")
    process = await start("engine", *options)
    assert process.stderr is not None
    yield json.loads(await process.stderr.readline())["url"]
    process.terminate()
    await process.communicate()


async def start(*arguments: str, folder: Path | None = None, **variables: str) -> Process:
    environment = os.environ | variables
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trimtab.cli", *arguments, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE,
        stdin=DEVNULL,
    )  # fmt: skip


async def test_a_profile_of_a_known_engine(engine: str, tmp_path: Path) -> None:
    """One process measures another: what is found is what the other was given, give or take a busy machine."""
    key = tmp_path / "key"
    key.write_text("secret\n")
    process = await start(
        *("profile", "--url", engine, "--minutes", "0.1", "--max-concurrency", "8", "--out", "found.yaml"),
        *("--api-key-file", str(key), "--format", "json", "--accelerator", "none", "--busy"),
        folder=tmp_path,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found = load_profile(str(tmp_path / "found.yaml"))
    assert (found.max_num_seqs, found.max_model_len, found.kv_blocks) == (4, 1024, 2049)
    for name in ("base", "per_prefill_token"):
        value, (low, high) = TRUE[name], found.intervals[f"iteration.{name}"]
        assert low - 0.15 * value <= value <= high + 0.15 * value, name
    told = json.loads(out)
    assert told["profile"]["iteration"]["base"] == pytest.approx(found.iteration.base, rel=1e-4)
    assert {figure["metric"] for figure in told["held_out"]} >= {"end to end"}
    assert "measuring m: up to 8 requests at once" in err.decode()

    again = await start("engine", "--model", "m", "--profile", str(tmp_path / "found.yaml"), "--port", "0")
    assert again.stderr is not None
    assert b"http://" in await again.stderr.readline(), "the engine takes the profile"
    again.terminate()
    await again.communicate()


async def test_without_the_key(engine: str, tmp_path: Path) -> None:
    process = await start("profile", "--url", engine, folder=tmp_path, OPENAI_API_KEY="")
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "401" in err.decode()
    assert list(tmp_path.glob("m*.yaml")) == []


async def test_interrupted_it_writes_nothing(engine: str, tmp_path: Path) -> None:
    process = await start("profile", "--url", engine, "--busy", folder=tmp_path, OPENAI_API_KEY="secret")
    assert process.stderr is not None
    while b"idle" not in await process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert b"interrupted" in err
    assert [path.name for path in tmp_path.iterdir()] == ["slow.yaml"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--url", "http://127.0.0.1:9"), "no server"),
        (("--url", "ftp://x"), "not an http or https URL"),
        (("--url", "http://127.0.0.1:9", "--out", "x.txt"), "does not end in .yaml"),
        (("--url", "http://127.0.0.1:9", "--out", "nowhere/x.yaml"), "cannot write"),
        (("--url", "http://127.0.0.1:9", "--api-key-file", "nowhere"), "cannot be read"),
    ],
)
def test_what_is_refused_at_once(
    arguments: tuple[str, ...], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(command, arguments)
    assert isinstance(outcome.exception, Problem)
    assert what in str(outcome.exception)


async def test_an_unknown_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with OpenAIServer() as server:
        process = await start("profile", "--url", server.url, "--model", "other", folder=tmp_path)
        _, err = await process.communicate()
    assert process.returncode == 1
    assert "does not offer other" in err.decode()


async def test_an_engine_elsewhere_is_not_loaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads here still counts as elsewhere: nobody can tell by the name."""
    monkeypatch.setattr("trimtab.cli.profile.is_loopback", lambda _: False)
    monkeypatch.chdir(tmp_path)
    async with OpenAIServer() as server:
        outcome = await asyncio.to_thread(CliRunner().invoke, command, ["--url", server.url])
        asked = [request.path for request in server.received if request.method == "POST"]
    assert isinstance(outcome.exception, Problem)
    assert "--yes" in outcome.exception.fix
    assert asked == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost:1", True),
        ("http://10.0.0.7:8000", False),
        ("https://llm.example.com", False),
    ],
)
def test_what_counts_as_this_machine(url: str, *, expected: bool) -> None:
    assert is_loopback(url) is expected
