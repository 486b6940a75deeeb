"""Taking stock: the store follows the list, page by page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.api_server import api_server
from tests.support.clocks import FakeClock
from tests.support.operators import a_pool
from trimtab.kube import Kube, Object
from trimtab.obs.metrics import OperatorMetrics
from trimtab_operator.audit import take_stock
from trimtab_operator.events import Events
from trimtab_operator.handlers.kinds import take_pool
from trimtab_operator.pulse import Pulse
from trimtab_operator.runtime import Runtime
from trimtab_operator.settings import OperatorSettings


def stored(name: str, uid: str = "") -> Object:
    pool = a_pool(name, "ai", replicas=1)
    pool["metadata"] |= {"uid": uid or f"u-{name}", "generation": 1, "resourceVersion": "1"}
    return pool


class Server:
    """Lists pools, two on a page; `late` are those that only a look by name finds."""

    def __init__(self, *pools: Object) -> None:
        self.pools = list(pools)
        self.late: list[Object] = []
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        field = request.query.get("fieldSelector", "")
        begin = int(request.query.get("continue", 0))
        self.asked.append(field or str(begin))
        if field:
            wanted = field.rpartition("=")[2]
            return answer([one for one in self.pools + self.late if one["metadata"]["name"] == wanted])
        more = str(begin + 2) if begin + 2 < len(self.pools) else ""
        return answer(self.pools[begin : begin + 2], more)


def answer(items: list[Object], more: str = "") -> web.Response:
    metadata: dict[str, Any] = {"resourceVersion": "9"} | ({"continue": more} if more else {})
    return web.json_response({"items": items, "metadata": metadata})


@asynccontextmanager
async def knowing(server: Server, folder: Path, *names: str) -> AsyncIterator[Runtime]:
    clock, metrics = FakeClock(), OperatorMetrics()
    async with api_server(server.handle, folder) as kubeconfig, Kube.connect(kubeconfig) as kube:
        runtime = Runtime(OperatorSettings(), kube, clock, metrics, Events(kube, clock, metrics), Pulse(30))
        for name in names:
            take_pool(runtime.store, "ADDED", stored(name))
        yield runtime


def known(runtime: Runtime) -> dict[str, str]:
    return {name: record.asked.uid for (_, name), record in runtime.store.pools.items()}


async def test_every_page_is_taken_in_and_shows_as_progress(tmp_path: Path) -> None:
    server = Server(*(stored(name) for name in "abcde"))
    pages = 0

    def count() -> None:
        nonlocal pages
        pages += 1

    async with knowing(server, tmp_path, "a") as runtime:
        await take_stock(runtime, count)
        assert sorted(known(runtime)) == list("abcde")
    assert server.asked == ["0", "2", "4"]
    assert pages == 3


async def test_what_is_gone_is_dropped_and_what_came_meanwhile_is_not(tmp_path: Path) -> None:
    server = Server(*(stored(name) for name in "abc"))
    server.late = [stored("new")]
    async with knowing(server, tmp_path, "a", "gone", "new") as runtime:
        await take_stock(runtime)
        assert sorted(known(runtime)) == ["a", "b", "c", "new"]


async def test_a_pool_made_anew_under_an_old_name_takes_its_place(tmp_path: Path) -> None:
    server = Server(stored("a", "u-2"))
    async with knowing(server, tmp_path, "a") as runtime:
        await take_stock(runtime)
        assert known(runtime) == {"a": "u-2"}


async def test_what_did_not_change_is_not_looked_at_again(tmp_path: Path) -> None:
    server = Server(stored("a"))
    async with knowing(server, tmp_path, "a") as runtime:
        while runtime.store.agenda.take(0.0):
            pass
        await take_stock(runtime)
        assert len(runtime.store.agenda) == 0
