"""Traces that are drawn: arrivals of one law, lengths of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from trimtab.workload.arrivals import Arrivals, Floats
from trimtab.workload.fault import TraceError
from trimtab.workload.request import MAX_TOKENS, Trace, TraceRequest

MAX_REQUESTS = 5_000_000
"""More expected requests than this are refused: they would not fit into memory."""


class RequestLengths(Protocol):
    """Where lengths of prompts and answers come from."""

    def draw(self, rng: np.random.Generator, count: int) -> Sequence[tuple[int, int]]:
        """Draw (input tokens, output tokens) of `count` requests."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Lengths of recorded requests, prompt and answer of the same one together, drawn with replacement.

    Attributes:
        pairs: (input tokens, output tokens); at least one.
    """

    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, trace: Trace) -> "Observed":
        """The lengths of a trace."""
        return cls(tuple((request.input_tokens, request.output_tokens) for request in trace.requests))

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
        """See `RequestLengths`."""
        return [self.pairs[place] for place in rng.integers(0, len(self.pairs), count)]


@dataclass(frozen=True, slots=True)
class InverseCdf:
    """Tokens by the quantiles of their distribution, straight between them.

    Attributes:
        levels: Ascending from 0 to 1.
        tokens: At those levels, not descending, from 1 on.

    Raises:
        ValueError: They are not so.
    """

    levels: tuple[float, ...]
    tokens: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.tokens) or not self.tokens:
            raise ValueError(f"{len(self.levels)} levels and {len(self.tokens)} numbers of tokens")
        ends = (self.levels[0], self.levels[-1]) if len(self.levels) > 1 else (0.0, 1.0)
        if ends != (0.0, 1.0) or any(a >= b for a, b in pairwise(self.levels)):
            raise ValueError(f"levels must ascend from 0 to 1, got {self.levels}")
        if not 1 <= self.tokens[0] <= self.tokens[-1] <= MAX_TOKENS or any(a > b for a, b in pairwise(self.tokens)):
            raise ValueError(f"tokens must ascend from 1 or more to at most {MAX_TOKENS}, got {self.tokens}")

    @classmethod
    def evenly(cls, *tokens: float) -> "InverseCdf":
        """Quantiles at even levels: one is a constant, two a uniform law, three have the median in the middle."""
        return cls(tuple(float(level) for level in np.linspace(0, 1, len(tokens))), tokens)

    def at(self, levels: Floats) -> list[int]:
        """Numbers of tokens at any levels; uniform ones make it a draw."""
        return [round(value) for value in np.interp(levels, self.levels, self.tokens)]


@dataclass(frozen=True, slots=True)
class Independent:
    """Prompts and answers that know nothing of each other's length."""

    input_tokens: InverseCdf
    output_tokens: InverseCdf

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
        """See `RequestLengths`."""
        uniform = rng.random((count, 2))  # a row each, so that the n-th request does not depend on how many there are
        return list(zip(self.input_tokens.at(uniform[:, 0]), self.output_tokens.at(uniform[:, 1]), strict=True))


def draw_trace(
    arrivals: Arrivals,
    lengths: RequestLengths,
    *,
    seconds: float,
    arrivals_rng: np.random.Generator,
    lengths_rng: np.random.Generator,
    name: str = "drawn",
) -> Trace:
    """Draw a trace. Arrivals and lengths have a generator each, so that changing one law leaves the other's draws.

    Raises:
        TraceError: It would hold no request, or more than `MAX_REQUESTS`.
    """
    expected = arrivals.rate * seconds
    if expected > MAX_REQUESTS:
        raise TraceError(
            name, f"about {expected:,.0f} requests in {seconds:g} s; take a shorter stretch or a lower rate"
        )
    times = arrivals.times(arrivals_rng, seconds)
    if not len(times):
        raise TraceError(name, f"no request in {seconds:g} s; take a longer stretch, another seed or a higher rate")
    pairs = lengths.draw(lengths_rng, len(times))
    requests = tuple(TraceRequest(float(at), *pair) for at, pair in zip(times, pairs, strict=True))
    return Trace(name, name, requests, seconds)
