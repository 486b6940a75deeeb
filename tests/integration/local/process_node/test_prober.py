"""Probes and hooks against real servers and processes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.support.grpc_health import HealthServer
from tests.support.process_node import container
from trimtab.local import ports
from trimtab.local.process_node.prober import Outcome, Prober, Target
from trimtab.local.process_node.spec import Exec, GrpcCheck, HookAction, HttpGet, ProbeAction, Sleep, TcpConnect

IP = "127.0.0.3"


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    found = Prober.create()
    yield found
    await found.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server with a page for each status, and one that never answers."""

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["code"]), text=request.headers.get("X-Say", "") or "no")

    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/status/{code}", status)
    app.router.add_get("/never", never)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    (number,) = ports.free(1, ())
    await web.TCPSite(runner, IP, number).start()
    yield number
    await runner.cleanup()


async def run(command: tuple[str, ...]) -> Outcome:
    return Outcome(succeeded=command == ("ok",), message=" ".join(command))


def target(port: int) -> Target:
    return Target(IP, container(ports=[{"name": "http", "containerPort": port}]), run)


async def attempt(
    prober: Prober, action: ProbeAction | HookAction, port: int, timeout_seconds: float = 10.0
) -> Outcome:
    return await prober.attempt(action, target(port), timeout_seconds)


@pytest.mark.parametrize(
    ("code", "good"), [(200, True), (204, True), (302, True), (399, True), (400, False), (503, False)]
)
async def test_http_succeeds_from_200_to_399(prober: Prober, port: int, code: int, good: bool) -> None:
    assert (await attempt(prober, HttpGet("http", f"/status/{code}"), port)).succeeded is good


async def test_a_failed_http_probe_says_status_and_body(prober: Prober, port: int) -> None:
    action = HttpGet(port, "status/503", headers=(("X-Say", "still loading"),))

    assert (await attempt(prober, action, port)).message == "HTTP probe failed with statuscode: 503 still loading"


async def test_a_probe_without_answer_fails_in_time(prober: Prober, port: int) -> None:
    assert await attempt(prober, HttpGet(port, "/never"), port, 0.2) == Outcome(
        succeeded=False, message="no answer within 0.2 s"
    )


async def test_tcp_succeeds_when_the_connection_is_accepted(prober: Prober, port: int) -> None:
    assert (await attempt(prober, TcpConnect("http"), port)).succeeded
    assert not (await attempt(prober, TcpConnect(1), port)).succeeded


async def test_an_unknown_port_name_fails_with_its_name(prober: Prober, port: int) -> None:
    outcome = await attempt(prober, HttpGet("grpc"), port)

    assert outcome.message == "container main declares no port 'grpc'"


async def test_commands_run_beside_the_container(prober: Prober, port: int) -> None:
    assert (await attempt(prober, Exec(("ok",)), port)).succeeded
    assert await attempt(prober, Exec(("bad", "x")), port) == Outcome(succeeded=False, message="bad x")


async def test_a_pause_is_over_after_its_time(prober: Prober, port: int) -> None:
    assert (await attempt(prober, Sleep(0.01), port)).succeeded
    assert not (await attempt(prober, Sleep(10), port, 0.05)).succeeded


async def test_grpc_fails_where_nothing_speaks_it(prober: Prober, port: int) -> None:
    assert not (await attempt(prober, GrpcCheck("http"), port)).succeeded
    assert not (await attempt(prober, GrpcCheck(1), port)).succeeded


@pytest.mark.parametrize(("status", "good"), [(1, True), (0, False), (2, False)])
async def test_grpc_succeeds_when_the_service_serves(prober: Prober, status: int, good: bool) -> None:
    asked: list[tuple[str, bytes]] = []
    server = await asyncio.get_running_loop().create_server(lambda: HealthServer(status, asked), IP, 0)
    number = server.sockets[0].getsockname()[1]

    outcome = await attempt(prober, GrpcCheck(number, "chat"), number)

    server.close()
    await server.wait_closed()
    assert outcome.succeeded is good
    assert asked == [("/grpc.health.v1.Health/Check", b"\0\0\0\0\6\x0a\4chat")]
