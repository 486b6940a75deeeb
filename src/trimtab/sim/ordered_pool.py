"""One engine of the calibrated kind behind the production queue, in some order of service: what the order is worth.

The queue, the order and the engine's physics are those that everything else uses. Lengths, and what the shipped
predictor said of them, are drawn from a recorded trace; requests arrive as burstily as there, at a rate that is set in
relation to what the engine can do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray

from trimtab.decide.queueing import Bounds, fcfs
from trimtab.decide.queueing.line import Order
from trimtab.decide.queueing.ssjf import ServiceTime
from trimtab.sim.engine import Simulation
from trimtab.sim.foreseen import held_out
from trimtab.sim.ledger import Ledger
from trimtab.sim.profile import Profile, load_profile
from trimtab.sim.serving import EngineConfig
from trimtab.sim.slots import Floats, gamma_arrivals
from trimtab.sim.streams import PILOT, stream
from trimtab.sim.world import PoolWorld, ServerKind
from trimtab.workload.catalog import SHIPPED, find_traces
from trimtab.workload.request import TraceRequest, statistics_of

PATIENT = Bounds(max_requests=10**9, max_waiting_seconds=1e12, max_seconds_without_endpoint=1e12)
"""Bounds of a queue that sends nobody away, so that every order serves the same requests."""

_ROUNDS = 24  # times that the batch turns over while its rate is measured
_LEAST_REQUESTS = 1000
_FROM, _TO = 0.1, 0.8  # of the requests: the batch is full in between


@dataclass(frozen=True, slots=True)
class Recorded:
    """Requests of a recorded trace without their times, each with what the shipped predictor said of it.

    Attributes:
        input_tokens: Shape `(requests,)`.
        output_tokens: Shape `(requests,)`.
        predicted_tokens: The predicted median, shape `(requests,)`.
        variation: Standard deviation over mean of the gaps between arrivals.
    """

    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    predicted_tokens: Floats
    variation: float


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests that arrive, and what is predicted of them.

    Attributes:
        requests: In order of arrival.
        answers: Their true lengths in tokens, shape `(requests,)`.
        predicted: Their predicted lengths in tokens, shape `(requests,)`.
    """

    requests: list[TraceRequest]
    answers: Floats
    predicted: Floats


@lru_cache(maxsize=1)
def recorded() -> Recorded:
    """Return the last fifth of the recorded trace that comes with Trimtab, on which its predictor was not trained."""
    catalog = find_traces(SHIPPED)
    entry = next(one for one in catalog.entries.values() if one.format.name == "azure")
    trace = entry.load(seed=0, start_seconds=0.0, duration_seconds=inf)
    requests = held_out(trace)
    return Recorded(
        np.array([request.input_tokens for request in requests]),
        np.array([request.tokens for request in requests]),
        np.array([request.prediction.p50 for request in requests]),
        statistics_of(trace).interarrival_cv,
    )


@lru_cache(maxsize=8)
def _profile(name: str) -> Profile:
    """Read a profile once, so that all requests of a run meet the same engine."""
    return load_profile(name)


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
        profile = _profile(self.profile)
        config = replace(EngineConfig.of(profile), max_num_seqs=self.sequences)
        return ServerKind.of(profile, config=config, capacity=self.capacity)

    def longest(self) -> int:
        """Return the most tokens that one of its sequences can have."""
        profile = _profile(self.profile)
        return min(profile.max_model_len, (profile.kv_blocks - 1) * profile.block_size)

    def demand(self, seed: int, count: int, rate: float) -> Demand:
        """Draw recorded requests that arrive as burstily as they did, at this rate per second; infinite: all at once.

        Prompts are cut where the engine cannot hold them.
        """
        known, longest = recorded(), self.longest()
        places = stream(seed, "requests", "lengths").integers(0, len(known.input_tokens), count)
        answers = np.minimum(known.output_tokens[places], longest - 1)
        prompts = np.minimum(known.input_tokens[places], longest - answers)
        times = gamma_arrivals(stream(seed, "requests", "arrivals"), count, rate, known.variation)
        columns = zip(times.tolist(), prompts.tolist(), answers.tolist(), strict=True)
        requests = [TraceRequest(at, prompt, answer) for at, prompt, answer in columns]
        return Demand(requests, answers.astype(np.float64), known.predicted_tokens[places])


def run(engine: Engine, requests: Sequence[TraceRequest], predicted: Floats | None, order: Order) -> Ledger:
    """Serve requests in this order, to the last one; returns what became of each."""
    simulation = Simulation()
    world = PoolWorld(simulation, bounds=PATIENT, order=order)
    world.add_servers(engine.kind(), 1)
    world.feed(requests, None if predicted is None else predicted.tolist())
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
def full_pace(engine: Engine) -> Pace:
    """Measure what an engine does while its batch is full, under a pilot seed and first come, first served."""
    count = max(_ROUNDS * engine.sequences, _LEAST_REQUESTS)
    ledger = run(engine, engine.demand(PILOT, count, inf).requests, None, fcfs.order)
    ended = ledger.column("ended_at")
    order = np.argsort(ended, kind="stable")[int(_FROM * count) : int(_TO * count)]
    held = (ended - ledger.column("admitted_at"))[order]
    per_token, fixed = np.polyfit(ledger.column("output_tokens")[order], held, 1)
    rate = (len(order) - 1) / float(ended[order[-1]] - ended[order[0]])
    return Pace(rate, ServiceTime(max(float(fixed), 0.0), float(per_token)))
