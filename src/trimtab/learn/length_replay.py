"""What a predictor would have said, request by request, knowing only what had ended by then."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from trimtab.decide.queueing.lengths import Example, LengthPredictor, Prediction

T = TypeVar("T")


def in_time(
    examples: Sequence[Example], arrive: Callable[[Example], T], end: Callable[[Example, T], None]
) -> Iterator[T]:
    """Go through arrivals and ends in the order in which they happened; an end goes before an arrival at its time.

    Args:
        examples: sorted by arrival.
        arrive: called for each arrival.
        end: called for each end, with what `arrive` returned.

    Yields:
        What `arrive` returned, in the order of arrivals.
    """
    ends = sorted(range(len(examples)), key=lambda index: examples[index].outcome.ended_at)
    noted: dict[int, T] = {}
    upcoming = iter(ends)
    ending = next(upcoming, None)
    for index, example in enumerate(examples):
        while ending is not None and examples[ending].outcome.ended_at <= example.request.arrived_at:
            if ending not in noted:
                break  # it ends at the moment of its own arrival
            end(examples[ending], noted.pop(ending))
            ending = next(upcoming, None)
        noted[index] = arrive(example)
        yield noted[index]


def foresee(predictor: LengthPredictor, examples: Sequence[Example]) -> list[Prediction]:
    """Return what `predictor` says at each arrival, while it learns from the requests that have ended by then.

    Args:
        predictor: advanced in place.
        examples: sorted by arrival.
    """

    def end(example: Example, predicted: Prediction) -> None:
        predictor.observe(example.request, replace(example.outcome, predicted=predicted))

    return list(in_time(examples, lambda example: predictor.predict([example.request])[0], end))
