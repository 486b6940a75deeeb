"""Intervals, tests and warm-ups against scipy, known values, and what they promise."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from trimtab.sim.statistics import (
    attainment,
    goodput,
    holm,
    mean_interval,
    paired_difference,
    paired_p,
    paired_ratio,
    range_of_draws,
    share_interval,
    warm_up,
    worst_attainment,
)

VALUES = np.array([12.1, 9.8, 11.4, 10.3, 13.0, 10.9, 9.1, 12.2])
OTHERS = np.array([13.0, 10.9, 12.9, 10.8, 14.9, 11.7, 9.9, 13.9])
numbers = hnp.arrays(np.float64, st.integers(3, 30), elements=st.floats(1, 100).map(lambda x: round(x, 3)))
chances = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_the_interval_of_a_mean_is_scipys() -> None:
    seen = mean_interval(VALUES)
    low, high = stats.t.interval(0.95, len(VALUES) - 1, loc=VALUES.mean(), scale=stats.sem(VALUES))
    assert (seen.n, seen.mean) == (8, pytest.approx(11.1))
    assert (seen.low, seen.high) == pytest.approx((low, high), rel=1e-12)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    # mean 3, sd sqrt(2.5), t(0.975, 4) = 2.776445: 3 +- 2.776445 * sqrt(2.5 / 5)
    seen = mean_interval([1, 2, 3, 4, 5])
    assert (seen.low, seen.high) == pytest.approx((3 - 1.9632432, 3 + 1.9632432), rel=1e-6)


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    assert mean_interval([7.0]).mean == 7
    assert math.isnan(mean_interval([7.0]).low)
    assert mean_interval([]).n == 0
    assert math.isnan(mean_interval([math.nan]).mean)


def test_seeds_without_a_value_are_left_out_in_pairs() -> None:
    seen = paired_difference([1, 2, math.nan, 5], [1, math.nan, 3, 3])
    assert (seen.n, seen.mean) == (2, 1)


def test_the_paired_test_is_scipys() -> None:
    test = stats.ttest_rel(VALUES, OTHERS)
    assert paired_p(VALUES, OTHERS) == pytest.approx(test.pvalue, rel=1e-12)
    interval = test.confidence_interval(0.95)
    seen = paired_difference(VALUES, OTHERS)
    assert (seen.low, seen.high) == pytest.approx((interval.low, interval.high), rel=1e-12)


def test_pairs_that_differ_by_a_constant_leave_no_doubt() -> None:
    assert paired_p([1, 2, 3], [1, 2, 3]) == 1
    assert paired_p([2, 3, 4], [1, 2, 3]) == 0
    assert math.isnan(paired_p([2], [1]))


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="as many values as baselines"):
        paired_difference([1, 2], [1, 2, 3])


@given(st.data(), numbers, st.floats(0.1, 3))
def test_a_ratio_excludes_none_exactly_when_the_difference_does(data: Any, baseline: Any, factor: Any) -> None:
    noise = data.draw(hnp.arrays(np.float64, baseline.size, elements=st.floats(-3, 3)))
    values = baseline * factor + noise
    ratio, difference = paired_ratio(values, baseline), paired_difference(values, baseline)
    assume(ratio.known and (values - baseline).std() > 1e-3 and abs(paired_p(values, baseline) - 0.05) > 1e-6)
    assert ratio.excludes(0) == difference.excludes(0)
    assert ratio.low - 1e-9 <= ratio.mean <= ratio.high + 1e-9


@given(numbers, st.floats(0.1, 10))
def test_a_ratio_does_not_know_units(baseline: Any, unit: Any) -> None:
    values = baseline[::-1] + 1
    ours, scaled = paired_ratio(values, baseline), paired_ratio(values * unit, baseline * unit)
    assert scaled.mean == pytest.approx(ours.mean, rel=1e-9, abs=1e-9)
    if ours.known and ours.high - ours.low < 100:
        assert (scaled.low, scaled.high) == pytest.approx((ours.low, ours.high), rel=1e-4, abs=1e-6)


def test_a_ratio_to_nothing_has_no_bounds() -> None:
    seen = paired_ratio([1, 2, 3, 4], [-1, 1, -1, 1.5])
    assert seen.low == -math.inf
    assert seen.high == math.inf
    assert not seen.known


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    base = rng.normal(10, 2, size=(2000, 12))
    ours = 0.8 * base + rng.normal(0, 0.5, size=base.shape)
    ratios = [paired_ratio(a, b) for a, b in zip(ours, base, strict=True)]
    held = np.mean([one.low <= -0.2 <= one.high for one in ratios])
    assert 0.935 < held < 0.965


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_test_that_could_not_be_made_counts_as_one() -> None:
    adjusted = holm([0.01, math.nan])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])


@given(chances)
def test_holm_never_helps_keeps_order_and_stays_a_chance(p_values: Any) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    ranked = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(ranked))
    assert adjusted[ranked[0]] == pytest.approx(min(1, len(p_values) * min(p_values)))


@given(chances, st.randoms(use_true_random=False))
def test_holm_does_not_care_about_the_order_of_claims(p_values: Any, random: Any) -> None:
    order = list(range(len(p_values)))
    random.shuffle(order)
    shuffled = holm([p_values[place] for place in order])
    assert shuffled == [holm(p_values)[place] for place in order]


def correlated(rng: Any, length: Any, phi: Any = 0.6) -> Any:
    noise = rng.normal(0, 1, length)
    for place in range(1, length):
        noise[place] += phi * noise[place - 1]
    return noise


def test_a_warm_up_is_found_and_cut_off() -> None:
    rng = np.random.default_rng(3)
    series = 10 + correlated(rng, 4000) - 12 * np.exp(-np.arange(4000) / 150)
    seen = warm_up(series)
    assert 300 < seen.drop < 1500
    assert seen.steady
    assert abs(series[seen.drop :].mean() - 10) < 0.3


def test_many_seeds_show_the_warm_up_that_one_hides() -> None:
    rng = np.random.default_rng(4)
    runs = np.array([5 * rng.normal(0, 1, 1000) for _ in range(100)]) - 4 * np.exp(-np.arange(1000) / 100)
    assert warm_up(runs).drop >= 150


def test_growth_without_end_is_not_steady() -> None:
    rng = np.random.default_rng(5)
    seen = warm_up(np.arange(2000) * 0.01 + rng.normal(0, 1, 2000))
    assert not seen.steady
    assert seen.p < 0.001
    assert seen.drift < 0


def test_steady_runs_are_seldom_called_otherwise() -> None:
    rng = np.random.default_rng(6)
    verdicts = [warm_up(correlated(rng, 1000)).steady for _ in range(300)]
    assert np.mean(verdicts) > 0.87  # MSER's cut looks at the same values, so a little less than 95 %


def test_a_constant_run_is_steady_from_the_start() -> None:
    assert warm_up(np.full(400, 3.0)) == warm_up(np.full(400, 3.0))
    assert warm_up(np.full(400, 3.0)).drop == 0
    assert warm_up(np.full(400, 3.0)).steady


@pytest.mark.parametrize("series", [np.ones(199), np.r_[np.ones(300), math.nan]])
def test_a_warm_up_needs_numbers(series: Any) -> None:
    with pytest.raises(ValueError, match="200 numbers"):
        warm_up(series)


def test_the_interval_of_a_share_is_scipys() -> None:
    seen = share_interval(19, 20)
    interval = stats.binomtest(19, 20).proportion_ci(0.95, method="exact")
    assert (seen.mean, seen.low, seen.high) == (0.95, interval.low, interval.high)
    assert share_interval(20, 20).low == pytest.approx(0.025 ** (1 / 20))
    assert share_interval(0, 0).n == 0


def test_the_range_of_draws_is_their_ends_until_there_are_enough() -> None:
    assert range_of_draws([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert range_of_draws(np.arange(1, 40)) == pytest.approx((1.0, 39.0))
    assert range_of_draws(np.arange(1, 400)) == pytest.approx((10.0, 390.0))
    assert all(math.isnan(end) for end in range_of_draws([]))


def test_a_further_draw_lies_in_the_range_as_often_as_it_says() -> None:
    draws = np.random.default_rng(8).lognormal(0, 1, (4000, 40))
    held = [low <= draw[-1] <= high for draw in draws for low, high in [range_of_draws(draw[:-1])]]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_goodput_counts_what_met_its_level() -> None:
    met = [True, False, True, True]
    assert attainment(met) == 75
    assert goodput(met, 6) == 0.5
    assert worst_attainment(met, ["a", "a", "b", "b"]) == 50
    assert math.isnan(attainment([]))
    assert math.isnan(worst_attainment([], []))
