"""QLM against its baselines: queues of several models, planned by what each request was promised.

The tables of the specification's qlm.md §5, on the calibrated engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab.sim.experiment import Claim, Metric, Part, Plot, Setting
from trimtab.sim.experiments import qlm_planner, qlm_waiting
from trimtab.sim.models_runs import BASELINES, FIXED_BATCH, LATE_LAST, PROFILE, QLM, SWAP_BATCHING
from trimtab.sim.models_settings import HOUR_LOADS, LOADS, SINGLE_LOADS, SWAPS, PilotLoad
from trimtab.sim.models_tables import (
    NEW_GROUPS,
    WITH_PROGRAM,
    run_ablation,
    run_estimates,
    run_hour,
    run_mega,
    run_mixed,
    run_oracle,
    run_several,
    run_single,
)

_ATTAINED = Metric("attained", "kept", "%", better="higher")
_WORST = Metric("worst", "worst level", "%", better="higher")
_INTERACTIVE = Metric("interactive", "interactive kept", "%", better="higher")
_BATCH_1 = Metric("batch_1", "batch-1 kept", "%", better="higher")
_BATCH_2 = Metric("batch_2", "batch-2 kept", "%", better="higher")
_GOODPUT = Metric("goodput", "kept and finished per second", "1/s", better="higher")
_FINISHED = Metric("finished", "finished", "%", better="higher")
_SWAPS = Metric("swaps", "swaps per hour and machine", "1/h")
_BUSY = Metric("busy", "computing", "%", better="higher")
_SWAPPING = Metric("swapping", "swapping", "%")
_P99 = Metric("p99", "p99 time to first token, interactive", "s")
_FAST = Metric("fast", "served by fast machines", "%", better="higher")
_SOLVED = Metric("solved", "solved by the program", "%", better="higher")
_PROVED = Metric("proved", "proved best", "%", better="higher")
_BETTERED = Metric("bettered", "bettered by the program", "%")
_SEVERAL = (_ATTAINED, _BATCH_1, _BATCH_2, _WORST, _GOODPUT, _FINISHED, _SWAPS, _BUSY, _SWAPPING)
_SINGLE = (_ATTAINED, _INTERACTIVE, _BATCH_1, _BATCH_2, _WORST, _GOODPUT, _FINISHED)
_SOURCES = (
    f"Engine: the shipped profile {PROFILE}, 16 requests at once.",
    "Lengths are synthetic (qlm.md §6, mean answer of 179 tokens), arrivals Poisson.",
)
_MARGIN = 0.5
_HORIZON = (
    "A run ends when the promises of its last request are due; what has no first token by then counts as missed. "
)


def _swap_setting(swap_seconds: float, loads: Mapping[float, PilotLoad] = LOADS) -> Setting:
    pilot = loads[swap_seconds]
    values = {
        "swap_seconds": swap_seconds,
        "load": pilot.load,
        "pilot_kept": pilot.attained,
        "pilot_error": pilot.error,
    }
    return Setting(f"{swap_seconds:g} s", values)


def _several() -> Part:
    return Part(
        "swaps",
        "Several models: kept promises against the time of a swap",
        "Four machines share four models of unequal popularity. Requests arrive as jobs for one model: batch-1 jobs of "
        "about 10 requests, whose first tokens are due within 1 minute, and batch-2 jobs of about 250, due within 2 "
        "minutes instead of the paper's hour, which answers of this length cannot miss (the next table has the hour). "
        "A job of 250 takes one machine longer than 2 minutes, so it must be shared out. "
        "The load of each setting is the one at which `EDF late last` keeps about 90 % on pilot seeds "
        "(`python -m trimtab.sim.models_pilot loads`; what it kept there, with its standard error, is in the CSV). "
        f"{_HORIZON}"
        "Look at the worst level as well: a policy can look good by giving one up.",
        tuple(_swap_setting(swap) for swap in SWAPS),
        run_several,
        _SEVERAL,
        baseline=LATE_LAST.name,
        plots=(
            Plot("swap_seconds", "attained", "seconds of a swap", "promises kept", logarithmic=True),
            Plot("swap_seconds", "swaps", "seconds of a swap", "swaps per hour and machine", logarithmic=True),
        ),
        claims=tuple(
            Claim(f"QLM keeps more promises than {other.name} ({metric.title})", QLM.name, other.name, metric.name)
            for other in BASELINES
            for metric in (_ATTAINED, _BATCH_1, _BATCH_2)
        ),
        seconds_per_run=8.0,
        sources=_SOURCES,
    )


def _hour() -> Part:
    return Part(
        "hour",
        "Several models, with the paper's hour for batch-2",
        "The paper's promises: batch-1 within 1 minute, batch-2 within 1 hour. For an hour to be missed without "
        "a trace of many thousand requests, answers are 16 times as long as elsewhere (2,900 tokens on average), two "
        "machines share four models, and what takes about an hour arrives within 20 minutes; batch-2 jobs have about "
        "100 requests. The load is again the one at which `EDF late last` keeps about 90 % on pilot seeds. The run "
        "ends an hour after the last arrival. To plan once a second for more than an hour would take minutes for each "
        "seed, so here QLM plans when there is a new group and not in between, and it judges a group by its end, "
        "because with such answers its last request starts minutes after its first.",
        tuple(_swap_setting(swap, HOUR_LOADS) for swap in SWAPS),
        run_hour,
        _SEVERAL,
        baseline=LATE_LAST.name,
        plots=(Plot("swap_seconds", "attained", "seconds of a swap", "promises kept", logarithmic=True),),
        claims=tuple(
            Claim(
                f"QLM keeps more promises than {other.name} ({metric.title})", NEW_GROUPS.name, other.name, metric.name
            )
            for other in BASELINES
            for metric in (_ATTAINED, _BATCH_1, _BATCH_2)
        ),
        seconds_per_run=2.5,
        sources=_SOURCES,
    )


def _estimates() -> Part:
    wrong = {
        "slower than believed": (1.4, 0.7),
        "faster than believed": (0.7, 1.4),
    }
    return Part(
        "estimates",
        "Wrong estimates",
        "Everywhere else the queue knows how fast machines are and how long answers are on average. Here it takes "
        "machines to be 1.4 times as fast as they are and answers to be 0.7 times as long, so that everything takes "
        "twice as long as it believes, or the other way round; and it does not learn. The several-model workload at "
        "15 s to swap. Deadlines need no estimate, but the orders by deadline use one as well: a group goes to the "
        "machine that is thought to end with it first.",
        tuple(
            Setting(name, {**_swap_setting(15.0).values, "speeds": speeds, "lengths": lengths})
            for name, (speeds, lengths) in wrong.items()
        ),
        run_estimates,
        _SEVERAL,
        baseline=SWAP_BATCHING.name,
        seeds=10,
        claims=tuple(
            Claim(f"QLM keeps more promises than {other.name}", QLM.name, other.name, "attained")
            for other in (LATE_LAST, SWAP_BATCHING)
        ),
        seconds_per_run=6.0,
        sources=_SOURCES,
    )


def _single() -> Part:
    return Part(
        "rates",
        "One model: kept promises against the rate",
        "Two machines, one model, and the paper's levels in equal parts: first tokens within 20 seconds, 1 minute and "
        "1 hour. There is nothing to swap, so this is about the order alone, and QLM must not be worse than the best "
        "simple order at any rate. Load is arrivals over what the machines would serve of requests of mean length; the "
        "loads reach from one that everybody can serve to one where even the best order misses promises. "
        "The run ends an hour after the last arrival; what has no first token by then counts as missed.",
        tuple(Setting(f"load {load:g}", {"load": load}) for load in SINGLE_LOADS),
        run_single,
        _SINGLE,
        baseline=LATE_LAST.name,
        seeds=15,
        plots=(Plot("load", "attained", "load", "promises kept"),),
        claims=tuple(
            Claim(
                f"QLM is at most {_MARGIN} points below {other.name} ({metric.title})",
                QLM.name,
                other.name,
                metric.name,
                margin=_MARGIN,
            )
            for other in BASELINES
            for metric in (_ATTAINED, _WORST)
        ),
        seconds_per_run=4.0,
        sources=_SOURCES,
    )


def _mega() -> Part:
    shares = (0.0, 0.05, 0.1, 0.2)
    return Part(
        "mega",
        "Very long prompts among others",
        "Half of the requests are interactive; a share of all has a prompt of 6,000 tokens and a promise of one "
        "minute. Isolation puts those into groups of their own.",
        tuple(Setting(f"{share:.0%}", {"mega_share": share, "load": 0.75}) for share in shares),
        run_mega,
        (_P99, _ATTAINED, _INTERACTIVE, _BATCH_1),
        baseline="QLM without isolation",
        seeds=10,
        plots=(Plot("mega_share", "p99", "share of very long prompts", "p99 time to first token"),),
        claims=(
            Claim("Isolation lowers the interactive p99", QLM.name, "QLM without isolation", "p99", ("10%", "20%")),
        ),
        seconds_per_run=3.0,
        sources=_SOURCES,
    )


def _ablation() -> Part:
    return Part(
        "ablation",
        "QLM with one operation less",
        "The several-model workload at 15 s to swap. Without eviction a machine drains before it swaps; without "
        "swapping each keeps its model; without balancing a machine serves only its own queue and work is not spread; "
        "without grouping every request is planned alone. With the plan of EDF everything but the planner is QLM's.",
        (_swap_setting(15.0),),
        run_ablation,
        _SEVERAL,
        baseline=QLM.name,
        seeds=5,
        claims=tuple(
            Claim(f"QLM keeps more promises than it does {name}", QLM.name, name, "attained")
            for name in (
                "with the plan of EDF",
                "without eviction",
                "without swapping",
                "without balancing",
                "without grouping",
            )
        ),
        seconds_per_run=15.0,
        sources=_SOURCES,
    )


def _oracle() -> Part:
    return Part(
        "oracle",
        "Few jobs: the integer program online",
        "Two machines and jobs of a fifth of the size, 200 requests. Wherever QLM's plan has a penalty and there are "
        "at most five groups, the integer program is asked too, and the better plan is carried out; everything else is "
        "QLM's. The last columns say for how many of the plans with a penalty the program found a plan, proved it best "
        "and bettered QLM's. What arrives later is in no problem: the best plan of a moment need not be the best "
        "course of action.",
        (_swap_setting(15.0),),
        run_oracle,
        (*_SEVERAL, _SOLVED, _PROVED, _BETTERED),
        baseline=WITH_PROGRAM,
        seeds=5,
        seconds_per_run=10.0,
        sources=_SOURCES,
    )


def _mixed() -> Part:
    return Part(
        "mixed",
        "Fast and slow machines",
        "Two machines and two that take four times as long, one model. Work should follow speed: 80 % of it belongs on "
        "the fast ones. A batch of a fixed size does not know that.",
        (Setting("1:4", {"slowdown": 4.0, "load": 1.0}),),
        run_mixed,
        (_FAST, *_SINGLE),
        baseline=FIXED_BATCH.name,
        seeds=10,
        expected={("1:4", QLM.name, "fast"): 80.0},
        seconds_per_run=3.0,
        sources=_SOURCES,
    )


@dataclass(frozen=True, slots=True)
class Qlm:
    """The experiment."""

    name: str = "qlm"
    title: str = "Queue management by promises (QLM) against five orders, with model swaps"
    about: str = (
        "Several models share machines that hold one at a time. A queue in front groups requests, plans an order of "
        "groups for each machine, and pulls, evicts, swaps and balances by that plan. QLM predicts waiting from the "
        "rate at which a full engine drains, and looks for a plan under which few requests get their first token late. "
        "It is compared with first come, first served on machines by model; with earliest deadline first as it is, "
        "with late requests put last, and with swap batching; and with a scheduler for batches of fixed latency. All "
        "policies drive the production queue and its operations, see the same requests, and run on the same calibrated "
        "engine. The queue knows the speed of every machine and the mean length of answers, and learns lengths from "
        "those that finish; one table has both wrong.\n\n"
        "What must not be concluded: that time between tokens is kept (only the first token is promised, and evicted "
        "requests pause), that plans are the best there are (see the planner table), that anything is gained for one "
        "model with one tight promise, that other loads and job sizes give the same ranks, "
        "or that the paper's own figures were reproduced: its code, traces and GPUs are "
        "not these."
    )
    seeds: int = 30

    def parts(self) -> Sequence[Part]:
        """Return the tables, in the order of reading."""
        return (
            qlm_waiting.PART,
            _single(),
            _several(),
            _hour(),
            _estimates(),
            _mega(),
            _ablation(),
            qlm_planner.PART,
            _oracle(),
            _mixed(),
        )


EXPERIMENT = Qlm()
