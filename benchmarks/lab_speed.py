"""How fast the lab is: the Azure conversation trace on engines that are 90 % busy and preempt, one core.

The trace is compressed in time until its mean rate is `--load` of what the engines finish when all requests are there
from the start; `--kv-blocks` makes the KV cache small enough that they preempt. With more `--requests` than the trace
has, each arrives several times.

    .venv/bin/python benchmarks/lab_speed.py [--policy qlm] [--engines 8] [--requests 19366] [--load 0.9]
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from trimtab.decide.queueing import Bounds
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import Level
from trimtab.decide.queueing.ssjf import SsjfOrder
from trimtab.sim.engine import Simulation
from trimtab.sim.ledger import Fate, Ledger
from trimtab.sim.models_runs import QLM
from trimtab.sim.models_world import Arrival, MachineKind, ModelKind, ModelsWorld
from trimtab.sim.profile import load_profile
from trimtab.sim.serving import EngineConfig, ServingEngine
from trimtab.sim.world import PoolWorld, ServerKind
from trimtab.workload.catalog import find_traces
from trimtab.workload.request import Trace, TraceRequest

PROMISED_SECONDS = 20.0
"""To the first token, for the policy that plans by promises."""
MEAN_ANSWER, MEAN_CONTEXT = 210.0, 1200.0
"""Tokens of the trace's mean answer, and of what a typical request has in the KV cache."""


def copies(trace: Trace, requests: int) -> int:
    """How often each request arrives; all at the same time, so that the shape of the hour stays."""
    return -(-requests // len(trace.requests))


def compressed(trace: Trace, *, requests: int, speedup: float) -> Iterator[TraceRequest]:
    """The trace's requests `speedup` times as fast, again and again until there are enough."""
    made = 0
    for request in trace.requests:
        for _ in range(copies(trace, requests)):
            if made == requests:
                return
            made += 1
            yield replace(request, at_seconds=request.at_seconds / speedup)


def run(trace: Trace, kind: ServerKind, *, engines: int, requests: int, speedup: float) -> dict[str, float | int]:
    """One run, and what it took."""
    began, cpu = time.perf_counter(), time.process_time()
    simulation = Simulation(seed=1)
    world = PoolWorld(simulation, bounds=Bounds(max_requests=requests, max_waiting_seconds=1e9))
    world.add_servers(kind, engines)
    world.feed(compressed(trace, requests=requests, speedup=speedup))
    simulation.run()
    taken = time.perf_counter() - began, time.process_time() - cpu
    return figures(simulation, world.ledger, [server.engine for server in world.servers.values()], speedup, taken)


def run_qlm(trace: Trace, kind: ServerKind, *, engines: int, requests: int, speedup: float) -> dict[str, float | int]:
    """The same behind the queue of several models: QLM, with SSJF inside its groups, on predicted lengths."""
    began, cpu = time.perf_counter(), time.process_time()
    simulation = Simulation(seed=1)
    model = ModelKind(kind.config, kind.cost, swap_seconds=0.0)
    machine = MachineKind(kind.config.max_num_seqs, {"model": model}, MEAN_CONTEXT)
    machines = {f"server-{number:04}": (machine, "model") for number in range(engines)}
    policy = replace(QLM, order=SsjfOrder())
    world = ModelsWorld(simulation, policy, {"": Level(PROMISED_SECONDS)}, machines, MeanLengths(MEAN_ANSWER))
    world.feed(
        Arrival(r.at_seconds, "model", "", r.input_tokens, r.output_tokens, float(r.output_tokens))
        for r in compressed(trace, requests=requests, speedup=speedup)
    )
    simulation.run()
    taken = time.perf_counter() - began, time.process_time() - cpu
    return figures(simulation, world.ledger, world.engines(), speedup, taken)


def figures(
    simulation: Simulation,
    ledger: Ledger,
    engine_list: Sequence[ServingEngine],
    speedup: float,
    taken: tuple[float, float],
) -> dict[str, float | int]:
    """What a run came to."""
    engines = len(engine_list)
    seconds, cpu_seconds = taken
    return {
        "requests": len(ledger),
        "finished": int((ledger.column("fate") == Fate.FINISHED).sum()),
        "engines": engines,
        "speedup": round(speedup, 3),
        "simulated_seconds": round(simulation.now, 1),
        "busy": round(sum(e.busy_seconds for e in engine_list) / engines / simulation.now, 4),
        "preemptions": sum(e.preemptions for e in engine_list),
        "iterations": sum(e.iterations for e in engine_list),
        "tokens": int(ledger.column("produced").sum()),
        "events": simulation.events,
        "p50_ttft": round(float(np.nanmedian(ledger.ttft())), 4),
        "p99_ttft": round(float(np.nanquantile(ledger.ttft(), 0.99)), 3),
        "p50_tbt": round(float(np.nanmedian(ledger.time_per_token())), 5),
        "wall_seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "cpu_us_per_request": round(cpu_seconds / len(ledger) * 1e6, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=("fcfs", "qlm"), default="fcfs", help="qlm: with SSJF inside its groups")
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--requests", type=int, default=0, help="0: those of the trace")
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--profile", default="llama-2-70b-a100-tp8")
    parser.add_argument("--kv-blocks", type=int, default=4000)
    arguments = parser.parse_args()
    trace = find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=1e9)
    profile = load_profile(arguments.profile)
    kind = ServerKind(replace(EngineConfig.of(profile), kv_blocks=arguments.kv_blocks), profile.iteration)
    # What 8 engines can do with the trace once is what any number can do with a proportionate part of it.
    saturated = run(trace, kind, engines=8, requests=len(trace.requests), speedup=1e9)
    rate = len(trace.requests) / saturated["simulated_seconds"] / 8 * arguments.engines
    requests = arguments.requests or len(trace.requests)
    speedup = arguments.load * rate / (copies(trace, requests) * len(trace.requests) / trace.duration_seconds)
    measured = (run_qlm if arguments.policy == "qlm" else run)(
        trace, kind, engines=arguments.engines, requests=requests, speedup=speedup
    )
    print(json.dumps({"python": platform.python_version(), "kv_blocks": arguments.kv_blocks, **measured}, indent=2))


if __name__ == "__main__":
    main()
