"""SSJF against first come, first served: what ordering by predicted length is worth, and what it costs.

The tables of the specification's ssjf.md §5, on slots of unit speed, and the same orders on the calibrated engine.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from pathlib import Path

import numpy as np

from trimtab.decide.queueing import fcfs
from trimtab.decide.queueing.lengths import BINS
from trimtab.decide.queueing.line import Order
from trimtab.decide.queueing.rank import kendall_tau
from trimtab.decide.queueing.ssjf import AGING_FACTOR, Guard, ServiceTime, SsjfOrder
from trimtab.model.problem import Problem
from trimtab.sim.experiment import Cell, Claim, Metric, Part, Plot, Row, Setting
from trimtab.sim.ledger import Ledger
from trimtab.sim.ordered_pool import Engine, arrivals, full_pace, recorded_lengths
from trimtab.sim.ordered_pool import run as run_pool
from trimtab.sim.slots import Floats, Jobs, Served, binned, draw_jobs, serve, serve_batches
from trimtab.sim.statistics import WarmUp, warm_up
from trimtab.sim.streams import stream
from trimtab.workload.predicted_lengths import PredictedLengths, find_predicted_lengths, read_predicted_lengths
from trimtab.workload.request import TraceRequest

FCFS, PURE, AGED, ORACLE = "FCFS", "pure SSJF", "SSJF, aging 10", "oracle SJF"
SWEPT, GUARDED = "SSJF with aging", "pure SSJF with guard"
NUMBER, FIVE, THREE, ONE = "SSJF by numbers", "SSJF by five classes", "SSJF by three classes", "SSJF by a constant"

PUBLISHED = "ssjf-length-prediction"
PUBLISHED_SIGMA = 1.0
"""Noise that ranks as well as the published five-class predictor (tau 0.55)."""

FIVE_MIDDLES = (20.0, 90.0, 215.0, 385.0, 507.0)
THREE_EDGES, THREE_MIDDLES = (141.0, 503.0), (70.0, 322.0, 507.0)

_PILOT = 1_000_000
_PILOT_SEEDS = 200

_MEAN = Metric("mean", "mean completion", "s", relative=True)
_MEDIAN = Metric("p50", "median completion", "s", relative=True)
_P99 = Metric("p99", "p99 completion", "s", relative=True)
_LONGEST = Metric("longest", "longest completion", "s", relative=True)
_EARLY = Metric("thr25", "thr@25 %", "x FCFS", better="higher")
_WHOLE = Metric("thr100", "thr@100 %", "x FCFS", better="higher")
_TAU = Metric("tau", "tau", better="higher")

# --- slots of unit speed --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What the settings of the parts on slots vary."""

    rate: float
    slots: int
    jobs: int
    variation: float = 1.0

    @classmethod
    def of(cls, setting: Setting) -> "_Traffic":
        """Read it from a setting."""
        values = setting.values
        return cls(
            _number(values["rate"]), int(_number(values["slots"])), int(_number(values["jobs"])),
            _number(values.get("variation", 1.0)),
        )  # fmt: skip

    def draw(self, seed: int) -> Jobs:
        """Draw the jobs of a seed."""
        return draw_jobs(seed, self.jobs, self.rate, self.variation)


def _number(cell: Cell) -> float:
    assert isinstance(cell, int | float), "settings of this experiment are numbers"
    return float(cell)


def _served(jobs: Jobs, slots: int, predicted: Floats) -> dict[str, Served]:
    """Serve the same jobs under the four orders that every table compares."""
    keys = {
        FCFS: jobs.arrived,
        PURE: jobs.keys(predicted, inf),
        AGED: jobs.keys(predicted, AGING_FACTOR),
        ORACLE: jobs.keys(jobs.lengths, inf),
    }
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
        "thr25": base.time_until(0.25) / outcome.time_until(0.25),
        "thr100": base.time_until(1.0) / outcome.time_until(1.0),
    }


def run_burst(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve a finite number of jobs to the last one, ordered by predictions with the published predictor's error."""
    del data
    traffic = _Traffic.of(setting)
    jobs = traffic.draw(seed)
    return _rows(_served(jobs, traffic.slots, jobs.predicted(PUBLISHED_SIGMA)))


def run_steady(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Like `run_burst`, with the mean over what comes after the warm-up as well."""
    del data
    traffic = _Traffic.of(setting)
    jobs = traffic.draw(seed)
    served = _served(jobs, traffic.slots, jobs.predicted(PUBLISHED_SIGMA))
    return _with_steady(served, _warm_up(traffic))


def _with_steady(served: Mapping[str, Served], warm: WarmUp) -> list[dict[str, Cell]]:
    rows = _rows(served)
    for row, outcome in zip(rows, served.values(), strict=True):
        row["steady_mean"] = float(outcome.completion[warm.drop :].mean()) if warm.steady else None
        row["warm_up_jobs"] = warm.drop
    return rows


@lru_cache(maxsize=32)
def _warm_up(traffic: _Traffic) -> WarmUp:
    """Find the warm-up on pilot seeds: the longest that any order needs, steady only if all of them are."""
    series: dict[str, list[Floats]] = {}
    for seed in range(_PILOT, _PILOT + _PILOT_SEEDS):
        jobs = traffic.draw(seed)
        for policy, outcome in _served(jobs, traffic.slots, jobs.predicted(PUBLISHED_SIGMA)).items():
            series.setdefault(policy, []).append(outcome.completion)
    return _longest([warm_up(np.array(values)) for values in series.values()])


def _longest(found: Sequence[WarmUp]) -> WarmUp:
    return replace(max(found, key=lambda one: one.drop), steady=all(one.steady for one in found))


def run_guard(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Hold the two remedies against starvation beside each other: the code's guard, and aging."""
    del data
    traffic = _Traffic.of(setting)
    jobs = traffic.draw(seed)
    predicted = jobs.predicted(PUBLISHED_SIGMA)
    estimates = replace(jobs, lengths=predicted).seconds
    served = _served(jobs, traffic.slots, predicted)
    del served[ORACLE]
    served[GUARDED] = serve(
        jobs.arrived, jobs.seconds, jobs.keys(predicted, inf), slots=traffic.slots, guard=Guard(), estimates=estimates
    )
    return _rows(served)


def run_aging(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve with one aging factor between first come, first served and the pure order."""
    del data
    traffic = _Traffic.of(setting)
    jobs = traffic.draw(seed)
    predicted = jobs.predicted(PUBLISHED_SIGMA)
    factor = _number(setting.values["aging_factor"])
    keys = {FCFS: jobs.arrived, SWEPT: jobs.keys(predicted, factor), PURE: jobs.keys(predicted, inf)}
    return _rows({policy: serve(jobs.arrived, jobs.seconds, k, slots=traffic.slots) for policy, k in keys.items()})


def run_batches(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve in static batches, or continuously with as many slots."""
    if setting.values["mode"] == "continuous":
        return run_burst(seed, setting, data)
    traffic = _Traffic.of(setting)
    jobs = traffic.draw(seed)
    predicted = jobs.predicted(PUBLISHED_SIGMA)
    keys = {
        FCFS: jobs.arrived,
        PURE: jobs.keys(predicted, inf),
        AGED: jobs.keys(predicted, AGING_FACTOR),
        ORACLE: jobs.keys(jobs.lengths, inf),
    }
    wait = _number(setting.values["batch_wait"])
    return _rows(
        {
            policy: serve_batches(jobs.arrived, jobs.seconds, ranks, size=traffic.slots, longest_wait=wait)
            for policy, ranks in keys.items()
        }
    )


def run_predictors(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve the same jobs by predictions of the same error, as numbers and cut into classes."""
    del data
    traffic = _Traffic.of(setting)
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
    traffic = _Traffic.of(setting)
    jobs = traffic.draw(seed)
    return _by_prediction(jobs, traffic.slots, {PURE: jobs.predicted(_number(setting.values["sigma"]))})


def _by_prediction(jobs: Jobs, slots: int, predictions: Mapping[str, Floats]) -> list[dict[str, Cell]]:
    served = {FCFS: serve(jobs.arrived, jobs.seconds, jobs.arrived, slots=slots)}
    for policy, predicted in predictions.items():
        served[policy] = serve(jobs.arrived, jobs.seconds, jobs.keys(predicted, inf), slots=slots)
    rows = _rows(served)
    rows[0]["tau"] = None
    for row, predicted in zip(rows[1:], predictions.values(), strict=True):
        row["tau"] = kendall_tau(predicted, jobs.lengths)
    return rows


# --- published predictions ------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _published(data: Path) -> PredictedLengths:
    return read_predicted_lengths(find_predicted_lengths(data / PUBLISHED))


def _draw_published(seed: int, traffic: _Traffic, data: Path | None) -> tuple[Jobs, Mapping[str, Floats]]:
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
    traffic = _Traffic.of(setting)
    jobs, predictions = _draw_published(seed, traffic, data)
    return _rows(_served(jobs, traffic.slots, predictions[FIVE]))


def run_published_steady(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Like `run_published`, with the mean over what comes after the warm-up as well."""
    traffic = _Traffic.of(setting)
    jobs, predictions = _draw_published(seed, traffic, data)
    return _with_steady(_served(jobs, traffic.slots, predictions[FIVE]), _warm_up(traffic))


def run_published_predictors(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Hold the two published classifiers beside each other."""
    traffic = _Traffic.of(setting)
    jobs, predictions = _draw_published(seed, traffic, data)
    return _by_prediction(jobs, traffic.slots, {**predictions, ORACLE: jobs.lengths})


# --- the calibrated engine ------------------------------------------------------------------------------------------

ENGINE_SIGMA = 0.8
"""Noise on the recorded lengths that ranks as well as the published predictor does on its own."""

_TTFT = Metric("ttft", "mean time to first token", "s", relative=True)
_TTFT99 = Metric("ttft_p99", "p99 time to first token", "s", relative=True)
_QUEUED = Metric("queued", "waited in front", "%")
_RATE = Metric("rate", "served per second", "1/s", better="higher", relative=True)
_ENGINE_PILOT_SEEDS = 5


def run_engine(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve requests of a recorded trace on the calibrated engine behind the production queue."""
    orders = {"SSJF, aging 1": 1.0, AGED: AGING_FACTOR, PURE: inf}
    return _on_engine(seed, setting, data, orders)


def run_engine_aging(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Serve with one aging factor on the calibrated engine."""
    return _on_engine(seed, setting, data, {SWEPT: _number(setting.values["aging_factor"])})


@dataclass(frozen=True, slots=True)
class _Case:
    """An engine and what arrives at it.

    Attributes:
        load: Arrivals over what the engine serves while its batch is full.
        steady: Whether the warm-up is left out; else everything counts.
    """

    engine: Engine
    load: float
    requests: int
    steady: bool

    @classmethod
    def of(cls, setting: Setting) -> "_Case":
        """Read it from a setting."""
        values = setting.values
        engine = Engine(
            str(values["profile"]), int(_number(values["sequences"])), int(_number(values.get("capacity", 0)))
        )
        load = _number(values["load"])
        return cls(engine, load, int(_number(values["requests"])), load < 1)

    def draw(self, seed: int, data: Path | None) -> list[TraceRequest]:
        """Draw the requests of a seed."""
        lengths, pace = recorded_lengths(data), full_pace(self.engine, data)
        at = arrivals(seed, self.requests, self.load * pace.rate, lengths.variation)
        return lengths.draw(seed, at, self.engine.longest())


def _on_engine(seed: int, setting: Setting, data: Path | None, orders: Mapping[str, float]) -> list[dict[str, Cell]]:
    case = _Case.of(setting)
    requests = case.draw(seed, data)
    answers, predicted = _predictions(seed, requests)
    warm = _engine_warm_up(case, data) if case.steady else WarmUp(0, 0.0, 1.0, steady=True)
    service = full_pace(case.engine, data).service
    rows = []
    for policy, order, known in _orders(orders, service, predicted, answers):
        ledger = run_pool(case.engine, requests, None if known is None else known.tolist(), order)
        tau = None if known is None else kendall_tau(known, answers)
        rows.append({"policy": policy, **_engine_figures(ledger, warm), "tau": tau})
    return rows


def _orders(
    factors: Mapping[str, float], service: ServiceTime, predicted: Floats, answers: Floats
) -> Iterator[tuple[str, Order, Floats | None]]:
    yield FCFS, fcfs.order, None
    for policy, factor in factors.items():
        yield policy, SsjfOrder(factor, service), predicted
    yield ORACLE, SsjfOrder(inf, service), answers


def _predictions(seed: int, requests: Sequence[TraceRequest]) -> tuple[Floats, Floats]:
    """Return the true lengths of the answers and predictions of them, in tokens, shape `(requests,)`."""
    answers = np.array([float(request.output_tokens) for request in requests])
    noise = stream(seed, "requests", "noise").standard_normal(len(requests))
    return answers, answers * np.exp(ENGINE_SIGMA * noise)


@lru_cache(maxsize=64)
def _engine_warm_up(case: _Case, data: Path | None) -> WarmUp:
    """Find the warm-up on pilot seeds, under first come, first served and under the pure order."""
    series: dict[str, list[Floats]] = {FCFS: [], PURE: []}
    for seed in range(_PILOT, _PILOT + _ENGINE_PILOT_SEEDS):
        requests = case.draw(seed, data)
        _, predicted = _predictions(seed, requests)
        series[FCFS].append(run_pool(case.engine, requests, None, fcfs.order).ttft())
        series[PURE].append(run_pool(case.engine, requests, predicted.tolist(), SsjfOrder(inf)).ttft())
    return _longest([warm_up(np.array(values)) for values in series.values()])


def _engine_figures(ledger: Ledger, warm: WarmUp) -> dict[str, Cell]:
    latency, ttft = ledger.latency()[warm.drop :], ledger.ttft()[warm.drop :]
    queued = (ledger.column("dispatched_at") - ledger.column("arrived_at"))[warm.drop :]
    return {
        "mean": float(latency.mean()),
        "p99": float(np.percentile(latency, 99)),
        "ttft": float(ttft.mean()),
        "ttft_p99": float(np.percentile(ttft, 99)),
        "queued": float(np.mean(queued > 0) * 100),
        "rate": len(ledger) / float(ledger.column("ended_at").max()),
        "warm_up_requests": warm.drop,
        "steady": warm.steady,
    }


# --- the tables -----------------------------------------------------------------------------------------------------

_MEAN_SERVICE = 3.636  # seconds of one job, mean, as the specification counts it


def _setting(rate: float, slots: int, jobs: int, name: str = "", **more: Cell) -> Setting:
    values: dict[str, Cell] = {"rate": rate, "slots": slots, "load": round(rate * _MEAN_SERVICE / slots, 2)}
    return Setting(name or f"{rate:g}/s, {_slots(slots)}", {**values, "jobs": jobs, **more})


def _slots(slots: int) -> str:
    return "1 slot" if slots == 1 else f"{slots} slots"


Figures = Mapping[tuple[str, str, str], float]

# Rows of ssjf.md's main table: rate, slots; mean SSJF and oracle, p99, thr@25 % of A (published) and B (synthetic).
_BURSTS = (
    (0.14, 1, (-0.083, -0.112, 1.10, 1.01), (-0.074, -0.101, 1.11, 1.00)),
    (0.26, 1, (-0.260, -0.358, 1.52, 1.06), (-0.245, -0.330, 1.69, 1.05)),
    (1.0, 1, (-0.335, -0.460, 1.06, 1.66), (-0.333, -0.463, 1.17, 1.67)),
    (5.0, 1, (-0.307, -0.425, 0.99, 2.93), (-0.307, -0.426, 1.01, 3.10)),
    (10.0, 1, (-0.301, -0.417, 0.99, 3.15), (-0.302, -0.417, 0.99, 3.31)),
    (2.0, 4, (-0.254, -0.339, 1.24, 1.19), (-0.243, -0.333, 1.43, 1.18)),
    (10.0, 4, (-0.261, -0.354, 1.03, 2.00), (-0.261, -0.354, 1.06, 2.06)),
)
_STEADY = (
    (0.2475, 1, (-0.341, -0.467, 1.66, 1.00), (-0.334, -0.442, 2.44, 1.00)),
    (0.770, 4, (-0.052, -0.069, 1.14, 1.00), (-0.048, -0.066, 1.21, 1.00)),
    (0.990, 4, (-0.225, -0.305, 1.52, 1.00), (-0.208, -0.272, 2.10, 1.00)),
)
_BURST_JOBS, _STEADY_JOBS = 50, 2000


def _main_figures(rows: Sequence[tuple[float, int, tuple[float, ...], tuple[float, ...]]], column: int) -> Figures:
    """Return a column of the main table (0: A, published; 1: B, synthetic) as figures to be shown beside ours."""
    figures: dict[tuple[str, str, str], float] = {}
    for rate, slots, *columns in rows:
        mean, oracle, p99, early = columns[column]
        name = _setting(rate, slots, 0).name
        figures[name, PURE, "mean"], figures[name, ORACLE, "mean"] = mean, oracle
        figures[name, PURE, "p99"], figures[name, PURE, "thr25"] = p99 - 1, early
    return figures


_ALL_JOBS = "The specification's figures are over all jobs, so they stand beside the mean of all of them."
_STEADY_MEAN = Metric("steady_mean", "mean after warm-up", "s", relative=True)
_FULL = (_MEAN, _P99, _EARLY, _WHOLE)


def _main_parts() -> list[Part]:
    bursts = tuple(_setting(rate, slots, _BURST_JOBS) for rate, slots, *_ in _BURSTS)
    steady = tuple(_setting(rate, slots, _STEADY_JOBS) for rate, slots, *_ in _STEADY)
    overloads = tuple(setting.name for setting in bursts if _number(setting.values["load"]) > 1)
    whole_run = Claim(
        "The order raises throughput over a whole run, as the paper's figures are easily read", PURE, FCFS, "thr100"
    )
    plots = (
        Plot("load", "mean", "load", "mean completion against FCFS", logarithmic=True, panel="slots", difference=True),
    )
    burst = Part(
        "rates",
        "Fifty jobs at several rates",
        "Fifty jobs arrive at a fixed rate and are served to the last one, on synthetic lengths and predictions that "
        "rank as well as the published ones (column B of the specification). Load is arrivals over capacity; above 1 "
        "the queue grows as long as jobs come. thr@25 % is how much sooner the first quarter is done: early "
        "completions of an overload, which is what the paper's code calls throughput. thr@100 % is the throughput.",
        bursts,
        run_burst,
        _FULL,
        baseline=FCFS,
        plots=plots,
        claims=(
            Claim("SSJF shortens the mean completion of an overload", PURE, FCFS, "mean", overloads),
            Claim("So it does with aging", AGED, FCFS, "mean", overloads),
            whole_run,
        ),
        expected=_main_figures(_BURSTS, 1),
        seconds_per_run=0.002,
    )
    long = Part(
        "steady",
        "Two thousand jobs at steady load",
        "The same at loads below 1, long enough to be steady. The warm-up is found and tested on pilot seeds and left "
        f"out of one of the means. {_ALL_JOBS} Percentiles are of all jobs too.",
        steady,
        run_steady,
        (_MEAN, _STEADY_MEAN, _MEDIAN, _P99, _LONGEST),
        baseline=FCFS,
        seeds=100,
        claims=(
            Claim("SSJF shortens the mean completion at steady load", PURE, FCFS, "steady_mean"),
            Claim("Its p99 is not above that of FCFS", PURE, FCFS, "p99"),
            Claim("With aging, p99 is at most half as long again as that of FCFS", AGED, FCFS, "p99", margin=0.5),
        ),
        expected=_main_figures(_STEADY, 1),
        seconds_per_run=0.03,
    )
    return [burst, long, *_published_parts(burst, long)]


def _published_parts(burst: Part, long: Part) -> list[Part]:
    published = "Column A of the specification: answers and five-class predictions drawn from the published file."
    return [
        replace(
            burst,
            name="rates-published",
            title="Fifty jobs at several rates, published predictions",
            about=published,
            run=run_published,
            claims=(),
            expected=_main_figures(_BURSTS, 0),
            needs=(PUBLISHED,),
        ),
        replace(
            long,
            name="steady-published",
            title="Two thousand jobs at steady load, published predictions",
            about=f"{published} {_ALL_JOBS}",
            run=run_published_steady,
            claims=(),
            expected=_main_figures(_STEADY, 0),
            needs=(PUBLISHED,),
        ),
    ]


_VARIATIONS = (1.0, 2.0, 3.0, 4.0, 5.5)


def _burstiness_part() -> Part:
    settings = tuple(
        _setting(rate, 1, _BURST_JOBS, f"CV {variation:g}, {rate:g}/s", variation=variation)
        for rate in (0.03, 0.14, 1.0)
        for variation in _VARIATIONS
    )
    return Part(
        "burstiness",
        "Burstier arrivals",
        "Fifty jobs whose gaps follow a gamma distribution with this coefficient of variation; 1 is Poisson. The load "
        "is low at 0.03/s (0.11), moderate at 0.14/s (0.5) and beyond capacity at 1/s (3.6). Bursts make queues where "
        "the load alone makes none, and there the order gains; where the queue is always long, they change little.",
        settings,
        run_burst,
        _FULL,
        baseline=FCFS,
        plots=(
            Plot(
                "variation", "mean", "coefficient of variation", "mean completion against FCFS",
                panel="rate", difference=True,
            ),
        ),
        seconds_per_run=0.002,
    )  # fmt: skip


_SIZES = (2, 4, 6, 8, 10)
_BATCH_WAIT = 5.0
_JOBS_PER_SLOT, _RATE_PER_SLOT = 25, 0.5


def _batches_part() -> Part:
    settings = [_setting(2.0, 1, _BURST_JOBS, "no batching, same traffic", mode="continuous", size=1, panel="same")]
    for mode in ("static", "continuous"):
        more: dict[str, Cell] = {"mode": mode, "batch_wait": _BATCH_WAIT}
        for size in _SIZES:
            name = f"{mode} {size}, same traffic"
            settings.append(_setting(2.0, size, _BURST_JOBS, name, size=size, panel=f"{mode}, same traffic", **more))
        for size in _SIZES:
            name, panel = f"{mode} {size}, in proportion", f"{mode}, traffic in proportion"
            jobs = _JOBS_PER_SLOT * size
            settings.append(_setting(_RATE_PER_SLOT * size, size, jobs, name, size=size, panel=panel, **more))
    return Part(
        "batches",
        "Batch modes and sizes",
        "Static batches end with their longest job; continuous batching gives each free slot to the next. Once with "
        "the same 50 jobs at 2/s for every size, as the paper does it, where larger batches meet less load; once with "
        "rate and jobs in proportion to the size, where they do not. Slots have unit speed whatever the size. A static "
        "batch in order of length holds jobs of like length and wastes less, so here, and only here, thr@100 % can "
        "exceed 1.",
        tuple(settings),
        run_batches,
        _FULL,
        baseline=FCFS,
        plots=(
            Plot("size", "mean", "batch size", "mean completion against FCFS", panel="panel", difference=True),
            Plot("size", "thr100", "batch size", "thr@100 %, x FCFS", panel="panel"),
        ),
        seconds_per_run=0.004,
    )


_NOISE = {
    0.0: (1.00, -0.463), 0.3: (0.82, -0.435), 0.6: (0.69, -0.389), 0.9: (0.58, -0.346),
    1.0: (0.55, -0.333), 1.2: (0.50, -0.307), 2.0: (0.35, -0.225), 4.0: (0.19, -0.125),
}  # fmt: skip


def _predictor_parts() -> list[Part]:
    one = _setting(1.0, 1, _BURST_JOBS)
    settings = (one, _setting(10.0, 4, _BURST_JOBS))
    metrics = (_TAU, *_FULL)
    noise = {f"noise {sigma:g}": (sigma, *figures) for sigma, figures in _NOISE.items()}
    return [
        Part(
            "predictors",
            "Numbers, five classes, three classes",
            "Predictions with the same error, given as numbers or cut into classes whose middles are used. Jobs of one "
            "class are served as they come. tau is (right - wrong) / all pairs; ties count 0.",
            settings,
            run_predictors,
            metrics,
            baseline=FCFS,
            claims=(Claim("Five classes rank better than three", FIVE, THREE, "mean"),),
            seconds_per_run=0.003,
        ),
        Part(
            "predictors-published",
            "The two published classifiers",
            "What the published five-class and three-class predictors are worth on the same answers.",
            settings,
            run_published_predictors,
            metrics,
            baseline=FCFS,
            claims=(Claim("Five classes rank better than three", FIVE, THREE, "mean"),),
            expected={
                (one.name, FIVE, "mean"): -0.335,
                (one.name, FIVE, "tau"): 0.555,
                (one.name, THREE, "mean"): -0.290,
                (one.name, ORACLE, "mean"): -0.460,
            },
            needs=(PUBLISHED,),
            seconds_per_run=0.003,
        ),
        Part(
            "noise",
            "How good predictions must be",
            "Predictions off by a log-normal factor whose logarithm has this standard deviation; 1/s on one slot. The "
            "gain goes down with tau, and slowly: a tau of 0.35 still brings half of what the truth does.",
            tuple(_setting(1.0, 1, _BURST_JOBS, name, sigma=sigma) for name, (sigma, _, _) in noise.items()),
            run_noise,
            metrics,
            baseline=FCFS,
            plots=(Plot("sigma", "mean", "noise (sigma)", "mean completion against FCFS", difference=True),),
            expected={
                **{(name, PURE, "tau"): tau for name, (_, tau, _) in noise.items()},
                **{(name, PURE, "mean"): mean for name, (_, _, mean) in noise.items()},
            },
            seconds_per_run=0.002,
        ),
    ]


_AGING = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_FCFS_MEAN, _FCFS_LONGEST = 29.9, 125.0
_AGED_MEANS = {5.0: (24.8, 141.0), 10.0: (22.4, 164.0), 20.0: (20.7, 204.0)}
_PURE_MEAN, _PURE_LONGEST = 19.3, 1219.0


def _starvation_parts() -> list[Part]:
    worlds = (("1 slot, load 0.9", 0.2475, 1, 2000), ("4 slots, load 0.95", 1.045, 4, 3000))
    settings = tuple(
        _setting(rate, slots, jobs, f"aging {factor:g}, {world}", aging_factor=factor, world=world)
        for world, rate, slots, jobs in worlds
        for factor in _AGING
    )
    first = f"aging {{:g}}, {worlds[0][0]}"
    expected = {}
    for factor in _AGING:
        name = first.format(factor)
        expected[name, FCFS, "mean"], expected[name, FCFS, "longest"] = _FCFS_MEAN, _FCFS_LONGEST
        expected[name, PURE, "mean"] = _PURE_MEAN / _FCFS_MEAN - 1
        expected[name, PURE, "longest"] = _PURE_LONGEST / _FCFS_LONGEST - 1
        if factor in _AGED_MEANS:
            mean, longest = _AGED_MEANS[factor]
            expected[name, SWEPT, "mean"] = mean / _FCFS_MEAN - 1
            expected[name, SWEPT, "longest"] = longest / _FCFS_LONGEST - 1
    ten = tuple(setting.name for setting in settings if setting.values["aging_factor"] == AGING_FACTOR)
    metrics = (_MEAN, _P99, _LONGEST)
    return [
        Part(
            "aging",
            "The aging factor",
            "The key is arrival + factor * predicted time: 0 is first come, first served, and the larger the factor, "
            "the closer to the pure order, which starves. The window in which others may overtake a job is the factor "
            "times its predicted time. Ten is the default of a pool.",
            settings,
            run_aging,
            metrics,
            baseline=FCFS,
            seeds=100,
            plots=(
                Plot("aging_factor", "mean", "aging factor", "mean completion (s)", panel="world"),
                Plot("aging_factor", "longest", "aging factor", "longest completion (s)", panel="world"),
            ),
            claims=(
                Claim("A factor of 10 shortens the mean", SWEPT, FCFS, "mean", ten),
                Claim("Its longest is below twice that of FCFS", SWEPT, FCFS, "longest", ten[:1], margin=1.0),
                Claim("Its longest is below that of the pure order", SWEPT, PURE, "longest", ten),
            ),
            expected=expected,
            seconds_per_run=0.04,
        ),
        Part(
            "guard",
            "Guard or aging",
            "Two remedies against starvation: the guard of the paper's code (the longest-waiting job goes first beyond "
            "100 s, or ten times its own time), here with estimates where the code uses true times, and aging in the "
            "key. The paper does not evaluate the guard.",
            (
                _setting(0.2475, 1, _STEADY_JOBS),
                _setting(0.990, 4, _STEADY_JOBS),
                _setting(1.0, 1, _BURST_JOBS, "1/s, 1 slot, 50 jobs"),
            ),
            run_guard,
            (_MEAN, _MEDIAN, _P99, _LONGEST),
            baseline=FCFS,
            seeds=100,
            seconds_per_run=0.03,
        ),
    ]


_EIGHT_B, _SEVEN_B = "llama-3.1-8b-h100", "llama-2-7b-h100"
_STEADY_REQUESTS = {8: 2000, 32: 4000, 256: 8000}
_PER_SEQUENCE = 12.5  # requests of a burst for each sequence, as 50 jobs are for 4 slots
_OVERLOAD = 2.0


def _engine_setting(profile: str, sequences: int, load: float, **more: Cell) -> Setting:
    requests = _STEADY_REQUESTS[sequences] if load < 1 else int(_PER_SEQUENCE * sequences)
    name = f"{sequences} sequences, load {load:g}"
    if "capacity" in more:
        name = f"{more['capacity']} in flight, load {load:g}"
    values: dict[str, Cell] = {"profile": profile, "sequences": sequences, "load": load, "requests": requests}
    return Setting(name, {**values, **more})


_ENGINE_ABOUT = (
    "One simulated Llama-3.1-8B on an H100 (a profile scaled from a measured Llama-2-7B, so extrapolated) behind the "
    "gateway's queue. Requests have lengths of the recorded Azure conversation trace and arrive as burstily as they "
    "did there. Load is arrivals over what the engine serves while its batch is full; loads below 1 are steady, their "
    "warm-up left out, and load 2 is a burst of 12.5 requests per sequence, served to the last one. "
)


def _engine_parts() -> list[Part]:
    settings = tuple(
        _engine_setting(_EIGHT_B, sequences, load) for sequences in _STEADY_REQUESTS for load in (0.7, 0.95, _OVERLOAD)
    )
    metrics = (_MEAN, _P99, _TTFT, _TTFT99, _QUEUED, _RATE, _TAU)
    return [
        Part(
            "engine",
            "On the calibrated engine",
            f"{_ENGINE_ABOUT}An order can only help those who wait in front of the engine: look at their share first. "
            "With many sequences nobody waits below capacity, and the gain is zero.",
            settings,
            run_engine,
            metrics,
            baseline=FCFS,
            seeds=15,
            plots=(
                Plot(
                    "sequences",
                    "mean",
                    "sequences",
                    "mean completion against FCFS",
                    logarithmic=True,
                    panel="load",
                    difference=True,
                ),
                Plot(
                    "sequences",
                    "ttft",
                    "sequences",
                    "mean time to first token against FCFS",
                    logarithmic=True,
                    panel="load",
                    difference=True,
                ),
            ),
            claims=(
                Claim("SSJF shortens the mean at 8 sequences, load 0.95", AGED, FCFS, "mean", (settings[1].name,)),
                Claim("It does in an overload", AGED, FCFS, "mean", tuple(one.name for one in settings[2::3])),
                Claim(
                    "At 256 sequences and load 0.7 or 0.95 FCFS is within 1 % of it",
                    FCFS,
                    AGED,
                    "mean",
                    (settings[6].name, settings[7].name),
                    margin=0.01,
                ),
                Claim("Its p99 is not above that of FCFS", AGED, FCFS, "p99"),
            ),
            seconds_per_run=0.8,
        ),
        Part(
            "engine-aging",
            "The aging factor on the calibrated engine",
            "Eight sequences at load 0.95. Waits are seconds there, so a factor that leaves a window of many seconds "
            "is as good as the pure order, for better and worse: the factor is to be chosen by the wait that a long "
            "answer may be made to bear, not once and for all.",
            tuple(
                replace(_engine_setting(_EIGHT_B, 8, 0.95, aging_factor=factor), name=f"aging {factor:g}")
                for factor in (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
            ),
            run_engine_aging,
            metrics,
            baseline=FCFS,
            seeds=15,
            plots=(
                Plot("aging_factor", "mean", "aging factor", "mean completion (s)"),
                Plot("aging_factor", "p99", "aging factor", "p99 completion (s)"),
            ),
            seconds_per_run=0.2,
        ),
        Part(
            "engine-memory",
            "Where the queue is",
            "Llama-2-7B on an H100 with 256 sequences, whose KV cache holds fewer than 100 requests of this trace. If "
            "the gateway hands over all 256, the rest wait inside the engine, first come, first served, and no order "
            "in front of it matters. If it hands over what fits, they wait where they can be put in order.",
            tuple(
                _engine_setting(_SEVEN_B, 256, load, capacity=capacity)
                for load in (0.95, _OVERLOAD)
                for capacity in (256, 64)
            ),
            run_engine,
            metrics,
            baseline=FCFS,
            seeds=10,
            seconds_per_run=1.0,
        ),
    ]


@dataclass(frozen=True, slots=True)
class Ssjf:
    """The experiment."""

    name: str = "ssjf"
    title: str = "Shortest predicted job first: gains, costs and limits"
    about: str = (
        "Answers differ in length by a factor of a hundred, and an engine that serves in order of arrival lets long "
        "ones hold up short ones. SSJF predicts the length of each answer and serves the shortest first. Here it is "
        "compared with first come, first served (FCFS): as published (pure), with the aging key that a pool uses "
        "(`orderWithinGroup: SSJF`, `agingFactor`), and with the true lengths (oracle), which no predictor can beat. "
        "All orders see the same arrivals, lengths and prediction errors. Every run goes on until the last job is "
        "done, so nothing is left unfinished.\n\n"
        "Look at the mean completion, and then at what it costs: p99 and the longest. The mean falls because many "
        "short jobs pass a few long ones, and those wait longer for it. Without a queue there is nothing to gain: at "
        "low load, and on engines that serve hundreds of requests at once, the difference is zero.\n\n"
        "It must not be concluded that throughput rises: thr@25 % shows how early the first quarter of an overload "
        "is done, while thr@100 %, the whole of it, stays at 1. Nor that p99 improves, or that the paper's own "
        "figures, from other hardware, were measured here."
    )
    seeds: int = 200

    def parts(self) -> Sequence[Part]:
        """Return the tables."""
        return [
            *_main_parts(),
            _burstiness_part(),
            _batches_part(),
            *_predictor_parts(),
            *_starvation_parts(),
            *_engine_parts(),
        ]


EXPERIMENT = Ssjf()
