"""HTTP as bytes on a socket."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.sim.conditions import until
from trimtab.sim.vllm.http import MAX_PIPELINED, Exchange, HttpServer

Served = tuple[int, list[Exchange]]


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that answers with what it understood."""

    def application(exchange: Exchange) -> None:
        request = exchange.request
        exchange.respond(200, f"{request.method} {request.path} {request.query} ".encode() + request.body)

    server = HttpServer(application, time.time)
    yield await server.listen("127.0.0.1", 0)
    server.stop_listening()


@pytest.fixture
async def holding() -> AsyncIterator[Served]:
    """A server that leaves its exchanges to the test."""
    held: list[Exchange] = []
    server = HttpServer(held.append, time.time)
    yield await server.listen("127.0.0.1", 0), held
    server.stop_listening()


class Wire:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer with a length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))


Connect = Callable[[int], Awaitable[Wire]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    open_wires: list[Wire] = []

    async def go(port: int) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
        open_wires.append(wire)
        return wire

    yield go
    for wire in open_wires:
        wire.writer.close()


async def test_requests_on_one_connection(echo: int, connect: Connect) -> None:
    wire = await connect(echo)
    for body in (b"one", b"", b"three"):
        wire.writer.write(b"POST /a?x=1&x=2 HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        status, headers, got = await wire.answer()
        assert (status, got) == (200, b"POST /a {'x': ['1', '2']} " + body)
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])


async def test_a_request_that_comes_byte_by_byte(echo: int, connect: Connect) -> None:
    wire = await connect(echo)
    for byte in b"POST /long/path HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello":
        wire.writer.write(bytes([byte]))
        await wire.writer.drain()
        await asyncio.sleep(0)
    assert (await wire.answer())[2] == b"POST /long/path {} hello"


async def test_a_chunked_request(echo: int, connect: Connect) -> None:
    wire = await connect(echo)
    wire.writer.write(
        b"POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert (await wire.answer())[2] == b"POST /c {} abcde"


async def test_pipelined_requests_are_answered_in_order(holding: Served, connect: Connect) -> None:
    port, held = holding
    wire = await connect(port)
    wire.writer.write(b"".join(b"GET /%d HTTP/1.1\r\nhost: h\r\n\r\n" % number for number in range(3)))
    for number in range(3):
        await until(lambda at=number: len(held) == at + 1)
        assert held[-1].request.path == f"/{number}"
        held[-1].respond(200, b"%d" % number)
        assert (await wire.answer())[2] == b"%d" % number


async def test_too_many_pipelined_requests_close_the_connection(holding: Served, connect: Connect) -> None:
    port, held = holding
    wire = await connect(port)
    wire.writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n" * (MAX_PIPELINED + 2))
    assert await wire.reader.read() == b""
    assert len(held) == 1


@pytest.mark.parametrize("request_bytes", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"])
async def test_what_is_not_http_gets_400(echo: int, connect: Connect, request_bytes: bytes) -> None:
    wire = await connect(echo)
    wire.writer.write(request_bytes)
    status, _, body = await wire.answer()
    assert (status, body) == (400, b"Invalid HTTP request received.")
    assert await wire.reader.read() == b""


async def test_a_body_that_is_too_large(echo: int, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.sim.vllm.http.MAX_BODY_BYTES", 10)
    wire = await connect(echo)
    wire.writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 11\r\n\r\n" + b"x" * 11)
    assert (await wire.answer())[0] == 413
    assert await wire.reader.read() == b""


async def test_expect_continue(echo: int, connect: Connect) -> None:
    wire = await connect(echo)
    wire.writer.write(b"POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.writer.write(b"ok")
    assert (await wire.answer())[2] == b"POST / {} ok"


async def test_a_client_that_wants_to_close(echo: int, connect: Connect) -> None:
    wire = await connect(echo)
    wire.writer.write(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    await wire.answer()
    assert await wire.reader.read() == b""


async def test_head_has_a_length_and_no_body(echo: int, connect: Connect) -> None:
    wire = await connect(echo)
    wire.writer.write(b"HEAD / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    head = await wire.reader.read()
    assert b"content-length: 10\r\n" in head
    assert head.endswith(b"\r\n\r\n")


async def test_a_stream_is_chunked(holding: Served, connect: Connect) -> None:
    port, held = holding
    wire = await connect(port)
    wire.writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    await until(lambda: bool(held))
    held[0].start_stream()
    held[0].write(b"data: 1\n\n")
    held[0].end(b"data: 2\n\n")
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert await wire.reader.readuntil(b"0\r\n\r\n") == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"


async def test_a_stream_for_http_1_0_ends_with_the_connection(holding: Served, connect: Connect) -> None:
    port, held = holding
    wire = await connect(port)
    wire.writer.write(b"GET / HTTP/1.0\r\n\r\n")
    await until(lambda: bool(held))
    held[0].start_stream()
    held[0].write(b"data: 1\n\n")
    held[0].end(b"data: 2\n\n")
    head, _, body = (await wire.reader.read()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"data: 1\n\ndata: 2\n\n"


async def test_a_client_that_leaves_is_noticed_once(holding: Served, connect: Connect) -> None:
    port, held = holding
    wire = await connect(port)
    wire.writer.write(b"GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n")
    await until(lambda: bool(held))
    gone: list[int] = []
    held[0].on_disconnect = lambda: gone.append(1)
    wire.writer.close()
    await until(lambda: bool(gone))
    assert held[0].done
    held[0].end(b"to nobody")
    assert gone == [1]
    assert len(held) == 1, "what was pipelined behind it is dropped"


async def test_a_closing_server_lets_answers_finish(holding: Served, connect: Connect) -> None:
    port, held = holding
    busy, idle = await connect(port), await connect(port)
    busy.writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    await until(lambda: bool(held))
    await until(lambda: len(held[0]._connection.server.connections) == 2)
    held[0]._connection.server.stop_listening()
    assert await idle.reader.read() == b""
    held[0].respond(200, b"late")
    assert (await busy.answer())[2] == b"late"
    assert await busy.reader.read() == b""
    with pytest.raises(OSError, match=r"refused|failed"):
        await connect(port)
