"""The interface of length predictors: caps, classes, and what happens when a predictor breaks."""

from collections.abc import Sequence
from math import inf, nan

import pytest

from trimtab.decide.queueing.lengths import Constant, Features, Guarded, NoPrediction, Outcome, Prediction, bin_of

SMALL = Prediction(10.0, 20.0, 12.0)


class Scripted:
    """A predictor that answers, or raises, what it is told to."""

    version = "scripted"

    def __init__(self, answer: list[Prediction] | Exception) -> None:
        self.answer = answer
        self.observed: list[Outcome] = []

    def predict(self, batch: Sequence[Features]) -> list[Prediction]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return list(self.answer)

    def observe(self, request: Features, outcome: Outcome) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer
        self.observed.append(outcome)


@pytest.mark.parametrize(("tokens", "expected"), [(2, 0), (41, 0), (42, 1), (141, 2), (293, 2), (294, 3), (503, 4)])
def test_classes_contain_their_left_edge(tokens: int, expected: int) -> None:
    assert bin_of(tokens) == expected


def test_nothing_is_predicted_beyond_the_limit() -> None:
    assert Prediction(100.0, 300.0, 150.0).capped(120) == Prediction(100.0, 120, 120)
    assert SMALL.capped(20) is SMALL


@pytest.mark.parametrize(
    "prediction",
    [Prediction(nan, 1.0, 1.0), Prediction(2.0, 1.0, 1.0), Prediction(1.0, inf, 1.0), Prediction(-1.0, 1.0, 1.0)],
)
def test_impossible_predictions_are_recognized(prediction: Prediction) -> None:
    assert not prediction.plausible
    assert SMALL.plausible


def test_a_constant_is_capped_and_learns_nothing() -> None:
    constant = Constant(Prediction(5.0, 50.0, 9.0))
    constant.observe(Features(1), Outcome(1_000))
    assert constant.predict([Features(1), Features(1, max_tokens=7)]) == [
        Prediction(5.0, 50.0, 9.0),
        Prediction(5.0, 7, 7),
    ]


@pytest.mark.parametrize(
    "failure", [NoPrediction("gone"), TimeoutError(), ValueError(), ZeroDivisionError(), OSError(), []]
)
def test_a_predictor_that_fails_or_is_late_is_replaced_by_the_fallback(failure: Exception | list[Prediction]) -> None:
    guarded = Guarded(Scripted(failure), Constant(SMALL))
    assert guarded.predict([Features(1), Features(2, max_tokens=15)]) == [SMALL, Prediction(10.0, 15, 12.0)]
    assert guarded.fallbacks == 2


def test_only_the_impossible_answers_of_a_batch_are_replaced() -> None:
    good = Prediction(1.0, 2.0, 1.5)
    guarded = Guarded(Scripted([good, Prediction(nan, nan, nan)]), Constant(SMALL))
    assert guarded.predict([Features(1), Features(1)]) == [good, SMALL]
    assert guarded.fallbacks == 1


def test_a_good_predictor_is_capped_too() -> None:
    guarded = Guarded(Scripted([Prediction(400.0, 900.0, 500.0)]), Constant(SMALL))
    assert guarded.predict([Features(1, max_tokens=450)]) == [Prediction(400.0, 450, 450)]
    assert guarded.fallbacks == 0


def test_the_fallback_learns_although_the_predictor_cannot() -> None:
    fallback = Scripted([])
    Guarded(Scripted(NoPrediction()), fallback).observe(Features(1), Outcome(9))
    assert fallback.observed == [Outcome(9)]


def test_defects_are_not_hidden() -> None:
    with pytest.raises(AttributeError):
        Guarded(Scripted(AttributeError("a defect")), Constant(SMALL)).predict([Features(1)])
    assert Guarded(Scripted([]), Constant()).version == "scripted"


def test_text_does_not_show_where_a_request_is_printed() -> None:
    assert "secret" not in repr(Features(1, text="secret prompt"))
