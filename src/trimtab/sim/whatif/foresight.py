"""The lengths that the shipped predictor foresees in a trace, with nothing that production would not know.

Weights that were trained on the trace's earlier part would look better there than they are. So each request of that
part gets a prediction that was made, in the part kept back, for an answer of about its length. And the drift guard goes
along request by request, with what had ended by then: while it does not trust the predictor there is no prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from trimtab.decide.queueing.drift import DriftGuard
from trimtab.decide.queueing.lengths import Example, Prediction
from trimtab.decide.queueing.rank import kendall_tau
from trimtab.learn.length_parts import parts_of
from trimtab.learn.length_replay import foresee, in_time
from trimtab.learn.lengths import Source
from trimtab.learn.shipped import predictor_from, read_weights
from trimtab.sim.streams import stream
from trimtab.workload.length_log import examples_of
from trimtab.workload.request import Trace

_NEIGHBORS = 25  # answers of the part kept back that are about as long


@dataclass(frozen=True, slots=True)
class Foresight:
    """What a queue would have been told of a trace's lengths.

    Attributes:
        predicted: Tokens of each answer as predicted at its arrival; None where the guard withheld it.
        tau: Kendall's tau between predicted and true lengths, on requests that the weights have not seen.
        trusted: Part of the requests for which there was a prediction.
        substituted: Whether the earlier part got predictions of the part kept back, because weights were trained on it.
    """

    predicted: tuple[float | None, ...]
    tau: float
    trusted: float
    substituted: bool


def foresight_of(trace: Trace) -> Foresight:
    """Foresee a trace with the shipped predictor and the drift guard of production."""
    examples = examples_of(trace)
    predictions = foresee(predictor_from(), examples)
    kept_back = parts_of(examples).judge
    seen = _was_seen(trace, examples)
    if seen:
        predictions = substituted(examples, predictions, kept_back)
    told = guarded(examples, predictions)
    judged = kept_back if seen else range(len(examples))
    trusted = sum(length is not None for length in told) / max(1, len(told))
    return Foresight(told, _tau(examples, predictions, judged), trusted, seen)


def _was_seen(trace: Trace, examples: Sequence[Example]) -> bool:
    digest = Source(trace.name, examples).digest
    return any(str(source.get("digest")) == digest for source in read_weights().get("provenance", ()))


def substituted(
    examples: Sequence[Example], predictions: Sequence[Prediction], kept_back: Sequence[int]
) -> list[Prediction]:
    """Give each request before the part kept back a prediction made there for an answer of about its length.

    The nearest 25 answers by length are candidates; which one is taken depends on the request's number alone.
    """
    by_length = sorted(kept_back, key=lambda index: (examples[index].outcome.tokens, index))
    lengths = np.array([examples[index].outcome.tokens for index in by_length])
    result = list(predictions)
    if not by_length:
        return result
    dice = stream(0, "predictions", "substitutes").random(len(examples))
    width = min(_NEIGHBORS, len(by_length))
    for index in range(kept_back[0]):
        middle = int(np.searchsorted(lengths, examples[index].outcome.tokens))
        first = min(max(0, middle - width // 2), len(by_length) - width)
        result[index] = predictions[by_length[first + int(dice[index] * width)]]
    return result


def guarded(examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[float | None, ...]:
    """Return the predictions that the drift guard lets through, knowing only what had ended by each arrival."""
    guard, upcoming = DriftGuard(), iter(predictions)

    def arrive(example: Example) -> tuple[Prediction, bool]:
        del example
        return next(upcoming), guard.order == "ssjf"

    def end(example: Example, told: tuple[Prediction, bool]) -> None:
        guard.observe(replace(example.outcome, predicted=told[0]))

    return tuple(prediction.p50 if trusted else None for prediction, trusted in in_time(examples, arrive, end))


def _tau(examples: Sequence[Example], predictions: Sequence[Prediction], judged: Sequence[int]) -> float:
    if not judged:
        return nan
    lengths = [examples[index].outcome.tokens for index in judged]
    return float(kendall_tau([predictions[index].p50 for index in judged], lengths))
