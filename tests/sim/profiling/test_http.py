"""Measuring over HTTP: what engines accept, count and refuse."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from tests.support.openai_server import OpenAIServer, Received, Script, chunk, event, token
from trimtab.model.problem import Problem
from trimtab.sim.profiling.http import HttpTarget, Manner
from trimtab.sim.profiling.session import check_quiet
from trimtab.sim.profiling.target import Ask, Seen
from trimtab.workload.wire import Client, parse_target

Behave = Callable[[int, Received], Script]


def refusal(status: int, message: str) -> Script:
    return Script(status=status, body=json.dumps({"error": {"message": message}}).encode())


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


def target_of(server: OpenAIServer, **manner: object) -> HttpTarget:
    client = Client(parse_target(server.url))
    return HttpTarget(client, Manner("m", **manner), clock=time.monotonic, seed=7, patience_seconds=5)  # type: ignore[arg-type]


async def test_answers_in_the_order_of_sending(server: OpenAIServer) -> None:
    seen = await target_of(server).serve([Ask(10 + n, 2 + n) for n in range(6)], 3, 60.0)
    assert [(each.prompt_tokens, each.output_tokens) for each in seen] == [(10 + n, 2 + n) for n in range(6)]
    assert all(each.sent_at <= each.first_at <= each.last_at for each in seen)
    assert all(len(each.pieces) == each.output_tokens for each in seen)


async def test_no_two_prompts_begin_alike(server: OpenAIServer) -> None:
    await target_of(server).serve([Ask(40, 1)] * 30, 4, 60.0)
    heads = [request.body["messages"][0]["content"][:20] for request in server.received]
    assert len(set(heads)) == len(heads) == 30


async def test_never_more_clients_than_asked_for() -> None:
    under_way, most = 0, 0
    gate = asyncio.Semaphore(100)

    class Counting(OpenAIServer):
        async def _tokens(self, script: Script, count: int, writer: asyncio.StreamWriter) -> None:
            nonlocal under_way, most
            async with gate:
                under_way += 1
                most = max(most, under_way)
                await super()._tokens(script, count, writer)
                under_way -= 1

    async with Counting(lambda *_: Script(token_seconds=0.001)) as server:
        await target_of(server).serve([Ask(10, 5)] * 20, 4, 60.0)
    assert most == 4


async def test_the_time_is_over_before_the_requests_are() -> None:
    async with OpenAIServer(lambda *_: Script(first_seconds=0.05)) as server:
        seen = await target_of(server).serve([Ask(10, 1)] * 100, 2, 0.2)
    assert 2 <= len(seen) < 30


async def test_words_are_counted_as_the_engine_counts_them(server: OpenAIServer) -> None:
    target = target_of(server)
    await target.learn_manner()
    assert target.manner == Manner("m", tokens_per_word=1.0)
    two_per_word = Manner("m", tokens_per_word=2.0, extra_tokens=10)
    assert [two_per_word.words(tokens) for tokens in (5, 110)] == [1, 50]


@pytest.mark.parametrize(
    ("knows", "manner"),
    [
        (lambda _: True, (True, True)),
        (lambda request: "min_tokens" not in request.body, (True, False)),
        (lambda request: request.path == "/v1/completions", (False, True)),
        (lambda request: request.path == "/v1/completions" and "min_tokens" not in request.body, (False, False)),
    ],
)
async def test_what_an_engine_does_not_know_is_left_out(
    knows: Callable[[Received], bool], manner: tuple[bool, bool]
) -> None:
    async with OpenAIServer(lambda _, r: Script() if knows(r) else refusal(400, "unknown field")) as server:
        target = target_of(server)
        await target.learn_manner()
    assert (target.manner.chat, target.manner.exact_output) == manner


@pytest.mark.parametrize(
    ("script", "what", "fix"),
    [
        (refusal(401, "Unauthorized"), "401: Unauthorized", "--api-key-file"),
        (refusal(400, "no such thing"), "status 400.*no such thing", "log"),
        (refusal(503, "queue full"), "refuses the load.*queue full", "--max-concurrency"),
        (refusal(500, "broken"), "status 500.*broken", "log"),
        (Script(usage=False), "does not say how many tokens", "include_usage"),
        (Script(cut=True), "a request failed", "log"),
        (Script(tail=event({"error": {"message": "dead"}}) + b"data: [DONE]\n\n"), "dead", "log"),
        (Script(tokens=0), "does not say how many tokens", "include_usage"),
    ],
)
async def test_what_cannot_be_measured_is_said(script: Script, what: str, fix: str) -> None:
    async with OpenAIServer(lambda *_: script) as server:
        with pytest.raises(Problem, match=what) as caught:
            await target_of(server).learn_manner()
    assert fix in caught.value.fix


async def test_nobody_there() -> None:
    async with OpenAIServer() as gone:
        target = target_of(gone)
    with pytest.raises(Problem, match="no answer: "):
        await target.learn_manner()


async def test_a_few_failures_are_left_out_and_many_are_not() -> None:
    async with OpenAIServer(lambda n, _: refusal(500, "once") if n == 3 else Script()) as server:
        assert len(await target_of(server).serve([Ask(5, 2)] * 40, 4, 60.0)) == 39
    async with OpenAIServer(lambda n, _: refusal(500, "often") if n % 4 == 3 else Script()) as server:
        with pytest.raises(Problem, match="often"):
            await target_of(server).serve([Ask(5, 2)] * 40, 4, 60.0)


async def test_tokens_without_text_count() -> None:
    """VLLM sends a piece for each token, also for those that spell nothing."""
    parts = b"".join(token(text) for text in ("", "a", "", "b", ""))
    finish = event({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "length"}]})
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}})

    class Quiet(OpenAIServer):
        async def _tokens(self, script: Script, count: int, writer: asyncio.StreamWriter) -> None:
            del script, count
            opening = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            writer.write(chunk(opening + parts))

        def _end(self, script: Script, request: Received, count: int) -> bytes:
            del script, request, count
            return chunk(finish + usage + b"data: [DONE]\n\n") + b"0\r\n\r\n"

    async with Quiet() as server:
        (seen,) = await target_of(server).serve([Ask(3, 5)], 1, 60.0)
    assert len(seen.pieces) == seen.output_tokens == 5


class Scripted:
    """A target whose answers take what a list says."""

    def __init__(self, *seconds: float, at_once: bool = False) -> None:
        self._seconds = seconds
        self._at_once = at_once

    def clock(self) -> float:
        return 0.0

    async def serve(self, asks: Sequence[Ask], clients: int, seconds: float) -> list[Seen]:
        del clients, seconds
        many = [self._seconds[n % len(self._seconds)] for n in range(len(asks))]
        gap = 0.0 if self._at_once else 0.5
        return [Seen(64, 2, 0.0, (took * (1 - gap), took)) for took in many]


async def test_a_busy_engine_is_noticed_by_its_unsteadiness() -> None:
    await check_quiet(Scripted(0.1, 0.11, 0.12))
    with pytest.raises(Problem, match="equal idle requests take from"):
        await check_quiet(Scripted(0.1, 0.3, 0.5))


async def test_a_proxy_that_buffers_is_noticed() -> None:
    with pytest.raises(Problem, match="all at once"):
        await check_quiet(Scripted(0.1, at_once=True))
