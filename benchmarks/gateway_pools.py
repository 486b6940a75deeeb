"""What many pools cost the gateway that nobody sends a request to.

Usage: python benchmarks/gateway_pools.py [--pools 10000]

Builds a gateway in this process from made-up ServingPools with one Ready pod each, and prints what each step takes on
the loop that carries requests, the size and time of a scrape, and the memory of it all. No port is opened.
"""

import argparse
import asyncio
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from prometheus_client import generate_latest

from trimtab.api import keys
from trimtab.kube import Event, EventType
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.cluster import ClusterView
from trimtab_gateway.gateway import Gateway
from trimtab_gateway.limits import Limits


def a_pool(number: int, **spec: Any) -> dict[str, Any]:
    """Return a ServingPool with a model of its own."""
    name = f"pool-{number}"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {
            "name": name,
            "namespace": "ai",
            "uid": name,
            "creationTimestamp": f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z",
        },
        "spec": {"models": [{"name": f"model-{number}"}], "replicas": 1, "targetRef": target} | spec,
    }


def a_pod(number: int, *, ready: bool = True) -> dict[str, Any]:
    """Return the pod of a pool."""
    return {
        "metadata": {"name": f"pool-{number}-0", "namespace": "ai", "labels": {keys.POOL: f"pool-{number}"}},
        "status": {
            "podIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def milliseconds(step: Callable[[], object], repeat: int = 1) -> float:
    """Return the median time of a step."""
    times = []
    for _ in range(repeat):
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return median(times) * 1000


async def measure(pools: int) -> None:
    """Print the costs."""
    before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    metrics = GatewayMetrics()
    gateway = Gateway(Limits(), metrics, time.perf_counter)
    view = ClusterView(gateway, metrics, default_concurrency=64, without_endpoint_seconds=10.0)
    view.expect("servingpools", "")

    def read() -> None:
        for number in range(pools):
            view.take_pool(Event(EventType.ADDED, a_pool(number)))
            view.take_pod(Event(EventType.ADDED, a_pod(number)))

    print(f"read {pools} pools and pods  {milliseconds(read):9.1f} ms")
    print(f"first configuration        {milliseconds(lambda: view.synced('servingpools', '')):9.1f} ms")
    changes = iter(range(1, 1000))

    def change() -> None:
        changed = a_pool(pools // 2, queue={"maxRequests": next(changes)})
        view.take_pool(Event(EventType.MODIFIED, changed))

    def flap() -> None:
        view.take_pod(Event(EventType.MODIFIED, a_pod(pools // 2, ready=next(changes) % 2 == 0)))

    print(f"change of a pool           {milliseconds(change, 9):9.3f} ms")
    print(f"change of a pod            {milliseconds(flap, 9):9.3f} ms")
    print(f"tick                       {milliseconds(gateway.tick, 9):9.3f} ms")
    size = len(generate_latest(metrics.registry))
    print(f"scrape                     {milliseconds(lambda: generate_latest(metrics.registry)):9.1f} ms {size:>10} B")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before_bytes
    print(f"memory                     {grown / 2**20:9.1f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, default=10_000)
    asyncio.run(measure(parser.parse_args().pools))
