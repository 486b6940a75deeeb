"""Who waits, who is sent away, and where requests go."""

import asyncio

import pytest

from tests.integration.gateway.conftest import CHAT, LEVELS, STREAM, Start, a_pool, eventually, few
from tests.support.raw_http import Client, connection
from tests.support.upstream import Call, answer, stream, upstream


class Gate:
    """An engine whose answers wait until they are let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.order: list[str] = []

    async def __call__(self, call: Call) -> None:
        self.order.append(call.received.header("x-request-id") or "")
        await self.open.wait()
        await call.json()


async def test_an_engine_never_gets_more_than_its_concurrency_and_order_is_kept(start: Start) -> None:
    gate = Gate()
    running = await start(gate, concurrency=1)
    clients = [await _send(running.port, f"r{number}") for number in range(5)]
    await eventually(lambda: running.queue.waiting == 4)
    assert (gate.order, running.engines[0].busy) == (["r0"], 1)
    assert running.value("trimtab_gateway_waiting", pool="chat") == 4
    gate.open.set()
    for client in clients:
        assert (await client.answer()).status == 200
    assert gate.order == [f"r{number}" for number in range(5)]
    assert running.engines[0].most_busy == 1
    assert running.value("trimtab_gateway_queue_seconds_count", pool="chat") == 5
    _leave(clients)


async def test_a_full_queue_answers_429_with_retry_after(start: Start) -> None:
    gate = Gate()
    running = await start(gate, concurrency=1, bounds=few(max_requests=1))
    clients = [await _send(running.port, "r0")]
    await running.engines[0].arrived.wait()
    clients.append(await _send(running.port, "r1"))
    await eventually(lambda: running.queue.waiting == 1)
    refused = await running.ask(CHAT)
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert refused.headers["x-trimtab-reason"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 600
    assert refused.json["error"]["type"] == "rate_limit_error"
    gate.open.set()
    assert [(await client.answer()).status for client in clients] == [200, 200]
    assert running.outcomes() == {"ok": 2, "rate_limited": 1}
    _leave(clients)


async def test_a_request_that_waits_too_long_is_sent_away(start: Start) -> None:
    gate = Gate()
    running = await start(gate, concurrency=1, bounds=few(max_waiting_seconds=0.1))
    first = await _send(running.port, "r0")
    await running.engines[0].arrived.wait()
    refused = await running.ask(CHAT)
    assert (refused.status, refused.code, "retry-after" in refused.headers) == (429, "queue_timeout", True)
    assert len(running.engines[0].requests) == 1
    gate.open.set()
    assert (await first.answer()).status == 200
    _leave([first])


async def test_without_any_ready_engine_requests_wait_a_little_and_get_503(start: Start) -> None:
    running = await start(bounds=few(without_endpoint_seconds=0.1))
    running.gateway.set_pool(a_pool(bounds=few(without_endpoint_seconds=0.1)))
    refused = await running.ask(CHAT)
    assert (refused.status, refused.code, "retry-after" in refused.headers) == (503, "no_capacity", True)


async def test_an_engine_that_appears_in_time_serves_those_who_wait(start: Start) -> None:
    running = await start()
    running.gateway.set_pool(a_pool())
    client = await _send(running.port, "r0")
    await eventually(lambda: running.queue.waiting == 1)
    running.gateway.set_pool(a_pool(*running.engines))
    assert (await client.answer()).status == 200
    _leave([client])


async def test_requests_go_to_the_least_loaded_engine(start: Start) -> None:
    first, second = Gate(), Gate()
    running = await start(first, second, concurrency=4)
    clients = []
    for number in range(4):
        clients.append(await _send(running.port, f"r{number}"))
        await eventually(lambda: len(first.order) + len(second.order) == len(clients))
    assert (len(first.order), len(second.order)) == (2, 2)
    first.open.set()
    second.open.set()
    for client in clients:
        await client.answer()
    _leave(clients)


async def test_an_engine_that_is_not_ready_gets_nothing_new_but_ends_what_it_has(start: Start) -> None:
    gate = Gate()
    running = await start(gate)
    open_one = await _send(running.port, "r0")
    await running.engines[0].arrived.wait()
    async with upstream() as fresh:
        leaving = a_pool(*running.engines).engines[0]
        joined = a_pool(fresh).engines[0]
        drained = type(leaving)(leaving.name, leaving.host, leaving.port, leaving.concurrency, ready=False)
        running.gateway.set_pool(a_pool(engines=(drained, joined)))
        for _ in range(3):
            assert (await running.ask(CHAT)).status == 200
        gate.open.set()
        assert (await open_one.answer()).status == 200
        assert (len(running.engines[0].requests), len(fresh.requests)) == (1, 3)
    _leave([open_one])


async def test_a_removed_pool_sends_away_who_waits_and_ends_what_runs(start: Start) -> None:
    gate = Gate()
    running = await start(gate, concurrency=1)
    clients = [await _send(running.port, "r0")]
    await running.engines[0].arrived.wait()
    clients.append(await _send(running.port, "r1"))
    await eventually(lambda: running.queue.waiting == 1)
    running.gateway.configure([])
    waiting = await clients[1].answer()
    assert (waiting.status, waiting.code) == (503, "no_capacity")
    gate.open.set()
    assert (await clients[0].answer()).status == 200
    assert (await running.ask(CHAT)).status == 404
    _leave(clients)


async def test_models_choose_the_pool(start: Start) -> None:
    running = await start()
    async with upstream() as other:
        running.gateway.configure([a_pool(*running.engines), a_pool(other, name="b", models=("base", "adapter"))])
        for model in ("llama", "adapter", "base", "adapter"):
            assert (await running.ask({"model": model})).status == 200
        assert (len(running.engines[0].requests), len(other.requests)) == (1, 3)
        unnamed = await running.ask({"messages": []})
        assert (unnamed.status, unnamed.code, unnamed.json["error"]["param"]) == (400, "model_required", "model")


async def test_with_one_pool_a_request_without_model_goes_there(start: Start) -> None:
    running = await start()
    assert (await running.ask({"messages": []})).status == 200


async def test_an_unknown_model_is_404_and_names_what_is_served(start: Start) -> None:
    running = await start()
    unknown = await running.ask({"model": "gpt-9"})
    assert (unknown.status, unknown.code, unknown.json["error"]["param"]) == (404, "model_not_found", "model")
    assert "llama" in unknown.json["error"]["message"]
    assert "gpt-9" not in unknown.json["error"]["message"]


async def test_service_levels_are_chosen_by_header_and_judged(start: Start) -> None:
    async def unhurried(call: Call) -> None:
        await asyncio.sleep(0.05)
        await (stream(call) if b"stream" in call.received.body else answer(call))

    running = await start(unhurried, levels=LEVELS, default_level=LEVELS[0])
    assert (await running.ask(STREAM)).status == 200
    assert (await running.ask(STREAM, x_trimtab_service_level="strict")).status == 200
    assert (await running.ask(STREAM, x_trimtab_service_level="batch")).status == 200
    assert (await running.ask(CHAT, x_trimtab_service_level="interactive")).status == 200
    unknown = await running.ask(STREAM, x_trimtab_service_level="platinum")
    assert (unknown.status, unknown.code) == (400, "unknown_service_level")
    judged = {
        (level, met): running.value("trimtab_gateway_ttft_objective_total", pool="chat", level=level, met=met)
        for level in ("interactive", "strict", "batch")
        for met in ("true", "false")
    }
    assert {key: count for key, count in judged.items() if count} == {
        ("interactive", "true"): 1,
        ("strict", "false"): 1,
    }
    assert running.value("trimtab_gateway_ttft_seconds_count", pool="chat", level="batch") == 1
    assert running.value("trimtab_gateway_requests_total", pool="chat", level="batch", outcome="ok") == 1
    assert running.engines[0].requests[0].header("x-trimtab-service-level") is None


async def test_a_client_that_leaves_before_its_token_was_due_is_not_judged_and_a_late_one_is(start: Start) -> None:
    async def hangs(_call: Call) -> None:
        await asyncio.Event().wait()

    running = await start(hangs, levels=LEVELS, default_level=LEVELS[0])
    for count, level in enumerate(("interactive", "strict"), start=1):
        async with running.connect() as client:
            await client.ask(STREAM, x_trimtab_service_level=level)
            await eventually(lambda count=count: len(running.engines[0].requests) == count)
            await asyncio.sleep(0.02)
        await eventually(lambda count=count: running.outcomes().get("cancelled") == count)
    missed = [
        running.value("trimtab_gateway_ttft_objective_total", pool="chat", level=level, met="false")
        for level in ("interactive", "strict")
    ]
    assert missed == [0, 1]


async def test_refused_streams_count_against_their_objective(start: Start) -> None:
    gate = Gate()
    bounds = few(max_requests=0)
    running = await start(gate, concurrency=1, levels=LEVELS, default_level=LEVELS[0], bounds=bounds)
    first = await _send(running.port, "r0")
    await running.engines[0].arrived.wait()
    assert (await running.ask(STREAM)).status == 429
    assert running.value("trimtab_gateway_ttft_objective_total", pool="chat", level="interactive", met="false") == 1
    gate.open.set()
    await first.answer()
    _leave([first])


async def test_first_token_time_starts_at_the_request_and_ends_at_content_not_at_headers(start: Start) -> None:
    async def slow_token(call: Call) -> None:
        await call.events()
        await asyncio.sleep(0.15)
        await call.event("1")
        await asyncio.sleep(0.1)
        await call.event("2")
        await call.end()

    running = await start(slow_token)
    await running.ask(STREAM)
    assert 0.14 < running.value("trimtab_gateway_ttft_seconds_sum", pool="chat", level="") < 10
    gaps = "trimtab_gateway_time_between_tokens_seconds"
    assert running.value(f"{gaps}_count", pool="chat", level="") == 1
    assert 0.09 < running.value(f"{gaps}_sum", pool="chat", level="") < 10


@pytest.mark.parametrize("behavior", [answer, stream])
async def test_the_journal_explains_each_request(start: Start, behavior) -> None:  # noqa: ANN001
    running = await start(behavior)
    await running.ask(STREAM, x_request_id="asked-about")
    (record,) = running.gateway.journal.find("asked-about")
    assert (record.pool, record.model, record.outcome, record.attempts) == ("chat", "llama", "ok", 1)
    assert record.engine == running.engines[0].address
    assert 0 <= record.queued_seconds <= record.total_seconds
    assert (record.ttft_seconds is None) == (behavior is answer)


async def _send(port: int, request_id: str) -> Client:
    """Send a request on a connection that stays open."""
    opened = connection(port)
    client = await opened.__aenter__()
    client.opened = opened  # type: ignore[attr-defined]
    await client.ask(CHAT, x_request_id=request_id)
    return client


def _leave(clients: list[Client]) -> None:
    for client in clients:
        client.leave()
