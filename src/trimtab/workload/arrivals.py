"""Arrivals that are drawn: Poisson, bursty renewal (gamma) and Markov-modulated Poisson processes.

All of them are stationary: what is drawn for a stretch of time looks like a stretch of a process that has gone on for
ever, so that the expected number of arrivals is exactly rate x time, however bursty they are and however short the
stretch is.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Arrivals(Protocol):
    """A stationary process of arrivals."""

    @property
    def rate(self) -> float:
        """Mean arrivals per second."""

    def times(self, rng: np.random.Generator, seconds: float) -> Floats:
        """Draw the arrivals of a stretch of time; ascending, from 0 to below `seconds`."""

    def scaled(self, factor: float) -> "Arrivals":
        """Return a process as bursty, at so many times the rate."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Arrivals that know nothing of each other.

    Attributes:
        rate: Mean arrivals per second.

    Raises:
        ValueError: The rate is not above 0.
    """

    rate: float

    def __post_init__(self) -> None:
        _above_zero(rate=self.rate)

    def times(self, rng: np.random.Generator, seconds: float) -> Floats:
        """See `Arrivals`."""
        return np.sort(rng.uniform(0.0, seconds, rng.poisson(self.rate * seconds)))

    def scaled(self, factor: float) -> "Poisson":
        """See `Arrivals`."""
        return Poisson(self.rate * factor)


@dataclass(frozen=True, slots=True)
class Gamma:
    """A renewal process with gamma-distributed gaps.

    Attributes:
        rate: Mean arrivals per second.
        cv: Standard deviation of the gaps over their mean: 1 is Poisson, above it bursty, below it regular.

    Raises:
        ValueError: Rate or cv is not above 0.
    """

    rate: float
    cv: float

    def __post_init__(self) -> None:
        _above_zero(rate=self.rate, cv=self.cv)

    def times(self, rng: np.random.Generator, seconds: float) -> Floats:
        """See `Arrivals`."""
        shape = 1 / self.cv**2
        scale = self.cv**2 / self.rate
        # What is left of the gap under way: a uniform part of a gap that was met in proportion to its length.
        times = np.array([rng.gamma(shape + 1, scale) * rng.random()])
        while times[-1] < seconds:
            count = int((seconds - times[-1]) * self.rate * 1.2) + 16
            times = np.concatenate([times, times[-1] + np.cumsum(rng.gamma(shape, scale, count))])
        return times[times < seconds]

    def scaled(self, factor: float) -> "Gamma":
        """See `Arrivals`."""
        return Gamma(self.rate * factor, self.cv)


@dataclass(frozen=True, slots=True)
class MarkovModulated:
    """A Poisson process whose rate jumps between states (MMPP), each held for an exponential time.

    From one state the process goes to the next one of the list, and from the last to the first.

    Attributes:
        rates: Arrivals per second in each state.
        dwell_seconds: How long each state is held on average.

    Raises:
        ValueError: There are not two states or more, with a time each, or nothing ever arrives.
    """

    rates: tuple[float, ...]
    dwell_seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rates) < 2 or len(self.rates) != len(self.dwell_seconds):  # noqa: PLR2004 - two states
            raise ValueError(f"{len(self.rates)} rates and {len(self.dwell_seconds)} dwell times; two or more of each")
        for dwell in self.dwell_seconds:
            _above_zero(dwell_seconds=dwell)
        if min(self.rates) < 0:
            raise ValueError(f"rates must not be below 0, got {min(self.rates):g}")
        _above_zero(rate=self.rate)

    @property
    def rate(self) -> float:
        """Mean arrivals per second."""
        weighted = sum(rate * dwell for rate, dwell in zip(self.rates, self.dwell_seconds, strict=True))
        return weighted / sum(self.dwell_seconds)

    def times(self, rng: np.random.Generator, seconds: float) -> Floats:
        """See `Arrivals`."""
        dwell = np.array(self.dwell_seconds)
        state = int(rng.choice(len(dwell), p=dwell / dwell.sum()))
        changes, states = [0.0], []
        while changes[-1] < seconds:
            states.append(state)
            changes.append(changes[-1] + rng.exponential(dwell[state]))
            state = (state + 1) % len(dwell)
        changes[-1] = seconds
        stretches = [
            rng.uniform(start, end, rng.poisson(self.rates[held] * (end - start)))
            for held, (start, end) in zip(states, pairwise(changes), strict=True)
        ]
        return np.sort(np.concatenate(stretches))

    def scaled(self, factor: float) -> "MarkovModulated":
        """See `Arrivals`; the states are held as long as before."""
        return MarkovModulated(tuple(rate * factor for rate in self.rates), self.dwell_seconds)


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not (isfinite(value) and 0 < value < inf):
            raise ValueError(f"{name} must be a number above 0, got {value:g}")
