"""True lengths beside what the shipped predictor said of them: real errors for experiments with ordering."""

from dataclasses import dataclass
from pathlib import Path

from trimtab.decide.queueing.lengths import Prediction
from trimtab.learn.length_parts import parts_of
from trimtab.learn.length_replay import foresee
from trimtab.learn.shipped import predictor_from
from trimtab.workload.length_log import Pace, examples_of
from trimtab.workload.request import Trace


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One request of a trace.

    Attributes:
        arrived_at: seconds after the start of the trace.
        input_tokens: tokens of its prompt.
        tokens: its true length.
        prediction: what was predicted of it, knowing only what had ended before it arrived.
    """

    arrived_at: float
    input_tokens: int
    tokens: int
    prediction: Prediction


def held_out(trace: Trace, weights: Path | None = None, pace: Pace | None = None) -> tuple[Foreseen, ...]:
    """Return the last 20 % of a trace, on which no weights that ship were trained, in order of arrival.

    The predictor's history is that of the whole trace before. Takes about 0.1 ms a request.

    Args:
        trace: a recording.
        weights: a file with weights; those that ship by default.
        pace: how long requests are taken to last, which decides what had ended by when.

    Raises:
        Problem: the weights cannot be read.
    """
    examples = examples_of(trace, pace)
    predictions = foresee(predictor_from(weights), examples)
    return tuple(
        Foreseen(
            arrived_at=examples[index].request.arrived_at,
            input_tokens=examples[index].request.input_tokens,
            tokens=examples[index].outcome.tokens,
            prediction=predictions[index],
        )
        for index in parts_of(examples).judge
    )
