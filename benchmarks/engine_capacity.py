"""How many streamed tokens per second one core carries through `trimtab engine`, against its own physics.

A server with the profile `tiny` and a client run side by side on this machine. Every round sends `STREAMS` requests of
`OUTPUT` tokens at once, each on its own connection, and asks for a higher speed of the engine. The physics alone says
how long the round would take (the ideal); the round took as long as the last stream. From the CPU time of the server
process follows what one core carries. Nothing else should run: with a busy machine the elapsed times mean little, the
CPU times still do.

A second table compares the HTTP layer alone with a bare ASGI application under uvicorn (uvloop and httptools, too):
both send the same ready-made chunks to as many streams.

    .venv/bin/python benchmarks/engine_capacity.py [--speeds 1,4,16] [--streams 256]
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from trimtab.sim.profile import load_profile
from trimtab.sim.serving import EngineConfig, ServingEngine, Work
from trimtab.sim.vllm.http import Exchange, HttpServer

PROMPT = 100
OUTPUT = 200
MAX_NUM_SEQS = 256
BLOCKS = 8193  # enough for all streams: this measures the server, not preemption


def ideal_seconds(streams: int, speed: float) -> float:
    """What the physics alone takes."""
    profile = load_profile("tiny")
    engine = ServingEngine(EngineConfig(kv_blocks=BLOCKS, max_num_seqs=MAX_NUM_SEQS), profile.iteration)
    for _ in range(streams):
        engine.add(Work(prompt_tokens=PROMPT, output_tokens=OUTPUT), 0.0)
    now = 0.0
    while (iteration := engine.next_iteration(now)) is not None:
        now = iteration.end
        engine.complete(iteration)
    return now / speed


def start(speed: float) -> tuple[subprocess.Popen[str], int]:
    """Start a server; returns it with its port."""
    program = str(Path(sys.executable).with_name("trimtab"))
    command = [program, "engine", "--model", "bench", "--port", "0"]
    options = ["--speed", str(speed), "--max-num-seqs", str(MAX_NUM_SEQS), "--num-gpu-blocks-override", str(BLOCKS)]
    server = subprocess.Popen([*command, *options, "--log-format", "json"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    url = json.loads(server.stderr.readline())["url"]
    return server, int(url.rsplit(":", 1)[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def one_stream(port: int, index: int) -> tuple[float, int]:
    """Read one streamed answer; returns its seconds and its chunks."""
    prompt = " ".join(f"w{(index * PROMPT + position) % 9999}" for position in range(PROMPT))
    request = {"model": "bench", "prompt": prompt, "max_tokens": OUTPUT, "ignore_eos": True, "stream": True}
    body = json.dumps(request).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    chunks, tail = 0, b""
    while b"[DONE]" not in tail:
        data = await reader.read(65536)
        if not data:
            raise ConnectionError("the server closed a stream early")
        chunks += data.count(b"data: {")
        tail = (tail + data)[-64:]
    writer.close()
    return time.perf_counter() - started, chunks


async def all_streams(port: int, streams: int) -> tuple[float, int]:
    """Run the streams together; returns the seconds of the slowest and all chunks."""
    results = await asyncio.gather(*(one_stream(port, index) for index in range(streams)))
    return max(seconds for seconds, _ in results), sum(chunks for _, chunks in results)


def lost_seconds(port: int) -> float:
    """What the server says it fell behind."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    line = next(line for line in text.splitlines() if line.startswith("trimtab_engine_lost_seconds "))
    return float(line.split()[1])


def measure(speed: float, streams: int) -> dict[str, float]:
    """One round."""
    server, port = start(speed)
    try:
        before = cpu_seconds(server.pid)
        seconds, chunks = asyncio.run(all_streams(port, streams))
        used = cpu_seconds(server.pid) - before
        lost = lost_seconds(port)
    finally:
        server.terminate()
        server.wait(10)
    tokens = streams * OUTPUT
    ideal = ideal_seconds(streams, speed)
    return {
        "speed": speed,
        "streams": streams,
        "tokens_per_second": round(tokens / seconds),
        "ideal_tokens_per_second": round(tokens / ideal),
        "elapsed_over_ideal": round(seconds / ideal, 3),
        "server_cpu_share": round(used / seconds, 3),
        "tokens_per_cpu_second": round(tokens / used),
        "tokens_per_chunk": round(tokens / chunks, 2),
        "lost_seconds": round(lost, 3),
    }


CHUNK = (
    b'data: {"id":"cmpl-babd63709ca4bdce","object":"text_completion","created":1795545537,"model":"m",'
    b'"choices":[{"index":0,"text":" sili","logprobs":null,"finish_reason":null,"stop_reason":null,'
    b'"prompt_token_ids":null,"token_ids":null}]}\n\n'
)
TICK = 0.011
DONE = b"data: [DONE]\n\n"


def serve_ours(port: int) -> None:
    """The simulator's HTTP server with nothing behind it."""
    sent: dict[Exchange, int] = {}

    def begin(exchange: Exchange) -> None:
        exchange.start_stream()
        sent[exchange] = 0

    async def run() -> None:
        await HttpServer(begin, time.time).listen("127.0.0.1", port)
        while True:
            await asyncio.sleep(TICK)
            for exchange in list(sent):
                sent[exchange] += 1
                if sent[exchange] > OUTPUT:
                    del sent[exchange]
                    exchange.end(DONE)
                else:
                    exchange.write(CHUNK)

    uvloop.run(run())


def serve_asgi(port: int) -> None:
    """The least that an ASGI application needs for the same."""
    queues: set[asyncio.Queue[bytes]] = set()
    drivers: list[asyncio.Task[None]] = []

    async def drive() -> None:
        while True:
            await asyncio.sleep(TICK)
            for queue in queues:
                queue.put_nowait(CHUNK)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if not drivers:
            drivers.append(asyncio.create_task(drive()))
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queues.add(queue)
        for _ in range(OUTPUT):
            await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})
        queues.discard(queue)
        await send({"type": "http.response.body", "body": DONE})

    uvicorn.run(application, port=port, log_level="error", loop="uvloop", http="httptools", access_log=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on {port}")


def measure_http(name: str, streams: int) -> dict[str, float | str]:
    """CPU per chunk of one of the two servers, the median of three rounds."""
    port = free_port()
    server = subprocess.Popen([sys.executable, __file__, "--serve", name, "--port", str(port)])
    try:
        wait_for(port)
        used = []
        for _ in range(3):
            before = cpu_seconds(server.pid)
            asyncio.run(all_streams(port, streams))
            used.append(cpu_seconds(server.pid) - before)
    finally:
        server.terminate()
        server.wait(10)
    return {"http": name, "streams": streams, "cpu_us_per_chunk": round(sorted(used)[1] / (streams * OUTPUT) * 1e6, 2)}


def main() -> None:
    """Print a row per speed and per server and, last, all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speeds", default="0.25,1,4,16")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--serve", choices=["ours", "asgi"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        (serve_ours if arguments.serve == "ours" else serve_asgi)(arguments.port)
        return
    rows = [measure(float(speed), arguments.streams) for speed in arguments.speeds.split(",")]
    print(*(f"{name:>24}" for name in rows[0]))
    for row in rows:
        print(*(f"{value:>24}" for value in row.values()))
    servers = [measure_http(name, arguments.streams) for name in ("ours", "asgi")]
    print()
    print(*(f"{name:>24}" for name in servers[0]))
    for server in servers:
        print(*(f"{value:>24}" for value in server.values()))
    versions = {name: version(name) for name in ("trimtab", "uvloop", "httptools", "uvicorn")}
    found = {"rounds": rows, "http": servers, "python": platform.python_version(), "versions": versions, "seed": 0}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
