"""The lab's statistics: the same for every experiment, over seeds and never over requests.

Policies are compared under the same seed (common random numbers), so what counts is the difference within a seed: its
mean, its 95 % interval by Student's t, and, where several comparisons make one statement, p values after Holm (1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
_LEAST = 2  # values that have a spread


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its interval.

    Attributes:
        n: Seeds that it was made of.
        mean: NaN where there was none.
        low: Lower end of the interval; NaN where one seed gives none, -inf where it has no bound.
        high: Upper end.
    """

    n: int
    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval with two ends."""
        return isfinite(self.low) and isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Say whether the interval lies above or below a value."""
        return self.low > value or self.high < value


NOTHING = Estimate(0, nan, nan, nan)


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of one value per seed with its t interval; missing values (NaN) are left out and not counted."""
    seen = _finite(np.asarray(values, dtype=np.float64))
    if not seen.size:
        return NOTHING
    mean = float(seen.mean())
    if seen.size < _LEAST:
        return Estimate(1, mean, nan, nan)
    reach = float(stats.t.ppf((1 + confidence) / 2, seen.size - 1)) * float(seen.std(ddof=1)) / sqrt(seen.size)
    return Estimate(int(seen.size), mean, mean - reach, mean + reach)


def paired_difference(values: ArrayLike, baseline: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of `values - baseline` within each seed, with its t interval; seeds without one are left out."""
    ours, theirs = _pairs(values, baseline)
    return mean_interval(ours - theirs, confidence)


def paired_ratio(values: ArrayLike, baseline: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Return mean(values) / mean(baseline) - 1 with Fieller's (1954) interval for pairs.

    A ratio of means, not a mean of ratios: a seed with little work does not weigh more than one with much. Fieller's
    interval holds those ratios r for which the mean of `values - r * baseline` does not differ from 0, so it excludes
    0 exactly when the interval of `paired_difference` does. Where the baseline's mean cannot be told from 0, it has no
    bounds.
    """
    ours, theirs = _pairs(values, baseline)
    if not ours.size or theirs.mean() == 0:
        return Estimate(int(ours.size), nan, nan, nan)
    ratio = float(ours.mean() / theirs.mean())
    if ours.size < _LEAST:
        return Estimate(1, ratio - 1, nan, nan)
    low, high = _fieller(ours, theirs, confidence)
    return Estimate(int(ours.size), ratio - 1, low - 1, high - 1)


def _fieller(ours: NDArray[np.float64], theirs: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Solve (mean(ours) - r mean(theirs))^2 = t^2 var(ours - r theirs) / n for r."""
    covariance = np.cov(ours, theirs, ddof=1)
    weight = float(stats.t.ppf((1 + confidence) / 2, ours.size - 1)) ** 2 / ours.size
    square = float(theirs.mean() ** 2 - weight * covariance[1, 1])
    if square <= 0:
        return -inf, inf
    middle = float(ours.mean() * theirs.mean() - weight * covariance[0, 1])
    constant = float(ours.mean() ** 2 - weight * covariance[0, 0])
    root = sqrt(max(0.0, middle * middle - square * constant))
    return (middle - root) / square, (middle + root) / square


def share_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return the part of trials that succeeded, with its exact interval (Clopper and Pearson 1934)."""
    if not trials:
        return NOTHING
    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return Estimate(trials, successes / trials, float(interval.low), float(interval.high))


def range_of_draws(values: ArrayLike, coverage: float = CONFIDENCE) -> tuple[float, float]:
    """Return the ends between which a further draw lies with this probability, whatever the distribution.

    They are order statistics: with fewer than 39 draws and a coverage of 95 %, the least and the largest, between which
    a further one of n + 1 lies with probability (n - 1) / (n + 1). NaN without values.
    """
    seen = _finite(np.asarray(values, dtype=np.float64))
    if not seen.size:
        return nan, nan
    tail = (1 - coverage) / 2
    low, high = np.quantile(seen, [tail, 1 - tail], method="weibull")
    return float(low), float(high)


def paired_p(values: ArrayLike, baseline: ArrayLike) -> float:
    """Return the two-sided p value of the paired t test; NaN with less than two pairs.

    Pairs that all differ by the same amount leave no doubt: 0, or 1 where that amount is 0.
    """
    ours, theirs = _pairs(values, baseline)
    difference = ours - theirs
    if difference.size < _LEAST:
        return nan
    spread = float(difference.std(ddof=1)) / sqrt(difference.size)
    if spread == 0:
        return 1.0 if difference[0] == 0 else 0.0
    return float(2 * stats.t.sf(abs(float(difference.mean())) / spread, difference.size - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of statements that are made together, by Holm's (1979) step-down method.

    NaN, for a test that could not be made, stays NaN and counts as one of the tests.
    """
    order = sorted(range(len(p_values)), key=lambda place: (p_values[place] != p_values[place], p_values[place]))
    adjusted = [nan] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        if isfinite(p_values[place]):
            highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
            adjusted[place] = highest
    return adjusted


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Where a run becomes steady.

    Attributes:
        drop: Values at the beginning that belong to the warm-up.
        drift: Geweke's statistic of what is left: difference of its early and late mean in standard errors.
        p: How likely so large a difference is where there is no drift.
        steady: Whether what is left may be called steady: not more than half was dropped, and p is at least 0.05.
    """

    drop: int
    drift: float
    p: float
    steady: bool


_BATCH = 5  # MSER-5
_BATCHES = 20  # of what is left, for the test of drift
_EARLY, _LATE = 4, 10  # of these: the first 20 % and the last 50 %, as Geweke takes them
_DOUBT = 0.05


def warm_up(series: ArrayLike) -> WarmUp:
    """Find the warm-up of a run, and test that the rest is steady.

    The cut is where MSER-5 (White, Cobb and Spratt 2000) puts it: it minimizes the standard error of the mean of what
    is left, looked for in the first half, in batches of five values. The rest is then cut into 20 batches, and the
    means of the first 4 are held against those of the last 10 (Geweke 1992; Welch's t test on batch means, which takes
    care of neighbors that resemble each other).

    Args:
        series: One value per time step or request, in order; or seeds x steps, of which the mean over seeds is used
            (Welch 1983): find the warm-up on pilot seeds that way, and use it on the reported ones.

    Raises:
        ValueError: There are less than 200 values, or one that is no number.
    """
    values = np.asarray(series, dtype=np.float64)
    values = values.mean(axis=0) if values.ndim > 1 else values
    if values.size < 2 * _BATCH * _BATCHES or not np.isfinite(values).all():
        raise ValueError(f"a warm-up is looked for in {2 * _BATCH * _BATCHES} numbers or more, got {values.size}")
    drop = _mser(values)
    rest = values[drop:]
    means = np.array([part.mean() for part in np.array_split(rest, _BATCHES)])
    early, late = means[:_EARLY], means[-_LATE:]
    if np.ptp(means) == 0:
        return WarmUp(drop, 0.0, 1.0, steady=True)
    test = stats.ttest_ind(early, late, equal_var=False)
    return WarmUp(drop, float(test.statistic), float(test.pvalue), steady=bool(test.pvalue >= _DOUBT))


def _mser(values: NDArray[np.float64]) -> int:
    """Return how many values MSER-5 cuts off."""
    batches = values[: values.size // _BATCH * _BATCH].reshape(-1, _BATCH).mean(axis=1)
    left = np.arange(batches.size, 0, -1)
    sums, squares = np.cumsum(batches[::-1])[::-1], np.cumsum(batches[::-1] ** 2)[::-1]
    errors = np.maximum(squares - sums**2 / left, 0.0) / left**2
    return int(np.argmin(errors[: batches.size // 2])) * _BATCH


def attainment(met: ArrayLike) -> float:
    """Return the part of requests that met their service level, in percent; NaN without requests.

    Requests that had not ended at the horizon belong into `met`, as missed.
    """
    flags = np.asarray(met, dtype=bool)
    return float(flags.mean() * 100) if flags.size else nan


def goodput(met: ArrayLike, seconds: float) -> float:
    """Return requests per second that met their service level, over the time in which requests arrived."""
    return float(np.count_nonzero(np.asarray(met, dtype=bool)) / seconds)


def worst_attainment(met: ArrayLike, classes: Sequence[str]) -> float:
    """Return the attainment, in percent, of the class of requests that has the lowest; NaN without requests."""
    flags, names = np.asarray(met, dtype=bool), np.asarray(classes)
    return min((attainment(flags[names == name]) for name in np.unique(names)), default=nan)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _pairs(values: ArrayLike, baseline: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ours, theirs = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"pairs need as many values as baselines, got {ours.shape} and {theirs.shape}")
    both = np.isfinite(ours) & np.isfinite(theirs)
    return ours[both], theirs[both]
