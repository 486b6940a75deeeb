"""Leader election against a Lease that tests control."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support.api_server import api_server
from tests.support.until import until
from trimtab.kube import Kube
from trimtab.kube.election import Election, LeadershipLost, Terms

TERMS = Terms(lease_seconds=4, renew_seconds=2, retry_seconds=1)


class LeaseServer:
    """One Lease, kept as the API server keeps it: with a version that replaces must name."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.broken = False

    @property
    def holder(self) -> str:
        return str(((self.lease or {}).get("spec") or {}).get("holderIdentity") or "")

    async def handle(self, request: web.Request) -> web.Response:
        if self.broken:
            return web.json_response({"message": "down"}, status=503)
        body = orjson.loads(await request.read()) if request.can_read_body else None
        return getattr(self, request.method.lower())(body)  # type: ignore[no-any-return]

    def get(self, _: Any) -> web.Response:
        if self.lease is None:
            return web.json_response({"reason": "NotFound"}, status=404)
        return web.json_response(self.lease)

    def post(self, body: Any) -> web.Response:
        if self.lease is not None:
            return web.json_response({"reason": "AlreadyExists"}, status=409)
        return self._store(body)

    def put(self, body: Any) -> web.Response:
        if body["metadata"].get("resourceVersion") != str(self.version):
            return web.json_response({"reason": "Conflict"}, status=409)
        return self._store(body)

    def patch(self, operations: Any) -> web.Response:
        assert self.lease is not None
        test, remove = operations
        assert (remove["op"], remove["path"]) == ("remove", "/spec/holderIdentity")
        if self.holder != test["value"]:
            return web.json_response({"message": "testing value failed"}, status=422)
        spec = {key: value for key, value in self.lease["spec"].items() if key != "holderIdentity"}
        return self._store(self.lease | {"spec": spec})

    def _store(self, lease: Any) -> web.Response:
        self.version += 1
        self.lease = lease | {"metadata": lease["metadata"] | {"resourceVersion": str(self.version)}}
        return web.json_response(self.lease)


@asynccontextmanager
async def elections(server: LeaseServer, folder: Path, *names: str) -> AsyncIterator[list[Election]]:
    async with (
        api_server(server.handle, folder) as kubeconfig,
        Kube.connect(kubeconfig, timeout_seconds=1) as kube,
    ):
        yield [Election(kube, "trimtab-system", "trimtab", name, TERMS) for name in names]


async def forever() -> None:
    await asyncio.Event().wait()


async def _led_by(server: LeaseServer, name: str) -> bool:
    return server.holder == name


async def test_one_leads_and_the_other_takes_over_as_soon_as_the_lease_is_given_back(tmp_path: Path) -> None:
    server = LeaseServer()
    stop = asyncio.Event()
    async with elections(server, tmp_path, "first", "second") as (first, second):
        leading = asyncio.create_task(first.lead(stop.wait))  # type: ignore[arg-type]
        await until(lambda: _led_by(server, "first"))
        waiting = asyncio.create_task(second.lead(forever))
        async with asyncio.timeout(3):  # less than the Lease lasts
            stop.set()
            await leading
            assert not first.leading
            await until(lambda: _led_by(server, "second"))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert server.holder == ""
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] >= 1


async def test_a_lease_that_somebody_holds_is_not_taken(tmp_path: Path) -> None:
    server = LeaseServer()
    async with elections(server, tmp_path, "first", "second") as (first, second):
        tries = 0

        def count() -> None:
            nonlocal tries
            tries += 1

        second.on_try = count
        tasks = [asyncio.create_task(first.lead(forever))]
        await until(lambda: _led_by(server, "first"))
        tasks.append(asyncio.create_task(second.lead(forever)))
        await until(lambda: _at_least(lambda: tries, 3))
        assert (first.leading, second.leading) == (True, False)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_renewals_are_no_sign_of_life(tmp_path: Path) -> None:
    server = LeaseServer()
    async with elections(server, tmp_path, "first") as (first,):
        tries: list[bool] = []
        first.on_try = lambda: tries.append(first.leading)
        leading = asyncio.create_task(first.lead(forever))
        await until(lambda: _at_least(lambda: first.leading, 1))
        before = len(tries)
        renewed = server.version + 2
        await until(lambda: _at_least(lambda: server.version, renewed))
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
    assert before > 0
    assert tries == [False] * before


async def _at_least(count: Any, number: int) -> bool:
    return bool(count() >= number)


async def test_an_outage_shorter_than_the_renewal_limit_is_survived_and_a_longer_one_ends_leadership(
    tmp_path: Path,
) -> None:
    server = LeaseServer()
    async with elections(server, tmp_path, "first") as (first,):
        leading = asyncio.create_task(first.lead(forever))
        await until(lambda: _led_by(server, "first"))
        version = server.version
        server.broken = True
        await asyncio.wait({leading}, timeout=1.2)
        assert not leading.done()
        server.broken = False
        await until(lambda: _at_least(lambda: server.version, version + 1))
        server.broken = True
        with pytest.raises(LeadershipLost):
            async with asyncio.timeout(10):
                await leading
        assert not first.leading


async def test_work_that_fails_gives_the_lease_back_and_its_error_on(tmp_path: Path) -> None:
    server = LeaseServer()

    async def work() -> None:
        raise ZeroDivisionError

    async with elections(server, tmp_path, "first") as (first,):
        with pytest.raises(ZeroDivisionError):
            await first.lead(work)
    assert server.holder == ""
    assert server.lease is not None


async def test_a_lease_that_another_took_is_not_emptied(tmp_path: Path) -> None:
    server = LeaseServer()
    async with elections(server, tmp_path, "first") as (first,):
        leading = asyncio.create_task(first.lead(forever))
        await until(lambda: _led_by(server, "first"))
        assert server.lease is not None
        server.lease["spec"]["holderIdentity"] = "thief"
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
    assert server.holder == "thief"
