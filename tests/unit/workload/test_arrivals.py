"""Arrivals have the rate, the burstiness and the stationarity that they say, tested on seeds."""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest

from trimtab.workload.arrivals import Arrivals, Floats, Gamma, MarkovModulated, Poisson

SECONDS = 20_000.0
MMPP = MarkovModulated((1.0, 12.0), (40.0, 10.0))
PROCESSES = [Poisson(3.0), Gamma(3.0, 0.4), Gamma(3.0, 1.0), Gamma(3.0, 3.0), MMPP]


def name(process: Arrivals) -> str:
    return str(process)


def draw(process: Arrivals, seed: int, seconds: float = SECONDS) -> Floats:
    return process.times(np.random.default_rng([seed, 17]), seconds)


def counts(process: Arrivals, window: float, seed: int = 0) -> Floats:
    times = draw(process, seed)
    return np.histogram(times, np.arange(0, SECONDS + window, window))[0].astype(float)


def dispersion_of_counts(process: Arrivals) -> float:
    """The limit of variance over mean of the counts in ever longer windows (index of dispersion)."""
    if isinstance(process, MarkovModulated):
        (a, b), (leave_a, leave_b) = process.rates, (1 / d for d in process.dwell_seconds)
        return 1 + 2 * (a - b) ** 2 * leave_a * leave_b / ((leave_a + leave_b) ** 2 * (a * leave_b + b * leave_a))
    return process.cv**2 if isinstance(process, Gamma) else 1.0


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_times_ascend_within_the_stretch(process: Arrivals) -> None:
    times = draw(process, 0)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < SECONDS


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_mean_rate(process: Arrivals) -> None:
    """Within four standard errors, which the index of dispersion gives."""
    for seed in range(3):
        arrived = len(draw(process, seed))
        error = sqrt(dispersion_of_counts(process) * process.rate * SECONDS)
        assert abs(arrived - process.rate * SECONDS) < 4 * error


@pytest.mark.parametrize(
    ("process", "cv"), [(Poisson(3.0), 1.0), *((Gamma(3.0, cv), cv) for cv in (0.4, 1.0, 3.0))], ids=str
)
def test_variation_of_the_gaps(process: Arrivals, cv: float) -> None:
    gaps = np.diff(draw(process, 5))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_index_of_dispersion(process: Arrivals) -> None:
    """Variance over mean of the counts in windows much longer than any burst."""
    found = np.mean([c.var() / c.mean() for c in (counts(process, 400.0, seed) for seed in range(12))])
    assert found == pytest.approx(dispersion_of_counts(process), rel=0.2)


def test_the_dispersion_tells_the_processes_apart() -> None:
    assert dispersion_of_counts(Gamma(3.0, 3.0)) > 3 * dispersion_of_counts(Poisson(3.0))
    assert dispersion_of_counts(MMPP) > 10


@pytest.mark.parametrize(
    "process", [Gamma(0.2, 3.0), Gamma(0.2, 0.4), MarkovModulated((0.0, 1.0), (40.0, 10.0))], ids=name
)
def test_a_short_stretch_is_as_full_as_a_long_one(process: Arrivals) -> None:
    """A process that began with a whole gap, or always in its first state, would be empty at first, or too full."""
    seconds, seeds = 5.0, 3000
    arrived = np.array([len(draw(process, seed, seconds)) for seed in range(seeds)])
    assert abs(arrived.mean() - process.rate * seconds) < 4 * arrived.std() / sqrt(seeds)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_the_same_seed_gives_the_same_arrivals(process: Arrivals) -> None:
    assert draw(process, 1, 100.0).tolist() == draw(process, 1, 100.0).tolist()
    assert draw(process, 1, 100.0).tolist() != draw(process, 2, 100.0).tolist()


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_scaling_changes_the_rate_alone(process: Arrivals) -> None:
    assert process.scaled(2.5).rate == pytest.approx(2.5 * process.rate)
    if isinstance(process, Gamma):
        assert process.scaled(2.5).cv == process.cv


def test_states_hold_as_long_as_they_say() -> None:
    """With one silent state, gaps longer than any within a burst are its stays."""
    gaps = np.diff(draw(MarkovModulated((0.0, 100.0), (30.0, 10.0)), 3))
    silences = gaps[gaps > 0.3]
    assert silences.mean() == pytest.approx(30.0, rel=0.12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Poisson(0.0),
        lambda: Poisson(float("nan")),
        lambda: Gamma(-1.0, 1.0),
        lambda: Gamma(1.0, 0.0),
        lambda: MarkovModulated((1.0,), (1.0,)),
        lambda: MarkovModulated((1.0, 2.0), (1.0,)),
        lambda: MarkovModulated((0.0, 0.0), (1.0, 1.0)),
        lambda: MarkovModulated((-1.0, 2.0), (1.0, 1.0)),
        lambda: MarkovModulated((1.0, 2.0), (1.0, float("inf"))),
    ],
)
def test_a_process_that_cannot_be(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"must|two or more"):
        wrong()  # type: ignore[operator]


def test_no_two_arrivals_share_a_moment() -> None:
    assert all(a < b for a, b in pairwise(draw(Poisson(3.0), 0, 2000.0)))
