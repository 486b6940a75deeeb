"""Simulated engines inside the test's own event loop."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest

from trimtab.sim.profile import load_profile
from trimtab.sim.serving import EngineConfig
from trimtab.sim.vllm.server import EngineServer
from trimtab.sim.vllm.settings import EngineSettings

TINY = load_profile("tiny")


@dataclass
class Running:
    """A server, its address, and a client of it."""

    server: EngineServer
    port: int
    http: httpx2.AsyncClient
    body: dict[str, Any] = field(default_factory=lambda: {"prompt": "one two three", "ignore_eos": True})

    async def complete(self, **fields: Any) -> dict[str, Any]:
        """A whole text completion."""
        response = await self.http.post("/v1/completions", json={**self.body, **fields})
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]

    async def metrics(self) -> str:
        return (await self.http.get("/metrics")).text


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start engines: keyword arguments are settings, those of `EngineConfig` under their own names."""
    async with AsyncExitStack() as stack:

        async def run(**options: Any) -> Running:
            limits = {name: options.pop(name) for name in EngineConfig.__dataclass_fields__ if name in options}
            config = replace(EngineConfig.of(TINY), **limits)
            defaults: dict[str, Any] = {"names": ("m",), "max_model_len": 1024, "speed": 20.0, "port": 0}
            server = EngineServer(EngineSettings(profile=TINY, config=config, **{**defaults, **options}), time.time)
            port = await server.start()
            stack.push_async_callback(server.stop)
            client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20)
            await stack.enter_async_context(client)
            return Running(server, port, client)

        yield run
