"""Logs over the kubelet's HTTPS API."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from trimtab.local.process_node.addresses import claim
from trimtab.local.process_node.kubelet_api import FoundLog, KubeletApi
from trimtab.local.process_node.logs import LogFile

NOW = 1_800_000_000.0
Get = Callable[[str], Awaitable[tuple[int, str]]]


@pytest.fixture
async def get(tmp_path: Path) -> AsyncIterator[Get]:
    """Asks a server that has the log of shop/web/main: three lines, ten seconds apart, the last one ten seconds ago."""
    path = tmp_path / "0.log"
    times = iter(range(int(NOW) - 30, int(NOW), 10))
    log = LogFile(path, lambda: next(times) * 1_000_000_000)
    for line in (b"one\n", b"two\n", b"three\n"):
        log.write("stdout", line)

    def find(namespace: str, pod: str, container: str, *, previous: bool) -> FoundLog:
        if previous or (namespace, pod, container) != ("shop", "web", "main"):
            raise LookupError("no such log")
        return FoundLog(path, None)

    api = KubeletApi(find, lambda: NOW)
    network, listener = claim(str(tmp_path), 0)
    await api.start(listener, network.node)
    base = f"https://{network.node}:{listener.getsockname()[1]}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(base + path) as response:
                return response.status, await response.text()

        yield ask
    log.close()
    await api.stop()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "one\ntwo\nthree\n"),
        ("?tailLines=1", "three\n"),
        ("?sinceSeconds=25", "two\nthree\n"),
        ("?sinceTime=2027-01-15T07:59:50Z", "three\n"),
        ("?limitBytes=5", "one\nt"),
        ("?tailLines=1&timestamps=true", "2027-01-15T07:59:50.000000000Z three\n"),
        ("?follow=true", "one\ntwo\nthree\n"),
    ],
)
async def test_logs_are_served_as_the_query_asks(get: Get, query: str, text: str) -> None:
    assert await get(f"/containerLogs/shop/web/main{query}") == (200, text)


@pytest.mark.parametrize("path", ["/containerLogs/shop/web/other", "/containerLogs/shop/web/main?previous=true"])
async def test_a_missing_log_is_answered_with_the_status_whose_text_kubectl_shows(get: Get, path: str) -> None:
    assert await get(path) == (400, "no such log")


@pytest.mark.parametrize("query", ["tailLines=x", "sinceSeconds=", "sinceTime=yesterday"])
async def test_a_malformed_query_is_refused(get: Get, query: str) -> None:
    status, _ = await get(f"/containerLogs/shop/web/main?{query}")

    assert status == 400


@pytest.mark.parametrize("path", ["/exec/shop/web/main?command=ls", "/attach/shop/web/main", "/portForward/shop/web"])
async def test_what_is_not_there_says_so_and_what_to_do(get: Get, path: str) -> None:
    status, text = await get(path)

    assert status == 501
    assert "the pod's own address" in text


async def test_the_api_is_alive(get: Get) -> None:
    assert await get("/healthz") == (200, "ok")
