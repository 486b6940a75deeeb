"""Numbers from Prometheus, as its HTTP API gives them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from trimtab.model.problem import Problem
from trimtab.telemetry.prometheus import POOL_QUERIES, Prometheus, Query

WAITING = POOL_QUERIES["waiting"]


class Server:
    def __init__(self) -> None:
        self.status = 200
        self.result: list[Any] = []
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.query["query"])
        body = {"status": "success", "data": {"resultType": "vector", "result": self.result}}
        return web.json_response(body, status=self.status)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Prometheus]]:
    handler = Server()
    app = web.Application()
    app.router.add_get("/api/v1/query", handler.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield handler, Prometheus(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_seconds=1)
    await runner.cleanup()


def sample(pool: str | None, value: str) -> dict[str, Any]:
    return {"metric": {} if pool is None else {"pool": pool}, "value": [1_000, value]}


async def test_each_pool_has_its_newest_number(server: tuple[Server, Prometheus]) -> None:
    handler, prometheus = server
    handler.result = [sample("ai/chat", "4"), sample("ai/search", "0")]
    assert await prometheus.by_pool(WAITING) == {"ai/chat": 4.0, "ai/search": 0.0}
    assert handler.asked == [WAITING.promql]


async def test_what_is_no_number_is_missing_and_not_zero(server: tuple[Server, Prometheus]) -> None:
    handler, prometheus = server
    handler.result = [sample("ai/chat", "NaN"), sample("ai/search", "+Inf"), sample(None, "3")]
    assert await prometheus.by_pool(WAITING) == {}


@pytest.mark.parametrize("status", [400, 500])
async def test_a_refused_query_names_the_server(server: tuple[Server, Prometheus], status: int) -> None:
    handler, prometheus = server
    handler.status = status
    with pytest.raises(Problem, match=prometheus.url):
        await prometheus.by_pool(Query("nonsense(", "none"))


async def test_a_server_that_is_not_there_is_a_problem_with_a_fix() -> None:
    with pytest.raises(Problem) as caught:
        await asyncio.wait_for(Prometheus("http://127.0.0.1:9", 0.5).by_pool(WAITING), 10)
    assert "--prometheus" in caught.value.fix
