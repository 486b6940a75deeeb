"""Requests as traces record them, and what can be said of many of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

BLOCK_TOKENS = 512
"""Tokens that one prefix block of a trace covers (the block size of the Mooncake traces)."""

MAX_TOKENS = 10_000_000
"""More tokens than this in one request are taken for a damaged file."""

MAX_SECONDS = 10 * 366 * 86_400.0
"""An arrival later than this (ten years) is taken for a damaged file."""


class MediaKind(StrEnum):
    """What a request carries besides text."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class Media:
    """One picture, sound or film of a request.

    Attributes:
        kind: what it is.
        tokens: what it costs the model, in tokens; part of the request's `input_tokens`.
    """

    kind: MediaKind
    tokens: int


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace.

    Attributes:
        at_seconds: time of arrival, in seconds after the start of the trace.
        input_tokens: tokens of the prompt, media included; at least 1.
        output_tokens: tokens that the model answered with, reasoning included; at least 1.
        blocks: ids of the prompt's prefix blocks of `BLOCK_TOKENS` tokens; equal ids mean equal text. Empty where the
            trace does not say.
        client: who sent it; empty where the trace does not say.
        reasoning_tokens: the part of `output_tokens` that is reasoning.
        media: what the prompt carries besides text.
    """

    at_seconds: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    client: str = ""
    reasoning_tokens: int = 0
    media: tuple[Media, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A named sequence of requests, ordered by time of arrival.

    Attributes:
        name: what the catalog calls it.
        source: the file it was read from.
        requests: the requests, sorted by `at_seconds`.
        duration_seconds: how long the recording lasts; at least the last arrival.
        notes: what the reader wants a person to know, one sentence each.
    """

    name: str
    source: str
    requests: tuple[TraceRequest, ...]
    duration_seconds: float
    notes: tuple[str, ...] = ()

    def window(self, start_seconds: float, duration_seconds: float) -> "Trace":
        """Return the part from `start_seconds` on, `duration_seconds` long, with times counted from its start."""
        end_seconds = min(start_seconds + duration_seconds, self.duration_seconds)
        inside = tuple(
            replace(request, at_seconds=request.at_seconds - start_seconds)
            for request in self.requests
            if start_seconds <= request.at_seconds < start_seconds + duration_seconds
        )
        return replace(self, requests=inside, duration_seconds=max(0.0, end_seconds - start_seconds))


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """What a trace looks like from afar.

    Attributes:
        requests: how many there are.
        duration_seconds: how long they arrive.
        requests_per_second: the mean rate of arrivals.
        interarrival_cv: standard deviation over mean of the gaps between arrivals; 1 for a Poisson process.
        input_tokens: mean, median and 99th percentile.
        output_tokens: mean, median and 99th percentile.
        reused_prefix_tokens_fraction: the part of all input tokens in leading prefix blocks seen earlier.
        media_tokens_fraction: the part of all input tokens that are pictures, sounds and films.
        reasoning_tokens_fraction: the part of all output tokens that is reasoning.
    """

    requests: int
    duration_seconds: float
    requests_per_second: float
    interarrival_cv: float
    input_tokens: tuple[float, float, float]
    output_tokens: tuple[float, float, float]
    reused_prefix_tokens_fraction: float
    media_tokens_fraction: float
    reasoning_tokens_fraction: float


def statistics_of(trace: Trace) -> TraceStatistics:
    """Describe `trace`; it must hold at least one request."""
    requests = trace.requests
    inputs = sum(request.input_tokens for request in requests)
    return TraceStatistics(
        requests=len(requests),
        duration_seconds=trace.duration_seconds,
        requests_per_second=len(requests) / trace.duration_seconds if trace.duration_seconds else math.nan,
        interarrival_cv=_variation([b.at_seconds - a.at_seconds for a, b in pairwise(requests)]),
        input_tokens=_spread([request.input_tokens for request in requests]),
        output_tokens=_spread([request.output_tokens for request in requests]),
        reused_prefix_tokens_fraction=_reused_fraction(requests),
        media_tokens_fraction=sum(item.tokens for request in requests for item in request.media) / inputs,
        reasoning_tokens_fraction=sum(r.reasoning_tokens for r in requests) / sum(r.output_tokens for r in requests),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of an ascending sequence: the smallest value with `percent` at or below it.

    An empty sequence has none: the answer is NaN.
    """
    if not ordered:
        return math.nan
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[min(len(ordered), max(1, rank)) - 1]


def _spread(values: list[int]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return sum(ordered) / len(ordered), percentile(ordered, 50), percentile(ordered, 99)


def _variation(gaps: list[float]) -> float:
    if not gaps or sum(gaps) == 0:
        return math.nan
    mean = sum(gaps) / len(gaps)
    return math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean


def _reused_fraction(requests: Sequence[TraceRequest]) -> float:
    """Count tokens in leading blocks that an earlier request had, as a prefix cache without bound would."""
    seen: set[int] = set()
    reused = 0
    for request in requests:
        for position, block in enumerate(request.blocks):
            if block not in seen:
                break
            reused += min(BLOCK_TOKENS, request.input_tokens - position * BLOCK_TOKENS)
        seen.update(request.blocks)
    return reused / sum(request.input_tokens for request in requests)
