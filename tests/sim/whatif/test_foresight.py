"""Predictions in a replayed trace: none from the future, none from training."""

import numpy as np

from trimtab.decide.queueing.lengths import Example, Features, Outcome, Prediction
from trimtab.sim.whatif import foresight
from trimtab.sim.whatif.foresight import foresight_of, guarded, substituted
from trimtab.workload.catalog import find_traces


def examples(count: int, seed: int = 0, start: int = 0) -> list[Example]:
    lengths = np.random.default_rng(seed).integers(10, 500, count).tolist()
    return [
        Example(Features(100, arrived_at=float(number)), Outcome(length, ended_at=number + 0.5))
        for number, length in enumerate(lengths, start)
    ]


def exact(requests: list[Example]) -> list[Prediction]:
    return [Prediction(*(float(one.outcome.tokens),) * 3) for one in requests]


def test_the_guard_trusts_only_after_it_has_seen_enough_and_never_looks_ahead() -> None:
    requests = examples(900)
    told = guarded(requests, exact(requests))
    first = next(number for number, length in enumerate(told) if length is not None)
    assert 200 <= first <= 300
    assert all(length is not None for length in told[first:])
    later = [*requests[:600], *examples(300, seed=9, start=600)]
    assert guarded(later, exact(later))[:600] == told[:600]


def test_the_guard_stops_trusting_what_has_gone_bad() -> None:
    requests = examples(5000)
    good = exact(requests)
    shuffled = np.random.default_rng(1).permutation(np.array([one.p50 for one in good])).tolist()
    bad = [Prediction(length, length, length) for length in shuffled]
    told = guarded(requests, [*good[:1000], *bad[1000:]])
    assert told[990] is not None
    assert told[-1] is None


def test_requests_of_training_get_predictions_of_answers_about_as_long() -> None:
    requests = examples(1000)
    kept_back = range(800, 1000)
    flattering = [
        *exact(requests[:800]),
        *(Prediction(one.p50 + 7, one.p90, one.mean) for one in exact(requests)[800:]),
    ]
    got = substituted(requests, flattering, kept_back)
    assert got[800:] == flattering[800:]
    for one, prediction in zip(requests[:800], got[:800], strict=True):
        assert prediction in flattering[800:]
        assert abs(prediction.p50 - 7 - one.outcome.tokens) < 90
    assert substituted(requests, flattering, kept_back) == got
    assert substituted(requests, flattering, []) == flattering


def test_the_shipped_trace_was_trained_on_and_is_told_so() -> None:
    trace = find_traces(None).find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=float("inf"))
    part = trace.window(0, 300)
    assert not foresight_of(part).substituted
    assert foresight._was_seen(trace, foresight.examples_of(trace))
