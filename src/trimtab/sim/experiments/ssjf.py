"""SSJF against first come, first served: what ordering by predicted length is worth, and what it costs.

The tables of the specification's ssjf.md §5, on slots of unit speed, and the same orders on the calibrated engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.decide.queueing.ssjf import AGING_FACTOR
from trimtab.sim.experiment import Cell, Claim, Metric, Part, Plot, Setting
from trimtab.sim.pool_runs import run_engine, run_engine_aging
from trimtab.sim.slot_runs import (
    AGED,
    FCFS,
    FIVE,
    ORACLE,
    PUBLISHED,
    PURE,
    SWEPT,
    THREE,
    UNCAPPED,
    number_of,
    run_aging,
    run_batches,
    run_burst,
    run_guard,
    run_noise,
    run_predictors,
    run_published,
    run_published_predictors,
    run_published_steady,
    run_steady,
)

_MEAN = Metric("mean", "mean completion", "s", relative=True)
_MEDIAN = Metric("p50", "median completion", "s", relative=True)
_P99 = Metric("p99", "p99 completion", "s", relative=True)
_LONGEST = Metric("longest", "longest completion", "s", relative=True)
_EARLY = Metric("thr25", "thr@25 %", "x FCFS", better="higher")
_WHOLE = Metric("thr100", "thr@100 %", "x FCFS", better="higher")
_TAU = Metric("tau", "tau", better="higher")
_TTFT = Metric("ttft", "mean time to first token", "s", relative=True)
_TTFT99 = Metric("ttft_p99", "p99 time to first token", "s", relative=True)
_QUEUED = Metric("queued", "waited in front", "%")
_RATE = Metric("rate", "served per second", "1/s", better="higher", relative=True)

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
        figures[name, PURE, "p99"] = p99 - 1
        if rows is _BURSTS:
            figures[name, PURE, "thr25"] = early
    return figures


_ALL_JOBS = "The specification's figures are over all jobs, so they stand beside the mean of all of them."
_STEADY_MEAN = Metric("steady_mean", "mean after warm-up", "s", relative=True)
_FULL = (_MEAN, _P99, _EARLY, _WHOLE)


def _main_parts() -> list[Part]:
    bursts = tuple(_setting(rate, slots, _BURST_JOBS) for rate, slots, *_ in _BURSTS)
    steady = tuple(_setting(rate, slots, _STEADY_JOBS) for rate, slots, *_ in _STEADY)
    overloads = tuple(setting.name for setting in bursts if number_of(setting.values["load"]) > 1)
    whole_run = Claim(
        "Pure SSJF raises the throughput of a whole run (as the paper's figures are easily read)", PURE, FCFS, "thr100"
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
            Claim("Pure SSJF shortens the mean completion of an overload", PURE, FCFS, "mean", overloads),
            Claim("SSJF with aging 10 shortens the mean completion of an overload", AGED, FCFS, "mean", overloads),
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
        (_MEAN, _STEADY_MEAN, _P99, _LONGEST, _MEDIAN),
        baseline=FCFS,
        seeds=100,
        claims=(
            Claim("Pure SSJF shortens the mean completion at steady load", PURE, FCFS, "steady_mean"),
            Claim("The p99 of pure SSJF is not above that of FCFS", PURE, FCFS, "p99"),
            Claim(
                "The p99 of SSJF with aging 10 is at most half as long again as that of FCFS",
                AGED,
                FCFS,
                "p99",
                margin=0.5,
            ),
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
    settings = [
        _setting(
            2.0, 1, _BURST_JOBS, "no batching, same traffic",
            mode="continuous", size=1, batching="continuous, same traffic",
        )
    ]  # fmt: skip
    for mode in ("static", "continuous"):
        more: dict[str, Cell] = {"mode": mode, "batch_wait": _BATCH_WAIT}
        for size in _SIZES:
            name = f"{mode} {size}, same traffic"
            settings.append(_setting(2.0, size, _BURST_JOBS, name, size=size, batching=f"{mode}, same traffic", **more))
        for size in _SIZES:
            name, batching = f"{mode} {size}, in proportion", f"{mode}, traffic in proportion"
            jobs = _JOBS_PER_SLOT * size
            settings.append(_setting(_RATE_PER_SLOT * size, size, jobs, name, size=size, batching=batching, **more))
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
            Plot("size", "mean", "batch size", "mean completion against FCFS", panel="batching", difference=True),
            Plot("size", "thr100", "batch size", "thr@100 %, x FCFS", panel="batching"),
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
            claims=(Claim("Five published classes rank better than three", FIVE, THREE, "mean"),),
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
_AGED_FIGURES = {5.0: (24.8, 141.0), 10.0: (22.4, 164.0), 20.0: (20.7, 204.0)}
_PURE_MEAN, _PURE_LONGEST = 19.3, 1219.0


def _aging_figures(names: Sequence[str]) -> Figures:
    """Return the specification's alpha sweep; its pure order was made without a cap on predictions."""
    figures: dict[tuple[str, str, str], float] = {}
    for name, factor in zip(names, _AGING, strict=True):
        figures[name, FCFS, "mean"], figures[name, FCFS, "longest"] = _FCFS_MEAN, _FCFS_LONGEST
        swept = {UNCAPPED: (_PURE_MEAN, _PURE_LONGEST), SWEPT: _AGED_FIGURES.get(factor)}
        for policy, known in swept.items():
            if known is not None:
                figures[name, policy, "mean"] = known[0] / _FCFS_MEAN - 1
                figures[name, policy, "longest"] = known[1] / _FCFS_LONGEST - 1
    return figures


def _starvation_parts() -> list[Part]:
    worlds = (("1 slot, load 0.9", 0.2475, 1, 2000), ("4 slots, load 0.95", 1.045, 4, 3000))
    settings = tuple(
        _setting(rate, slots, jobs, f"aging {factor:g}, {world}", aging_factor=factor, at=world)
        for world, rate, slots, jobs in worlds
        for factor in _AGING
    )
    ten = tuple(setting.name for setting in settings if setting.values["aging_factor"] == AGING_FACTOR)
    metrics = (_MEAN, _P99, _LONGEST)
    return [
        Part(
            "aging",
            "The aging factor",
            "The key is arrival + factor * predicted time: 0 is first come, first served, and the larger the factor, "
            "the closer to the pure order, which starves. The window in which others may overtake a job is the factor "
            "times its predicted time. Ten is the default of a pool. Predictions are capped at 512 tokens, as "
            "everywhere here; the pure order without that cap shows what the cap is worth, and is what the "
            "specification's figures of it were made with.",
            settings,
            run_aging,
            metrics,
            baseline=FCFS,
            seeds=100,
            plots=(
                Plot("aging_factor", "mean", "aging factor", "mean completion", panel="at"),
                Plot("aging_factor", "longest", "aging factor", "longest completion", panel="at"),
            ),
            claims=(
                Claim("An aging factor of 10 shortens the mean", SWEPT, FCFS, "mean", ten),
                Claim(
                    "With a factor of 10 the longest is below twice that of FCFS",
                    SWEPT,
                    FCFS,
                    "longest",
                    ten[:1],
                    margin=1.0,
                ),
                Claim("With a factor of 10 the longest is below that of the pure order", SWEPT, PURE, "longest", ten),
            ),
            expected=_aging_figures(tuple(one.name for one in settings[: len(_AGING)])),
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
            (_MEAN, _P99, _LONGEST, _MEDIAN),
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
    "gateway's queue. Lengths are drawn from the last fifth of the recorded Azure conversation trace, with what the "
    "shipped predictor said of them; it was not trained on that part. Requests arrive as burstily as they did there, "
    "with independent gaps. Load is arrivals over what the engine serves while its batch is full. Loads below 1 are "
    "steady, their warm-up left out; one that cannot be told from a trend by the test of its warm-up shows no figures "
    "(column `steady` of the CSV). Load 2 is a burst of 12.5 requests per sequence, served to the last one. "
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
            "With many sequences nobody waits below capacity, and the gain is zero. Then look at p99, which pays for "
            "the mean.",
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
                    "p99",
                    "sequences",
                    "p99 completion against FCFS",
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
                Claim(
                    "SSJF with aging 10 shortens the mean at 8 sequences and load 0.95",
                    AGED,
                    FCFS,
                    "mean",
                    (settings[1].name,),
                ),
                Claim(
                    "SSJF with aging 10 shortens the mean of an overload",
                    AGED,
                    FCFS,
                    "mean",
                    tuple(one.name for one in settings[2::3]),
                ),
                Claim(
                    "With 256 sequences below capacity there is nothing to gain: FCFS is within 1 % of SSJF",
                    FCFS,
                    AGED,
                    "mean",
                    (settings[6].name, settings[7].name),
                    margin=0.01,
                ),
                Claim("The p99 of SSJF with aging 10 is not above that of FCFS", AGED, FCFS, "p99"),
            ),
            seconds_per_run=1.6,
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
                Plot("aging_factor", "mean", "aging factor", "mean completion"),
                Plot("aging_factor", "p99", "aging factor", "p99 completion"),
            ),
            seconds_per_run=0.4,
        ),
        Part(
            "engine-memory",
            "Where the queue is",
            "Llama-2-7B on an H100 with 256 sequences, whose KV cache holds fewer than 100 requests of this trace. If "
            "the gateway hands over all 256, the rest wait inside the engine, first come, first served, and no order "
            "in front of it matters. If it hands over 64, they wait where they can be put in order, and the engine "
            "serves somewhat less. Load is relative to what each of the two can serve.",
            tuple(
                _engine_setting(_SEVEN_B, 256, load, capacity=capacity)
                for load in (0.95, _OVERLOAD)
                for capacity in (256, 64)
            ),
            run_engine,
            metrics,
            baseline=FCFS,
            claims=(
                Claim(
                    "With 256 in flight there is nothing to gain: FCFS is within 1 % of SSJF",
                    FCFS,
                    AGED,
                    "mean",
                    ("256 in flight, load 0.95",),
                    margin=0.01,
                ),
                Claim(
                    "With 64 in flight SSJF with aging 10 shortens the mean",
                    AGED,
                    FCFS,
                    "mean",
                    ("64 in flight, load 0.95",),
                ),
            ),
            seeds=10,
            seconds_per_run=1.7,
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
        "low load, and below capacity on engines that serve hundreds of requests at once, the difference is zero.\n\n"
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
