"""Small requests per second through the gateway, against a bare relay that only copies bytes, in one run.

Gateway and relay take turns in front of the same engine, each with the same number of busy connections. One process
each; the client and the engine share the machine with them, so requests per second of processor time of the process in
between is given too: it does not depend on who else runs.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_rig.client import CHAT, Target, flood, percentile
from benchmarks.gateway_rig.processes import Ports, cpu_seconds, servers, versions


async def measure(
    ports: Ports, ids: dict[str, int], connections: int, seconds: float, rounds: int
) -> dict[str, object]:
    targets = {"gateway": Target(ports.gateway), "relay": Target(ports.relay)}
    rates: dict[str, list[float]] = {name: [] for name in targets}
    per_cpu: dict[str, list[float]] = {name: [] for name in targets}
    p99: dict[str, list[float]] = {name: [] for name in targets}
    failed = 0
    for target in targets.values():
        await target.prepare(connections)
        await flood(target, CHAT, connections, 1)  # warm
    for _ in range(rounds):
        for name, target in targets.items():
            before = cpu_seconds(ids[name])
            rate, timings = await flood(target, CHAT, connections, seconds)
            used = cpu_seconds(ids[name]) - before
            rates[name].append(rate)
            per_cpu[name].append(len(timings) / used)
            p99[name].append(1000 * percentile([timing.done - timing.due for timing in timings], 99))
            failed += sum(timing.status != 200 for timing in timings)
    for target in targets.values():
        target.close()
    found: dict[str, object] = {"failed": failed}
    for name in targets:
        found[f"{name}_requests_per_second"] = round(statistics.median(rates[name]))
        found[f"{name}_requests_per_cpu_second"] = round(statistics.median(per_cpu[name]))
        found[f"{name}_p99_ms"] = round(statistics.median(p99[name]), 2)
    ratios = [gateway / relay for gateway, relay in zip(per_cpu["gateway"], per_cpu["relay"], strict=True)]
    return found | {"gateway_to_relay_per_cpu": round(statistics.median(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4.0, help="time of each turn")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    with servers(relay=True) as (ports, ids):
        result = uvloop.run(measure(ports, ids, options.connections, options.seconds, options.rounds))
    print(json.dumps({"benchmark": "gateway_throughput", **vars(options), **result, "versions": versions()}))


if __name__ == "__main__":
    main()
