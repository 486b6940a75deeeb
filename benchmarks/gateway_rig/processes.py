"""Processes of one benchmark: started together, found by their ports, ended together."""

import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ports:
    engine: int
    gateway: int
    relay: int
    metrics: int


@contextmanager
def servers(*, relay: bool) -> Iterator[tuple[Ports, dict[str, int]]]:
    """Run an engine, a gateway in front of it, and a bare relay if asked; yields ports and process ids."""
    ports = Ports(*_free_ports(4))
    rig = [sys.executable, "-m", "benchmarks.gateway_rig.servers"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoints = folder / "endpoints.yaml"
        pool = {"name": "bench", "models": ["bench"], "concurrency": 1000, "engines": [f"127.0.0.1:{ports.engine}"]}
        endpoints.write_text(yaml.safe_dump({"pools": [pool]}))
        commands = {
            "engine": [*rig, "engine", str(ports.engine)],
            "gateway": [
                str(Path(sys.executable).parent / "trimtab-gateway"),
                *("--endpoints", str(endpoints), "--port", str(ports.gateway), "--metrics-port", str(ports.metrics)),
                *("--admin-port", str(_free_ports(1)[0]), "--drain-delay-seconds", "0", "--drain-seconds", "1"),
                *("--log-level", "WARNING"),
            ],
        }
        if relay:
            commands["relay"] = [*rig, "relay", str(ports.relay), str(ports.engine)]
        ids = {name: stack.enter_context(_process(command)).pid for name, command in commands.items()}
        for name in commands:
            _wait_for(getattr(ports, name))
        yield ports, ids


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    found = {name: version(name) for name in ("trimtab", "uvloop", "httptools", "orjson", "prometheus-client")}
    return found | {"python": platform.python_version(), "cpus": str(os.cpu_count())}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
