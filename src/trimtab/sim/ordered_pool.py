"""One engine of the calibrated kind behind the production queue, in some order of service: what the order is worth.

The queue, the order and the engine's physics are those that everything else uses. The requests have lengths drawn from
a recorded trace and arrive as burstily as it did, at a rate that is set in relation to what the engine can do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.decide.queueing import Bounds, fcfs
from trimtab.decide.queueing.line import Order
from trimtab.decide.queueing.ssjf import ServiceTime
from trimtab.model.problem import Problem
from trimtab.sim.engine import Simulation
from trimtab.sim.ledger import Ledger
from trimtab.sim.profile import load_profile
from trimtab.sim.serving import EngineConfig
from trimtab.sim.slots import gamma_arrivals
from trimtab.sim.streams import stream
from trimtab.sim.world import PoolWorld, ServerKind
from trimtab.workload.catalog import find_traces
from trimtab.workload.request import TraceRequest, statistics_of

PATIENT = Bounds(max_requests=10**9, max_waiting_seconds=1e12, max_seconds_without_endpoint=1e12)
"""Bounds of a queue that sends nobody away, so that every order serves the same requests."""

_PILOT = 1_000_000
_ROUNDS = 24  # times that the batch turns over while its rate is measured
_LEAST_REQUESTS = 1000
_FROM, _TO = 0.1, 0.8  # of the requests: the batch is full in between


@dataclass(frozen=True, slots=True)
class Lengths:
    """Requests of a recorded trace without their times.

    Attributes:
        input_tokens: Shape `(requests,)`.
        output_tokens: Shape `(requests,)`.
        variation: Standard deviation over mean of the gaps between arrivals.
        source: The file.
    """

    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    variation: float
    source: str

    def draw(self, seed: int, arrivals: Sequence[float], longest: int) -> list[TraceRequest]:
        """Draw a request for each time of arrival; prompts are cut where an engine takes no more than `longest`."""
        places = stream(seed, "requests", "lengths").integers(0, len(self.input_tokens), len(arrivals))
        outputs = np.minimum(self.output_tokens[places], longest - 1)
        inputs = np.minimum(self.input_tokens[places], longest - outputs)
        columns = zip(arrivals, inputs.tolist(), outputs.tolist(), strict=True)
        return [TraceRequest(at, prompt, answer) for at, prompt, answer in columns]


@lru_cache(maxsize=4)
def recorded_lengths(data: Path | None) -> Lengths:
    """Read the first recorded trace, by name, that there is.

    Raises:
        Problem: There is none.
    """
    catalog = find_traces(data)
    entry = next((one for one in catalog.entries.values() if one.format.name == "azure"), None)
    if entry is None:
        raise Problem("there is no recorded trace with token counts", fix="point --data at a folder that holds one")
    trace = entry.load(seed=0, start_seconds=0.0, duration_seconds=float("inf"))
    return Lengths(
        np.array([request.input_tokens for request in trace.requests]),
        np.array([request.output_tokens for request in trace.requests]),
        statistics_of(trace).interarrival_cv,
        trace.source,
    )


@dataclass(frozen=True, slots=True)
class Engine:
    """A kind of engine to put a queue in front of.

    Attributes:
        profile: Name of a shipped profile, or the path of one.
        sequences: The most that it serves at once.
        capacity: Requests that the queue hands to it at most; 0: as many as it serves at once.
    """

    profile: str
    sequences: int
    capacity: int = 0

    def kind(self) -> ServerKind:
        """Return what the lab builds of it."""
        profile = load_profile(self.profile)
        config = replace(EngineConfig.of(profile), max_num_seqs=self.sequences)
        return ServerKind(config, profile.iteration, self.capacity)

    def longest(self) -> int:
        """Return the most tokens that one of its sequences can have."""
        profile = load_profile(self.profile)
        return min(profile.max_model_len, (profile.kv_blocks - 1) * profile.block_size)


def run(engine: Engine, requests: Sequence[TraceRequest], predicted: Sequence[float] | None, order: Order) -> Ledger:
    """Serve requests in this order, to the last one; returns what became of each."""
    simulation = Simulation()
    world = PoolWorld(simulation, bounds=PATIENT, order=order)
    world.add_servers(engine.kind(), 1)
    world.feed(requests, predicted)
    simulation.run()
    return world.ledger


@dataclass(frozen=True, slots=True)
class Pace:
    """What an engine does while its batch is full.

    Attributes:
        rate: Requests per second.
        service: How long one request is in the batch, fitted to its answer's length by least squares.
    """

    rate: float
    service: ServiceTime


@lru_cache(maxsize=32)
def full_pace(engine: Engine, data: Path | None) -> Pace:
    """Measure what an engine does while its batch is full, under a pilot seed and first come, first served."""
    count = max(_ROUNDS * engine.sequences, _LEAST_REQUESTS)
    requests = recorded_lengths(data).draw(_PILOT, [0.0] * count, engine.longest())
    ledger = run(engine, requests, None, fcfs.order)
    ended = ledger.column("ended_at")
    order = np.argsort(ended, kind="stable")[int(_FROM * count) : int(_TO * count)]
    held = (ended - ledger.column("admitted_at"))[order]
    per_token, fixed = np.polyfit(ledger.column("output_tokens")[order], held, 1)
    rate = (len(order) - 1) / float(ended[order[-1]] - ended[order[0]])
    return Pace(rate, ServiceTime(max(float(fixed), 0.0), float(per_token)))


def arrivals(seed: int, count: int, rate: float, variation: float) -> list[float]:
    """Draw times of arrival, in seconds, of requests that come at this rate and this burstily."""
    times: list[float] = gamma_arrivals(stream(seed, "requests", "arrivals"), count, rate, variation).tolist()
    return times
