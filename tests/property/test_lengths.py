"""Predictors of lengths over arbitrary histories: in range, causal, repeatable, and never taught by a cut."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.decide.queueing.length_history import TenantHistory, survival_quantiles
from trimtab.decide.queueing.lengths import Constant, Example, Features, Guarded, LengthPredictor, Outcome, Prediction
from trimtab.decide.queueing.rank import kendall_tau
from trimtab.learn.length_parts import parts_of
from trimtab.learn.length_replay import foresee
from trimtab.learn.shipped import predictor_from

numbers = st.lists(st.integers(0, 12), min_size=2, max_size=60)


@st.composite
def histories(draw: st.DrawFn) -> list[Example]:
    """Requests in order of arrival, some of them cut off, that end in another order."""
    rows = draw(
        st.lists(
            st.tuples(
                st.floats(0, 5), st.floats(0, 20), st.integers(1, 5_000), st.integers(1, 3_000), st.booleans(),
                st.sampled_from(["", "a", "b"]), st.integers(1, 4_000),
            ),
            min_size=1,
            max_size=30,
        )
    )  # fmt: skip
    at = 0.0
    examples = []
    for gap, lasting, size, tokens, exact, tenant, limit in rows:
        at += gap
        request = Features(size, max_tokens=limit, tenant=tenant, arrived_at=at)
        examples.append(Example(request, Outcome(min(tokens, limit), exact and tokens < limit, at + lasting)))
    return examples


def predictors() -> list[LengthPredictor]:
    return [Constant(), TenantHistory(), predictor_from(), Guarded(predictor_from(), TenantHistory())]


@given(histories())
@settings(max_examples=40)
def test_every_prediction_is_in_range_and_repeatable(examples: list[Example]) -> None:
    for one, again in zip(predictors(), predictors(), strict=True):
        predictions = foresee(one, examples)
        assert foresee(again, examples) == predictions
        for example, prediction in zip(examples, predictions, strict=True):
            assert prediction.plausible
            assert max(prediction.p90, prediction.mean) <= example.request.max_tokens


@given(histories(), st.data())
@settings(max_examples=40)
def test_what_happens_later_changes_nothing(examples: list[Example], data: st.DataObject) -> None:
    """Requests that arrive later, and how requests end that have not ended yet, are not known."""
    index = data.draw(st.integers(0, len(examples) - 1))
    now = examples[index].request.arrived_at
    changed = [
        example
        if example.outcome.ended_at <= now
        else Example(example.request, Outcome(1, ended_at=example.outcome.ended_at))
        for example in examples[: index + 1]
    ]
    for one, other in zip(predictors(), predictors(), strict=True):
        assert foresee(one, examples)[index] == foresee(other, changed)[index]


@given(histories())
@settings(max_examples=40)
def test_a_cut_changes_no_trained_prediction_and_lowers_no_quantile(examples: list[Example]) -> None:
    boosted, without = predictor_from(), predictor_from()
    history, plain = TenantHistory(), TenantHistory()
    for example in examples:
        boosted.observe(example.request, example.outcome)
        history.observe(example.request, example.outcome)
        if example.outcome.exact:
            without.observe(example.request, example.outcome)
            plain.observe(example.request, example.outcome)
    asked = [Features(size) for size in (1, 50, 5_000)]
    assert boosted.predict(asked) == without.predict(asked)
    everybody, complete = history.predict([Features(1, tenant="new")])[0], plain.predict([Features(1, tenant="new")])[0]
    if any(example.outcome.exact for example in examples):
        assert everybody.p50 >= complete.p50
        assert everybody.p90 >= complete.p90


@given(st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=40))
def test_quantiles_of_lengths_that_were_cut_are_ordered_and_were_seen(labels: list[tuple[int, bool]]) -> None:
    quantiles = survival_quantiles(sorted(labels), (0.1, 0.5, 0.9))
    assert all(low <= high for low, high in pairwise(quantiles))
    assert set(quantiles) <= {float(tokens) for tokens, _ in labels}


@given(numbers, st.data())
def test_tau_counts_pairs(first: list[int], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(0, 12), min_size=len(first), max_size=len(first)))
    a, b = np.array(first), np.array(second)
    signs = np.sign(a[:, None] - a[None, :]) * np.sign(b[:, None] - b[None, :])
    pairs = len(first) * (len(first) - 1) / 2
    tau = kendall_tau(first, second)
    assert abs(tau - np.triu(signs, 1).sum() / pairs) < 1e-12
    assert abs(tau + kendall_tau(first, -b)) < 1e-12
    assert tau == kendall_tau(second, first)


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=60))
def test_no_conversation_and_no_request_is_on_two_sides(conversations: list[str]) -> None:
    examples = [
        Example(Features(1, arrived_at=float(at)), Outcome(1, ended_at=at + 1.0), conversation)
        for at, conversation in enumerate(conversations)
    ]
    parts = parts_of(examples)
    sides = (parts.train, parts.calibrate, parts.judge)
    assert sum(map(len, sides)) + parts.left_out == len(examples)
    assert all(low < high for low, high in pairwise([*parts.train, *parts.calibrate, *parts.judge]))
    for conversation in ("a", "b", "c"):
        assert sum(any(conversations[index] == conversation for index in side) for side in sides) <= 1


@given(st.floats(1, 4_000), st.floats(1, 4_000), st.floats(1, 4_000), st.integers(1, 2_000))
def test_a_cap_keeps_the_order(p50: float, p90: float, mean: float, limit: int) -> None:
    capped = Prediction(min(p50, p90), max(p50, p90), mean).capped(limit)
    assert capped.plausible
    assert max(capped.p90, capped.mean) <= limit
