"""Requests that are wrong, dangerous, too large or too slow; above all those that two parsers read differently."""

import asyncio
import socket

import pytest

from tests.integration.gateway.conftest import CHAT, Start, eventually
from tests.support.raw_http import post
from trimtab_gateway.limits import Limits

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n"
BODY = b'{"model":"llama"}'
SECOND = b"POST /v1/embeddings HTTP/1.1\r\nHost: g\r\nContent-Length: 17\r\n\r\n" + BODY

SMUGGLING = {
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SECOND,
    "two different lengths": HEAD + b"Content-Length: 17\r\nContent-Length: 0\r\n\r\n" + BODY + SECOND,
    "two equal lengths": HEAD + b"Content-Length: 17\r\nContent-Length: 17\r\n\r\n" + BODY + SECOND,
    "length list": HEAD + b"Content-Length: 17, 17\r\n\r\n" + BODY + SECOND,
    "length with sign": HEAD + b"Content-Length: +17\r\n\r\n" + BODY,
    "negative length": HEAD + b"Content-Length: -17\r\n\r\n" + BODY,
    "hexadecimal length": HEAD + b"Content-Length: 0x11\r\n\r\n" + BODY,
    "overflowing length": HEAD + b"Content-Length: 18446744073709551633\r\n\r\n" + BODY,
    "length with inner space": HEAD + b"Content-Length: 1 7\r\n\r\n" + BODY,
    "empty length": HEAD + b"Content-Length: \r\n\r\n" + BODY + SECOND,
    "space before colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "vertical tab before value": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding after chunked": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "encoding before chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 17\r\n\r\n" + BODY,
    "two encodings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "quoted encoding": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunks in HTTP/1.0": b"POST /v1/chat/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": HEAD + b"X: a\r\n Content-Length: 17\r\nContent-Length: 17\r\n\r\n" + BODY,
    "folded encoding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare line feed after the request line": b"POST /v1/chat/completions HTTP/1.1\nHost: g\r\n\r\n",
    "bare line feed in headers": HEAD + b"X: a\nContent-Length: 17\r\n\r\n" + BODY,
    "bare line feed at the end": HEAD + b"Content-Length: 0\r\n\n" + SECOND,
    "bare carriage return": HEAD + b"X: a\rContent-Length: 17\r\n\r\n" + BODY,
    "null byte": HEAD + b"X: a\x00b\r\nContent-Length: 17\r\n\r\n" + BODY,
    "header without colon": HEAD + b"Content-Length\r\n\r\n" + BODY,
    "header without name": HEAD + b": 17\r\n\r\n" + BODY,
    "chunk size with sign": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-11\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size with prefix": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x11\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size with space": HEAD + b"Transfer-Encoding: chunked\r\n\r\n11 \r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size overflows": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000011\r\n" + BODY + b"\r\n0\r\n\r\n",
    "empty chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n" + BODY,
    "line feed after chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n11\n" + BODY + b"\r\n0\r\n\r\n",
    "line feed in chunk extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n11;a\n" + BODY + b"\r\n0\r\n\r\n",
    "line feed after chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + BODY + b"\n0\r\n\r\n",
    "chunk longer than announced": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "two hosts": HEAD + b"Host: h\r\nContent-Length: 17\r\n\r\n" + BODY,
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 17\r\n\r\n" + BODY,
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/1.2": b"POST /v1/chat/completions HTTP/1.2\r\nHost: g\r\n\r\n",
    "HTTP/2.0 line": b"POST /v1/chat/completions HTTP/2.0\r\nHost: g\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "lower-case method": b"post /v1/chat/completions HTTP/1.1\r\nHost: g\r\n\r\n",
    "space in the path": b"POST /v1/chat/completions x HTTP/1.1\r\nHost: g\r\n\r\n",
    "upgrade": HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 17\r\n\r\n" + BODY,
    "connect": b"CONNECT engine:8000 HTTP/1.1\r\nHost: g\r\n\r\n",
}


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_what_could_be_read_in_two_ways_is_refused_and_goes_nowhere(start: Start, data: bytes) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(data)
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "invalid_http")
        assert answer.headers["connection"] == "close"
        assert await client.closed() == b""
    assert running.engines[0].requests == []


async def test_a_good_request_before_a_bad_one_is_still_served(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(post(CHAT) + b"garbage\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).code == "invalid_http"
        assert await client.closed() == b""
    assert len(running.engines[0].requests) == 1


async def test_what_follows_a_closing_request_is_not_served(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(post(CHAT, connection="close") + post(CHAT))
        assert (await client.answer()).status == 200
        await client.closed()
    assert len(running.engines[0].requests) == 1


PATHS = [
    "/", "/v1/chat/completions/", "/v1//chat/completions", "/v1/chat/../chat/completions", "/V1/models", "/health",
    "/metrics", "/v1/load_lora_adapter", "/sleep", "/abort_requests", "/invocations", "/v1/models/llama",
    "/v1/chat%2fcompletions", "http://engine/v1/chat/completions", "*",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_only_listed_paths_exist(start: Start, path: str) -> None:
    running = await start()
    answer = await running.ask(CHAT, path)
    assert answer.status in {400, 404}
    assert answer.code in {"unknown_path", "invalid_http"}
    assert running.engines[0].requests == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/embeddings", "POST"),
    ],
)
async def test_only_the_right_method_is_served(start: Start, method: str, path: str, allow: str) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(f"{method} {path} HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n".encode())
        answer = await client.answer()
        assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", allow)


BODIES = {
    "truncated": (b'{"model": "llama", ', "invalid_json"),
    "empty": (b"", "invalid_json"),
    "not UTF-8": (b'{"model": "\xff"}', "invalid_json"),
    "NaN": (b'{"model": "llama", "temperature": NaN}', "invalid_json"),
    "trailing garbage": (b'{"model": "llama"} x', "invalid_json"),
    "a list": (b"[1]", "invalid_request"),
    "a string": (b'"llama"', "invalid_request"),
    "a model that is a number": (b'{"model": 1}', "invalid_request"),
    "nested beyond reason": (b'{"model": "llama", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_json"),
}


@pytest.mark.parametrize(("body", "code"), BODIES.values(), ids=BODIES.keys())
async def test_bodies_that_no_engine_could_serve_are_refused_and_the_connection_lives_on(
    start: Start, body: bytes, code: str
) -> None:
    running = await start()
    async with running.connect() as client:
        await client.ask(body)
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, code)
        assert answer.json["error"]["type"] == "invalid_request_error"
        await client.ask(CHAT)
        assert (await client.answer()).status == 200
    assert len(running.engines[0].requests) == 1


async def test_a_compressed_body_is_refused(start: Start) -> None:
    running = await start()
    answer = await running.ask(CHAT, content_encoding="gzip")
    assert (answer.status, answer.code) == (415, "unsupported_encoding")


async def test_an_unknown_expectation_is_refused(start: Start) -> None:
    running = await start()
    answer = await running.ask(CHAT, expect="the-spanish-inquisition")
    assert (answer.status, answer.code) == (417, "expectation_failed")


async def test_a_body_that_announces_too_much_is_refused_at_once(start: Start) -> None:
    running = await start(limits=Limits(body_bytes=1000))
    async with running.connect() as client:
        await client.send(HEAD + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (413, "body_too_large", "close")


async def test_a_body_that_turns_out_too_large_is_refused_and_its_rest_is_discarded(start: Start) -> None:
    running = await start(limits=Limits(body_bytes=100_000))
    async with running.connect() as client:
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            await client.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
    assert running.gateway.buffered_bytes == 0


async def test_a_body_of_exactly_the_limit_passes(start: Start) -> None:
    body = b'{"model":"llama","x":"' + b"y" * 5000 + b'"}'
    running = await start(limits=Limits(body_bytes=len(body)))
    assert (await running.ask(body)).status == 200


async def test_bodies_of_all_clients_together_are_bounded(start: Start) -> None:
    running = await start(limits=Limits(buffered_bytes=1000))
    async with running.connect() as first:
        await first.send(HEAD + b"Content-Length: 900\r\n\r\n" + b"x" * 800)
        await eventually(lambda: running.gateway.buffered_bytes == 800)
        answer = await running.ask(b'{"model":"llama","x":"' + b"y" * 300 + b'"}')
        assert (answer.status, answer.code) == (503, "overloaded")


HEADS = {
    "one long header": b"X: " + b"y" * 40_000 + b"\r\n",
    "an endless header": b"X: " + b"y" * 400_000,
    "an endless name": b"X" * 400_000,
    "many headers": b"X: y\r\n" * 200,
    "many long headers": (b"X: " + b"y" * 1000 + b"\r\n") * 50,
}


@pytest.mark.parametrize("fields", HEADS.values(), ids=HEADS.keys())
async def test_heads_are_bounded(start: Start, fields: bytes) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(HEAD + fields + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer.code) == (431, "headers_too_large")


async def test_a_long_path_is_bounded(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: g\r\n\r\n")
        assert (await client.answer()).status == 431


async def test_chunks_that_carry_almost_nothing_are_refused(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2_000_000)
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "invalid_http")


async def test_endless_trailers_are_refused(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 200_000)
        assert (await client.answer()).status == 400


@pytest.mark.parametrize(
    ("sent", "limits"),
    [
        (b"POST /v1/chat", Limits(head_seconds=0.1)),
        (HEAD + b"X: y\r\n", Limits(head_seconds=0.1)),
        (HEAD + b"Content-Length: 100\r\n\r\n{", Limits(body_seconds=0.1)),
    ],
)
async def test_slow_requests_are_given_up(start: Start, sent: bytes, limits: Limits) -> None:
    running = await start(limits=limits)
    async with running.connect() as client:
        await client.send(sent)
        answer = await client.answer()
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert await client.closed() == b""


async def test_a_client_that_trickles_headers_is_given_up_too(start: Start) -> None:
    running = await start(limits=Limits(head_seconds=0.2))
    async with running.connect() as client:
        await client.send(HEAD)

        async def trickle() -> None:
            while True:
                await client.send(b"X: y\r\n")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert (await client.answer()).status == 408
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)


@pytest.mark.parametrize("used", [False, True])
async def test_idle_clients_are_closed_without_a_word(start: Start, used: bool) -> None:
    running = await start(limits=Limits(head_seconds=0.1, idle_seconds=0.1))
    async with running.connect() as client:
        if used:
            await client.ask(CHAT)
            assert (await client.answer()).status == 200
        assert await client.closed() == b""


async def test_a_slow_engine_is_not_mistaken_for_a_slow_client(start: Start) -> None:
    async def slow(call) -> None:  # noqa: ANN001
        await asyncio.sleep(1.5)
        await call.json()

    running = await start(slow, limits=Limits(head_seconds=1.0, body_seconds=1.0, idle_seconds=1.0))
    assert (await running.ask(CHAT)).status == 200


async def test_connections_are_bounded(start: Start) -> None:
    running = await start(limits=Limits(connections=1))
    async with running.connect() as first, running.connect() as second:
        refused = await second.answer()
        assert (refused.status, refused.code) == (503, "overloaded")
        await first.ask(CHAT)
        assert (await first.answer()).status == 200


async def test_a_client_that_keeps_sending_after_a_refusal_still_reads_it(start: Start) -> None:
    """Closing at once would reset the connection and could take the answer with it."""
    running = await start(limits=Limits(body_bytes=1000))
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        await asyncio.to_thread(client.sendall, HEAD + b"Content-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
        await asyncio.sleep(0.1)
        answer = await asyncio.to_thread(client.recv, 65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
