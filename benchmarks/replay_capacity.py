"""How much load `trimtab replay` drives from one core and how late it is, and what other HTTP clients cost.

A scripted server (another process) answers every request with `TOKENS` streamed tokens. Part one: the shipped trace's
requests at rising rates; the figure is the client's own lag (scheduled to sent) and its CPU time. Part two: the same
stream of requests through this client, aiohttp and httpx2, CPU time of the client process per streamed token. CPU times
hold on a busy machine; lags do not.

    .venv/bin/python benchmarks/replay_capacity.py [--rates 50,100,200,400] [--seconds 10]
"""

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import aiohttp
import httpx2
import uvloop

from trimtab.workload.answer import Answer
from trimtab.workload.catalog import find_traces
from trimtab.workload.replay import Replay, ReplaySettings, request_body
from trimtab.workload.request import Trace, TraceRequest
from trimtab.workload.summary import summarize
from trimtab.workload.wire import Client, parse_target

TOKENS = 200
SERVER = Path(__file__).parents[1] / "tests" / "support" / "openai_server.py"
COMPARED_RATE = 50.0
COMPARED_REQUESTS = 400


@contextmanager
def a_server() -> Iterator[str]:
    """Run the scripted server; gives its URL."""
    server = subprocess.Popen(
        [sys.executable, str(SERVER), "--token-seconds", "0.02"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


def a_trace(rate: float, seconds: float) -> Trace:
    """The shipped trace's first requests, sent at `rate` per second on average, with answers of `TOKENS` tokens."""
    whole = find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=3600)
    count = int(rate * seconds)
    scale = seconds / whole.requests[count].at_seconds
    requests = tuple(replace(r, at_seconds=r.at_seconds * scale, output_tokens=TOKENS) for r in whole.requests[:count])
    return Trace("azure-conv", whole.source, requests, seconds)


async def replayed(url: str, rate: float, seconds: float) -> dict[str, float]:
    """Replay at one rate; returns the client's lag and CPU."""
    replay = Replay(a_trace(rate, seconds), Client(parse_target(url)), ReplaySettings("m"))
    cpu, wall = time.process_time(), time.monotonic()
    await replay.run()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    found = summarize(replay.records, replay.settings.levels, offered_seconds=seconds, gaps=replay.gaps)
    tokens = sum(record.output_tokens for record in replay.records)
    return {
        "requestsPerSecond": rate,
        "tokensPerSecond": round(tokens / wall),
        "lagP50Milliseconds": round(found.lag.p50 * 1e3, 2),
        "lagP99Milliseconds": round(found.lag.p99 * 1e3, 2),
        "cpuCores": round(cpu / wall, 3),
        "cpuMicrosecondsPerToken": round(cpu / tokens * 1e6, 2),
        "ok": sum(record.outcome == "ok" for record in replay.records),
        "requests": len(replay.records),
    }


BODY = request_body(ReplaySettings("m"), "word " * 1000, TraceRequest(0, 1000, TOKENS))
HEADERS = {"content-type": "application/json"}
One = Callable[[], Awaitable[int]]


@asynccontextmanager
async def trimtab_client(url: str) -> AsyncIterator[One]:
    """This client, with its reader of answers."""
    client = Client(parse_target(url))

    async def one() -> int:
        answer = Answer()
        await client.send("POST", "/v1/chat/completions", BODY, answer)
        return answer.pieces

    yield one
    client.close()


@asynccontextmanager
async def aiohttp_client(url: str) -> AsyncIterator[One]:
    """aiohttp, reading what is there, with the same reader of answers."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> int:
            answer = Answer()
            async with session.post(f"{url}/v1/chat/completions", data=BODY, headers=HEADERS) as response:
                answer.on_head(response.status, {"content-type": response.headers["content-type"]})
                async for data in response.content.iter_any():
                    answer.on_data(data, time.monotonic())
            return answer.pieces

        yield one


@asynccontextmanager
async def httpx2_client(url: str) -> AsyncIterator[One]:
    """httpx2, reading what is there, with the same reader of answers."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(limits=limits, timeout=60) as session:

        async def one() -> int:
            answer = Answer()
            async with session.stream("POST", f"{url}/v1/chat/completions", content=BODY, headers=HEADERS) as response:
                answer.on_head(response.status_code, {"content-type": response.headers["content-type"]})
                async for data in response.aiter_raw():
                    answer.on_data(data, time.monotonic())
            return answer.pieces

        yield one


CLIENTS = {"trimtab": trimtab_client, "aiohttp": aiohttp_client, "httpx2": httpx2_client}


async def compared(url: str, name: str) -> float:
    """Return the CPU microseconds that one client spends per streamed token."""
    async with CLIENTS[name](url) as one:
        cpu, start = time.process_time(), time.monotonic()
        tasks = []
        for number in range(COMPARED_REQUESTS):
            await asyncio.sleep(max(0.0, start + number / COMPARED_RATE - time.monotonic()))
            tasks.append(asyncio.ensure_future(one()))
        pieces = sum(await asyncio.gather(*tasks))
        return (time.process_time() - cpu) / pieces * 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rates", default="50,100,200,400")
    options.add_argument("--seconds", type=float, default=10.0)
    chosen = options.parse_args()
    rates, clients = [], {}
    with a_server() as url:
        for rate in map(float, chosen.rates.split(",")):
            rates.append(uvloop.run(replayed(url, rate, chosen.seconds)))
            print(rates[-1])
        for name in CLIENTS:
            clients[name] = round(uvloop.run(compared(url, name)), 1)
            print(f"{name}: {clients[name]} us of CPU per streamed token")
    versions = {name: version(name) for name in ("trimtab", "aiohttp", "httpx2", "httptools", "uvloop")}
    print(
        json.dumps(
            {
                "benchmark": "replay_capacity",
                "rates": rates,
                "cpuMicrosecondsPerToken": clients,
                "tokensPerAnswer": TOKENS,
                "seed": 0,
                "versions": {"python": platform.python_version(), **versions},
            }
        )
    )


if __name__ == "__main__":
    main()
