"""Events: once in two minutes, without ever being in the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support.api_server import api_server
from tests.support.clocks import FakeClock
from tests.support.until import until
from trimtab.kube import Kube
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.obs.metrics import OperatorMetrics
from trimtab_operator.events import Events

REF = Ref("ServingPool", "ai", "chat")
GONE = Reason(ReasonCode.TARGET_NOT_FOUND, REF, words=(("target", "Deployment web"),))


class Server:
    """Takes Events and remembers them."""

    def __init__(self) -> None:
        self.status = 201
        self.events: list[Any] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.events.append(orjson.loads(await request.read()))
        return web.json_response({}, status=self.status)


@asynccontextmanager
async def posting(server: Server, folder: Path) -> AsyncIterator[tuple[Events, FakeClock, OperatorMetrics]]:
    clock, metrics = FakeClock(), OperatorMetrics()
    async with api_server(server.handle, folder) as kubeconfig, Kube.connect(kubeconfig) as kube:
        events = Events(kube, clock, metrics)
        task = asyncio.create_task(events.run())
        try:
            yield events, clock, metrics
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def counted(metrics: OperatorMetrics, result: str) -> float:
    return metrics.registry.get_sample_value("trimtab_operator_events_total", {"result": result}) or 0.0


async def test_an_event_names_its_object_and_says_the_reason(tmp_path: Path) -> None:
    server = Server()
    async with posting(server, tmp_path) as (events, _, metrics):
        events.post(REF, "u-1", GONE, warning=True)
        await until(lambda: _is(counted(metrics, "posted") == 1))
    (event,) = server.events
    assert (event["involvedObject"]["uid"], event["reason"], event["type"]) == ("u-1", "TargetNotFound", "Warning")
    assert "Deployment web does not exist" in event["message"]


async def test_a_repeated_event_is_posted_once_in_two_minutes(tmp_path: Path) -> None:
    server = Server()
    async with posting(server, tmp_path) as (events, clock, metrics):
        events.post(REF, "u-1", GONE)
        events.post(REF, "u-1", GONE)
        events.post(REF, "u-2", GONE)
        clock.at += 121
        events.post(REF, "u-1", GONE)
        await until(lambda: _is(counted(metrics, "posted") == 3))
    assert counted(metrics, "repeated") == 1
    assert len({event["metadata"]["name"] for event in server.events}) == 3


async def test_what_was_posted_long_ago_is_forgotten_bit_by_bit() -> None:
    events = Events(None, FakeClock(), OperatorMetrics())  # type: ignore[arg-type] - nothing is sent
    for number in range(100):
        events.post(REF, str(number), GONE)
    clock = events.clock
    assert isinstance(clock, FakeClock)
    clock.at += 121
    for number in range(20):
        events.post(REF, f"new-{number}", GONE)
    assert len(events._posted) == 20


async def test_a_refused_event_is_counted_and_the_next_one_goes_out(tmp_path: Path) -> None:
    server = Server()
    server.status = 403
    async with posting(server, tmp_path) as (events, _, metrics):
        events.post(REF, "u-1", GONE)
        await until(lambda: _is(counted(metrics, "failed") == 1))
        server.status = 201
        events.post(REF, "u-2", GONE)
        await until(lambda: _is(counted(metrics, "posted") == 1))


async def test_what_does_not_fit_is_dropped_without_waiting(tmp_path: Path) -> None:
    del tmp_path
    metrics = OperatorMetrics()
    events = Events(None, FakeClock(), metrics)  # type: ignore[arg-type] - nothing is sent
    for number in range(1_010):
        events.post(REF, str(number), GONE)
    assert counted(metrics, "dropped") == 10
    events._queue.get_nowait()
    events.post(REF, "1009", GONE)  # a dropped one does not count as posted
    assert (counted(metrics, "dropped"), counted(metrics, "repeated")) == (10, 0)


def warnings(capsys: pytest.CaptureFixture[str], message: str) -> list[str]:
    return [line for line in "".join(capsys.readouterr()).splitlines() if "warning" in line.lower() and message in line]


async def test_losses_are_said_once_a_minute_with_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    events = Events(None, clock, OperatorMetrics())  # type: ignore[arg-type] - nothing is sent
    for number in range(1_010):
        events.post(REF, str(number), GONE)
    clock.at += 61
    events.post(REF, "later", GONE)
    first, second = warnings(capsys, "events dropped")
    assert "TargetNotFound" in first
    assert "1" in first.partition("count")[2][:4]
    assert "10" in second.partition("count")[2][:8]


async def test_a_failure_is_a_warning_in_the_servers_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    server.status = 403
    async with posting(server, tmp_path) as (events, _, metrics):
        for number in range(3):
            events.post(REF, f"u-{number}", GONE)
        await until(lambda: _is(counted(metrics, "failed") == 3))
    assert len(warnings(capsys, "events not posted")) == 1


async def _is(value: bool) -> bool:
    return value
