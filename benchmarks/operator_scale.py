"""What it costs to reconcile many ServingPools, against a bare asyncio loop that does the same writes in the same run.

On a real API server, both as fresh processes with the same number of connections:
* bare: for each pool one applied Deployment, Service and PodDisruptionBudget, and one status patch, nothing watched;
* operator: the same pools from its start (imports and election included) until each has a current
  `observedGeneration` and all of its objects;
* then its steady state (CPU, and writes per second from the API server's audit log), its memory, and how soon a
  changed spec is acted on.
Rounds of both alternate, and the ratio is the median of the rounds' ratios, since a shared machine is never quiet;
`cpu_ratio` compares the CPU time of the process, the API server and etcd, which other work disturbs less.
`--replicas 1` reports the time until every pool is Ready instead of the comparison.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from trimtab.actuate.manifests import OWNED, Blueprint
from trimtab.api import ServingPool
from trimtab.kube import EventType, Kube, Object, Resource, list_then_watch
from trimtab.kube.resources import CRDS, DEPLOYMENTS, NAMESPACES, PDBS, SERVICES, SERVING_POOLS
from trimtab.local import owned
from trimtab.local.cluster import LocalCluster, Options

ROOT = Path(__file__).parents[1]
CONCURRENCY = 12
STEADY_SECONDS = 30
CHANGES = 200
CHANGES_PER_SECOND = 20

Cost = tuple[float, float]  # seconds of the clock, seconds of CPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison; 0 leaves it out")
    parser.add_argument("--bare-worker", metavar="NAMESPACE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare_worker:
        asyncio.run(bare(arguments.bare_worker))
        return
    nodes = 8 if not arguments.replicas else max(8, arguments.pools // 50)
    cluster = LocalCluster(f"bench-{os.getpid()}")
    try:
        cluster.up(Options(nodes=nodes, prometheus=False, process_node=False, disable_qps_limits=True))
        os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
        result = asyncio.run(measure(cluster, arguments.pools, arguments.replicas, arguments.rounds))
    finally:
        cluster.down()
    print(json.dumps(result))


async def measure(cluster: LocalCluster, pools: int, replicas: int, rounds: int) -> dict[str, Any]:
    async with Kube.connect(cluster.kubeconfig, field_manager="benchmark", timeout_seconds=60) as kube:
        await install(cluster, kube)
        result: dict[str, Any] = {"benchmark": "operator_scale", "pools": pools, "replicas": replicas}
        bare: list[Cost] = []
        ours: list[Cost] = []
        for number in range(0 if replicas else rounds):
            floor = await measure_bare(cluster, kube, f"bare-{number}", pools)
            found = await measure_operator(cluster, kube, f"operator-{number}", pools, 0, briefly=True)
            bare.append(floor)
            ours.append((found["reconciled_seconds"], found["reconciled_cpu_seconds"]))
            await remove(kube, f"operator-{number}")
        result |= await measure_operator(cluster, kube, "operator", pools, replicas)
        if bare:
            result |= compare(bare, ours)
        version = await kube.request("GET", "/version")
    return result | {
        "kubernetes": version["gitVersion"],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "connections": CONCURRENCY,
        "seed": None,
    }


def compare(bare: list[Cost], ours: list[Cost]) -> dict[str, Any]:
    pairs = list(zip(bare, ours, strict=True))
    ratios = [round(cost[0] / floor[0], 2) for floor, cost in pairs]
    cpu_ratios = [round(cost[1] / floor[1], 2) for floor, cost in pairs]
    return {
        "bare_seconds": [floor[0] for floor in bare],
        "operator_seconds": [cost[0] for cost in ours],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "bare_cpu_seconds": [floor[1] for floor in bare],
        "operator_and_servers_cpu_seconds": [cost[1] for cost in ours],
        "cpu_ratio": statistics.median(cpu_ratios),
    }


def server_cpu_seconds(cluster: LocalCluster) -> float:
    """CPU time that the API server and etcd have used."""
    servers = [one for one in cluster.components() if one.name in {"kube-apiserver", "etcd"}]
    found = owned.processes(cluster.root)
    return sum(cpu_seconds(process.pid) for process in found if any(one.runs_as(process) for one in servers))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def install(cluster: LocalCluster, kube: Kube) -> None:
    kubectl = [str(cluster.program("kubectl")), "apply", "--server-side", "-f", str(ROOT / "crds")]
    await asyncio.to_thread(subprocess.run, kubectl, check=True, stdout=subprocess.DEVNULL)
    await kube.create(NAMESPACES, {"metadata": {"name": "trimtab-system"}})

    async def served() -> bool:
        crd = await kube.get(CRDS, f"{SERVING_POOLS.plural}.{SERVING_POOLS.group}")
        kinds = {one["type"]: one["status"] for one in crd["status"].get("conditions") or ()}
        return kinds.get("Established") == "True"

    await until(served, 30)
    await kube.list(SERVING_POOLS)


# The pools, and the bare loop


def a_pool(number: int, namespace: str, replicas: int) -> Object:
    container: Object = {"name": "engine", "image": "engine:1", "ports": [{"containerPort": 8000}]}
    container["resources"] = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    # kwok's nodes are tainted, so that nothing lands there unasked.
    tolerations = [{"operator": "Exists"}]
    spec = {"containers": [container], "tolerations": tolerations}
    return {
        "apiVersion": SERVING_POOLS.api_version,
        "kind": SERVING_POOLS.kind,
        "metadata": {"name": f"pool-{number:05d}", "namespace": namespace},
        "spec": {"replicas": replicas, "models": [{"name": "m"}], "workload": {"template": {"spec": spec}}},
    }


async def create_pools(kube: Kube, namespace: str, pools: int, replicas: int) -> None:
    await kube.create(NAMESPACES, {"metadata": {"name": namespace}})
    await in_parallel([partial(kube.create, SERVING_POOLS, a_pool(n, namespace, replicas)) for n in range(pools)])


async def in_parallel(calls: list[Callable[[], Awaitable[Any]]]) -> None:
    waiting = iter(calls)

    async def worker() -> None:
        for call in waiting:
            await call()

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


async def bare(namespace: str) -> None:
    """The floor: the writes that the operator makes, from the same objects, by a loop that knows nothing."""
    async with Kube.connect(field_manager="bare-loop", timeout_seconds=60) as kube:
        pools = (await kube.list(SERVING_POOLS, namespace)).items

        async def reconcile(pool: Object) -> None:
            blueprint = Blueprint.of(ServingPool.model_validate(pool))
            assert blueprint is not None
            for kind in OWNED:
                await kube.apply(kind, blueprint.build(kind, pool["spec"]["replicas"]), force=True)
            status = a_status(pool["metadata"]["generation"])
            await kube.merge_patch(SERVING_POOLS, pool["metadata"]["name"], {"status": status}, namespace, "status")

        await in_parallel([partial(reconcile, pool) for pool in pools])


def a_status(generation: int) -> Object:
    condition = {
        "status": "True",
        "reason": "Applied",
        "message": "All objects are applied",
        "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    kinds = ("Ready", "ObjectivesMet", "TelemetryFresh", "CapacityAvailable", "KnobContested", "WithinPower")
    return {"observedGeneration": generation, "conditions": [{"type": kind, **condition} for kind in kinds]}


async def measure_bare(cluster: LocalCluster, kube: Kube, namespace: str, pools: int) -> Cost:
    say(f"bare loop: {pools} pools")
    await create_pools(kube, namespace, pools, 0)
    began, served = time.perf_counter(), server_cpu_seconds(cluster)
    own = resource_usage()
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--bare-worker", namespace)
    assert await process.wait() == 0
    seconds = round(time.perf_counter() - began, 2)
    used = round(server_cpu_seconds(cluster) - served + resource_usage() - own, 2)
    say(f"  {seconds} s")
    await remove(kube, namespace)
    return seconds, used


def resource_usage() -> float:
    """CPU time of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def remove(kube: Kube, namespace: str) -> None:
    """Delete a namespace and wait until it is gone, so that the next round starts from the same place."""
    await kube.delete(NAMESPACES, namespace)

    async def gone() -> bool:
        found = await kube.list(NAMESPACES, field_selector=f"metadata.name={namespace}")
        return not found.items

    await until(gone, 900)


# The operator


async def measure_operator(
    cluster: LocalCluster, kube: Kube, namespace: str, pools: int, replicas: int, *, briefly: bool = False
) -> dict[str, Any]:
    say(f"operator: {pools} pools with {replicas} replicas")
    await create_pools(kube, namespace, pools, replicas)
    began, served = time.perf_counter(), server_cpu_seconds(cluster)
    with operator(cluster) as process:
        await until(lambda: status_writes(process, pools), 60 + pools / 5)
        if replicas:  # then some statuses are written twice before the last one is written once
            await until(lambda: all_reconciled(kube, namespace, pools), 60 + pools / 5)
        result: dict[str, Any] = {"reconciled_seconds": round(time.perf_counter() - began, 2)}
        used = process.cpu_seconds()
        result["operator_cpu_seconds"] = round(used, 2)
        result["reconciled_cpu_seconds"] = round(server_cpu_seconds(cluster) - served + used, 2)
        result["reconciled_writes_per_pool"] = round(process.writes() / pools, 2)
        say(f"  reconciled after {result['reconciled_seconds']} s")
        assert await all_reconciled(kube, namespace, pools)
        if briefly:
            return result
        if replicas:
            await until(lambda: all_ready(kube, namespace, pools), 120 + pools / 2)
            result["ready_seconds"] = round(time.perf_counter() - began, 2)
            say(f"  ready after {result['ready_seconds']} s")
        await until(lambda: quiet(process), 300)
        result |= await steady(cluster, process, pools)
        result["acted_on_p99_seconds"] = await measure_changes(kube, namespace, pools)
        result["rss_peak_mib"] = process.memory()
        return result


class Operator:
    def __init__(self, process: "subprocess.Popen[bytes]", metrics_port: int) -> None:
        self.process = process
        self.pid = process.pid
        self._url = f"http://127.0.0.1:{metrics_port}/metrics"

    def metric(self, pattern: str) -> float:
        assert self.process.poll() is None, "the operator ended; its log says why"
        try:
            with urllib.request.urlopen(self._url, timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        return sum(float(value) for value in re.findall(rf"^{pattern} ([0-9.e+]+)$", text, re.MULTILINE))

    def writes(self) -> float:
        return self.metric(r"trimtab_operator_writes_total\{.*\}")

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def memory(self) -> int:
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert peak
        return int(peak[1]) // 1024


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def operator(cluster: LocalCluster) -> Iterator[Operator]:
    health, metrics = free_port(), free_port()
    log = Path("/tmp") / f"{cluster.name}-operator.log"
    settings = {"HEALTH_PORT": health, "METRICS_PORT": metrics, "CONCURRENCY": CONCURRENCY}
    environment = {f"TRIMTAB_OPERATOR_{name}": str(value) for name, value in settings.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "trimtab-operator")], env=os.environ | environment, stderr=output
        )
    try:
        yield Operator(process, metrics)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    log.unlink()


async def status_writes(process: Operator, pools: int) -> bool:
    """Whether each pool can have a status: asks the operator, which is cheap, before the API server is asked."""
    pattern = r'trimtab_operator_writes_total\{resource="servingpools/status",verb="patch"\}'
    return await asyncio.to_thread(process.metric, pattern) >= pools


async def all_reconciled(kube: Kube, namespace: str, pools: int) -> bool:
    found = (await kube.list(SERVING_POOLS, namespace)).items
    current = [one for one in found if one.get("status", {}).get("observedGeneration") == one["metadata"]["generation"]]
    owned = [await count(kube, namespace, one) for one in (DEPLOYMENTS, SERVICES, PDBS)]
    return len(current) == pools and owned == [pools] * len(owned)


async def count(kube: Kube, namespace: str, kind: Resource) -> int:
    return len((await kube.list(kind, namespace)).items)


async def all_ready(kube: Kube, namespace: str, pools: int) -> bool:
    found = (await kube.list(SERVING_POOLS, namespace)).items
    conditions = [one.get("status", {}).get("conditions", [{}])[0] for one in found]
    ready: int = sum(one.get("status") == "True" and one.get("reason") == "AllReplicasReady" for one in conditions)
    if ready < pools:
        await asyncio.sleep(1)
    return ready == pools


async def quiet(process: Operator) -> bool:
    """Whether the operator wrote nothing for five seconds."""
    before = await asyncio.to_thread(process.writes)
    await asyncio.sleep(5)
    after: float = await asyncio.to_thread(process.writes)
    return before == after


async def steady(cluster: LocalCluster, process: Operator, pools: int) -> dict[str, Any]:
    cpu, seen = process.cpu_seconds(), len(audited(cluster))
    await asyncio.sleep(STEADY_SECONDS)
    used = process.cpu_seconds() - cpu
    writes = len(audited(cluster)) - seen
    return {
        "steady_cpu_percent": round(100 * used / STEADY_SECONDS, 2),
        "steady_writes_per_second_and_object": round(writes / STEADY_SECONDS / pools, 5),
    }


def audited(cluster: LocalCluster) -> list[dict[str, Any]]:
    """The operator's writes in the audit log, its Lease included."""
    found = []
    for log in sorted(cluster.audit_log.parent.glob("audit*.log")):
        for line in log.read_text().splitlines():
            if '"trimtab-operator"' in line:
                call = json.loads(line)
                if call["verb"] in {"create", "update", "patch", "delete"}:
                    found.append(call)
    return found


async def measure_changes(kube: Kube, namespace: str, pools: int) -> float:
    """The time from the answer to a changed spec until the changed Service is seen, for one pool after another."""
    changed: dict[str, float] = {}
    seen: dict[str, float] = {}

    async def watch(ready: asyncio.Event) -> None:
        async for event in list_then_watch(kube, SERVICES, namespace):
            if event.type is EventType.SYNCED:
                ready.set()
            elif event.type is EventType.MODIFIED and event.object["spec"]["ports"][0]["port"] == 8001:
                seen.setdefault(event.object["metadata"]["name"], time.perf_counter())

    ready = asyncio.Event()
    watcher = asyncio.create_task(watch(ready))
    await ready.wait()
    total = min(CHANGES, pools)
    for number in range(total):
        name = f"pool-{number:05d}"
        await kube.merge_patch(SERVING_POOLS, name, {"spec": {"engine": {"port": 8001}}}, namespace)
        changed[name] = time.perf_counter()
        await asyncio.sleep(1 / CHANGES_PER_SECOND)

    async def all_seen() -> bool:
        return len(seen) == total

    await until(all_seen, 60)
    watcher.cancel()
    waits = [max(0.0, seen[name] - changed[name]) for name in changed]
    return round(statistics.quantiles(waits, n=100)[98], 3)


async def until(probe: Callable[[], Awaitable[bool]], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await probe():  # noqa: ASYNC110 - what is asked is another process
            await asyncio.sleep(0.1)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
