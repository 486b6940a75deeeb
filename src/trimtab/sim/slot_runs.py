"""Runs of jobs on slots of unit speed under several orders: one seed of what the tables of SSJF compare.

Every run serves the same jobs under all its orders, to the last job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from pathlib import Path

import numpy as np

from trimtab.decide.queueing.lengths import BINS, UNLIMITED
from trimtab.decide.queueing.rank import kendall_tau
from trimtab.decide.queueing.ssjf import AGING_FACTOR, Guard
from trimtab.model.problem import Problem
from trimtab.sim.experiment import Cell, Row, Setting
from trimtab.sim.slots import Floats, Jobs, Served, binned, draw_jobs, noisy_predictions, serve, serve_batches
from trimtab.sim.statistics import WarmUp, warm_up
from trimtab.sim.streams import PILOT, stream
from trimtab.workload.predicted_lengths import PredictedLengths, find_predicted_lengths, read_predicted_lengths

FCFS, PURE, AGED, ORACLE = "FCFS", "pure SSJF", "SSJF, aging 10", "oracle SJF"
SWEPT, GUARDED, UNCAPPED = "SSJF with aging", "pure SSJF with guard", "pure SSJF, no cap"
NUMBER, FIVE, THREE, ONE = "SSJF by numbers", "SSJF by five classes", "SSJF by three classes", "SSJF by a constant"

PUBLISHED = "ssjf-length-prediction"
PUBLISHED_SIGMA = 1.0
"""Noise that ranks as well as the published five-class predictor (tau 0.55)."""

FIVE_MIDDLES = (20.0, 90.0, 215.0, 385.0, 507.0)
THREE_EDGES, THREE_MIDDLES = (141.0, 503.0), (70.0, 322.0, 507.0)

_PILOT_SEEDS = 200
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the settings of the parts on slots vary."""

    rate: float
    slots: int
    jobs: int
    variation: float = 1.0

    @classmethod
    def of(cls, setting: Setting) -> "Traffic":
        """Read it from a setting."""
        values = setting.values
        return cls(
            number_of(values["rate"]), int(number_of(values["slots"])), int(number_of(values["jobs"])),
            number_of(values.get("variation", 1.0)),
        )  # fmt: skip

    def draw(self, seed: int) -> Jobs:
        """Draw the jobs of a seed."""
        return draw_jobs(seed, self.jobs, self.rate, self.variation)


def number_of(cell: Cell) -> float:
    """Return a value of a setting that is a number."""
    assert isinstance(cell, int | float), "settings of this experiment are numbers"
    return float(cell)


def _orders(jobs: Jobs, predicted: Floats) -> dict[str, Floats]:
    """Return the keys of the four orders that every table compares."""
    return {
        FCFS: jobs.arrived,
        PURE: jobs.keys(predicted, inf),
        AGED: jobs.keys(predicted, AGING_FACTOR),
        ORACLE: jobs.keys(jobs.lengths, inf),
    }


def _served(jobs: Jobs, slots: int, keys: Mapping[str, Floats]) -> dict[str, Served]:
    """Serve the same jobs in each order."""
    return {policy: serve(jobs.arrived, jobs.seconds, ranks, slots=slots) for policy, ranks in keys.items()}


def _rows(served: Mapping[str, Served]) -> list[dict[str, Cell]]:
    """Say what each policy did; rates of completion are relative to the first one, under the same seed."""
    base = next(iter(served.values()))
    return [{"policy": policy, **_figures(outcome, base)} for policy, outcome in served.items()]


def _figures(outcome: Served, base: Served) -> dict[str, Cell]:
    completion = outcome.completion
    return {
        "mean": float(completion.mean()),
        "p50": float(np.percentile(completion, 50)),
        "p99": float(np.percentile(completion, 99)),
        "longest": float(completion.max()),
        # Sums of the same seconds in another order differ in the last digits, which is no difference between orders.
        "thr25": round(base.time_until(0.25) / outcome.time_until(0.25), _DIGITS),
        "thr100": round(base.time_until(1.0) / outcome.time_until(1.0), _DIGITS),
    }


def run_burst(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve a finite number of jobs to the last one, ordered by predictions with the published predictor's error."""
    del data
    traffic = Traffic.of(setting)
    jobs = traffic.draw(seed)
    return _rows(_served(jobs, traffic.slots, _orders(jobs, jobs.predicted(PUBLISHED_SIGMA))))


def run_steady(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Like `run_burst`, with the mean over what comes after the warm-up as well."""
    del data
    traffic = Traffic.of(setting)
    jobs = traffic.draw(seed)
    served = _served(jobs, traffic.slots, _orders(jobs, jobs.predicted(PUBLISHED_SIGMA)))
    return _with_steady(served, warm_up_of(traffic))


def _with_steady(served: Mapping[str, Served], warm: WarmUp) -> list[dict[str, Cell]]:
    rows = _rows(served)
    for row, outcome in zip(rows, served.values(), strict=True):
        row["steady_mean"] = float(outcome.completion[warm.drop :].mean()) if warm.steady else None
        row["warm_up_jobs"] = warm.drop
    return rows


@lru_cache(maxsize=32)
def warm_up_of(traffic: Traffic) -> WarmUp:
    """Find the warm-up on pilot seeds: the longest that any order needs, steady only if all of them are."""
    series: dict[str, list[Floats]] = {}
    for seed in range(PILOT, PILOT + _PILOT_SEEDS):
        jobs = traffic.draw(seed)
        for policy, outcome in _served(jobs, traffic.slots, _orders(jobs, jobs.predicted(PUBLISHED_SIGMA))).items():
            series.setdefault(policy, []).append(outcome.completion)
    return longest_of([warm_up(np.array(values)) for values in series.values()])


def longest_of(found: Sequence[WarmUp]) -> WarmUp:
    """Return a warm-up that is long enough for all, and steady only if all of them are."""
    return replace(max(found, key=lambda one: one.drop), steady=all(one.steady for one in found))


def run_guard(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Hold the two remedies against starvation beside each other: the code's guard, and aging."""
    del data
    traffic = Traffic.of(setting)
    jobs = traffic.draw(seed)
    predicted = jobs.predicted(PUBLISHED_SIGMA)
    keys = _orders(jobs, predicted)
    del keys[ORACLE]
    served = _served(jobs, traffic.slots, keys)
    estimates = replace(jobs, lengths=predicted).seconds
    served[GUARDED] = serve(
        jobs.arrived, jobs.seconds, keys[PURE], slots=traffic.slots, guard=Guard(), estimates=estimates
    )
    return _rows(served)


def run_aging(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve with one aging factor between first come, first served and the pure order."""
    del data
    traffic = Traffic.of(setting)
    jobs = traffic.draw(seed)
    predicted = jobs.predicted(PUBLISHED_SIGMA)
    keys = {
        FCFS: jobs.arrived,
        SWEPT: jobs.keys(predicted, number_of(setting.values["aging_factor"])),
        PURE: jobs.keys(predicted, inf),
        UNCAPPED: jobs.keys(noisy_predictions(jobs.lengths, jobs.noise, PUBLISHED_SIGMA, UNLIMITED), inf),
    }
    return _rows(_served(jobs, traffic.slots, keys))


def run_batches(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve in static batches, or continuously with as many slots."""
    if setting.values["mode"] == "continuous":
        return run_burst(seed, setting, data)
    traffic = Traffic.of(setting)
    jobs = traffic.draw(seed)
    wait = number_of(setting.values["batch_wait"])
    served = {
        policy: serve_batches(jobs.arrived, jobs.seconds, keys, size=traffic.slots, longest_wait=wait)
        for policy, keys in _orders(jobs, jobs.predicted(PUBLISHED_SIGMA)).items()
    }
    return _rows(served)


def run_predictors(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve the same jobs by predictions of the same error, as numbers and cut into classes."""
    del data
    traffic = Traffic.of(setting)
    jobs = traffic.draw(seed)
    number = jobs.predicted(PUBLISHED_SIGMA)
    return _by_prediction(
        jobs,
        traffic.slots,
        {
            NUMBER: number,
            FIVE: binned(number, BINS, FIVE_MIDDLES),
            THREE: binned(number, THREE_EDGES, THREE_MIDDLES),
            ONE: np.full_like(number, number.mean()),
            ORACLE: jobs.lengths,
        },
    )


def run_noise(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve by predictions that are off by a log-normal factor."""
    del data
    traffic = Traffic.of(setting)
    jobs = traffic.draw(seed)
    return _by_prediction(jobs, traffic.slots, {PURE: jobs.predicted(number_of(setting.values["sigma"]))})


def _by_prediction(jobs: Jobs, slots: int, predictions: Mapping[str, Floats]) -> list[dict[str, Cell]]:
    keys = {FCFS: jobs.arrived, **{policy: jobs.keys(predicted, inf) for policy, predicted in predictions.items()}}
    rows = _rows(_served(jobs, slots, keys))
    rows[0]["tau"] = None
    for row, predicted in zip(rows[1:], predictions.values(), strict=True):
        row["tau"] = kendall_tau(predicted, jobs.lengths)
    return rows


@lru_cache(maxsize=2)
def _published(data: Path) -> PredictedLengths:
    return read_predicted_lengths(find_predicted_lengths(data / PUBLISHED))


def _draw_published(seed: int, traffic: Traffic, data: Path | None) -> tuple[Jobs, Mapping[str, Floats]]:
    """Draw answers with what the published classifiers said of them; returns the jobs, and predictions by classes."""
    if data is None:
        raise Problem("the published predictions do not come with Trimtab", fix="point --data at a folder with them")
    known = _published(data)
    places = stream(seed, "jobs", "places").integers(0, len(known.output_tokens), traffic.jobs)
    jobs = replace(traffic.draw(seed), lengths=known.output_tokens[places])
    five = np.array(FIVE_MIDDLES)[known.five_bins[places]]
    three = np.array(THREE_MIDDLES)[known.three_bins[places]]
    return jobs, {FIVE: five, THREE: three}


def run_published(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve answers of the published file by what the five-class predictor said of them."""
    traffic = Traffic.of(setting)
    jobs, predictions = _draw_published(seed, traffic, data)
    return _rows(_served(jobs, traffic.slots, _orders(jobs, predictions[FIVE])))


def run_published_steady(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Like `run_published`, with the mean over what comes after the warm-up as well."""
    traffic = Traffic.of(setting)
    jobs, predictions = _draw_published(seed, traffic, data)
    return _with_steady(_served(jobs, traffic.slots, _orders(jobs, predictions[FIVE])), warm_up_of(traffic))


def run_published_predictors(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Hold the two published classifiers beside each other."""
    traffic = Traffic.of(setting)
    jobs, predictions = _draw_published(seed, traffic, data)
    return _by_prediction(jobs, traffic.slots, {**predictions, ORACLE: jobs.lengths})
