"""Kendall's tau and the gate between shortest-first and first come, first served."""

import numpy as np
import pytest

from trimtab.decide.queueing.drift import DriftGuard, DriftGuards, DriftPolicy, gate
from trimtab.decide.queueing.lengths import Outcome, Prediction
from trimtab.decide.queueing.rank import kendall_tau

QUICK = DriftPolicy(window=400, every=50, least=100)


def outcome(predicted: float, tokens: int, *, exact: bool = True) -> Outcome:
    return Outcome(tokens, exact, predicted=Prediction(predicted, predicted, predicted))


def feed(guard: DriftGuard, noise: float, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for length in rng.integers(2, 500, count):
        guard.observe(outcome(float(length * np.exp(noise * rng.normal())), int(length)))


def test_tau_of_small_orders() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall_tau([1, 2, 3], [30, 20, 10]) == -1.0
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0.0, "a constant ranks nothing"
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 3), "a tie counts 0 of 3 pairs"
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert kendall_tau([], []) == kendall_tau([1], [1]) == 0.0


def test_tau_needs_pairs() -> None:
    with pytest.raises(ValueError, match="2 predictions for 3 lengths"):
        kendall_tau([1, 2], [1, 2, 3])


@pytest.mark.parametrize(("tau", "expected"), [(0.2999, "fcfs"), (0.3, "ssjf"), (0.3001, "ssjf"), (-1.0, "fcfs")])
def test_the_gate_stands_at_the_threshold(tau: float, expected: str) -> None:
    assert gate(tau) == expected


def test_the_gate_opens_and_closes_with_the_predictor() -> None:
    guard = DriftGuard(QUICK)
    feed(guard, noise=0.5, count=99, seed=1)
    assert (guard.order, guard.tau) == ("fcfs", None), "not before the least number of completions"
    feed(guard, noise=0.5, count=300, seed=2)
    assert guard.order == "ssjf"
    feed(guard, noise=50.0, count=400, seed=3)
    assert guard.order == "fcfs"
    assert guard.tau is not None
    assert abs(guard.tau) < 0.15
    feed(guard, noise=0.5, count=400, seed=4)
    assert guard.order == "ssjf"


def test_tau_is_that_of_the_window() -> None:
    guard = DriftGuard(DriftPolicy(window=50, every=1, least=2))
    rng = np.random.default_rng(5)
    pairs = [(float(p), int(t)) for p, t in zip(rng.integers(1, 30, 120), rng.integers(1, 30, 120), strict=True)]
    for predicted, tokens in pairs:
        guard.observe(outcome(predicted, tokens))
    assert guard.tau == kendall_tau([p for p, _ in pairs[-50:]], [t for _, t in pairs[-50:]])


def test_cut_off_and_unpredicted_answers_do_not_count() -> None:
    guard = DriftGuard(DriftPolicy(window=10, every=1, least=2))
    for tokens in range(1, 30):
        guard.observe(outcome(float(tokens), tokens, exact=False))
        guard.observe(Outcome(tokens))
    assert guard.tau is None


def test_each_model_and_application_has_its_own_gate() -> None:
    guards = DriftGuards(QUICK)
    for length in range(1, 200):
        guards.observe("m", "good", outcome(float(length), length))
        guards.observe("m", "bad", outcome(float(-length % 7), length % 5 + 1))
    assert guards.order("m", "good") == "ssjf"
    assert guards.order("m", "bad") == "fcfs"
    assert guards.order("other", "good") == "fcfs"
    assert guards.taus["m", "good"] == 1.0
