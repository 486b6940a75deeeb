"""The whole process: its options, its ports, how it follows its file and how it ends."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.gateway.conftest import CHAT, STREAM, eventually
from tests.support.raw_http import connection
from tests.support.until import until
from tests.support.upstream import Call, Upstream, stream, upstream

PROGRAM = Path(sys.executable).parent / "trimtab-gateway"


@dataclass
class Process:
    port: int
    admin_port: int
    metrics_port: int
    process: asyncio.subprocess.Process
    log: list[str]

    async def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port or self.admin_port}{path}")

    async def ready_or_ended(self) -> bool:
        try:
            return self.process.returncode is not None or (await self.get("/readyz"))[0] == 200
        except OSError:
            return False

    async def ask(self, body: dict[str, Any]) -> Any:
        async with connection(self.port) as client:
            await client.ask(body)
            return await client.answer()

    async def has_waiting(self) -> bool:
        (pool,) = json.loads((await self.get("/pools"))[1])
        return bool(pool["waiting"])

    async def logged(self, event: str) -> dict[str, Any]:
        """Return the only line that says so; the log may be read a moment after the process has ended."""

        def lines() -> list[dict[str, Any]]:
            return [each for each in map(json.loads, self.log) if each["message"] == event]

        await eventually(lines)
        (line,) = lines()
        return line

    async def end(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write(path: Path, engines: list[Upstream], **changes: Any) -> None:
    pool = {"name": "chat", "models": ["llama"], "engines": [engine.address for engine in engines]} | changes
    path.write_text(yaml.safe_dump({"pools": [pool]}))


@asynccontextmanager
async def gateway(endpoints: Path, *options: str) -> AsyncIterator[Process]:
    port, admin_port, metrics_port = free_ports(3)
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM),
        *("--endpoints", str(endpoints), "--port", str(port), "--admin-port", str(admin_port)),
        *("--metrics-port", str(metrics_port), "--drain-delay-seconds", "0.1", "--log-format", "json", *options),
        stderr=asyncio.subprocess.PIPE,
    )
    running = Process(port, admin_port, metrics_port, process, [])
    reading = asyncio.create_task(_read(running))
    try:
        await until(running.ready_or_ended)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read(running: Process) -> None:
    assert running.process.stderr is not None
    async for line in running.process.stderr:
        running.log.append(line.decode())


async def test_help_lists_every_setting_with_its_meaning() -> None:
    text = await asyncio.to_thread(subprocess.check_output, [PROGRAM, "--help"], text=True)
    for option in ("--endpoints", "--drain-seconds", "--max-body-bytes", "--namespaces", "--metrics-port"):
        assert option in text
    assert "TRIMTAB_GATEWAY_" in text
    assert "Largest request body." in text


async def test_the_three_ports_do_what_they_are_for(tmp_path: Path) -> None:
    async with upstream(stream) as engine:
        write(tmp_path / "e.yaml", [engine])
        async with gateway(tmp_path / "e.yaml") as running:
            answer = await running.ask(STREAM)
            assert answer.status == 200
            assert (await running.get("/livez"))[0] == 200
            request_id = answer.headers["x-request-id"]
            (record,) = json.loads((await running.get(f"/requests/{request_id}"))[1])
            assert (record["outcome"], record["pool"], record["reason"]) == ("ok", "chat", None)
            assert (await running.get("/requests/unknown"))[0] == 404
            (pool,) = json.loads((await running.get("/pools"))[1])
            assert pool["engines"][0]["address"] == engine.address
            assert [each["outcome"] for each in json.loads((await running.get("/requests?outcome=ok&limit=5"))[1])] == [
                "ok"
            ]
            metrics = (await running.get("/metrics", running.metrics_port))[1]
            assert 'trimtab_gateway_requests_total{level="",outcome="ok",pool="chat"} 1.0' in metrics
            assert (await running.get("/metrics"))[0] == 404
            assert (await running.get("/livez", running.port))[0] == 404


async def test_nothing_of_a_request_is_logged(tmp_path: Path) -> None:
    async with upstream() as engine:
        write(tmp_path / "e.yaml", [engine])
        async with gateway(tmp_path / "e.yaml", "--log-level", "DEBUG") as running:
            await running.ask(CHAT | {"messages": [{"role": "user", "content": "my-secret-prompt"}]})
            async with connection(running.port) as client:
                await client.ask(
                    b'{"model": "my-secret-model", "messages": "my-secret-prompt"}', authorization="my-secret-key"
                )
                await client.answer()
            await engine.stop()
            async with connection(running.port) as client:
                await client.ask(CHAT | {"messages": "my-secret-prompt"})
                await eventually(lambda: any("unreachable" in line for line in running.log))
            running.process.terminate()
            await running.end()
            assert not [line for line in running.log if "secret" in line]


@pytest.mark.parametrize("signalled", [False, True])
async def test_a_changed_file_is_followed_and_a_bad_one_is_ignored(tmp_path: Path, signalled: bool) -> None:
    path = tmp_path / "e.yaml"
    async with upstream() as first, upstream() as second:
        write(path, [first])
        async with gateway(path) as running:
            assert (await running.ask(CHAT)).status == 200
            path.write_text("pools: [{name: chat, models: []}]")
            if signalled:
                running.process.send_signal(signal.SIGHUP)
            await eventually(lambda: any("endpoints file ignored" in line for line in running.log))
            assert any("pools.0.models" in line for line in running.log)
            assert (await running.ask(CHAT)).status == 200
            write(path, [second])
            if signalled:
                running.process.send_signal(signal.SIGHUP)
            await eventually(lambda: any("endpoints file read" in line for line in running.log))
            assert (await running.ask(CHAT)).status == 200
            assert (len(first.requests), len(second.requests)) == (2, 1)


async def test_a_bad_file_at_the_start_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("pools: [{name: chat}]")
    async with gateway(tmp_path / "e.yaml") as running:
        assert await running.end() == 1
        await eventually(lambda: any("cannot go on" in line for line in running.log))
        (line,) = (line for line in running.log if "cannot go on" in line)
        assert "pools.0.models: Field required" in json.loads(line)["problem"]


async def test_a_taken_port_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    async with upstream() as engine:
        write(tmp_path / "e.yaml", [engine])
        async with gateway(tmp_path / "e.yaml", "--port", str(engine.port)) as running:
            assert await running.end() == 1
            await eventually(lambda: any(f"127.0.0.1:{engine.port}" in line for line in running.log))


async def test_a_wrong_setting_is_named() -> None:
    command = [PROGRAM, "--max-body-bytes", "-5"]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "max_body_bytes" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_sigterm_fails_readiness_finishes_streams_and_then_ends(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def held(call: Call) -> None:
        await call.events()
        await call.event("1")
        await go_on.wait()
        await call.event("2")
        await call.end()

    async with upstream(held) as engine:
        write(tmp_path / "e.yaml", [engine])
        async with gateway(tmp_path / "e.yaml") as running, connection(running.port) as idle:
            async with connection(running.port) as client:
                await client.ask(STREAM)
                await client.head()
                await client.chunk()
                running.process.terminate()
                assert await idle.closed() == b""
                assert (await running.get("/readyz")) == (503, "draining")
                with pytest.raises(ConnectionRefusedError):
                    await running.ask(CHAT)
                go_on.set()
                assert (await client.chunk())[0] == b"data: 2\n\n"
                assert (await client.chunk())[0] == b""
            assert await running.end() == 0
            start, end = await running.logged("draining"), await running.logged("drained")
            assert (start["open_requests"], start["open_streams"]) == (1, 1)
            assert (end["cut_requests"], end["cut_streams"]) == (0, 0)


async def test_who_does_not_end_in_time_is_cut_off_with_an_error(tmp_path: Path) -> None:
    async def endless(call: Call) -> None:
        await call.events()
        await call.event("1")
        await asyncio.Event().wait()

    async with upstream(endless) as engine:
        write(tmp_path / "e.yaml", [engine], concurrency=1)
        async with gateway(tmp_path / "e.yaml", "--drain-seconds", "0.2") as running:
            async with connection(running.port) as streaming, connection(running.port) as waiting:
                await streaming.ask(STREAM)
                await engine.arrived.wait()
                await waiting.ask(CHAT)
                await until(running.has_waiting)
                running.process.terminate()
                assert b'"code":"shutting_down"' in (await streaming.answer()).body
                answer = await waiting.answer()
                assert (answer.status, answer.code) == (503, "shutting_down")
            assert await running.end() == 0
            start, end = await running.logged("draining"), await running.logged("drained too late for some")
            assert (start["open_requests"], start["open_streams"]) == (2, 1)
            assert (end["cut_requests"], end["cut_streams"]) == (2, 1)
            await asyncio.wait_for(engine.gone.wait(), 5)


async def test_an_engine_that_fails_its_health_check_gets_no_requests(tmp_path: Path) -> None:
    async with upstream() as sick, upstream() as well:
        sick.healthy = False
        write(tmp_path / "e.yaml", [sick, well])
        async with gateway(tmp_path / "e.yaml", "--probe-seconds", "0.1") as running:

            async def is_used() -> bool:
                (pool,) = json.loads((await running.get("/pools"))[1])
                return {engine["address"]: engine["ready"] for engine in pool["engines"]}[sick.address]

            async def is_avoided() -> bool:
                return not await is_used()

            await until(is_avoided)
            for _ in range(4):
                assert (await running.ask(CHAT)).status == 200
            assert (len(sick.requests), len(well.requests)) == (0, 4)
            sick.healthy = True
            await until(is_used)
