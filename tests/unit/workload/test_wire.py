"""The HTTP client's framing: whatever way an answer is cut into pieces, it reads the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.model.problem import Problem
from trimtab.workload.gather import fetch
from trimtab.workload.wire import AnswerLost, Client, Connection, parse_target


class Whole:
    """Takes in an answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.times: list[float] = []

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status, self.headers = status, dict(headers)

    def on_data(self, data: bytes, at_seconds: float) -> None:
        self.body += data
        self.times.append(at_seconds)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written and can be aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def connection(clock: Callable[[], float] = lambda: 0.0) -> tuple[Connection, Pipe]:
    pipe = Pipe()
    made = Connection(clock, lambda _connection: None)
    made.connection_made(pipe)
    return made, pipe


async def exchange(*pieces: bytes, end: bool = False, clock: Callable[[], float] = lambda: 0.0) -> tuple[Whole, bool]:
    """Feed the pieces of an answer to one exchange; returns what was read and whether the connection is kept."""
    made, _ = connection(clock)
    answer = Whole()
    task = asyncio.ensure_future(made.exchange(b"GET / HTTP/1.1\r\n\r\n", answer))
    await asyncio.sleep(0)
    for piece in pieces:
        made.data_received(piece)
    if end:
        made.connection_lost(None)
    return answer, await task


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world"


@settings(deadline=None)
@given(st.sampled_from([CHUNKED, SIZED]), st.data())
def test_answers_may_be_cut_anywhere(whole: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    answer, kept = asyncio.run(exchange(*filter(None, pieces)))
    assert (answer.status, answer.body, kept) == (200, b"hello world", True)
    assert answer.headers["content-type"] == "text/plain"


async def test_interim_answers_are_passed_over() -> None:
    answer, kept = await exchange(b"HTTP/1.1 100 Continue\r\n\r\n", SIZED)
    assert (answer.status, answer.body, kept) == (200, b"hello world", True)


async def test_body_without_a_length_ends_with_the_connection() -> None:
    answer, kept = await exchange(b"HTTP/1.0 200 OK\r\n\r\nhello", b" world", end=True)
    assert (answer.body, kept) == (b"hello world", False)


async def test_server_that_wants_to_close_is_not_asked_again() -> None:
    _, kept = await exchange(SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert not kept


@pytest.mark.parametrize("cut", [1, 20, len(SIZED) - 1])
async def test_half_an_answer_is_lost(cut: int) -> None:
    with pytest.raises(AnswerLost, match="closed the connection"):
        await exchange(SIZED[:cut], end=True)


async def test_half_a_chunked_answer_is_lost() -> None:
    with pytest.raises(AnswerLost, match="closed the connection"):
        await exchange(CHUNKED[:-5], end=True)


@pytest.mark.parametrize("noise", [b"220 smtp\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
async def test_what_is_not_http_is_lost(noise: bytes) -> None:
    with pytest.raises(AnswerLost, match="not HTTP"):
        await exchange(noise)


async def test_each_piece_has_the_time_it_came_at() -> None:
    ticks = iter([1.0, 2.5, 7.0])
    answer, _ = await exchange(CHUNKED[:-17], CHUNKED[-17:-3], CHUNKED[-3:], clock=lambda: next(ticks))
    assert answer.times == [1.0, 2.5]


async def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    made, pipe = connection()
    made.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert pipe.aborted


async def test_reader_that_fails_ends_the_exchange_and_nothing_else() -> None:
    class Failing(Whole):
        def on_data(self, data: bytes, at_seconds: float) -> None:
            raise ValueError(data, at_seconds)

    made, pipe = connection()
    task = asyncio.ensure_future(made.exchange(b"", Failing()))
    await asyncio.sleep(0)
    made.data_received(SIZED)
    with pytest.raises(AnswerLost):
        await task
    assert pipe.aborted


Answerer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answerer: Answerer) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answerer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class TestClient:
    async def test_path_host_and_fixed_headers(self) -> None:
        heads: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(SIZED)
            await writer.drain()

        async with serving(answer) as url:
            client = Client(parse_target(f"{url}/base/v1/"), {"authorization": "Bearer k"})
            assert await fetch(client, "/v1/models", patience_seconds=5) == (200, b"hello world")
            client.close()
        (head,) = heads
        assert head.startswith(b"GET /base/v1/models HTTP/1.1\r\n")
        assert f"host: {url.removeprefix('http://')}\r\n".encode() in head
        assert b"authorization: Bearer k\r\n" in head
        assert b"content-length: 0\r\n" in head

    async def test_stale_connection_is_replaced_once(self) -> None:
        """The server hangs up on the second request of a connection without a byte: it is sent again, on a new one."""
        connections = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SIZED)
            await reader.readuntil(b"\r\n\r\n")

        async with serving(answer) as url:
            client = Client(parse_target(url))
            for _ in range(3):
                assert (await fetch(client, "/", patience_seconds=5))[1] == b"hello world"
            client.close()
        assert connections == 3

    async def test_answer_that_had_begun_is_not_asked_for_again(self) -> None:
        requests = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            for cut in (len(SIZED), len(SIZED) - 1):
                await reader.readuntil(b"\r\n\r\n")
                requests += 1
                writer.write(SIZED[:cut])

        async with serving(answer) as url:
            client = Client(parse_target(url))
            await fetch(client, "/", patience_seconds=5)
            with pytest.raises(AnswerLost):
                await fetch(client, "/", patience_seconds=5)
            client.close()
        assert requests == 2

    async def test_new_connection_that_fails_is_not_tried_again(self) -> None:
        connections = 0

        async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")

        async with serving(hang_up) as url:
            with pytest.raises(AnswerLost):
                await fetch(Client(parse_target(url)), "/", patience_seconds=5)
        assert connections == 1

    async def test_giving_up_closes_the_connection(self) -> None:
        gone = asyncio.Event()

        async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await reader.read()
            gone.set()

        async with serving(wait) as url:
            with pytest.raises(TimeoutError):
                await fetch(Client(parse_target(url)), "/", patience_seconds=0.05)
            await asyncio.wait_for(gone.wait(), 5)

    async def test_many_requests_at_once_each_get_their_own_answer(self) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

        async with serving(echo) as url:
            client = Client(parse_target(url))
            for _ in range(2):
                paths = [f"/{number}" for number in range(50)]
                answers = await asyncio.gather(*(fetch(client, path, patience_seconds=10) for path in paths))
                assert [body.decode() for _, body in answers] == paths
            client.close()


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000, ""),
        ("http://gateway/v1", "gateway", 80, ""),
        ("http://gateway/llm/v1/", "gateway", 80, "/llm"),
        ("http://[::1]:9", "::1", 9, ""),
        ("https://api.example.com", "api.example.com", 443, ""),
    ],
)
def test_targets(url: str, host: str, port: int, prefix: str) -> None:
    target = parse_target(url)
    assert (target.host, target.port, target.prefix) == (host, port, prefix)
    assert (target.tls is not None) == url.startswith("https")


def test_host_header_of_an_ipv6_address_has_brackets() -> None:
    assert parse_target("http://[::1]:9").authority == "[::1]:9"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x:notaport", "http://x:99999"])
def test_what_is_no_target(url: str) -> None:
    with pytest.raises(Problem, match="URL") as caught:
        parse_target(url)
    assert caught.value.fix == "write http://HOST:PORT"
