"""A load generator that measures from the time at which a request was due, so that waiting is never hidden."""

import asyncio
import json
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import cast

import httptools


def request(path: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


CHAT = request(
    "/v1/chat/completions",
    {"model": "bench", "messages": [{"role": "user", "content": "x" * 200}], "max_tokens": 1},
)
STREAM = request(
    "/v1/chat/completions",
    {"model": "bench", "messages": [{"role": "user", "content": "x" * 200}], "stream": True},
)


@dataclass
class Timing:
    """When a request was due, when its first content came and when it was complete, in seconds."""

    due: float
    first: float = 0.0
    done: float = 0.0
    status: int = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._timing: Timing | None = None
        self._ended: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, data: bytes, timing: Timing) -> "asyncio.Future[None]":
        self._timing = timing
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._ended

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, _body: bytes) -> None:
        assert self._timing is not None
        if not self._timing.first:
            self._timing.first = time.perf_counter()

    def on_message_complete(self) -> None:
        assert self._timing is not None
        assert self._ended is not None
        self._timing.done = time.perf_counter()
        self._timing.status = self._parser.get_status_code()
        self._ended.set_result(None)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)  # status stays 0: counted as failed

    def close(self) -> None:
        self._transport.abort()


class Target:
    """A server with a pool of keep-alive connections; a request takes a free one or opens one more."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._free: deque[Connection] = deque()
        self._all: list[Connection] = []

    async def prepare(self, count: int) -> None:
        for _ in range(count):
            self._free.append(await self._open())

    async def ask(self, data: bytes, due: float) -> Timing:
        connection = self._free.popleft() if self._free else await self._open()
        timing = Timing(due)
        await connection.send(data, timing)
        self._free.append(connection)
        return timing

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
        self._all.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._all:
            connection.close()


async def interleaved(
    targets: dict[str, Target], data: bytes, rate: float, seconds: float, rng: random.Random
) -> dict[str, list[Timing]]:
    """Send Poisson arrivals of `rate` per target, mixed at random, and return the timings of each target.

    Whatever else the machine does while this runs hits all targets alike.
    """
    names = sorted(targets)
    pending: list[tuple[str, asyncio.Task[Timing]]] = []
    due = time.perf_counter()
    end = due + seconds
    while True:
        due += rng.expovariate(rate * len(names))
        if due > end:
            break
        await _until(due)
        name = rng.choice(names)
        pending.append((name, asyncio.ensure_future(targets[name].ask(data, due))))
    timings: dict[str, list[Timing]] = {name: [] for name in names}
    for name, task in pending:
        timings[name].append(await task)
    return timings


async def flood(target: Target, data: bytes, connections: int, seconds: float) -> tuple[float, list[Timing]]:
    """Keep `connections` requests open all the time; return completed requests per second and their timings."""
    end = time.perf_counter() + seconds
    timings: list[Timing] = []

    async def one() -> None:
        while (now := time.perf_counter()) < end:
            timings.append(await target.ask(data, now))

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return len(timings) / (time.perf_counter() - begun), timings


async def _until(due: float) -> None:
    """Wait until a time; the last fraction of a millisecond by yielding, since timers are coarser than that."""
    left = due - time.perf_counter()
    if left > 0.002:
        await asyncio.sleep(left - 0.0015)
    while time.perf_counter() < due:  # noqa: ASYNC110 - a timer would be late
        await asyncio.sleep(0)


def percentile(values: list[float], per_hundred: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(per_hundred / 100 * (len(ordered) - 1)))]
