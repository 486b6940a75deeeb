"""What is not known, drawn once for each seed: which requests come, how long answers are, how fast the engine truly is.

Policies and replica counts are compared on the same draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import ceil
from pathlib import Path

import numpy as np
from scipy import stats

from trimtab.sim.profile import WIDER, FrontEnd, IterationCost, Profile
from trimtab.sim.streams import stream
from trimtab.sim.whatif.case import Level
from trimtab.sim.whatif.foresight import Foresight, foresight_of
from trimtab.workload.catalog import find_traces
from trimtab.workload.generated import Generated
from trimtab.workload.request import Trace, TraceRequest

BLOCK_SECONDS = 30.0
"""Stretches of the trace that stay together when it is drawn anew, so that bursts stay bursts."""

UNMEASURED_ERROR = 0.10
"""Median error that is assumed of a profile that states none [design]; twice that where it is extrapolated."""

_DRAWN_SECONDS = 3600.0
_NOT_SECONDS = frozenset({"split_decodes", "sharpness"})


@dataclass(frozen=True, slots=True)
class Requests:
    """A recorded trace with what the queue is told of its lengths.

    Attributes:
        foresight: Predictions as they would have been made; None where no policy uses them.
    """

    trace: Trace
    foresight: Foresight | None = None

    def predicted(self, number: int) -> float | None:
        """Return the tokens of an answer as predicted at its arrival, None without a prediction."""
        return None if self.foresight is None else self.foresight.predicted[number]


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
    return Requests(trace, foresight_of(trace) if predict else None)


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
                drawn.append(Arrival(request, levels[level].name, source.predicted(number)))
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
    assumed = UNMEASURED_ERROR * (WIDER if profile.extrapolated else 1)
    iteration = max(profile.errors.time_between_tokens, profile.errors.e2e) or assumed
    return iteration, profile.errors.ttft or assumed
