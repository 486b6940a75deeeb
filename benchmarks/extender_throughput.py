"""Pods per second of a real kube-scheduler with and without the extender, on 1,000 fake nodes, in one run.

One local cluster (no client-side rate limits), and two schedulers beside its own: one with the shipped configuration
and a running extender, one with no extender at all; each serves its own `schedulerName`. In each round, both place the
same number of pods, in an order drawn at random: the scheduler is stopped, the pods are created, the scheduler goes on,
and the time runs from there until the last pod is bound. Pods declare watts; ten rows of nodes have power domains with
room for all. The ratio is with to without, of the same round; its median and range are what counts.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from trimtab.api import keys
from trimtab.kube import EventType, Kube, list_then_watch
from trimtab.kube.resources import NAMESPACES, NODES, PODS, POWER_DOMAINS
from trimtab.local.cluster import LocalCluster, Options

ROOT = Path(__file__).parents[1]
SPACE = "bench"
WATTS = 700
ROWS = 10


class Scheduler:
    """A kube-scheduler of our own that serves one `schedulerName`."""

    def __init__(self, cluster: LocalCluster, name: str, folder: Path, extender_port: int | None, sample: int) -> None:
        self.name = name
        config = self._config(cluster, extender_port, sample)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        port = free_port()
        self._log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            [
                str(cluster.program("kube-scheduler")),
                f"--config={path}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--cert-dir={folder / name}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def _config(self, cluster: LocalCluster, extender_port: int | None, sample: int) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "scheduler-config.yaml").read_text())
        config["leaderElection"] = {"leaderElect": False}
        config["clientConnection"] = {"kubeconfig": str(cluster.kubeconfig), "qps": 10_000, "burst": 10_000}
        config["profiles"] = [{"schedulerName": self.name}]
        if sample:
            config["percentageOfNodesToScore"] = sample
        if extender_port is None:
            del config["extenders"]
        else:
            config["extenders"][0]["urlPrefix"] = f"http://127.0.0.1:{extender_port}/v1"
        return config

    def last_words(self) -> str:
        return "\n".join(Path(self._log.name).read_text().splitlines()[-5:])

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@contextmanager
def extender(cluster: LocalCluster, folder: Path) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """The extender as it is shipped, without election; yields its ports and its process."""
    port, metrics_port = free_port(), free_port()
    command = [str(Path(sys.executable).parent / "trimtab-extender"), "--no-election", f"--port={port}"]
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig)}
    with (folder / "extender.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--metrics-port={metrics_port}"], env=environment, stdout=log, stderr=log
        )
        try:
            wait_until_ready(port)
            yield port, metrics_port, process
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on, chosen by the kernel, so that two calls do not agree."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pod(name: str, scheduler: str) -> dict[str, Any]:
    resources = {"limits": {keys.GPU_RESOURCE: "1"}}
    return {
        "metadata": {"name": name, "namespace": SPACE, "annotations": {keys.WATTS: str(WATTS)}},
        "spec": {
            "schedulerName": scheduler,
            "containers": [{"name": "engine", "image": "engine:1", "resources": resources}],
            "tolerations": [{"operator": "Exists"}],
            "nodeSelector": {keys.NODE_TYPE: "fake"},
            "terminationGracePeriodSeconds": 0,
        },
    }


async def prepare(kube: Kube) -> None:
    await kube.create(NAMESPACES, {"metadata": {"name": SPACE}})
    nodes = (await kube.list(NODES)).items
    for index, node in enumerate(nodes):
        row = {"metadata": {"labels": {"bench.trimtab.dev/row": f"row-{index % ROWS}"}}}
        await kube.merge_patch(NODES, node["metadata"]["name"], row)
    for row_number in range(ROWS):
        spec = {
            "mode": "Enforce",
            "type": "Row",
            "nodes": {"matchLabels": {"bench.trimtab.dev/row": f"row-{row_number}"}},
            "limits": {"powerWatts": 1_000_000},
        }
        await kube.apply(POWER_DOMAINS, {"metadata": {"name": f"bench-{row_number}"}, "spec": spec}, force=True)


async def one(kube: Kube, scheduler: Scheduler, pods: int, label: str) -> tuple[float, int, float]:
    """Place pods with one scheduler; return pods per second, nodes used, and its CPU milliseconds per pod."""
    scheduler.pause()
    names = [f"{label}-{index}" for index in range(pods)]
    for chunk in range(0, pods, 32):
        await asyncio.gather(*(kube.create(PODS, pod(name, scheduler.name)) for name in names[chunk : chunk + 32]))
    nodes: dict[str, str] = {}
    begun = cpu = 0.0
    async for event in list_then_watch(kube, PODS, SPACE):
        if scheduler.process.poll() is not None:
            raise RuntimeError(f"{scheduler.name} ended: {scheduler.last_words()}")
        if event.type is EventType.SYNCED:
            begun, cpu = time.perf_counter(), cpu_seconds(scheduler.process.pid)
            scheduler.resume()
        elif event.object["spec"].get("nodeName"):
            nodes[event.object["metadata"]["name"]] = event.object["spec"]["nodeName"]
            if len(nodes) == pods:
                break
    took, used = time.perf_counter() - begun, cpu_seconds(scheduler.process.pid) - cpu
    await clear(kube)
    return pods / took, len(set(nodes.values())), 1000 * used / pods


async def clear(kube: Kube) -> None:
    path = PODS.path(SPACE)
    await kube.request("DELETE", path, {"gracePeriodSeconds": 0}, timeout_seconds=120)
    while (await kube.list(PODS, SPACE)).items:  # noqa: ASYNC110 - it is the API server that is asked
        await asyncio.sleep(0.2)
    await asyncio.sleep(1.0)  # controllers and kwok settle


async def measure(options: argparse.Namespace, cluster: LocalCluster, folder: Path) -> list[dict[str, float]]:
    rng = random.Random(options.seed)
    rounds: list[dict[str, float]] = []
    async with Kube.connect(cluster.kubeconfig, timeout_seconds=60) as kube:
        await prepare(kube)
        with extender(cluster, folder) as (port, _, process):
            chosen = {
                "with": Scheduler(cluster, "bench-with", folder, port, options.sample),
                "without": Scheduler(cluster, "bench-without", folder, None, options.sample),
            }
            try:
                for scheduler in chosen.values():  # warms caches and connections
                    await one(kube, scheduler, 50, "warm")
                for number in range(options.rounds):
                    before = cpu_seconds(process.pid)
                    found: dict[str, float] = {}
                    for name in rng.sample(sorted(chosen), k=2):
                        rate, nodes, cpu = await one(kube, chosen[name], options.pods, f"r{number}")
                        found |= {name: rate, f"nodes_{name}": nodes, f"scheduler_cpu_ms_per_pod_{name}": cpu}
                    found["ratio"] = found["with"] / found["without"]
                    found["extender_cpu_ms_per_pod"] = 1000 * (cpu_seconds(process.pid) - before) / options.pods
                    rounds.append(found)
                    print({key: round(value, 3) for key, value in found.items()}, flush=True)
            finally:
                for scheduler in chosen.values():
                    scheduler.stop()
    return rounds


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=1000, help="pods per round and scheduler")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=0, help="percentageOfNodesToScore; 0: the scheduler's default")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cluster = LocalCluster(f"bench-{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            cluster.up(Options(nodes=options.nodes, prometheus=False, process_node=False, disable_qps_limits=True))
            subprocess.run(
                [
                    str(cluster.program("kubectl")),
                    f"--kubeconfig={cluster.kubeconfig}",
                    "apply",
                    "--server-side",
                    f"--filename={ROOT / 'crds'}",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            rounds = asyncio.run(measure(options, cluster, Path(folder)))
        finally:
            cluster.down()
    keys_of_rounds = sorted(rounds[0])
    print(
        json.dumps(
            {
                "benchmark": "extender_throughput",
                "units": {"with": "pods/s", "without": "pods/s", "ratio": "with / without", "nodes_*": "nodes used"},
                **{key: spread([found[key] for found in rounds]) for key in keys_of_rounds},
                "nodes": options.nodes,
                "pods": options.pods,
                "rounds": options.rounds,
                "sample_percent": options.sample or "default",
                "seed": options.seed,
                "load_average": Path("/proc/loadavg").read_text().split()[:3],
                "versions": {
                    "trimtab": version("trimtab"),
                    "kubernetes": "1.37.2",
                    "python": platform.python_version(),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
