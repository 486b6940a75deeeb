"""What is not known, drawn once for each seed: which requests come, how long answers are, how fast the engine truly is.

Policies and replica counts are compared on the same draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import ceil, nan
from pathlib import Path

import numpy as np
from scipy import stats

from trimtab.decide.queueing.drift import DriftPolicy, gate
from trimtab.decide.queueing.rank import kendall_tau
from trimtab.learn.length_replay import foresee
from trimtab.learn.shipped import predictor_from
from trimtab.sim.profile import FrontEnd, IterationCost, Profile
from trimtab.sim.streams import stream
from trimtab.sim.whatif.case import Level
from trimtab.workload.catalog import find_traces
from trimtab.workload.generated import Generated
from trimtab.workload.length_log import examples_of
from trimtab.workload.request import Trace, TraceRequest

BLOCK_SECONDS = 30.0
"""Stretches of the trace that stay together when it is drawn anew, so that bursts stay bursts."""

UNMEASURED_ERROR = 0.10
"""Median error that is assumed of a profile that states none [design]; twice that where it is extrapolated."""

_DRAWN_SECONDS = 3600.0
_NOT_SECONDS = frozenset({"split_decodes", "sharpness"})


@dataclass(frozen=True, slots=True)
class Requests:
    """A recorded trace with the predictions that a predictor made as it went on.

    Attributes:
        predicted: Tokens of each answer as predicted at its arrival; None without, e.g. where the drift guard withholds
            them.
        tau: Kendall's tau between predicted and true lengths; NaN without predictions.
    """

    trace: Trace
    predicted: tuple[float, ...] | None
    tau: float


@lru_cache(maxsize=2)
def recorded(name: str, data: Path | None, *, predict: bool = True) -> Requests:
    """Read a trace, and let the shipped predictor foresee its lengths; drawn traces are an hour long.

    Args:
        name: Of the trace, or its file.
        data: The folder of data sets.
        predict: Whether predictions are needed.

    Raises:
        TraceError: There is no such trace, or a fault in it.
    """
    entry = find_traces(data).resolve(name)
    drawn = isinstance(entry, Generated) or entry.format.name == "servegen"
    seconds = _DRAWN_SECONDS if drawn else float("inf")
    trace = entry.load(seed=0, start_seconds=0.0, duration_seconds=seconds)
    if not predict:
        return Requests(trace, None, nan)
    examples = examples_of(trace)
    predictions = [prediction.p50 for prediction in foresee(predictor_from(), examples)]
    tau = kendall_tau(predictions, [request.output_tokens for request in trace.requests])
    useful = gate(tau, DriftPolicy()) == "ssjf"
    return Requests(trace, tuple(predictions) if useful else None, float(tau))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of one draw."""

    request: TraceRequest
    level: str
    predicted: float | None


def draw_requests(source: Requests, levels: Sequence[Level], seed: int, load: float, seconds: float) -> list[Arrival]:
    """Draw a load like the recorded one: its stretches of 30 s in random order, with replacement, sped up by `load`.

    A higher load of the same seed begins with the same requests, closer together.

    Args:
        source: What was recorded.
        levels: With their shares.
        seed: Of this draw.
        load: Times the recorded rate.
        seconds: How long requests arrive.
    """
    blocks = _blocks(source.trace)
    order = stream(seed, "requests", "stretches").integers(0, len(blocks), ceil(seconds * load / BLOCK_SECONDS))
    bounds = np.cumsum([level.share for level in levels])[:-1]
    lots = stream(seed, "requests", "levels")
    drawn: list[Arrival] = []
    for place, block in enumerate(order.tolist()):
        names = np.searchsorted(bounds, lots.random(len(blocks[block])), side="right").tolist()
        start = place * BLOCK_SECONDS
        for (number, offset), level in zip(blocks[block], names, strict=True):
            at = (start + offset) / load
            if at < seconds:
                request = replace(source.trace.requests[number], at_seconds=at)
                predicted = None if source.predicted is None else source.predicted[number]
                drawn.append(Arrival(request, levels[level].name, predicted))
    return drawn


def _blocks(trace: Trace) -> list[list[tuple[int, float]]]:
    """Cut a trace into stretches: for each its requests by number, with their times in it; a last part is left out."""
    count = max(1, int(trace.duration_seconds // BLOCK_SECONDS))
    blocks: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for number, request in enumerate(trace.requests):
        block = int(request.at_seconds // BLOCK_SECONDS)
        if block < count:
            blocks[block].append((number, request.at_seconds - block * BLOCK_SECONDS))
    return blocks


@dataclass(frozen=True, slots=True)
class Speed:
    """How many times as long as the profile says iterations and the front end truly take, in one draw."""

    iteration: float = 1.0
    front_end: float = 1.0

    def cost(self, cost: IterationCost) -> IterationCost:
        """Return the cost of iterations at this speed."""
        return replace(
            cost,
            **{f.name: getattr(cost, f.name) * self.iteration for f in fields(cost) if f.name not in _NOT_SECONDS},
        )

    def front(self, front: FrontEnd) -> FrontEnd:
        """Return the front end at this speed."""
        return replace(front, **{f.name: getattr(front, f.name) * self.front_end for f in fields(front)})

    def of(self, profile: Profile) -> Profile:
        """Return the profile at this speed."""
        return replace(profile, iteration=self.cost(profile.iteration), front_end=self.front(profile.front_end))


def draw_speed(profile: Profile, seed: int) -> Speed:
    """Draw how far off the profile is: log-normal factors whose median error is the one that the profile states."""
    dice = stream(seed, "profile", "error")
    errors = stated_errors(profile)
    factors = [float(np.exp(dice.normal(0, np.log1p(error) / _HALF_NORMAL_MEDIAN))) for error in errors]
    return Speed(*factors)


_HALF_NORMAL_MEDIAN = float(stats.norm.ppf(0.75))


def stated_errors(profile: Profile) -> tuple[float, float]:
    """Return the median relative errors of a profile: of iterations, and of its front end."""
    assumed = UNMEASURED_ERROR * (2 if profile.extrapolated else 1)
    iteration = max(profile.errors.time_between_tokens, profile.errors.e2e) or assumed
    return iteration, profile.errors.ttft or assumed
