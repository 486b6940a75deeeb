"""The fit finds the costs of engines whose costs are known, and its intervals hold them as often as they say."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.sim.profiling.known import OVERLAPPING, SLOW, Truth, known_engine, measured
from trimtab.sim.profile import FrontEnd
from trimtab.sim.profiling.modelled import ModelledTarget
from trimtab.sim.profiling.rows import UNKNOWNS
from trimtab.sim.profiling.target import Ask, Seen

SEEDS = range(5)


@pytest.mark.parametrize("budget", [1024, 2048])
def test_without_noise_every_cost_is_found(budget: int) -> None:
    target = known_engine(budget=budget)
    result = measured(target)
    assert {name: abs(error) < 1e-3 for name, error in Truth.of(target).log_errors(result).items()} == dict.fromkeys(
        Truth.of(target).values, True
    )
    assert result.config.max_num_batched_tokens == budget
    assert result.config.max_num_seqs == 16
    assert max(abs(figure.error) for figure in result.judged) < 1e-3


def test_a_budget_above_every_prompt_is_said_to_be_assumed() -> None:
    result = measured(known_engine(budget=16_384))
    assert result.fit.budget >= 7500
    assert any("max_num_batched_tokens" in note for note in result.notes)


def test_sequences_above_the_concurrency_are_said_to_be_assumed() -> None:
    result = measured(known_engine(sequences=100))
    assert result.config.max_num_seqs == 256
    assert any("max_num_seqs 256 assumed" in note for note in result.notes)


def test_intervals_hold_the_truth_and_are_narrow() -> None:
    """95 % intervals from a bootstrap hold a little less in samples of this size; a wrong fit holds far less."""
    held: list[bool] = []
    widths: list[float] = []
    for seed in SEEDS:
        target = known_engine(noise=0.03, seed=seed)
        result = measured(target, seed=seed)
        held += Truth.of(target).covered(result).values()
        low, high = result.fit.estimate.intervals["iteration.base"]
        widths.append((high - low) / SLOW.base)
    assert np.mean(held) > 0.8
    assert np.mean(widths) < 0.02


def test_reading_the_weights_beside_computing_with_them_is_found() -> None:
    """The sum of the two is sure, its parts less so, because few iterations lie near the knee."""
    target = known_engine(noise=0.02, cost=OVERLAPPING, sequences=64)
    result = measured(target, concurrency=64, seconds=120.0)
    found = result.fit.estimate.speed.cost
    assert found.arithmetic == pytest.approx(OVERLAPPING.arithmetic, rel=0.25)
    for prefill, decodes in ((64, 0), (300, 2), (2000, 0), (0, 1), (0, 48)):
        seconds = (
            cost.seconds(prefill_tokens=prefill, decodes=decodes, context_tokens=300 * decodes, attention_pairs=0.0)
            for cost in (found, OVERLAPPING)
        )
        assert next(seconds) == pytest.approx(next(seconds), rel=0.05)
    assert max(abs(figure.error) for figure in result.judged if figure.quantile == 0.5) < 0.05


def test_a_knee_that_is_not_there_is_not_found() -> None:
    for seed in range(2):
        assert set(measured(known_engine(noise=0.04, seed=seed), seed=seed).fit.estimate.values) == set(UNKNOWNS)


def test_a_cost_off_by_a_tenth_would_be_noticed() -> None:
    """The intervals can fail: they do not hold costs that the engine does not have."""
    target = known_engine(noise=0.03)
    result = measured(target)
    wrong = replace(SLOW, base=SLOW.base * 1.1, per_prefill_token=SLOW.per_prefill_token * 1.1)
    covered = Truth.of(known_engine(cost=wrong)).covered(result)
    assert not covered["iteration.base"]
    assert not covered["iteration.per_prefill_token"]


def test_the_phase_that_is_not_fitted_is_predicted() -> None:
    result = measured(known_engine(noise=0.05, seed=3), seed=3)
    medians = {figure.metric: figure.error for figure in result.judged if figure.quantile == 0.5}
    assert all(abs(error) < 0.05 for error in medians.values()), medians
    assert result.requests >= 100


def test_an_engine_that_slows_down_under_load_shows_in_the_error() -> None:
    """What the physics does not know (here: saturation is slower by a half) is found by the phase not fitted."""
    target = known_engine()
    fitted = measured(target)
    slow = replace(target.speed.cost, base=1.5 * target.speed.cost.base)

    class Tiring(ModelledTarget):
        def play(self, asks: Sequence[Ask], clients: int, seconds: float) -> list[Seen]:
            if len(asks) > 100:
                self.speed = replace(self.speed, cost=slow)
            return ModelledTarget.play(self, asks, clients, seconds)

    tiring = measured(Tiring(target.config, target.speed))
    assert tiring.fit.estimate.values == pytest.approx(fitted.fit.estimate.values)
    throughput = next(figure for figure in tiring.judged if figure.quantile is None)
    assert throughput.error > 0.2
    assert any("at full load: do not plan with it" in note for note in tiring.notes)
    assert not any("do not plan" in note for note in fitted.notes)


def test_an_engine_that_is_now_fast_and_now_slow_is_doubted() -> None:
    unsteady = measured(known_engine(noise=0.6))
    assert any("the engine's machine has other work" in note for note in unsteady.notes)
    assert not any("has other work" in note for note in measured(known_engine(noise=0.03)).notes)


def test_a_tokenizer_is_told_from_a_prefill() -> None:
    slow_front = measured(known_engine(front=FrontEnd(0.006, 4e-5)))
    slow_prefill = measured(known_engine(cost=replace(SLOW, per_prefill_token=8e-5), front=FrontEnd(0.006, 0.0)))
    assert slow_front.fit.estimate.values["front_end.per_prompt_token"] == pytest.approx(4e-5, rel=0.01)
    assert slow_prefill.fit.estimate.values["front_end.per_prompt_token"] == pytest.approx(0, abs=1e-7)
