"""Boosted predictions from weights, without the library that trained them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, isnan, log, nan
from typing import Any

import numpy as np
import pytest

from trimtab.decide.queueing.length_boosted import GROUPS, UNKNOWN, Boosted, Calibration, columns_of, row_of
from trimtab.decide.queueing.length_trees import forest_from
from trimtab.decide.queueing.lengths import Constant, Features, Guarded, NoPrediction, Outcome, Prediction

LEAF = {"feature": [0], "threshold": [0.0], "missing_left": [0], "left": [0], "right": [0], "value": [0.25]}
STUMP: dict[str, list[Any]] = {
    "feature": [1, 0, 0],
    "threshold": [2.0, 0.0, 0.0],
    "missing_left": [1, 0, 0],
    "left": [1, 1, 2],
    "right": [2, 1, 2],
    "value": [0.0, -1.0, 1.0],
}


def weights(*groups: str, embedding: Mapping[str, Any] | None = None, **heads: Any) -> dict[str, Any]:
    plain = {"p50": {"baseline": 0.0, "trees": []}, "p90": {"baseline": 1.0, "trees": []}}
    return {
        "format": 1,
        "name": "made-by-hand",
        "groups": list(groups or ("history",)),
        "start_level": log(100.0),
        "p90_shift": 0.0,
        "embedding": embedding,
        "heads": {**plain, "mean": {"baseline": 0.5, "trees": []}, **heads},
    }


def test_trees_are_summed_from_the_baseline() -> None:
    right = {**STUMP, "missing_left": [0, 0, 0]}
    trees: list[list[Any]] = [[STUMP, LEAF], [], [right]]
    sums = [{"baseline": baseline, "trees": grown} for baseline, grown in zip((10.0, 3.0, 0.0), trees, strict=True)]
    rows = np.array([[0.0, 2.0], [0.0, 2.5], [0.0, nan]])
    first, second, third = forest_from(sums, columns=2).evaluate(rows).T.tolist()
    assert first == [9.25, 11.25, 9.25], "equal and missing go left, more goes right"
    assert second == [3.0, 3.0, 3.0]
    assert third == [-1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left": [0, 1, 2]}, "node 0 leads to 0 and 2 of 3"),
        ({"right": [9, 1, 2]}, "node 0 leads to 1 and 9 of 3"),
        ({"feature": [2, 0, 0]}, "looks at column 2 of 2"),
        ({"value": [0.0]}, r"\[1, 3\] nodes"),
    ],
)
def test_damaged_trees_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"tree 1: .*{message}"):
        forest_from([{"baseline": 0.0, "trees": [LEAF, {**STUMP, **change}]}], columns=2)


def test_heads_are_factors_on_what_the_history_says() -> None:
    predictor = Boosted(weights())
    (first,) = predictor.predict([Features(10)])
    assert (first.p50, first.p90, first.mean) == pytest.approx((100.0, 100.0 * exp(1.0), 100.0 * exp(0.5)))
    for _ in range(3):
        predictor.observe(Features(10), Outcome(40))
    (later,) = predictor.predict([Features(10)])
    assert (later.p50, later.p90, later.mean) == pytest.approx((40.0, 40.0 * exp(1.0), 40.0 * exp(0.5)))
    assert predictor.version == "made-by-hand"
    assert predictor.predict([]) == []


def test_p90_is_never_below_p50_and_nothing_exceeds_the_limit() -> None:
    low = Boosted(weights(p90={"baseline": -2.0, "trees": []}))
    (prediction,) = low.predict([Features(10)])
    assert prediction.p90 == prediction.p50
    assert low.predict([Features(10, max_tokens=30)]) == [Prediction(30, 30, 30)]


def test_cut_off_answers_are_no_examples() -> None:
    predictor = Boosted(weights())
    (before,) = predictor.predict([Features(10)])
    for _ in range(50):
        predictor.observe(Features(10), Outcome(1, exact=False, predicted=before))
    assert predictor.predict([Features(10)]) == [before]


def test_p90_covers_nine_in_ten_in_the_end_although_the_weights_are_wrong() -> None:
    rng = np.random.default_rng(7)
    for wrong in (-1.5, 1.5):
        predictor = Boosted(weights(p90={"baseline": wrong, "trees": []}))
        inside = []
        for length in np.exp(rng.normal(5.0, 0.7, 6_000)).astype(int) + 1:
            (prediction,) = predictor.predict([Features(10)])
            inside.append(length <= prediction.p90)
            predictor.observe(Features(10), Outcome(int(length), predicted=prediction))
        assert np.mean(inside[-3_000:]) == pytest.approx(0.9, abs=0.02)


def test_the_mean_becomes_right_in_sum_although_the_weights_are_wrong() -> None:
    rng = np.random.default_rng(8)
    predictor = Boosted(weights(mean={"baseline": 1.2, "trees": []}))
    sums = np.zeros(2)
    for number, length in enumerate(np.exp(rng.normal(4.0, 1.0, 6_000)).astype(int) + 1):
        (prediction,) = predictor.predict([Features(10)])
        predictor.observe(Features(10), Outcome(int(length), predicted=prediction))
        if number >= 3_000:
            sums += prediction.mean, length
    assert sums[0] / sums[1] == pytest.approx(1.0, abs=0.1)


def test_calibration_stays_in_bounds_and_ignores_what_was_capped() -> None:
    calibration = Calibration(0.0, 100.0)
    calibration.observe(50, Prediction(50.0, 50, 50), max_tokens=50)
    assert (calibration.shift, calibration.mean_scale) == (0.0, 1.0)
    for _ in range(5_000):
        calibration.observe(10**6, Prediction(1.0, 1.0, 1.0), max_tokens=10**7)
    assert (calibration.shift, calibration.mean_scale) == (3.0, 20.0)


def test_rows_follow_the_groups() -> None:
    request = Features(100, max_tokens=50, turn=2, text="Hello?")
    row = row_of(request, [1.0] * 15, ("metadata", "history"))
    assert row == [log(100), log(50), 2.0, *[1.0] * 15]
    assert len(row_of(request, [1.0] * 15, tuple(GROUPS), 0.5)) == len(columns_of(tuple(GROUPS)))
    assert all(isnan(value) for value in row_of(Features(1), [], ("metadata", "lexical"))[1:])


def test_a_request_without_the_text_that_is_needed_goes_to_the_fallback() -> None:
    predictor = Boosted(weights("history", "lexical"))
    with_text, without = predictor.predict([Features(10, text="Hi"), Features(10)])
    assert with_text.plausible
    assert without is UNKNOWN
    fallback = Prediction(7.0, 8.0, 7.0)
    guarded = Guarded(predictor, Constant(fallback))
    assert guarded.predict([Features(10), Features(10, text="Hi")]) == [fallback, with_text]


def test_an_embedding_is_scored_by_its_head() -> None:
    head = {"weights": [1.0, -1.0], "bias": 0.5}
    stump = {**STUMP, "feature": [0, 0, 0], "threshold": [0.0, 0.0, 0.0]}

    def encoder(prompts: Sequence[str]) -> Any:
        return np.array([[len(prompt), 3.0] for prompt in prompts])

    plain = weights("embedding", embedding=head, p50={"baseline": 0.0, "trees": [stump]})
    short, long = Boosted(plain, encoder).predict([Features(1, text="ab"), Features(1, text="abcd")])
    assert (short.p50, long.p50) == pytest.approx((100.0 * exp(-1.0), 100.0 * exp(1.0)))
    wrong = Boosted(plain, lambda _: np.zeros((1, 9)))
    with pytest.raises(NoPrediction, match=r"shape \(1, 9\)"):
        wrong.predict([Features(1, text="a")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2; this version reads format 1"),
        ({"groups": ["astrology"]}, "unknown features astrology"),
        ({"groups": ["embedding"]}, "need an encoder"),
        ({"heads": {}}, "without heads p50, p90, mean"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Boosted({**weights(), **change})
    with pytest.raises(ValueError, match="weights without name, groups"):
        Boosted({"format": 1, "heads": {}, "start_level": 0.0, "p90_shift": 0.0})


def test_a_prediction_that_a_fallback_made_teaches_nothing_wrong() -> None:
    predictor = Boosted(weights())
    outcome = Outcome(100, predicted=UNKNOWN)
    predictor.observe(Features(10), outcome)
    predictor.observe(Features(10), replace(outcome, predicted=None))
    (prediction,) = predictor.predict([Features(10)])
    assert prediction.plausible
