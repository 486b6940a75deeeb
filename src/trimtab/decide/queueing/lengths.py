"""How long an answer will be, before it is generated: one interface for every predictor, and what keeps it safe.

A predictor sees a request at its arrival and answers with the median, the 90th percentile and the mean of the number
of tokens that will be generated. It learns from requests that ended. A wrong prediction costs waiting time, never the
quality of an answer, so nothing here may fail: `Guarded` caps every prediction at the request's own limit and falls
back to the history of its tenant where the better predictor breaks or is late (the specification, ssjf.md §3.1).
"""

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

BINS = (42, 141, 294, 503)
"""Where the published five-class predictor cuts lengths, in tokens; a bin contains its left edge [paper]."""

UNLIMITED = 2**31 - 1
"""`max_tokens` of a request that sets no limit."""


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of a request when it arrives.

    Attributes:
        input_tokens: tokens of its prompt.
        max_tokens: the most tokens it may generate; `UNLIMITED` where it sets no limit.
        tenant: the application or client that sent it, empty when unknown.
        model: what it asks for, empty when unknown.
        turn: how many answers came before it in its conversation; None when unknown.
        arrived_at: in seconds of the caller's clock.
        text: its prompt, or the truncated part that a predictor needs; never logged, never kept. None when a
            predictor may not see it.
    """

    input_tokens: int
    max_tokens: int = UNLIMITED
    tenant: str = ""
    model: str = ""
    turn: int | None = None
    arrived_at: float = 0.0
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended.

    Attributes:
        tokens: tokens that it generated.
        exact: whether it ended by itself. False for a stop at the token limit or an abort: its true length is then
            only known to be at least `tokens`, so it never counts as an example of that length.
        ended_at: in seconds of the caller's clock.
        predicted: what was predicted when it arrived, by which a predictor keeps its p90 honest; None when unknown.
    """

    tokens: int
    exact: bool = True
    ended_at: float = 0.0
    predicted: "Prediction | None" = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """How many tokens a request will generate: tokens, 0 <= p50 <= p90, and the mean."""

    p50: float
    p90: float
    mean: float

    @property
    def plausible(self) -> bool:
        """Whether these are numbers that a length can have."""
        return 0.0 <= self.p50 <= self.p90 < inf and 0.0 <= self.mean < inf

    def capped(self, max_tokens: int) -> "Prediction":
        """Return this prediction with nothing above what the request may generate."""
        if max(self.p90, self.p50, self.mean) <= max_tokens:
            return self
        return Prediction(min(self.p50, max_tokens), min(self.p90, max_tokens), min(self.mean, max_tokens))


@dataclass(frozen=True, slots=True)
class Example:
    """A request that ended, to learn from or to be judged by.

    Attributes:
        request: what was known when it arrived.
        outcome: how it ended.
        conversation: what it belongs to; parts of one conversation resemble each other. Empty when unknown.
    """

    request: Features
    outcome: Outcome
    conversation: str = ""


class LengthPredictor(Protocol):
    """Predicts the lengths of a few requests at once, and learns from those that ended.

    A predictor with a history is advanced in place by its one owner, like a `PoolQueue`; the same sequence of calls
    always gives the same predictions.
    """

    @property
    def version(self) -> str:
        """What made the prediction, for records and reasons."""
        ...

    def predict(self, batch: Sequence[Features]) -> list[Prediction]:
        """Return one prediction per request, in order, each capped at its `max_tokens`."""
        ...

    def observe(self, request: Features, outcome: Outcome) -> None:
        """Learn from a request that ended."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Predicts the same for every request, which makes shortest-first the same as first come, first served."""

    prediction: Prediction = Prediction(256.0, 512.0, 256.0)
    version: str = "constant"

    def predict(self, batch: Sequence[Features]) -> list[Prediction]:
        """Return the constant, capped."""
        return [self.prediction.capped(request.max_tokens) for request in batch]

    def observe(self, request: Features, outcome: Outcome) -> None:
        """Learn nothing."""


class NoPrediction(Exception):
    """A predictor has no answer: it failed, or it was not ready in time."""


_BREAKDOWNS = (NoPrediction, TimeoutError, OSError, ArithmeticError, LookupError, ValueError, TypeError)


class Guarded:
    """A predictor that always answers in range: what it does not know, its fallback does.

    No clock is read here. Whoever runs a slow predictor, e.g. an encoder on another device, gives it a deadline and
    lets it raise `TimeoutError`; the 20 ms of the specification are theirs to keep.

    Args:
        predictor: the better one, which may break.
        fallback: the one that may not; the history of each tenant in production.
    """

    __slots__ = ("_fallback", "_predictor", "fallbacks")

    def __init__(self, predictor: LengthPredictor, fallback: LengthPredictor) -> None:
        self._predictor = predictor
        self._fallback = fallback
        self.fallbacks = 0
        """Predictions that the fallback made."""

    @property
    def version(self) -> str:
        """The version of the better one."""
        return self._predictor.version

    def predict(self, batch: Sequence[Features]) -> list[Prediction]:
        """Return one prediction per request, capped; those that are missing or impossible come from the fallback."""
        try:
            predictions = self._predictor.predict(batch)
        except _BREAKDOWNS:
            predictions = []
        if len(predictions) != len(batch):
            self.fallbacks += len(batch)
            return self._capped(batch, self._fallback.predict(batch))
        broken = [index for index, prediction in enumerate(predictions) if not prediction.plausible]
        self.fallbacks += len(broken)
        for index, prediction in zip(broken, self._fallback.predict([batch[i] for i in broken]), strict=True):
            predictions[index] = prediction
        return self._capped(batch, predictions)

    def observe(self, request: Features, outcome: Outcome) -> None:
        """Let both learn; one that cannot learn from this request goes on without it."""
        self._fallback.observe(request, outcome)
        with suppress(*_BREAKDOWNS):
            self._predictor.observe(request, outcome)

    @staticmethod
    def _capped(batch: Sequence[Features], predictions: Sequence[Prediction]) -> list[Prediction]:
        pairs = zip(batch, predictions, strict=True)
        return [prediction.capped(request.max_tokens) for request, prediction in pairs]


def bin_of(tokens: float, edges: Sequence[float] = BINS) -> int:
    """Return the class of a length: 0 below the first edge, `len(edges)` from the last one on."""
    return bisect_right(edges, tokens)
