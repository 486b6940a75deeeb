"""The open-loop client against a scripted server: when requests go out, what is measured, how each ending is named."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.openai_server import OpenAIServer, Received, Script, event
from trimtab.workload.answer import Outcome
from trimtab.workload.level import ServiceLevel
from trimtab.workload.replay import LEVEL_HEADER, Replay, ReplaySettings
from trimtab.workload.request import Trace, TraceRequest
from trimtab.workload.wire import Client, parse_target

ANY = ServiceLevel("any", completion_seconds=60.0)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


def a_trace(*at_seconds: float, output_tokens: int = 3, input_tokens: int = 8) -> Trace:
    requests = tuple(TraceRequest(at, input_tokens, output_tokens) for at in at_seconds)
    return Trace("t", "memory", requests, at_seconds[-1])


def a_replay(
    url: str, trace: Trace, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, **settings: object
) -> Replay:
    chosen = ReplaySettings("m", **({"levels": (ANY,)} | settings))  # type: ignore[arg-type]
    return Replay(trace, Client(parse_target(url)), chosen, sleep=sleep)


def outcomes(replay: Replay) -> list[Outcome]:
    return [record.outcome for record in sorted(replay.records, key=lambda record: record.number)]


async def test_requests_go_out_at_their_times_and_in_their_order(server: OpenAIServer) -> None:
    replay = a_replay(server.url, a_trace(0.0, 0.05, 0.05, 0.3), speed=2)
    await replay.run()
    assert outcomes(replay) == [Outcome.OK] * 4
    sent = [request.at_seconds - replay._start for request in server.received]
    scheduled = sorted(record.scheduled_seconds for record in replay.records)
    assert scheduled == pytest.approx([0, 0.025, 0.025, 0.15])
    # Never early (a loop's clock is rounded to a millisecond), whatever the load of the machine.
    assert all(at >= due - 0.005 for at, due in zip(sent, [0, 0.025, 0.025, 0.15], strict=True))


async def test_a_slow_answer_does_not_delay_later_requests(server: OpenAIServer) -> None:
    """The first answers come only when all ten requests are in: a client that waits for answers would hang here."""
    all_in = asyncio.Event()
    answer = server._answer

    async def wait_for_all(script: Script, request: Received, writer: asyncio.StreamWriter) -> bool:
        if len(server.received) == 10:
            all_in.set()
        await all_in.wait()
        return await answer(script, request, writer)

    server._answer = wait_for_all  # type: ignore[method-assign]
    replay = a_replay(server.url, a_trace(*(n / 100 for n in range(10))))
    await replay.run()
    assert outcomes(replay) == [Outcome.OK] * 10
    assert server.connections == 10


async def test_latency_counts_from_the_scheduled_time_and_lag_is_shown(server: OpenAIServer) -> None:
    async def oversleep(seconds: float) -> None:
        await asyncio.sleep(seconds + 0.2)

    replay = a_replay(server.url, a_trace(0.0, 0.01), sleep=oversleep)
    await replay.run()
    for record in replay.records:
        assert record.lag_seconds >= 0.19
        assert record.ttft_seconds is not None
        assert record.lag_seconds < record.ttft_seconds <= record.completion_seconds


async def test_measured_times_are_the_servers(server: OpenAIServer) -> None:
    server.behave = lambda _n, _r: Script(first_seconds=0.1, token_seconds=0.05)
    replay = a_replay(server.url, a_trace(0.0, output_tokens=5))
    await replay.run()
    (record,) = replay.records
    assert record.ttft_seconds is not None
    assert record.tpot_seconds is not None
    assert record.ttft_seconds >= 0.1
    assert record.completion_seconds >= 0.3
    assert record.tpot_seconds == pytest.approx((record.completion_seconds - record.ttft_seconds) / 4)
    assert replay.gaps.total == 4


async def test_time_scale_reports_the_engines_time(server: OpenAIServer) -> None:
    """A simulated engine at 10 x: 20 ms of wall time are 0.2 s of its own, and limits are in that time too."""
    server.behave = lambda _n, _r: Script(first_seconds=0.02)
    level = ServiceLevel("l", ttft_seconds=0.15)
    replay = a_replay(server.url, a_trace(0.0, 1.0), speed=10, time_scale=10, levels=(level,))
    await replay.run()
    first, second = sorted(replay.records, key=lambda record: record.number)
    assert second.scheduled_seconds == pytest.approx(1.0)
    assert first.ttft_seconds is not None
    assert first.ttft_seconds >= 0.2
    assert not first.met
    assert replay.planned_seconds == pytest.approx(1.0)


async def test_what_is_asked_for(server: OpenAIServer) -> None:
    replay = a_replay(server.url, a_trace(0.0, output_tokens=7))
    await replay.run()
    (request,) = server.received
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers[LEVEL_HEADER] == "any"
    asked = request.body
    assert (asked["model"], asked["max_tokens"], asked["min_tokens"], asked["ignore_eos"]) == ("m", 7, 7, True)
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    assert len(asked["messages"][0]["content"].split()) == 8
    (record,) = replay.records
    assert (record.prompt_tokens, record.output_tokens) == (8, 7)


async def test_plain_completions_for_servers_without_extras(server: OpenAIServer) -> None:
    replay = a_replay(server.url + "/v1", a_trace(0.0), chat=False, exact_output=False)
    await replay.run()
    (request,) = server.received
    assert request.path == "/v1/completions"
    assert "prompt" in request.body
    assert not {"min_tokens", "ignore_eos", "messages"} & request.body.keys()
    assert outcomes(replay) == [Outcome.OK]


ENDINGS: dict[str, tuple[Script, Outcome, str]] = {
    "rejected": (Script(429, b'{"error": {"message": "queue is full"}}'), Outcome.REJECTED, "queue is full"),
    "overloaded": (Script(503, b"busy"), Outcome.REJECTED, "busy"),
    "server error": (Script(500, b"oops"), Outcome.ERROR, "oops"),
    "cut off in the stream": (Script(tokens=2, cut=True), Outcome.TRUNCATED, "closed the connection"),
    "cut off before the body": (Script(tokens=0, cut=True), Outcome.TRUNCATED, "closed the connection"),
    "error in the stream": (
        Script(
            tokens=1, finish="", usage=False, tail=event({"error": {"message": "engine died"}}) + b"data: [DONE]\n\n"
        ),
        Outcome.STREAM_ERROR,
        "engine died",
    ),
    "aborted": (Script(tokens=1, finish="abort"), Outcome.TRUNCATED, ""),
    "no end of the stream": (Script(tail=b""), Outcome.TRUNCATED, ""),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_endings(ending: str, server: OpenAIServer) -> None:
    script, outcome, error = ENDINGS[ending]
    server.behave = lambda _n, _r: script
    replay = a_replay(server.url, a_trace(0.0))
    await replay.run()
    (record,) = replay.records
    assert record.outcome is outcome
    assert error in record.error
    assert not record.met


async def test_one_broken_answer_leaves_the_others_alone(server: OpenAIServer) -> None:
    server.behave = lambda n, _r: Script(tokens=1, cut=True) if n == 1 else Script(token_seconds=0.01)
    replay = a_replay(server.url, a_trace(0.0, 0.0, 0.0))
    await replay.run()
    assert sorted(outcomes(replay)) == [Outcome.OK, Outcome.OK, Outcome.TRUNCATED]


async def test_nobody_listens() -> None:
    async with OpenAIServer() as gone:
        url = gone.url
    replay = a_replay(url, a_trace(0.0))
    await replay.run()
    assert outcomes(replay) == [Outcome.ERROR]
    assert "cannot connect to 127.0.0.1" in replay.records[0].error


async def test_server_that_does_not_speak_http() -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(babble, "127.0.0.1", 0)
    replay = a_replay(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", a_trace(0.0))
    await replay.run()
    listener.close()
    assert outcomes(replay) == [Outcome.ERROR]


async def test_a_request_without_an_end_times_out_and_the_server_sees_it_leave(server: OpenAIServer) -> None:
    server.behave = lambda _n, _r: Script(tokens=1, hang=True)
    replay = a_replay(server.url, a_trace(0.0), timeout_seconds=0.1)
    await replay.run()
    (record,) = replay.records
    assert record.outcome is Outcome.TIMEOUT
    assert record.ttft_seconds is not None
    assert record.completion_seconds >= 0.1


async def test_what_is_left_after_the_drain_is_unfinished(server: OpenAIServer) -> None:
    server.behave = lambda n, _r: Script(hang=n == 0)
    replay = a_replay(server.url, a_trace(0.0, 0.01), drain_seconds=0.1)
    await replay.run()
    assert sorted(outcomes(replay)) == [Outcome.OK, Outcome.UNFINISHED]


async def test_stopping_keeps_what_there_is(server: OpenAIServer) -> None:
    both_in = asyncio.Event()

    def behave(number: int, _request: Received) -> Script:
        if number == 1:
            both_in.set()
        return Script(hang=True)

    server.behave = behave
    replay = a_replay(server.url, a_trace(0.0, 0.0, 3600.0))
    work = asyncio.create_task(replay.run())
    await both_in.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert outcomes(replay) == [Outcome.UNFINISHED] * 2
    assert replay.started == 2
    assert replay.under_way == 0
    assert replay.offered_seconds < 3600


async def test_connections_are_used_again(server: OpenAIServer) -> None:
    replay = a_replay(server.url, a_trace(*(n / 20 for n in range(6))))
    await replay.run()
    assert outcomes(replay) == [Outcome.OK] * 6
    assert server.connections < 6


async def test_a_kept_connection_that_the_server_closed_does_not_fail_the_next_request(server: OpenAIServer) -> None:
    """A plain answer leaves the connection open for the client while the server closes it."""
    body = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'
    server.behave = lambda _n, _r: Script(body=body, cut=True)
    replay = a_replay(server.url, a_trace(0.0, 0.2, 0.4))
    await replay.run()
    assert outcomes(replay) == [Outcome.OK] * 3


async def test_equal_blocks_make_equal_prefixes(server: OpenAIServer) -> None:
    requests = (TraceRequest(0, 600, 1, (1, 2)), TraceRequest(0, 700, 1, (1, 3)))
    replay = a_replay(server.url, Trace("t", "memory", requests, 1.0))
    await replay.run()
    one, other = (request.body["messages"][0]["content"].split() for request in server.received)
    assert one[:512] == other[:512]
    assert one[512:516] != other[512:516]


async def test_same_seed_asks_the_same(server: OpenAIServer) -> None:
    for _ in range(2):
        await a_replay(server.url, a_trace(0.0, 0.0), seed=5).run()
    bodies = [request.body["messages"][0]["content"] for request in server.received]
    assert sorted(bodies[:2]) == sorted(bodies[2:])
