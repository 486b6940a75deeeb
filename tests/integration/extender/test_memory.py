"""What an extender keeps of the objects that it reads: its own few facts, and one page of a list at a time."""

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support.api_server import api_server
from tests.support.large_pods import large_pod
from tests.support.objects import MINIMAL
from tests.support.until import until
from tests.support.world import TurnedClock, a_world, domain_object, modified, node_object
from trimtab.kube import Kube, Resource
from trimtab.kube.resources import NODES, PODS, POWER_DOMAINS, SERVING_POOLS
from trimtab.obs.metrics import ExtenderMetrics
from trimtab_extender.runtime import build, watch
from trimtab_extender.settings import Settings

PAGES = 20
PER_PAGE = 100
A_POOL = {"metadata": {"name": "chat", "namespace": "ai", "uid": "u", "generation": 1}, "spec": MINIMAL["ServingPool"]}


class Tracked(dict[str, Any]):
    """A dict that weak references can follow."""


def tracked(value: Any) -> Any:
    if isinstance(value, dict):
        return Tracked({key: tracked(item) for key, item in value.items()})
    return [tracked(item) for item in value] if isinstance(value, list) else value


def dicts_in(value: Any) -> Iterator["weakref.ref[Tracked]"]:
    if isinstance(value, Tracked):
        yield weakref.ref(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from dicts_in(item)


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        (PODS, large_pod(0)),
        (NODES, node_object("n", "row-1")),
        (POWER_DOMAINS, domain_object("row-9", 1000)),
        (SERVING_POOLS, A_POOL),
    ],
    ids=lambda value: value.plural if isinstance(value, Resource) else "",
)
def test_nothing_of_an_object_as_it_came_is_kept(resource: Resource, obj: dict[str, Any]) -> None:
    world = a_world(TurnedClock(), ExtenderMetrics())
    came = tracked(obj)
    parts = list(dicts_in(came))
    assert parts
    world.take(resource, modified(came))
    del came
    gc.collect()
    assert [part() for part in parts if part() is not None] == []


def page(number: int) -> bytes:
    items = [large_pod(pod) for pod in range(number * PER_PAGE, (number + 1) * PER_PAGE)]
    more = {"continue": str(number + 1)} if number + 1 < PAGES else {}
    return orjson.dumps({"items": items, "metadata": {"resourceVersion": "1"} | more})


@contextmanager
def highest() -> Iterator[list[int]]:
    """Fill a list with the most bytes that were allocated at once in the block."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


async def test_reading_a_large_cluster_takes_a_page_and_not_the_cluster(tmp_path: Path) -> None:
    bodies = [page(number) for number in range(PAGES)]

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            await asyncio.Event().wait()
        body = bodies[int(request.query.get("continue", 0))]
        return web.Response(body=body, content_type="application/json")

    runtime = build(Settings(election=False))
    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        with highest() as whole:
            pods = len((await kube.list(PODS, limit=PER_PAGE)).items)
        with highest() as read:
            watching = asyncio.create_task(watch(runtime, kube, PODS))

            async def all_charged() -> bool:
                return runtime.world.ledger.charged_pods == pods

            await until(all_charged)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    print(f"\n{pods} pods: {whole[0]} bytes when listed, {read[0]} when watched")
    assert read[0] < whole[0] / 4
