"""Latency of the scheduler extender: filter and prioritize of 100, 500 and 5,000 names over loopback HTTP.

The bodies are what a real kube-scheduler 1.37.2 sent (tests/data/extender). The extender is the shipped application and
server in a process of its own, with as many nodes in memory as there are names, one site and one power domain per row
of 100 nodes, and pods bound to half of the nodes. One connection asks one question at a time, as the scheduler does.
The floor is a bare asyncio server that parses nothing and answers the same number of bytes.

Each pod gets a new uid, so that every filter call makes a new hold; binding them is part of the run, not of the timing.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import platform
import socket
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from trimtab.api import keys
from trimtab.kube import Event, EventType
from trimtab.kube.resources import NODES, PODS, POWER_DOMAINS
from trimtab_extender.main import server
from trimtab_extender.runtime import Runtime, build
from trimtab_extender.settings import Settings
from trimtab_extender.world import WATCHED

DATA = Path(__file__).parents[1] / "tests" / "data" / "extender"
SIZES = (100, 500, 5000)
ROW = 100
WATTS = 2600


def question(verb: str, size: int) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((DATA / f"{verb}-{size}.json").read_bytes())
    body["Pod"]["metadata"].setdefault("annotations", {})[keys.WATTS] = str(WATTS)
    return body


def domain(name: str, kind: str, watts: int, nodes: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"mode": "Enforce", "type": kind, "nodes": nodes, "limits": {"powerWatts": watts}}
    if parent:
        spec["parent"] = parent
    return {"metadata": {"name": name, "uid": name, "generation": 1}, "spec": spec}


def pod(index: int, node: str) -> dict[str, Any]:
    metadata = {"name": f"p{index}", "namespace": "ai", "uid": f"p{index}", "annotations": {keys.WATTS: str(WATTS)}}
    return {
        "metadata": metadata | {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"limits": {keys.GPU_RESOURCE: "4"}}}]},
    }


def fill(runtime: Runtime, names: list[str]) -> None:
    """Tell the extender about nodes, domains and bound pods, as its watches would."""
    take = runtime.world.take
    rows = range(-(-len(names) // ROW))
    take(POWER_DOMAINS, Event(EventType.ADDED, domain("site", "Site", 10**9, {})))
    for row in rows:
        nodes = {"matchLabels": {keys.ROW: f"row-{row}"}}
        take(POWER_DOMAINS, Event(EventType.ADDED, domain(f"row-{row}", "Row", 10**6, nodes, "site")))
    for index, name in enumerate(names):
        labels = {keys.ROW: f"row-{index % len(rows)}", keys.ACCELERATOR: "nvidia-h100"}
        take(NODES, Event(EventType.ADDED, {"metadata": {"name": name, "labels": labels}}))
        if index % 2:
            take(PODS, Event(EventType.ADDED, pod(index, name)))
    for resource in WATCHED:
        take(resource, Event(EventType.SYNCED, {}))


def serve_extender(port: int, names: list[str]) -> None:
    runtime = build(Settings(port=port, election=False))
    fill(runtime, names)
    runtime.duty.leading = True
    uvloop.run(server(runtime).serve(sockets=[socket.create_server(("127.0.0.1", port))]))


class Floor(asyncio.Protocol):
    """Answers each request with as many bytes as the request's `X-Reply` asks for."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) >= int(fields[b"content-length"]):
            self.buffer = b""
            reply = b"x" * int(fields[b"x-reply"])
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(reply), reply))


def serve_floor(port: int) -> None:
    async def run() -> None:
        listener = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", port)
        await listener.serve_forever()

    uvloop.run(run())


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connection.connect()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                break
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str, body: bytes, reply: int = 0) -> tuple[float, bytes]:
        """Return the milliseconds from the first byte sent to the last byte read, and the answer."""
        begun = time.perf_counter()
        self.connection.request("POST", path, body, {"Content-Type": "application/json", "X-Reply": str(reply)})
        response = self.connection.getresponse()
        answer = response.read()
        took = (time.perf_counter() - begun) * 1000
        assert response.status == 200, (response.status, answer[:200])
        return took, answer


def figures(milliseconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(milliseconds, n=1000, method="inclusive")
    return {"p50_ms": round(cuts[499], 3), "p99_ms": round(cuts[989], 3), "max_ms": round(max(milliseconds), 3)}


def measure(size: int, port: int, calls: int, rounds: int) -> dict[str, Any]:
    """Ask pairs of filter and prioritize, rounds of extender and floor in turn; medians of the rounds."""
    questions = {verb: question(verb, size) for verb in ("filter", "prioritize")}
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=serve_extender, args=(port, questions["filter"]["NodeNames"]), daemon=True),
        spawn.Process(target=serve_floor, args=(port + 1,), daemon=True),
    ]
    for worker in workers:
        worker.start()
    try:
        extender, floor = Client(port), Client(port + 1)
        collected: dict[str, list[dict[str, float]]] = {}
        for round_number in range(rounds):
            for name, took in one_round(extender, floor, questions, calls, round_number).items():
                collected.setdefault(name, []).append(figures(took))
        found: dict[str, Any] = {name: middle(found) for name, found in collected.items()}
        return found | {"rss_mb": resident_mb(workers[0].pid)}
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def resident_mb(pid: int | None) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def one_round(
    extender: Client, floor: Client, questions: dict[str, dict[str, Any]], calls: int, round_number: int
) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {"filter": [], "prioritize": [], "floor": []}
    for call in range(calls + 100):
        for verb, body in questions.items():
            body["Pod"]["metadata"]["uid"] = f"{round_number}-{call % 50}"
            wire = json.dumps(body, separators=(",", ":")).encode()
            milliseconds, answer = extender.ask(f"/v1/{verb}", wire)
            bare, _ = floor.ask(f"/v1/{verb}", wire, len(answer))
            if call >= 100:  # the first ones warm up
                took[verb].append(milliseconds)
                took["floor"].append(bare)
    return took


def middle(rounds: list[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    p99 = [each["p99_ms"] for each in rounds]
    return found | {"p99_ms_range": [min(p99), max(p99)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="calls per verb and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=28888)
    options = parser.parse_args()
    found = {str(size): measure(size, options.port, options.calls, options.rounds) for size in SIZES}
    for size, verbs in found.items():
        for verb in ("filter", "prioritize", "floor"):
            each = verbs[verb]
            print(f"{size:>5} names {verb:<11} p50 {each['p50_ms']:7.3f} ms   p99 {each['p99_ms']:7.3f} ms")
    versions = {name: version(name) for name in ("trimtab", "fastapi", "starlette", "uvicorn", "uvloop", "orjson")}
    print(
        json.dumps(
            {
                "benchmark": "extender_latency",
                "unit": "ms",
                "names": found,
                "calls": options.calls,
                "rounds": options.rounds,
                "seeds": None,
                "load_average": Path("/proc/loadavg").read_text().split()[:3],
                "versions": versions | {"python": platform.python_version()},
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
