"""How good predicted lengths are: rank, loss and coverage, over requests whose true length is known."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import nan

import numpy as np
import numpy.typing as npt

from trimtab.decide.queueing.drift import DriftGuard
from trimtab.decide.queueing.lengths import Example, Prediction
from trimtab.decide.queueing.rank import kendall_tau

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """How one predictor did on one part of one source.

    Attributes:
        requests: requests that were judged.
        censored: requests that were not, because they were cut off and their true length is unknown.
        tau: Kendall tau of p50 and the true length, ties counted 0.
        pinball_p50: mean pinball loss of p50, in tokens: half the mean absolute error.
        pinball_p90: mean pinball loss of p90, in tokens.
        coverage_p50: share of answers that were at most p50; 0.5 is right.
        coverage_p90: share of answers that were at most p90; 0.9 is right.
        bias: mean of the predicted mean over the mean of the true lengths, minus 1.
        ssjf_share: share of these requests at whose end the drift guard ordered by predicted length.
        order: what it orders by at the end.
    """

    requests: int
    censored: int
    tau: float
    pinball_p50: float
    pinball_p90: float
    coverage_p50: float
    coverage_p90: float
    bias: float
    ssjf_share: float
    order: str

    def fields(self) -> dict[str, float | int | str | None]:
        """Return the figures for JSON, rounded; what does not exist is None."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: float | str) -> float | int | str | None:
    if not isinstance(value, float):
        return value
    return None if value != value else round(value, 4)  # noqa: PLR0124 - NaN


def pinball(predicted: Floats, true: Floats, level: float) -> float:
    """Return the mean pinball loss of a predicted quantile.

    Args:
        predicted: the quantile of each request, in tokens.
        true: the true lengths.
        level: of the quantile, between 0 and 1.
    """
    short = true - predicted
    return float(np.maximum(level * short, (level - 1.0) * short).mean())


def score(examples: Sequence[Example], predictions: Sequence[Prediction], part: Sequence[int]) -> Scores:
    """Judge predictions on the requests of `part`; the drift guard sees all requests, in the order in which they ended.

    Args:
        examples: all requests of the source, sorted by arrival.
        predictions: what was said of each at its arrival.
        part: indices of the requests that judge.
    """
    known = [index for index in part if examples[index].outcome.exact]
    share, order = _guarded(examples, predictions, frozenset(part))
    censored = len(part) - len(known)
    if not known:
        return Scores(0, censored, nan, nan, nan, nan, nan, nan, share, order)
    true = np.array([examples[index].outcome.tokens for index in known], dtype=np.float64)
    p50, p90, mean = (
        np.array([getattr(predictions[index], name) for index in known], dtype=np.float64)
        for name in ("p50", "p90", "mean")
    )
    return Scores(
        requests=len(known),
        censored=censored,
        tau=kendall_tau(p50, true),
        pinball_p50=pinball(p50, true, 0.5),
        pinball_p90=pinball(p90, true, 0.9),
        coverage_p50=float((true <= p50).mean()),
        coverage_p90=float((true <= p90).mean()),
        bias=float(mean.mean() / true.mean() - 1.0),
        ssjf_share=share,
        order=order,
    )


def _guarded(examples: Sequence[Example], predictions: Sequence[Prediction], part: frozenset[int]) -> tuple[float, str]:
    guard = DriftGuard()
    ordered = 0
    for index in sorted(range(len(examples)), key=lambda index: examples[index].outcome.ended_at):
        guard.observe(replace(examples[index].outcome, predicted=predictions[index]))
        ordered += index in part and guard.order == "ssjf"
    return (ordered / len(part) if part else nan), guard.order
