"""Lengths from the history of each application: a moving average and quantiles of its last answers.

Needs no training, costs microseconds, and is what every better predictor falls back to (implementation 1 of ssjf.md
§3.1). It cannot tell two requests of one application apart.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isnan, nan

from trimtab.decide.queueing.bounded import Bounded
from trimtab.decide.queueing.lengths import Constant, Features, LengthPredictor, Outcome, Prediction

_LEVELS = (0.5, 0.9)

Label = tuple[int, bool]
"""Tokens, and whether the answer was cut off there. At equal tokens a full answer sorts before one that was cut off."""


def survival_quantiles(labels: Sequence[Label], levels: Sequence[float]) -> tuple[float, ...]:
    """Return quantiles of lengths of which some are only known to be longer than where they were cut off.

    The product-limit estimate of Kaplan and Meier (1958). Where so many were cut off that a quantile lies beyond all
    that was seen, the longest that was seen is returned, which is a lower bound.

    Args:
        labels: sorted ascending; not empty.
        levels: ascending, each between 0 and 1.
    """
    quantiles: list[float] = []
    alive, remaining = 1.0, len(labels)
    wanted = iter(levels)
    level = next(wanted, nan)
    for tokens, cut_off in labels:
        if not cut_off:
            alive *= 1.0 - 1.0 / remaining
        remaining -= 1
        while 1.0 - alive >= level - 1e-12:
            quantiles.append(float(tokens))
            level = next(wanted, nan)
    longest = float(labels[-1][0])
    return (*quantiles, *(longest for _ in range(len(levels) - len(quantiles))))


@dataclass(slots=True)
class _Application:
    mean: float = nan
    newest: deque[Label] = field(default_factory=deque)
    ordered: list[Label] = field(default_factory=list)
    cut_off: int = 0
    quantiles: tuple[float, ...] | None = None


def _quantiles(application: _Application) -> tuple[float, ...]:
    """Return the quantiles of an application; without cut-off answers the product-limit estimate is plain ranks."""
    ordered = application.ordered
    if application.cut_off:
        return survival_quantiles(ordered, _LEVELS)
    return tuple(float(ordered[ceil(level * len(ordered)) - 1][0]) for level in _LEVELS)


@dataclass(frozen=True, slots=True)
class HistoryPolicy:
    """How much of an application's past counts.

    Attributes:
        window: answers that its quantiles are taken over.
        weight: of the newest answer in its moving average.
        least: answers before its own history is used rather than that of all together.
        most: applications that are remembered.
    """

    window: int = 256
    weight: float = 0.05
    least: int = 5
    most: int = 10_000


class TenantHistory:
    """Predicts from the last answers of the same application and model.

    Args:
        policy: how much of the past counts.
        start: what to predict before anything has ended.
    """

    __slots__ = ("_all", "_applications", "_policy", "_start")

    version = "tenant-history"

    def __init__(self, policy: HistoryPolicy | None = None, start: LengthPredictor | None = None) -> None:
        self._policy = policy or HistoryPolicy()
        self._start = start or Constant()
        self._all = _Application()
        self._applications: Bounded[tuple[str, str], _Application] = Bounded(self._policy.most, _Application)

    def predict(self, batch: Sequence[Features]) -> list[Prediction]:
        """Return what each request's application did lately."""
        return [self._predict(request) for request in batch]

    def observe(self, request: Features, outcome: Outcome) -> None:
        """Remember an answer, one that was cut off only as a bound on its length."""
        self._remember(self._all, outcome)
        self._remember(self._applications.touch((request.model, request.tenant)), outcome)

    def _predict(self, request: Features) -> Prediction:
        application = self._applications.get((request.model, request.tenant))
        if application is None or len(application.ordered) < self._policy.least:
            application = self._all
        if not application.ordered:
            return self._start.predict([request])[0]
        if application.quantiles is None:
            application.quantiles = _quantiles(application)
        p50, p90 = application.quantiles
        return Prediction(p50, p90, p50 if isnan(application.mean) else application.mean).capped(request.max_tokens)

    def _remember(self, application: _Application, outcome: Outcome) -> None:
        label = (outcome.tokens, not outcome.exact)
        application.quantiles = None
        application.newest.append(label)
        insort(application.ordered, label)
        application.cut_off += label[1]
        if len(application.newest) > self._policy.window:
            oldest = application.newest.popleft()
            application.cut_off -= oldest[1]
            del application.ordered[bisect_left(application.ordered, oldest)]
        if outcome.exact:
            first = isnan(application.mean)
            step = 1.0 if first else self._policy.weight
            application.mean = step * outcome.tokens + (0.0 if first else (1.0 - step) * application.mean)
