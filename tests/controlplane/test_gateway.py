"""Requests through the gateway to the pods of real pools: simulated engines on the process node."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.controlplane.conftest import Installed
from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube
from trimtab.kube.resources import PODS, SERVING_POOLS

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "20-chat.yaml"
ENGINES_UP_SECONDS = 90.0


def a_pool(name: str, namespace: str, model: str, replicas: int) -> dict[str, Any]:
    """The sample pool, with another name, model and number of replicas."""
    pool: dict[str, Any] = yaml.safe_load(SAMPLE.read_text())
    pool["metadata"] = {"name": name, "namespace": namespace}
    pool["spec"] |= {"models": [{"name": model}], "replicas": replicas}
    (engine,) = pool["spec"]["workload"]["template"]["spec"]["containers"]
    engine["args"] = [f"--model={model}", *engine["args"][1:], "--shutdown-timeout=10"]
    engine["lifecycle"] = {"preStop": {"sleep": {"seconds": 2}}}  # the gateway sees the deletion before the engine
    return pool


def a_chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8} | fields


class Gateway:
    """The gateway's ports as a client sees them."""

    def __init__(self, installed: Installed, session: aiohttp.ClientSession) -> None:
        self._url = installed.gateway_url
        self._admin = installed.gateway.ready.removesuffix("/readyz")
        self._session = session

    async def ask(self, body: dict[str, Any]) -> tuple[int, str]:
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as answer:
            return answer.status, await answer.text()

    async def models(self) -> list[str]:
        async with self._session.get(f"{self._url}/v1/models") as answer:
            return [model["id"] for model in (await answer.json())["data"]]

    async def engines(self, pool: str) -> dict[str, bool]:
        """Which engines of a pool the gateway knows, and whether they get requests."""
        async with self._session.get(f"{self._admin}/pools") as answer:
            pools = {each["name"]: each for each in await answer.json()}
        return {engine["name"]: engine["ready"] for engine in pools.get(pool, {"engines": []})["engines"]}

    async def ready(self, pool: str, count: int) -> None:
        """Wait until exactly so many engines of a pool get requests."""

        async def are_ready() -> bool:
            return sum((await self.engines(pool)).values()) == count

        try:
            await until(are_ready, seconds=ENGINES_UP_SECONDS)
        except TimeoutError:
            pytest.fail(f"{pool} should have {count} ready engines: {await self.engines(pool)}")


pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def gateway(installed: Installed) -> Any:
    async with aiohttp.ClientSession() as session:
        yield Gateway(installed, session)


async def test_pods_of_a_pool_serve_chats_and_streams(gateway: Gateway, kube: Kube, namespace: str) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, f"{namespace}-m", replicas=2))
    await gateway.ready(f"{namespace}/chat", 2)
    assert f"{namespace}-m" in await gateway.models()
    status, text = await gateway.ask(a_chat(f"{namespace}-m"))
    assert (status, json.loads(text)["object"]) == (200, "chat.completion")
    status, text = await gateway.ask(a_chat(f"{namespace}-m", stream=True))
    events = text.split("\n\n")[:-1]
    assert (status, events[-1]) == (200, "data: [DONE]")
    assert len(events) > 5
    pods = await kube.list(PODS, namespace, label_selector=f"{keys.POOL}=chat")
    assert set(await gateway.engines(f"{namespace}/chat")) == {pod["metadata"]["name"] for pod in pods.items}


async def test_pools_that_come_and_go_are_followed(gateway: Gateway, kube: Kube, namespace: str) -> None:
    first, second = f"{namespace}-a", f"{namespace}-b"
    await kube.create(SERVING_POOLS, a_pool("one", namespace, first, replicas=1))
    await kube.create(SERVING_POOLS, a_pool("two", namespace, second, replicas=1))
    await gateway.ready(f"{namespace}/one", 1)
    await gateway.ready(f"{namespace}/two", 1)
    for model in (first, second):
        status, text = await gateway.ask(a_chat(model))
        assert (status, json.loads(text)["model"]) == (200, model)
    await kube.delete(SERVING_POOLS, "one", namespace)

    async def is_gone() -> bool:
        return first not in await gateway.models()

    await until(is_gone)
    status, text = await gateway.ask(a_chat(first))
    assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")
    assert (await gateway.ask(a_chat(second)))[0] == 200


async def test_scaling_loses_no_request(gateway: Gateway, kube: Kube, namespace: str) -> None:
    """One engine more, then one less, under load: the one that leaves finishes what it has and gets nothing new."""
    model = f"{namespace}-m"
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, model, replicas=1))
    await gateway.ready(f"{namespace}/chat", 1)
    answers: list[tuple[int, str]] = []
    stopping = asyncio.Event()

    async def load() -> None:
        while not stopping.is_set():
            answers.append(await gateway.ask(a_chat(model, stream=True)))

    loads = [asyncio.create_task(load()) for _ in range(4)]
    for replicas in (2, 1):
        await kube.merge_patch(SERVING_POOLS, "chat", {"spec": {"replicas": replicas}}, namespace)
        await gateway.ready(f"{namespace}/chat", replicas)
    enough = len(answers) + 20

    async def has_served_more() -> bool:
        return len(answers) >= enough

    await until(has_served_more)
    stopping.set()
    await asyncio.gather(*loads)
    assert {status for status, _ in answers} == {200}
    assert all("[DONE]" in text for _, text in answers)
    aborted = [text for _, text in answers if '"finish_reason":"abort"' in text]
    assert aborted == []


async def test_a_pool_whose_engines_are_not_up_says_so(gateway: Gateway, kube: Kube, namespace: str) -> None:
    pool = a_pool("empty", namespace, f"{namespace}-m", replicas=0)
    await kube.create(SERVING_POOLS, pool)

    async def is_known() -> bool:
        return f"{namespace}-m" in await gateway.models()

    await until(is_known)
    status, text = await gateway.ask(a_chat(f"{namespace}-m"))
    assert (status, json.loads(text)["error"]["code"]) == (503, "no_capacity")


async def test_requests_go_on_while_the_api_server_restarts_and_changes_are_seen_afterwards(
    gateway: Gateway, cluster: Any, kube: Kube, namespace: str
) -> None:
    model, later = f"{namespace}-m", f"{namespace}-later"
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, model, replicas=1))
    await gateway.ready(f"{namespace}/chat", 1)
    restarting = asyncio.create_task(asyncio.to_thread(cluster.restart, "kube-apiserver"))
    statuses = []
    while not restarting.done():
        statuses.append((await gateway.ask(a_chat(model)))[0])
    await restarting
    assert len(statuses) > 5
    assert set(statuses) == {200}
    await kube.create(SERVING_POOLS, a_pool("later", namespace, later, replicas=1))
    await gateway.ready(f"{namespace}/later", 1)
    assert (await gateway.ask(a_chat(later)))[0] == 200
