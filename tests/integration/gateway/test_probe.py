"""Health checks: what counts as healthy, and what a good answer does not excuse."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.integration.gateway.conftest import CHAT, Start
from tests.support.upstream import Call
from trimtab_gateway.probe import is_healthy, probe


@asynccontextmanager
async def a_server(data: bytes | None) -> AsyncIterator[int]:
    """Answer every connection with these bytes, or with silence."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if data is None:
            await done.wait()
        else:
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        done.set()
        server.close()


@pytest.mark.parametrize(
    ("data", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.0 200\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False),
        (b"HTTP/1.1 abc\r\n\r\n", False),
        (b"HTTP/1.1 200", False),
        (b"x" * 10_000, False),
        (b"", False),
        (None, False),
    ],
)
async def test_only_an_answer_of_200_in_time_is_healthy(data: bytes | None, healthy: bool) -> None:
    async with a_server(data) as port:
        assert await is_healthy("127.0.0.1", port, 10.0 if data is not None else 0.2) is healthy


async def test_a_closed_port_and_an_unknown_name_are_unhealthy() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not await is_healthy("127.0.0.1", unused.getsockname()[1], 1.0)
    assert not await is_healthy("no-such-host.invalid", 80, 1.0)
    assert not await is_healthy("bad..name", 80, 1.0)


async def test_a_good_health_check_does_not_excuse_failed_requests(start: Start) -> None:
    """A vLLM that drains answers `/health` with 200 and every request with 500."""

    async def draining(call: Call) -> None:
        await call.json(b'{"error":{"code":500}}', "500 Internal Server Error")

    running = await start(draining)
    pool = running.gateway.pools["chat"]
    (engine,) = pool.engines.values()
    for _ in range(3):
        assert (await running.ask(CHAT)).status == 500
    await probe(pool, engine, 1.0)
    assert engine.health.on_trial


async def test_a_good_health_check_ends_the_ejection_of_an_engine_that_was_away(start: Start) -> None:
    running = await start()
    pool = running.gateway.pools["chat"]
    (engine,) = pool.engines.values()
    running.engines[0].healthy = False
    await probe(pool, engine, 1.0)
    assert not engine.endpoint(running.gateway.now()).ready
    running.engines[0].healthy = True
    await probe(pool, engine, 1.0)
    assert engine.endpoint(running.gateway.now()).ready
