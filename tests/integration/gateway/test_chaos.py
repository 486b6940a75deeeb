"""Everything at once: clients that leave, stall and pipeline; engines that die, lie and come back."""

import asyncio
import json
import random

import pytest

from tests.integration.gateway.conftest import CHAT, STREAM, Running, Start, few
from tests.support.raw_http import connection, post
from tests.support.upstream import Call
from trimtab_gateway.limits import Limits

CLIENTS = 40
REQUESTS_EACH = 8


class MoodyEngine:
    """Answers well, badly, late, partly, or with the loss of the connection."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    async def __call__(self, call: Call) -> None:
        mood = self._rng.random()
        if mood < 0.05:
            call.die()
        elif mood < 0.08:
            await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello")
        elif mood < 0.12:
            await call.json(b'{"error":{"code":500}}', "500 Internal Server Error")
        elif b"stream" in call.received.body:
            await self._stream(call)
        else:
            await asyncio.sleep(self._rng.random() * 0.01)
            await call.json(call.received.body)

    async def _stream(self, call: Call) -> None:
        await call.events()
        for _ in range(self._rng.randrange(30)):
            await call.event(json.dumps({"text": "x" * self._rng.choice([1, 50, 20_000])}))
            mood = self._rng.random()
            if mood < 0.01:
                await call.send(b"ff\r\nhalf a chunk")
                call.die()
                return
            if mood < 0.02:
                call.die()
                return
            if mood < 0.3:
                await asyncio.sleep(0.001)
        await call.chunk(b"data: [DONE]\n\n")
        await call.end()


async def moody_client(running: Running, rng: random.Random) -> tuple[int, int]:
    """Send requests, some to leave in the middle; returns how many were sent whole, and how many were answered."""
    sent = answered = 0
    for _ in range(REQUESTS_EACH):
        async with connection(running.port) as client:
            mood = rng.random()
            body = rng.choice([CHAT, STREAM, STREAM])
            if mood < 0.1:  # leaves in the middle of its request
                await client.send(post(body)[: rng.randrange(1, 100)])
            elif mood < 0.3:  # leaves in the middle of its answer
                await client.ask(body)
                sent += 1
                await asyncio.sleep(rng.random() * 0.03)
            elif mood < 0.4:  # pipelines, and reads late
                count = rng.choice([4, 12])
                await client.send(post(body) * count)
                sent += count
                await asyncio.sleep(rng.random() * 0.05)
                try:
                    for _ in range(count):
                        await client.answer()
                        answered += 1
                except (asyncio.IncompleteReadError, ConnectionError):
                    pass  # an engine died within an answer: the connection had to end
            else:
                await client.ask(body)
                sent += 1
                if mood < 0.5:
                    await asyncio.sleep(0.05)  # reads late
                try:
                    await client.answer()
                    answered += 1
                except (asyncio.IncompleteReadError, ConnectionError):
                    pass
    return sent, answered


@pytest.mark.parametrize("seed", range(4))
async def test_every_request_ends_once_and_nothing_is_left_behind(start: Start, seed: int) -> None:
    rng = random.Random(seed)
    engines = [MoodyEngine(seed * 10 + number) for number in range(3)]
    limits = Limits(write_buffer_bytes=8 * 1024, pipelined=2)
    bounds = few(max_requests=30, max_waiting_seconds=2.0)
    running = await start(*engines, concurrency=4, limits=limits, bounds=bounds, send_buffer_bytes=8 * 1024)
    stopping = asyncio.Event()

    async def reconfigure() -> None:
        """Take engines away and bring them back all the time."""
        pool = running.gateway.pools["chat"].config
        while not stopping.is_set():
            some = tuple(engine for engine in pool.engines if rng.random() < 0.8)
            running.gateway.set_pool(type(pool)(pool.name, pool.models, bounds=pool.bounds, engines=some))
            await asyncio.sleep(0.02)

    reconfiguring = asyncio.create_task(reconfigure())
    counts = await asyncio.gather(*(moody_client(running, random.Random(rng.random())) for _ in range(CLIENTS)))
    stopping.set()
    await reconfiguring
    sent, answered = (sum(each) for each in zip(*counts, strict=True))
    async with asyncio.timeout(20):
        while running.gateway.exchanges or running.gateway.clients:  # noqa: ASYNC110 - sets of objects
            await asyncio.sleep(0.01)
    ended = sum(running.outcomes().values())
    # Requests whose client left before it was read whole, or whose connection ended before their turn, never began.
    assert answered <= ended <= sent
    assert running.outcomes()["ok"] > 50
    assert len(running.outcomes()) >= 4
