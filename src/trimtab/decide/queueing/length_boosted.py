"""Gradient boosting on what is known of a request, from weights that were trained elsewhere.

Three ensembles (median, 90th percentile, mean) predict how far a request lies from what requests like it did lately,
as a factor. Whatever service it watches, the history of that service sets the scale; see `length_ladder`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp, inf, log, nan
from typing import Any

import numpy as np

from trimtab.decide.queueing import length_ladder, length_text
from trimtab.decide.queueing.length_ladder import Ladder
from trimtab.decide.queueing.length_trees import Rows, forest_from
from trimtab.decide.queueing.lengths import UNLIMITED, Features, NoPrediction, Outcome, Prediction

FORMAT = 1
"""Version of the layout of weights."""

METADATA = ("log_input_tokens", "log_max_tokens", "turn")
EMBEDDING = ("embedding_score",)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "history": length_ladder.COLUMNS,
    "metadata": METADATA,
    "lexical": length_text.COLUMNS,
    "embedding": EMBEDDING,
}
"""The columns that each group of features adds, in order."""

HEADS = ("p50", "p90", "mean")

UNKNOWN = Prediction(nan, nan, nan)
"""The answer for a request whose text is needed and missing; not plausible, so that `Guarded` replaces it."""

Encoder = Callable[[Sequence[str]], Rows]
"""Turns truncated prompts into vectors, shape (prompts, dimensions). May raise `TimeoutError`; runs outside of here."""

_TARGET_MISSES = 0.1
_STEP = 0.01
_FURTHEST = 3.0
_MEAN_STEP = 0.002
_FURTHEST_SCALE = 20.0
_FURTHEST_ERROR = 10.0


def columns_of(groups: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of groups of features, in order."""
    return tuple(column for group in groups for column in GROUPS[group])


def row_of(request: Features, history: Sequence[float], groups: Sequence[str], score: float = nan) -> list[float]:
    """Return one request's row of features.

    Args:
        request: what is known of it.
        history: what `Ladder.look` returned for it.
        groups: which features, in order.
        score: what the head of an embedding gives, for the group of that name.
    """
    row: list[float] = []
    for group in groups:
        match group:
            case "history":
                row += history
            case "metadata":
                row += _metadata(request)
            case "lexical":
                row += length_text.lexical(request.text) if request.text is not None else [nan] * len(GROUPS[group])
            case _:
                row.append(score)
    return row


def _metadata(request: Features) -> tuple[float, float, float]:
    limit = nan if request.max_tokens >= UNLIMITED else log(max(1, request.max_tokens))
    return log(max(1, request.input_tokens)), limit, nan if request.turn is None else float(request.turn)


class Calibration:
    """Keeps p90 and mean honest on a service that nobody trained on; neither changes an order by p50.

    After each answer p90 moves a little: up where the answer was longer, down where it was not, so that over time one
    in ten is longer (adaptive conformal inference, Gibbs and Candès 2021, on the logarithm). The mean follows what came
    over what was predicted, so that sums of means estimate a queue's work without bias [design].

    Args:
        shift: what is added to the logarithm of p90 at first; from split conformal prediction on held-out requests.
        usual_mean: the mean to expect at first, in tokens.
    """

    __slots__ = ("_usual_mean", "mean_scale", "shift")

    def __init__(self, shift: float, usual_mean: float) -> None:
        self.shift = shift
        self.mean_scale = 1.0
        self._usual_mean = usual_mean

    def observe(self, tokens: int, predicted: Prediction, max_tokens: int) -> None:
        """Learn from an answer of known length; a prediction that was capped says nothing about the one beneath."""
        if predicted.p90 < max_tokens:
            missed = 1.0 if tokens > predicted.p90 else 0.0
            self.shift = _bounded(self.shift + _STEP * (missed - _TARGET_MISSES), -_FURTHEST, _FURTHEST)
        if 0.0 < predicted.mean < max_tokens:
            # In proportion to the error over the usual mean, not over this one: long answers weigh what they cost.
            self._usual_mean += _MEAN_STEP * (predicted.mean - self._usual_mean)
            error = _bounded((tokens - predicted.mean) / max(1.0, self._usual_mean), -_FURTHEST_ERROR, _FURTHEST_ERROR)
            scale = self.mean_scale * (1.0 + _MEAN_STEP * error)
            self.mean_scale = _bounded(scale, 1.0 / _FURTHEST_SCALE, _FURTHEST_SCALE)


class Boosted:
    """Predicts with trained trees on top of a history that it keeps itself.

    Args:
        weights: as the training wrote them.
        encoder: what the weights' embedding was trained with; needed only where they have one.

    Raises:
        ValueError: weights of another layout, damaged ones, or an encoder that is missing.
    """

    __slots__ = ("_calibration", "_encoder", "_forest", "_groups", "_head", "_ladder", "_needs_text", "version")

    def __init__(self, weights: Mapping[str, Any], encoder: Encoder | None = None) -> None:
        _check(weights, encoder)
        self._groups: tuple[str, ...] = tuple(weights["groups"])
        columns = len(columns_of(self._groups))
        self._forest = forest_from([weights["heads"][name] for name in HEADS], columns)
        self._ladder = Ladder(float(weights["start_level"]))
        self._calibration = Calibration(float(weights["p90_shift"]), exp(float(weights["start_level"])))
        self._encoder = encoder
        self._head = _linear(weights.get("embedding"))
        self._needs_text = "lexical" in self._groups or "embedding" in self._groups
        self.version: str = weights["name"]

    def predict(self, batch: Sequence[Features]) -> list[Prediction]:
        """Return one prediction per request; `UNKNOWN` for one whose text is needed and missing.

        Raises:
            NoPrediction: the encoder gave something else than one vector per prompt.
        """
        if not batch:
            return []
        views = [self._ladder.look(request) for request in batch]
        scores = self._scores(batch)
        pairs = zip(batch, views, scores, strict=True)
        rows = np.array([row_of(request, view.columns, self._groups, score) for request, view, score in pairs])
        return [
            self._prediction(request, view.base, *logarithms)
            for request, view, logarithms in zip(batch, views, self._forest.evaluate(rows).tolist(), strict=True)
        ]

    def observe(self, request: Features, outcome: Outcome) -> None:
        """Count an answer whose true length is known."""
        self._ladder.add(request, outcome)
        if outcome.exact and outcome.predicted is not None and outcome.predicted.plausible:
            self._calibration.observe(outcome.tokens, outcome.predicted, request.max_tokens)

    def _prediction(self, request: Features, base: float, p50: float, p90: float, mean: float) -> Prediction:
        if self._needs_text and request.text is None:
            return UNKNOWN
        median = _tokens(base + p50)
        upper = max(median, _tokens(base + p90 + self._calibration.shift))
        return Prediction(median, upper, self._calibration.mean_scale * _tokens(base + mean)).capped(request.max_tokens)

    def _scores(self, batch: Sequence[Features]) -> list[float]:
        if self._encoder is None or self._head is None:
            return [nan] * len(batch)
        weights, bias = self._head
        vectors = np.asarray(self._encoder([length_text.truncate(request.text or "") for request in batch]))
        if vectors.shape != (len(batch), len(weights)):
            raise NoPrediction(f"the encoder gave shape {vectors.shape} for {len(batch)} prompts of {len(weights)}")
        scores: list[float] = (vectors @ weights + bias).tolist()
        return scores


def _bounded(value: float, least: float, most: float) -> float:
    return min(most, max(least, value))


_LONGEST_LOG = log(UNLIMITED)


def _tokens(logarithm: float) -> float:
    """Return a length of at least one token; the trees are bounded, damaged ones would overflow."""
    return exp(_bounded(logarithm, 0.0, _LONGEST_LOG)) if abs(logarithm) < inf else nan


def _linear(plain: Mapping[str, Any] | None) -> tuple[Rows, float] | None:
    return None if plain is None else (np.array(plain["weights"], dtype=np.float64), float(plain["bias"]))


def _check(weights: Mapping[str, Any], encoder: Encoder | None) -> None:
    missing = [key for key in ("format", "name", "groups", "heads", "start_level", "p90_shift") if key not in weights]
    if missing:
        raise ValueError(f"weights without {', '.join(missing)}")
    if weights["format"] != FORMAT:
        raise ValueError(f"weights of format {weights['format']}; this version reads format {FORMAT}")
    unknown = [group for group in weights["groups"] if group not in GROUPS]
    if unknown:
        raise ValueError(f"weights with unknown features {', '.join(unknown)}; known: {', '.join(GROUPS)}")
    if "embedding" in weights["groups"] and (encoder is None or not weights.get("embedding")):
        raise ValueError("weights that need an encoder, and none was given")
    absent = [name for name in HEADS if name not in weights["heads"]]
    if absent:
        raise ValueError(f"weights without heads {', '.join(absent)}")
