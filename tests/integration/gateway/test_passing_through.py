"""What a client gets is what the engine sent, and what the engine gets is what the client asked."""

import asyncio
import json
import socket

import pytest

from tests.integration.gateway.conftest import CHAT, STREAM, Start, a_pool, eventually
from tests.support.raw_http import post
from tests.support.upstream import Call, echo, stream, upstream
from trimtab_gateway.limits import Limits


async def test_an_answer_comes_back_as_it_is(start: Start) -> None:
    running = await start(echo)
    body = b'{ "model" : "llama",\n "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}] }'
    answer = await running.ask(body)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    assert running.outcomes() == {"ok": 1}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_every_inference_path_is_forwarded(start: Start, path: str) -> None:
    running = await start()
    assert (await running.ask(CHAT, path + "?api-version=1")).status == 200
    assert running.engines[0].requests[0].line == f"POST {path} HTTP/1.1"


async def test_a_stream_keeps_its_bytes_and_its_chunks(start: Start) -> None:
    sent = []

    async def odd_chunks(call: Call) -> None:
        await call.head(content_type="text/event-stream", transfer_encoding="chunked")
        for data in (b'data: {"a":', b"1}\n\n", b": comment\n\ndata: x\n\n", b"data: [DONE]\n\n"):
            sent.append(b"%X;ext=1\r\n%b\r\n" % (len(data), data))
            await call.send(sent[-1])
        sent.append(b"000\r\ntrailer: t\r\n\r\n")
        await call.send(sent[-1])

    running = await start(odd_chunks)
    async with running.connect() as client:
        await client.ask(STREAM)
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        raw = await client.reader.readexactly(sum(map(len, sent)))
    assert raw == b"".join(sent)


async def test_headers_and_first_events_are_not_held_back(start: Start) -> None:
    """The client sees each part before the engine sends the next one."""
    go_on = asyncio.Event()

    async def stepwise(call: Call) -> None:
        await call.events()
        await go_on.wait()
        go_on.clear()
        await call.event("1")
        await go_on.wait()
        await call.end()

    running = await start(stepwise)
    async with running.connect() as client:
        await client.ask(STREAM)
        assert (await client.head())[0] == 200
        go_on.set()
        assert (await client.chunk())[0] == b"data: 1\n\n"
        go_on.set()
        assert (await client.chunk())[0] == b""


async def test_status_headers_and_body_of_errors_pass(start: Start) -> None:
    async def refuse(call: Call) -> None:
        await call.json(
            b'{"error":{"message":"m","type":"BadRequestError","param":null,"code":400}}',
            "400 Bad Request",
            x_other="1",
        )

    running = await start(refuse)
    answer = await running.ask(CHAT)
    assert (answer.status, answer.json["error"]["code"], answer.headers["x-other"]) == (400, 400, "1")
    assert running.outcomes() == {"client_error": 1}


async def test_hop_by_hop_and_routing_headers_do_not_reach_the_engine(start: Start) -> None:
    running = await start()
    await running.ask(
        CHAT,
        connection="keep-alive, x-private",
        x_private="1",
        keep_alive="timeout=5",
        te="trailers",
        proxy_authorization="Basic x",
        x_llm_d_slo_ttft_ms="1",
        x_gateway_destination_endpoint="10.0.0.1:80",
        x_slo_ttft_ms="1",
        x_session_token="1",
        x_prefiller_host_port="10.0.0.1:80",
        x_data_parallel_host_port="10.0.0.1:80",
        authorization="Bearer key",
        x_custom="kept",
        traceparent="00-1-1-01",
    )
    names = {name for name, _ in running.engines[0].requests[0].headers}
    assert names == {
        "host",
        "content-type",
        "authorization",
        "x-custom",
        "traceparent",
        "x-request-id",
        "content-length",
    }


async def test_hop_by_hop_headers_do_not_reach_the_client(start: Start) -> None:
    async def chatty(call: Call) -> None:
        await call.json(connection="keep-alive, x-internal", x_internal="1", keep_alive="timeout=5", server="uvicorn")

    running = await start(chatty)
    headers = (await running.ask(CHAT)).headers
    assert headers["server"] == "uvicorn"
    assert not {"connection", "keep-alive", "x-internal"} & headers.keys()


async def test_the_request_id_of_the_client_is_used_and_returned(start: Start) -> None:
    running = await start()
    answer = await running.ask(CHAT, x_request_id="my-request.1")
    assert answer.headers["x-request-id"] == "my-request.1"
    assert running.engines[0].requests[0].header("x-request-id") == "my-request.1"


@pytest.mark.parametrize("unsafe", ["a b", "x" * 129, "id\xe9", "a,b"])
async def test_an_unsafe_request_id_is_replaced(start: Start, unsafe: str) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(
            post(CHAT).replace(b"content-type:", b"x-request-id: " + unsafe.encode("latin-1") + b"\r\ncontent-type:")
        )
        answer = await client.answer()
    given = running.engines[0].requests[0].header("x-request-id")
    assert given != unsafe
    assert answer.headers["x-request-id"] == given


async def test_a_chunked_request_body_is_forwarded_with_its_length(start: Start) -> None:
    running = await start(echo)
    async with running.connect() as client:
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
            b'5;x=y\r\n{"mod\r\nc\r\nel":"llama"}\r\n0\r\nx-trailer: 1\r\n\r\n'
        )
        answer = await client.answer()
    assert answer.body == b'{"model":"llama"}'
    received = running.engines[0].requests[0]
    assert received.header("content-length") == "17"
    assert received.header("transfer-encoding") is None
    assert received.header("x-trailer") is None


async def test_connections_on_both_sides_are_used_again(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        for _ in range(3):
            await client.ask(CHAT)
            assert (await client.answer()).status == 200
    assert running.engines[0].connections == 1


async def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    first_may_end = asyncio.Event()

    async def slow_first(call: Call) -> None:
        if call.number == 1:
            await first_may_end.wait()
        await call.json(call.received.body)

    running = await start(slow_first)
    bodies = [json.dumps(CHAT | {"n": number}).encode() for number in range(5)]
    async with running.connect() as client:
        await client.send(b"".join(post(body) for body in bodies))
        await running.engines[0].arrived.wait()
        first_may_end.set()
        assert [(await client.answer()).body for _ in bodies] == bodies


async def test_many_pipelined_errors_do_not_recurse(start: Start) -> None:
    running = await start(limits=Limits(pipelined=10_000))
    async with running.connect() as client:
        await client.send(b"GET /nothing HTTP/1.1\r\nhost: g\r\n\r\n" * 3000)
        for _ in range(3000):
            assert (await client.answer()).status == 404


async def test_a_crowd_of_pipelined_requests_stops_reading_but_loses_none(start: Start) -> None:
    running = await start(limits=Limits(pipelined=2))
    async with running.connect() as client:
        await client.send(post(CHAT) * 200)
        assert [(await client.answer()).status for _ in range(200)] == [200] * 200
    assert running.engines[0].most_busy == 1


async def test_a_crowd_behind_a_slow_request_is_no_longer_read(start: Start) -> None:
    go_on = asyncio.Event()

    async def waits(call: Call) -> None:
        await go_on.wait()
        await call.json()

    running = await start(waits, limits=Limits(pipelined=2))
    async with running.connect() as client:
        await client.send(post(CHAT) * 5)
        await running.engines[0].arrived.wait()
        (server_side,) = running.gateway.clients
        await eventually(lambda: not server_side.transport.is_reading())
        go_on.set()
        assert [(await client.answer()).status for _ in range(5)] == [200] * 5
        assert server_side.transport.is_reading()


async def test_expect_continue_is_answered_before_the_body(start: Start) -> None:
    running = await start(echo)
    head, _, body = post(CHAT, expect="100-continue").partition(b"\r\n\r\n")
    async with running.connect() as client:
        await client.send(head + b"\r\n\r\n")
        assert (await client.head())[0] == 100
        await client.send(body)
        assert (await client.answer()).body == body
    assert running.engines[0].requests[0].header("expect") is None


async def test_expect_continue_behind_a_running_request_waits_for_its_turn(start: Start) -> None:
    go_on = asyncio.Event()

    async def waits(call: Call) -> None:
        if call.number == 1:
            await go_on.wait()
        await call.json(call.received.body)

    running = await start(waits)
    head, _, body = post(CHAT, expect="100-continue").partition(b"\r\n\r\n")
    async with running.connect() as client:
        await client.send(post(CHAT) + head + b"\r\n\r\n")
        await running.engines[0].arrived.wait()
        go_on.set()
        assert (await client.answer()).status == 200
        assert (await client.head())[0] == 100
        await client.send(body)
        assert (await client.answer()).body == body


async def test_interim_answers_of_the_engine_are_swallowed(start: Start) -> None:
    async def hints(call: Call) -> None:
        await call.send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await call.json()

    running = await start(hints)
    answer = await running.ask(CHAT)
    assert (answer.status, answer.body, "link" in answer.headers) == (200, b'{"ok":true}', False)


async def test_an_http_1_0_client_gets_a_stream_without_chunks(start: Start) -> None:
    running = await start(stream)
    async with running.connect() as client:
        await client.send(post(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
        status, headers = await client.head()
        body = await client.closed()
    assert (status, headers["connection"]) == (200, "close")
    assert "transfer-encoding" not in headers
    assert body == b'data: {"token":"one"}\n\ndata: {"token":"two"}\n\ndata: {"token":"three"}\n\ndata: [DONE]\n\n'


async def test_a_body_that_ends_with_the_engines_connection_ends_the_clients(start: Start) -> None:
    async def until_close(call: Call) -> None:
        await call.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it")
        call.writer.close()

    running = await start(until_close)
    async with running.connect() as client:
        await client.ask(CHAT)
        status, headers = await client.head()
        assert (status, headers["connection"], await client.closed()) == (200, "close", b"all of it")
    assert running.outcomes() == {"ok": 1}


async def test_a_client_that_wants_the_connection_closed_gets_it_closed(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        await client.ask(CHAT, connection="close")
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert await client.closed() == b""


async def test_models_of_all_pools_are_listed(start: Start) -> None:
    running = await start()
    async with upstream() as other:
        first, second = a_pool(*running.engines), a_pool(other, name="embed", models=("e5", "llama"))
        running.gateway.configure([first, second])
        async with running.connect() as client:
            await client.send(b"GET /v1/models HTTP/1.1\r\nhost: g\r\n\r\n")
            listed = (await client.answer()).json["data"]
            assert [(model["id"], model["owned_by"]) for model in listed] == [("e5", "embed"), ("llama", "chat")]
            await client.send(b"HEAD /v1/models HTTP/1.1\r\nhost: g\r\n\r\n")
            status, headers = await client.head()
            assert (status, int(headers["content-length"]) > 0) == (200, True)
            await client.ask({"model": "e5"}, "/v1/embeddings")
            assert (await client.answer()).status == 200
    assert (len(running.engines[0].requests), len(other.requests)) == (0, 1)


async def test_a_slow_reader_pauses_the_engine_and_loses_nothing(start: Start) -> None:
    size, count, written = 64 * 1024, 600, 0

    async def flood(call: Call) -> None:
        nonlocal written
        await call.events()
        for number in range(count):
            await call.chunk(b"%c" % (97 + number % 26) * size)
            written += size
        await call.end()

    running = await start(flood)
    async with running.connect() as client:
        await client.ask(STREAM)
        await client.head()
        (server_side,) = running.gateway.clients
        await eventually(lambda: server_side.write_paused)
        assert server_side.transport.get_write_buffer_size() < 512 * 1024
        assert written < count * size
        body = b""
        while content := (await client.chunk())[0]:
            body += content
    assert body == b"".join(b"%c" % (97 + number % 26) * size for number in range(count))


async def test_many_clients_at_once_each_get_their_own_answer(start: Start) -> None:
    running = await start(echo, echo, concurrency=8)
    bodies = [json.dumps(CHAT | {"n": number}).encode() for number in range(200)]
    answers = await asyncio.gather(*(running.ask(body) for body in bodies))
    assert [answer.body for answer in answers] == bodies
    assert all(engine.most_busy <= 8 for engine in running.engines)
    assert all(len(engine.requests) > 20 for engine in running.engines)


async def test_an_answer_that_begins_while_the_gateway_drains_ends_its_connection(start: Start) -> None:
    go_on = asyncio.Event()

    async def waits(call: Call) -> None:
        await go_on.wait()
        await call.json()

    running = await start(waits)
    async with running.connect() as client:
        await client.ask(CHAT)
        await running.engines[0].arrived.wait()
        running.gateway.start_draining()
        go_on.set()
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.closed() == b""


async def test_answers_do_not_pile_up_for_a_client_that_only_sends(start: Start) -> None:
    """Each answer alone fits into the buffer, so only the next request can be held back."""
    size, count = 2000, 300

    async def small(call: Call) -> None:
        await call.json(b"%06d" % call.number + b"x" * size)

    running = await start(small, limits=Limits(write_buffer_bytes=4096), send_buffer_bytes=4096)
    async with running.connect() as client:
        client.writer.transport.pause_reading()
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await eventually(lambda: running.gateway.clients)
        (server_side,) = running.gateway.clients
        await client.send(post(CHAT) * count)
        await eventually(lambda: server_side.write_paused and not running.gateway.exchanges)
        assert len(running.engines[0].requests) < count
        assert server_side.transport.get_write_buffer_size() < 5 * size
        client.writer.transport.resume_reading()
        for number in range(1, count + 1):
            assert (await client.answer()).body[:6] == b"%06d" % number
    assert running.outcomes() == {"ok": count}


async def test_a_client_that_never_reads_its_last_answer_is_dropped(start: Start) -> None:
    async def large(call: Call) -> None:
        await call.json(b"x" * 20_000_000)

    running = await start(large, limits=Limits(stall_seconds=0.2))
    async with running.connect() as client:
        await client.ask(CHAT)
        await eventually(lambda: running.gateway.clients)
        await eventually(lambda: not running.gateway.clients)
        assert client.writer.transport.is_closing() or len(await client.closed()) < 20_000_000
