"""A gateway on a loopback port, in the test's own event loop, in front of fake engines."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import uvloop

from tests.support.raw_http import Client, connection
from tests.support.upstream import Behavior, Upstream, answer, upstream
from trimtab.decide.queueing import Bounds
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.gateway import Gateway
from trimtab_gateway.limits import Limits
from trimtab_gateway.pools import EngineAddress, Level, PoolConfig


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run these tests on the loop that the gateway uses."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Running:
    """A gateway that listens, with the fake engines behind it."""

    gateway: Gateway
    port: int
    engines: list[Upstream]

    def connect(self) -> Any:
        return connection(self.port)

    async def ask(self, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Any:
        """Return the answer to one request on a connection of its own."""
        async with connection(self.port) as client:
            await client.ask(body, path, **headers)
            return await client.answer()

    def value(self, name: str, **labels: str) -> float:
        """Return a metric."""
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0

    def outcomes(self) -> dict[str, float]:
        """Return how requests ended, of all pools and levels."""
        counted: dict[str, float] = {}
        for metric in self.gateway.metrics.registry.collect():
            for sample in metric.samples:
                if sample.name == "trimtab_gateway_requests_total":
                    outcome = sample.labels["outcome"]
                    counted[outcome] = counted.get(outcome, 0) + sample.value
        return counted

    @property
    def queue(self) -> Any:
        return self.gateway.pools["chat"].queue


Start = Callable[..., Awaitable[Running]]


def a_pool(*engines: Upstream, concurrency: int = 4, **changes: Any) -> PoolConfig:
    """Build a pool named `chat` that serves `llama` on these engines."""
    addresses = tuple(EngineAddress(each.address, "127.0.0.1", each.port, concurrency) for each in engines)
    return replace(PoolConfig("chat", ("llama",), engines=addresses), **changes)


@asynccontextmanager
async def running(
    behaviors: list[Behavior],
    limits: Limits,
    concurrency: int,
    changes: dict[str, Any],
    send_buffer_bytes: int = 0,
) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(upstream(behavior)) for behavior in behaviors]
        gateway = Gateway(limits, GatewayMetrics(), time.perf_counter)
        gateway.configure([a_pool(*engines, concurrency=concurrency, **changes)])
        gateway.synced = True
        loop, defects = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: defects.append(context))
        server = await loop.create_server(gateway.connect, "127.0.0.1", 0)
        if send_buffer_bytes:  # inherited by every connection: slow readers are noticed early
            server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        ticking = asyncio.create_task(_tick(gateway))
        try:
            yield Running(gateway, server.sockets[0].getsockname()[1], engines)
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            server.close()
            gateway.cut_off()
            for client in list(gateway.clients):
                client.abort()
            for pool in gateway.pools.values():
                pool.close()
            await eventually(lambda: not gateway.clients)
            # Whatever happened, nothing went wrong unseen and nothing is left behind.
            assert defects == []
            assert gateway.exchanges == set()
            assert gateway.buffered_bytes == 0
            assert all(not pool.has_requests for pool in gateway.pools.values())


async def _tick(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(0.02)
        gateway.tick()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a gateway: `await start(behavior, ...)` with one fake engine for each behavior."""
    async with AsyncExitStack() as stack:

        async def begin(
            *behaviors: Behavior,
            limits: Limits | None = None,
            concurrency: int = 4,
            send_buffer_bytes: int = 0,
            **changes: Any,
        ) -> Running:
            return await stack.enter_async_context(
                running(list(behaviors) or [answer], limits or Limits(), concurrency, changes, send_buffer_bytes)
            )

        yield begin


async def eventually(holds: Callable[[], object]) -> None:
    """Wait for a condition of an object in this event loop."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - any object, any condition
            await asyncio.sleep(0.005)


def few(max_requests: int = 5000, max_waiting_seconds: float = 600.0, without_endpoint_seconds: float = 10.0) -> Bounds:
    """Build bounds on waiting."""
    return Bounds(max_requests, max_waiting_seconds, without_endpoint_seconds)


CHAT = {"model": "llama", "messages": []}
STREAM = {"model": "llama", "messages": [], "stream": True}
LEVELS = (Level("interactive", 60.0), Level("strict", 0.01), Level("batch"))

__all__ = ["CHAT", "LEVELS", "STREAM", "Client", "Running", "Start", "a_pool", "eventually", "few"]
