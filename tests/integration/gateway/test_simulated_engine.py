"""The gateway in front of `trimtab engine`, a process that speaks vLLM's API."""

import asyncio
import json
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.conftest import Running, Start, eventually, few
from tests.integration.gateway.test_process import free_ports
from tests.support.raw_http import connection
from tests.support.until import until
from trimtab_gateway.pools import EngineAddress, PoolConfig

PROGRAM = Path(sys.executable).parent / "trimtab"


@dataclass
class Engine:
    port: int
    process: asyncio.subprocess.Process

    async def metric(self, *names: str) -> float:
        """Return the sum of metrics at one moment."""
        text = await asyncio.to_thread(_get, f"http://127.0.0.1:{self.port}/metrics")
        wanted = tuple(f"{name}{{" for name in names)
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted))

    async def is_up(self) -> bool:
        try:
            await asyncio.to_thread(_get, f"http://127.0.0.1:{self.port}/health")
        except OSError:
            return False
        return True


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


@asynccontextmanager
async def an_engine(*options: str) -> AsyncIterator[Engine]:
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "engine", "--model", "llama", "--port", str(port), *options, stderr=asyncio.subprocess.DEVNULL
    )
    engine = Engine(port, process)
    try:
        await until(engine.is_up)
        yield engine
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def engines() -> AsyncIterator[Callable[..., Any]]:
    """Start engines: `await engines("--option", ...)`."""
    async with AsyncExitStack() as stack:

        async def begin(*options: str) -> Engine:
            return await stack.enter_async_context(an_engine(*options))

        yield begin


async def before(start: Start, *engines: Engine, concurrency: int = 8) -> Running:
    """Start a gateway before these engines."""
    running = await start()
    addresses = tuple(EngineAddress(f"e{each.port}", "127.0.0.1", each.port, concurrency) for each in engines)
    running.gateway.configure([PoolConfig("chat", ("llama",), bounds=few(), engines=addresses)])
    return running


def a_chat(**fields: Any) -> dict[str, Any]:
    return {"model": "llama", "messages": [{"role": "user", "content": "Say something."}]} | fields


async def test_what_the_engine_answers_is_what_comes_out(start: Start, engines: Callable[..., Any]) -> None:
    engine = await engines()
    running = await before(start, engine)
    body = a_chat(max_tokens=12, seed=7, temperature=0)
    through = (await running.ask(body, x_request_id="same")).json
    async with connection(engine.port) as client:
        await client.ask(body, x_request_id="same")
        direct = (await client.answer()).json
    assert through["usage"]["completion_tokens"] == 12
    for answer in (through, direct):
        del answer["created"]
    assert through.keys() == direct.keys()
    assert through["id"] == direct["id"] == "chatcmpl-same"


async def test_a_stream_is_counted_token_by_token(start: Start, engines: Callable[..., Any]) -> None:
    running = await before(start, await engines())
    body = a_chat(max_tokens=20, stream=True, ignore_eos=True, stream_options={"include_usage": True})
    answer = await running.ask(body)
    events = answer.body.decode().split("\n\n")[:-1]
    assert events[-1] == "data: [DONE]"
    usage = json.loads(events[-2].removeprefix("data: "))["usage"]
    gaps = running.value("trimtab_gateway_time_between_tokens_seconds_count", pool="chat", level="")
    assert usage["completion_tokens"] == 20
    assert 10 <= gaps <= len(events)
    assert running.value("trimtab_gateway_ttft_seconds_count", pool="chat", level="") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_engine(start: Start, engines: Callable[..., Any], stream: bool) -> None:
    engine = await engines()
    running = await before(start, engine)
    async with running.connect() as client:
        await client.ask(a_chat(max_tokens=4000, stream=stream, ignore_eos=True))

        async def is_running() -> bool:
            return await engine.metric("vllm:num_requests_running") == 1

        await until(is_running)
        client.leave()

        async def is_free() -> bool:
            return await engine.metric("vllm:num_requests_running") == 0

        await until(is_free)
    await eventually(lambda: running.outcomes() == {"cancelled": 1})


async def test_an_engine_that_is_killed_ends_its_streams_with_an_error_and_the_other_serves_on(
    start: Start, engines: Callable[..., Any]
) -> None:
    first, second = await engines(), await engines()
    running = await before(start, first, second)
    async with running.connect() as one, running.connect() as two:
        for client in (one, two):
            await client.ask(a_chat(max_tokens=400, stream=True, ignore_eos=True))
            assert (await client.head())[0] == 200
            await client.chunk()
        first.process.send_signal(signal.SIGKILL)
        bodies = []
        for client in (one, two):
            body = b""
            while content := (await client.chunk())[0]:
                body += content
            bodies.append(body)
    assert sorted(b'"code":"upstream_failed"' in body for body in bodies) == [False, True]
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    assert [(await running.ask(a_chat(max_tokens=2))).status for _ in range(4)] == [200] * 4
    assert running.outcomes() == {"ok": 5, "upstream_failed": 1}


async def test_the_queue_stays_here_and_not_in_the_engine(start: Start, engines: Callable[..., Any]) -> None:
    engine = await engines()
    running = await before(start, engine, concurrency=2)
    asking = [asyncio.create_task(running.ask(a_chat(max_tokens=60, ignore_eos=True))) for _ in range(10)]
    await eventually(lambda: running.queue.waiting == 8)
    # One that has just come may wait for the engine's next iteration; there are never more than two in all.
    assert await engine.metric("vllm:num_requests_waiting", "vllm:num_requests_running") <= 2
    assert {(await task).status for task in asking} == {200}
    assert running.value("trimtab_gateway_queue_seconds_count", pool="chat") == 10


async def test_errors_of_the_engine_keep_their_own_shape(start: Start, engines: Callable[..., Any]) -> None:
    running = await before(start, await engines())
    answer = await running.ask(a_chat(max_tokens=0))
    assert (answer.status, answer.code) == (400, "400")
    assert "x-trimtab-reason" not in answer.headers
    missing = await running.ask({"model": "llama"})
    assert missing.status == 400
    assert running.outcomes() == {"client_error": 2}
