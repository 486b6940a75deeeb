"""Engines that die, lie, hang or refuse: the client always learns the truth, once."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.integration.gateway.conftest import CHAT, LEVELS, STREAM, Start, eventually
from tests.support.upstream import Behavior, Call, answer, stream
from trimtab_gateway.limits import Limits

CAPTURED_BUSY = (
    b'data: {"error": {"message": "The engine is currently busy and cannot accept new requests. Please try again later'
    b' or on a different instance.", "type": "Service Unavailable", "param": null, "code": 503}}\n\ndata: [DONE]\n\n'
)
CAPTURED_DEAD_CORE = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    b' "type": "InternalServerError", "param": null, "code": 500}}\n\n'
)


def events_of(body: bytes) -> list[bytes]:
    return [event for event in body.split(b"\n\n") if event]


async def test_a_stream_whose_engine_dies_ends_with_an_error_event(start: Start) -> None:
    async def dies(call: Call) -> None:
        await call.events()
        await call.event('{"token":"one"}')
        call.die()

    running = await start(dies, levels=LEVELS, default_level=LEVELS[0])
    async with running.connect() as client:
        await client.ask(STREAM)
        got = await client.answer()
        assert await client.closed() == b""
    first, error, done = events_of(got.body)
    assert (first, done) == (b'data: {"token":"one"}', b"data: [DONE]")
    content = json.loads(error.removeprefix(b"data: "))["error"]
    assert (content["code"], content["type"], content["param"]) == ("upstream_failed", "server_error", None)
    assert running.outcomes() == {"upstream_failed": 1}


async def test_an_event_that_was_cut_off_is_ended_before_the_error_event(start: Start) -> None:
    async def dies(call: Call) -> None:
        await call.events()
        await call.chunk(b'data: {"tok')
        call.die()

    running = await start(dies)
    got = await running.ask(STREAM)
    assert [event[:14] for event in events_of(got.body)] == [b'data: {"tok', b'data: {"error"', b"data: [DONE]"]


async def test_a_stream_cut_inside_a_chunk_breaks_the_connection(start: Start) -> None:
    """Nothing can be said inside a chunk that was announced longer than what came: the framing itself tells."""

    async def dies(call: Call) -> None:
        await call.events()
        await call.send(b"ff\r\ndata: half")
        call.die()

    running = await start(dies)
    async with running.connect() as client:
        await client.ask(STREAM)
        await client.head()
        assert await client.closed() == b"ff\r\ndata: half"
    assert running.outcomes() == {"upstream_failed": 1}


async def test_a_plain_answer_that_stops_in_the_middle_breaks_the_connection(start: Start) -> None:
    async def dies(call: Call) -> None:
        await call.head(content_length="100")
        await call.send(b'{"half":')
        call.die()

    running = await start(dies)
    async with running.connect() as client:
        await client.ask(CHAT)
        await client.head()
        assert await client.closed() == b'{"half":'
    assert running.outcomes() == {"upstream_failed": 1}


async def test_an_engine_that_dies_before_its_answer_is_502(start: Start) -> None:
    async def dies(call: Call) -> None:
        call.die()

    running = await start(dies)
    got = await running.ask(CHAT)
    assert (got.status, got.code, got.headers["x-trimtab-reason"]) == (502, "upstream_failed", "upstream_failed")
    assert len(running.engines[0].requests) == 1  # it may have been computed: never sent twice


async def test_a_connection_that_the_engine_gave_up_as_idle_is_replaced(start: Start) -> None:
    async def closes_when_asked_again(call: Call) -> None:
        if call.number == 2:
            call.writer.close()
        else:
            await call.json()

    running = await start(closes_when_asked_again)
    engine = running.engines[0]
    assert (await running.ask(CHAT)).status == 200
    assert (await running.ask(CHAT)).status == 200
    assert (engine.connections, len(engine.requests)) == (2, 3)


async def test_a_request_is_sent_again_only_once(start: Start) -> None:
    async def second_and_later_die(call: Call) -> None:
        if call.number == 1:
            await call.json()
        else:
            call.writer.close()

    running = await start(second_and_later_die)
    assert (await running.ask(CHAT)).status == 200
    got = await running.ask(CHAT)
    assert (got.status, got.code) == (502, "upstream_failed")
    assert len(running.engines[0].requests) == 3


async def test_an_unreachable_engine_is_replaced_by_another_one(start: Start) -> None:
    running = await start(answer, answer)
    dead = min(running.engines, key=lambda engine: engine.address)
    await dead.stop()
    for _ in range(3):
        assert (await running.ask(CHAT)).status == 200
    assert running.value("trimtab_gateway_endpoint_up", pool="chat", endpoint=dead.address) == 0
    assert running.value("trimtab_gateway_endpoint_ejections_total", pool="chat") == 1
    assert running.outcomes() == {"ok": 3}


async def test_engines_that_are_all_unreachable_are_502_after_the_allowed_tries(start: Start) -> None:
    running = await start(answer, answer, answer, limits=Limits(retries=1))
    for engine in running.engines:
        await engine.stop()
    got = await running.ask(CHAT)
    assert (got.status, got.code) == (502, "upstream_unreachable")


async def test_an_engine_that_comes_back_is_used_again(start: Start) -> None:
    running = await start()
    engine = running.engines[0]
    await engine.stop()
    async with running.connect() as client:
        await client.ask(CHAT)
        await eventually(lambda: running.queue.waiting == 1)
        await engine.start(engine.port)
        assert (await client.answer()).status == 200
    assert running.value("trimtab_gateway_endpoint_up", pool="chat", endpoint=engine.address) == 1


async def test_an_engine_that_takes_too_long_is_504(start: Start) -> None:
    async def hangs(_call: Call) -> None:
        await asyncio.Event().wait()

    running = await start(hangs, limits=Limits(answer_seconds=0.1))
    got = await running.ask(CHAT)
    assert (got.status, got.code) == (504, "upstream_timeout")
    await asyncio.wait_for(running.engines[0].gone.wait(), 5)


async def test_an_engine_that_falls_silent_ends_the_stream_with_an_error_event(start: Start) -> None:
    async def falls_silent(call: Call) -> None:
        await call.events()
        await call.event("1")
        await asyncio.Event().wait()

    running = await start(falls_silent, limits=Limits(silence_seconds=0.1))
    got = await running.ask(STREAM)
    assert b'"code":"upstream_timeout"' in got.body
    await asyncio.wait_for(running.engines[0].gone.wait(), 5)
    assert running.outcomes() == {"upstream_timeout": 1}


@pytest.mark.parametrize("cuts", [(), (3,), (10, 20), (13,)])
async def test_an_error_inside_a_stream_passes_and_counts_as_one(start: Start, cuts: tuple[int, ...]) -> None:
    async def fails_inside(call: Call) -> None:
        await call.events()
        await call.event('{"choices":[{"delta":{"content":"data: {\\"error\\""}}]}')
        for begin, end in zip((0, *cuts), (*cuts, None), strict=True):
            await call.chunk(CAPTURED_DEAD_CORE[begin:end])
        await call.chunk(b"data: [DONE]\n\n")
        await call.end()

    running = await start(fails_inside)
    got = await running.ask(STREAM)
    assert got.body.endswith(CAPTURED_DEAD_CORE + b"data: [DONE]\n\n")
    assert running.outcomes() == {"error": 1}


async def test_generated_text_that_looks_like_an_error_is_none(start: Start) -> None:
    async def quotes(call: Call) -> None:
        await call.events()
        await call.event(json.dumps({"choices": [{"delta": {"content": 'data: {"error": {"code": 500}}'}}]}))
        await call.end()

    running = await start(quotes)
    await running.ask(STREAM)
    assert running.outcomes() == {"ok": 1}


async def busy_in_stream(call: Call) -> None:
    await call.events()
    await call.chunk(CAPTURED_BUSY)
    await call.end()


async def busy_plainly(call: Call) -> None:
    await call.json(b'{"error":{"code":503}}', "503 Service Unavailable")


@pytest.mark.parametrize("behavior", [busy_in_stream, busy_plainly])
async def test_a_busy_engine_is_an_error_but_no_reason_to_avoid_it(start: Start, behavior: Behavior) -> None:
    running = await start(behavior)
    for _ in range(8):
        await running.ask(STREAM)
    assert running.outcomes() == {"error": 8}
    assert running.value("trimtab_gateway_endpoint_ejections_total", pool="chat") == 0


async def test_a_request_that_may_have_killed_its_engine_is_not_given_to_another_one(start: Start) -> None:
    running = await start(answer, answer)
    victim = min(running.engines, key=lambda engine: engine.address)
    other = max(running.engines, key=lambda engine: engine.address)
    assert (await running.ask(CHAT)).status == 200

    async def falls(call: Call) -> None:
        await victim.stop_listening()
        call.writer.close()

    victim.behavior = falls
    got = await running.ask(CHAT)
    assert (got.status, got.code) == (502, "upstream_unreachable")
    assert (len(victim.requests), len(other.requests)) == (2, 0)


async def test_an_engine_that_answers_500_to_everything_is_ejected(start: Start) -> None:
    """As vLLM does while it drains, with `/health` still at 200."""

    async def draining(call: Call) -> None:
        await call.json(b'{"error":{"code":500}}', "500 Internal Server Error")

    running = await start(draining, answer)
    bad = min(running.engines, key=lambda engine: engine.address)
    good = max(running.engines, key=lambda engine: engine.address)
    bad.behavior, good.behavior = draining, answer
    for _ in range(10):
        await running.ask(CHAT)
    assert running.outcomes() == {"error": 3, "ok": 7}
    assert len(bad.requests) == 3


NOT_HTTP = {
    "garbage": b"garbage\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP.keys())
async def test_an_engine_that_does_not_speak_http_is_502(start: Start, data: bytes) -> None:
    async def lies(call: Call) -> None:
        await call.send(data)
        await asyncio.Event().wait()

    running = await start(lies)
    got = await running.ask(CHAT)
    assert (got.status, got.code) == (502, "upstream_invalid")


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"xx", b"\r\nHTTP/1.1 200"])
async def test_a_second_answer_never_reaches_a_client(start: Start, more: bytes) -> None:
    async def too_much(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" + more)

    running = await start(too_much)
    async with running.connect() as client:
        await client.ask(CHAT, connection="close")
        got = await client.answer()
        assert (got.status, got.code, await client.closed()) == (502, "upstream_invalid", b"")


async def test_an_answer_after_the_answer_is_not_given_to_the_next_request(start: Start) -> None:
    async def unasked(call: Call) -> None:
        await call.json(b'{"mine":true}')
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    running = await start(unasked)
    for _ in range(3):
        async with running.connect() as client:
            await client.ask(CHAT, connection="close")
            assert b"evil" not in await client.closed()
    assert len(running.engines[0].requests) == 3


async def test_everything_a_real_engine_was_seen_to_stream_passes_unchanged(start: Start) -> None:
    raw = (Path(__file__).parents[2] / "data" / "vllm_stream.raw").read_bytes()
    head, _, body = raw.partition(b"\r\n\r\n")

    async def replays(call: Call) -> None:
        await call.send(head + b"\r\n\r\n")
        for event in body.split(b"\n\n")[:-1]:
            await call.chunk(event + b"\n\n")
        await call.end()

    running = await start(replays)
    got = await running.ask(STREAM)
    assert got.body == body
    assert got.headers["x-request-id"] == "my-req-1"
    assert running.outcomes() == {"ok": 1}


async def test_two_engines_share_the_load_of_streams(start: Start) -> None:
    running = await start(stream, stream)
    answers = await asyncio.gather(*(running.ask(STREAM) for _ in range(20)))
    assert {got.status for got in answers} == {200}
    assert running.outcomes() == {"ok": 20}
