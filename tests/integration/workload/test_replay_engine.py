"""Replay against `trimtab engine`, a server that really queues, batches and counts."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trimtab.workload.answer import Outcome
from trimtab.workload.catalog import find_traces
from trimtab.workload.level import parse_level
from trimtab.workload.mooncake import read_mooncake
from trimtab.workload.replay import Replay, ReplaySettings
from trimtab.workload.request import Trace, TraceRequest, statistics_of
from trimtab.workload.summary import summarize
from trimtab.workload.wire import Client, parse_target

HEADS = Path(__file__).parents[2] / "data" / "traces"
SPEED = 10.0
PROFILE = "llama-3.1-8b-h100"


class Engine:
    """A simulated engine at 10 x, in a process of its own."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url

    def replay(self, trace: Trace, **settings: object) -> Replay:
        chosen = ReplaySettings("m", **({"speed": SPEED, "time_scale": SPEED} | settings))  # type: ignore[arg-type]
        return Replay(trace, Client(parse_target(self.url)), chosen)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    options = ("--model", "m", "--profile", PROFILE, "--speed", str(SPEED), "--port", "0", "--log-format", "json")
    details = "--enable-prompt-tokens-details"
    command = (sys.executable, "-m", "trimtab.cli", "engine", *options, details)
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=PIPE)
    assert process.stderr is not None
    yield Engine(process, json.loads(await process.stderr.readline())["url"])
    if process.returncode is None:
        process.terminate()
    await process.communicate()


async def test_a_recorded_minute(engine: Engine) -> None:
    """The server counts the tokens that the trace has, and answers with exactly as many."""
    trace = find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=60)
    level = parse_level("any:completion=1h")
    replay = engine.replay(trace, levels=(level,))
    await replay.run()
    assert {record.outcome for record in replay.records} == {Outcome.OK}
    assert all(record.output_tokens == record.wanted_tokens for record in replay.records)
    # A chat template adds a few tokens to each prompt; no word may count twice.
    assert all(0 <= record.prompt_tokens - record.input_tokens <= 16 for record in replay.records)
    summary = summarize(replay.records, (level,), offered_seconds=replay.offered_seconds, gaps=replay.gaps)
    assert summary.total.attainment == 1.0
    # The physics of this engine cannot give a token in less than 4 ms of its own time.
    assert summary.total.tpot.p50 > 0.004
    assert not [warning for warning in summary.warnings if "overloaded" not in warning]


async def test_shared_blocks_hit_the_prefix_cache(engine: Engine) -> None:
    """What the trace says can be reused, the engine's cache finds; without block ids it finds nothing."""
    whole = read_mooncake(HEADS / "mooncake-fast25" / "conversation_trace.jsonl.gz")
    short = tuple(
        TraceRequest(place * 2.0, request.input_tokens, 4, request.blocks)
        for place, request in enumerate(r for r in whole.requests if r.input_tokens < 8000)
    )[:20]
    with_blocks = Trace("m", "f", short, 40.0)
    without = Trace("m", "f", tuple(TraceRequest(r.at_seconds, r.input_tokens, 4) for r in short), 40.0)
    cached = {}
    for name, trace, seed in (("with", with_blocks, 1), ("without", without, 2)):
        replay = engine.replay(trace, seed=seed)
        await replay.run()
        assert {record.outcome for record in replay.records} == {Outcome.OK}
        cached[name] = summarize(
            replay.records, replay.settings.levels, offered_seconds=40, gaps=replay.gaps
        ).cached_fraction
    expected = statistics_of(with_blocks).reused_prefix_tokens_fraction
    assert expected > 0.05
    assert cached["with"] == pytest.approx(expected, abs=0.03)
    assert cached["without"] < 0.01


async def test_an_engine_that_is_killed_breaks_off_what_it_had_and_refuses_the_rest(engine: Engine) -> None:
    trace = find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=60)
    replay = engine.replay(trace)
    work = asyncio.create_task(replay.run())
    while len(replay.records) < 20 or not replay.under_way:  # noqa: ASYNC110 - nothing else says so
        await asyncio.sleep(0.01)
    engine.process.send_signal(signal.SIGKILL)
    await work
    counts = {outcome: sum(record.outcome is outcome for record in replay.records) for outcome in Outcome}
    assert counts[Outcome.OK] >= 20
    assert counts[Outcome.TRUNCATED] + counts[Outcome.ERROR] == len(trace.requests) - counts[Outcome.OK]
    assert any("cannot connect" in record.error for record in replay.records)
    assert len(replay.records) == len(trace.requests)
