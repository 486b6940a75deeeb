"""The API server goes away and comes back: the extender answers from memory, says when it is in doubt, and recovers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.api_server import api_server
from tests.support.until import until
from tests.support.world import domain_object, node_object, pod_object
from trimtab.kube import Kube
from trimtab_extender.runtime import Runtime, build, tick, watch
from trimtab_extender.settings import Settings
from trimtab_extender.world import WATCHED

NODES = ["row-1-n0", "row-1-n1"]
ON_ITS_WAY = pod_object("q", watts="400")


class FlakyServer:
    """Two nodes in a row of 1000 W; it can cut every connection, and come back with or without its history."""

    def __init__(self) -> None:
        self._items: dict[str, list[dict[str, Any]]] = {
            "nodes": [node_object(name, "row-1") for name in NODES],
            "powerdomains": [domain_object("row-1", 1000)],
        }
        self._pod: dict[str, Any] | None = ON_ITS_WAY
        self._version = 1
        self._gone = asyncio.Event()

    def go_away(self) -> None:
        self._gone.set()

    def come_back(self, pod: dict[str, Any] | None, *, forgetful: bool) -> None:
        """With this pod, listed if it is bound; a forgetful one makes everybody list again."""
        self._pod = pod
        self._items["pods"] = [pod] if pod and pod["spec"].get("nodeName") else []
        self._version += forgetful
        self._gone = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query and not self._gone.is_set():
            if request.query["resourceVersion"] != str(self._version):
                return web.json_response({"reason": "Expired", "code": 410}, status=410)
            await self._gone.wait()
        if self._gone.is_set():
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if "/namespaces/" in request.path:
            return web.json_response(self._pod or {"reason": "NotFound"}, status=200 if self._pod else 404)
        items = [self._listed(item) for item in self._items.get(request.path.rsplit("/", 1)[1], [])]
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self._version)}})

    def _listed(self, item: dict[str, Any]) -> dict[str, Any]:
        metadata = {"uid": item["metadata"]["name"], "resourceVersion": "1"} | item["metadata"]
        return item | {"metadata": metadata}


@asynccontextmanager
async def an_extender(config: Path) -> AsyncIterator[Runtime]:
    settings = Settings(election=False, hold_seconds=1, suspect_seconds=0.5, tick_seconds=0.05)
    runtime = build(settings)
    runtime.duty.leading = True
    async with Kube.connect(config) as kube:
        jobs = [watch(runtime, kube, resource) for resource in WATCHED]
        tasks = [asyncio.create_task(job) for job in (*jobs, tick(runtime, kube))]
        await doubt(runtime, "")
        yield runtime
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def doubt(runtime: Runtime, wanted: str) -> None:
    async def reached() -> bool:
        return runtime.world.doubt == wanted

    await until(reached)


def passed(runtime: Runtime, pod: dict[str, Any]) -> list[str]:
    body = json.dumps({"Pod": pod, "NodeNames": NODES}).encode()
    names: list[str] = json.loads(runtime.placer.filter(body).body)["NodeNames"]
    return names


def fresh(runtime: Runtime) -> float | None:
    return runtime.metrics.registry.get_sample_value("trimtab_extender_fresh")


@pytest.mark.parametrize(
    ("pod", "forgetful", "charged"),
    [
        (pod_object("q", watts="400", node=NODES[0]), True, 400),
        (None, True, 0),
        (ON_ITS_WAY, False, 0),
    ],
    ids=["the pod was bound", "the pod was deleted", "nothing has happened"],
)
async def test_answers_from_memory_then_doubts_and_recovers(
    tmp_path: Path, pod: dict[str, Any] | None, *, forgetful: bool, charged: int
) -> None:
    server, large = FlakyServer(), pod_object("large", watts="700")
    async with api_server(server.answer, tmp_path) as config, an_extender(config) as runtime:
        server.go_away()
        assert passed(runtime, ON_ITS_WAY) == NODES
        assert passed(runtime, large) == []  # 600 W are left beside the pod that is on its way
        await doubt(runtime, "stale")
        assert runtime.not_ready() == "stale"
        assert passed(runtime, large) == NODES

        async def said() -> bool:
            return fresh(runtime) == 0

        await until(said)
        await until(lambda: none_on_their_way(runtime))
        server.come_back(pod, forgetful=forgetful)
        await doubt(runtime, "")
        assert runtime.not_ready() == ""

        async def known_again() -> bool:
            return [book.charged for book in runtime.world.ledger.books()] == [charged] and fresh(runtime) == 1

        await until(known_again)
        assert passed(runtime, large) == ([] if charged else NODES)


async def none_on_their_way(runtime: Runtime) -> bool:
    return runtime.world.ledger.on_their_way == 0
