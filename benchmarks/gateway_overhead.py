"""Time that the gateway adds to a request against direct access, at 100 requests/s, plain and streamed.

Requests to the engine itself and through the gateway are Poisson arrivals mixed at random in one run, each at the full
rate, timed from the moment at which they were due. The engine answers at once (plain) or sends 20 events 5 ms apart
(streamed); a bare relay that only copies bytes shows what any process in between costs.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_rig.client import CHAT, STREAM, Target, Timing, interleaved, percentile
from benchmarks.gateway_rig.processes import Ports, servers, versions


def figures(timings: dict[str, list[Timing]], of: Callable[[Timing], float]) -> dict[str, float]:
    """Return percentiles of each target in milliseconds, and what gateway and relay add to direct access."""
    found = {}
    for name, measured in timings.items():
        values = [1000 * (of(timing) - timing.due) for timing in measured]
        for each in (50, 90, 99):
            found[f"{name}_p{each}_ms"] = percentile(values, each)
    for name in ("gateway", "relay"):
        for each in (50, 90, 99):
            found[f"{name}_added_p{each}_ms"] = found[f"{name}_p{each}_ms"] - found[f"direct_p{each}_ms"]
    return {name: round(value, 3) for name, value in found.items()}


async def measure(ports: Ports, rate: float, seconds: float, seed: int) -> dict[str, object]:
    targets = {"direct": Target(ports.engine), "gateway": Target(ports.gateway), "relay": Target(ports.relay)}
    rng = random.Random(seed)
    for target in targets.values():
        await target.prepare(32)
    await interleaved(targets, CHAT, rate, 2, rng)  # warm
    plain = await interleaved(targets, CHAT, rate, seconds, rng)
    streamed = await interleaved(targets, STREAM, rate, seconds, rng)
    for target in targets.values():
        target.close()
    every = [timing for timings in (*plain.values(), *streamed.values()) for timing in timings]
    return {
        "requests": len(every),
        "failed": sum(timing.status != 200 for timing in every),
        "plain": figures(plain, lambda timing: timing.done),
        "first_token": figures(streamed, lambda timing: timing.first),
        "whole_stream": figures(streamed, lambda timing: timing.done),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second to each target")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for plain and for streamed requests")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with servers(relay=True) as (ports, _):
        result = uvloop.run(measure(ports, options.rate, options.seconds, options.seed))
    print(json.dumps({"benchmark": "gateway_overhead", **vars(options), **result, "versions": versions()}))


if __name__ == "__main__":
    main()
