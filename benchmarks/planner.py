"""How long the planner of the several-model queue takes, and how good its plans are.

Two tables. The first is time against the number of groups and machines: for a first plan, and for a new plan while one
is in force from which a tenth of the groups is missing. The clock runs for `search` alone, problem and plan are given.
The bar is a p99 under 100 ms at 200 groups and 16 machines. The second compares plans of small problems with the best
there are, by the integer program where it proves its plan, and by trying all plans of up to eight groups: the bar is an
objective of at most 1.05 times the optimum plus 0.01 times the largest deadline. Problems are overloaded, with three
models and 15 s swaps; they are those of `trimtab lab run qlm`, table `planners`.

With `--captured` it measures QLM as it runs: problems that the queue of several models has asked its policy, with the
plan in force, from simulated overload on pilot seeds; only those in which somebody is predicted to be late, because
QLM searches for no plan otherwise. Up to eight groups are seldom late, so there the promises are a quarter as long. The
clock runs for all of `Qlm.__call__`. `late_last` is the sum of penalties over that of earliest deadline first with late
ones last, on the same problems; `optimum` over that of the best plans there are.

Nothing else should run: a busy machine shows in the p99. `cpu` is the CPU time of the planning thread.

    .venv/bin/python benchmarks/planner.py [--problems 100] [--budget-moves N | --budget-ms N] [--exact 20]
    .venv/bin/python benchmarks/planner.py --captured [--problems 100]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from trimtab.decide.queueing import late_last
from trimtab.decide.queueing.exact import MOST_JOBS, solve, try_all
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.plan import Plan, Problem, cost
from trimtab.decide.queueing.planner import ONLINE, complete, earliest_deadline_first, improve, search
from trimtab.decide.queueing.policy import Planner
from trimtab.decide.queueing.qlm import Qlm
from trimtab.decide.queueing.waiting_time import predicted_violations
from trimtab.sim.engine import Simulation
from trimtab.sim.experiments.qlm_planner import draw
from trimtab.sim.models_runs import QLM, Site
from trimtab.sim.models_runs import machines as site_machines
from trimtab.sim.models_settings import SEVERAL_MODELS, several_site, several_workload
from trimtab.sim.models_workload import MEAN_ANSWER
from trimtab.sim.models_world import ModelsWorld
from trimtab.sim.planner_pace import moves_per_second, moves_within
from trimtab.sim.streams import PILOT, stream

SIZES = ((10, 2), (25, 4), (50, 8), (100, 8), (100, 16), (200, 8), (200, 16), (400, 16), (1000, 32))
SMALL = ((4, 2), (6, 2), (8, 2), (8, 4))
MOST_FOR_PROGRAM = 6
CAPTURED = (((20, 40), 4), ((40, 80), 8), ((90, 110), 16), ((190, 210), 16))
"""Groups, from and to, on so many machines."""
CAPTURED_SMALL = (((3, 8), 2), ((3, 8), 4))
SWAP_SECONDS = 15.0
SMALLEST_PENALTY = 1e-3
LOAD, UNTIL_SECONDS = 2.0, 240.0


def percentile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share, method="higher"))


def in_force(problem: Problem, seed: int) -> Plan:
    """A plan of which a tenth of the groups is missing, as if they had come since."""
    plan = improve(problem, starts=1)
    new = stream(seed, "benchmark", "new groups").random(len(problem.jobs)) < 0.1
    return tuple(tuple(job for job in order if not new[job]) for order in plan)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, milliseconds that passed, and milliseconds of CPU."""
    started, cpu = time.perf_counter(), time.thread_time()
    result = work()
    return result, (time.perf_counter() - started) * 1e3, (time.thread_time() - cpu) * 1e3


def row(groups: int, machines: int, problems: int, budget: int | None, *, again: bool) -> dict[str, Any]:
    """Plan many problems of one size."""
    passed, cpu, moves, ratios = [], [], [], []
    for seed in range(problems):
        problem = draw(seed, groups, machines)
        start = in_force(problem, seed) if again else None
        numbers = stream(seed, "benchmark", "starts")
        found, wall, used = timed(lambda p=problem, s=start, n=numbers: search(p, s, budget, n))
        passed.append(wall)
        cpu.append(used)
        moves.append(found.evaluated)
        ratios.append(
            cost(problem, found.plan).penalty / max(cost(problem, earliest_deadline_first(problem)).penalty, 1)
        )
    return {
        "groups": groups,
        "machines": machines,
        "plan": "again" if again else "first",
        "p50_ms": round(statistics.median(passed), 2),
        "p99_ms": round(percentile(passed, 0.99), 2),
        "cpu_p50_ms": round(statistics.median(cpu), 2),
        "cpu_p99_ms": round(percentile(cpu, 0.99), 2),
        "moves": round(statistics.mean(moves)),
        "penalty_of_edf": round(statistics.mean(ratios), 3),
    }


def compared(groups: int, machines: int, problems: int, budget: int | None) -> dict[str, Any]:
    """Compare with the best plans; a ratio counts only where the best plan is known."""
    above, within, proved, program_ms = [], 0, 0, []
    for seed in range(problems):
        problem = draw(seed, groups, machines)
        found = cost(problem, improve(problem, None, budget, stream(seed, "benchmark", "starts"))).penalty
        best = cost(problem, try_all(problem)).penalty
        if groups <= MOST_FOR_PROGRAM:
            solution, wall, _ = timed(lambda p=problem: solve(p, gap=0.0))
            program_ms.append(wall)
            if solution is not None and solution.proved:
                proved += 1
                best = min(best, cost(problem, solution.plan).penalty)
        above.append(found / best if best > 0 else 1.0 + found)
        within += found <= 1.05 * best + 0.01 * max(job.deadline_in for job in problem.jobs)
    return {
        "groups": groups,
        "machines": machines,
        "problems": problems,
        "ratio_mean": round(statistics.mean(above), 4),
        "ratio_max": round(max(above), 4),
        "within_bar": within,
        "proved_by_program": proved,
        "program_p50_ms": round(statistics.median(program_ms), 1) if program_ms else None,
    }


@dataclass(slots=True)
class Recorder:
    """A planner that keeps every third problem of a size in which somebody is predicted to be late."""

    planner: Planner
    sizes: tuple[int, int]
    seen: int = 0
    kept: list[tuple[Problem, Plan]] = field(default_factory=list)

    def __call__(self, problem: Problem, current: Plan) -> Plan:
        if self.sizes[0] <= len(problem.jobs) <= self.sizes[1] and not problem.place_only:
            self.seen += bool(predicted_violations(problem, complete(problem, current)))
            if self.seen > 3 * len(self.kept):
                self.kept.append((problem, current))
        return self.planner(problem, current)


def captured(sizes: tuple[int, int], machines: int, problems: int) -> list[tuple[Problem, Plan]]:
    """What QLM was asked in worlds with too much work, at most five problems of each world."""
    found: list[tuple[Problem, Plan]] = []
    for seed in range(PILOT, PILOT + problems):
        found += _of_one_world(seed, sizes, machines, min(5, problems - len(found)))
        if len(found) >= problems:
            break
    return found


def _of_one_world(seed: int, sizes: tuple[int, int], machines: int, most: int) -> list[tuple[Problem, Plan]]:
    site = Site(site_machines(machines, tuple(SEVERAL_MODELS), SWAP_SECONDS), several_site(SWAP_SECONDS).levels)
    if sizes[1] <= MOST_JOBS:  # with short promises, or few groups are never late
        levels = {name: replace(level, ttft_seconds=level.ttft_seconds / 4) for name, level in site.levels.items()}
        site = replace(site, levels=levels)
    recorder = Recorder(QLM.plan, sizes)
    queue = replace(QLM, plan=recorder)
    world = ModelsWorld(Simulation(), queue, site.levels, site.machines, MeanLengths(MEAN_ANSWER))
    rate = LOAD * site.capacity()
    world.feed(several_workload().arrivals(seed, round(rate * UNTIL_SECONDS), rate))
    while len(recorder.kept) < most and world.simulation.now < UNTIL_SECONDS:
        world.simulation.run(world.simulation.now + 1.0)
    return recorder.kept[:most]


def captured_row(sizes: tuple[int, int], machines: int, problems: int) -> dict[str, Any]:
    """Plan what was captured as QLM does."""
    asked = captured(sizes, machines, problems)
    qlm = Qlm()
    plans, passed, cpu = zip(*(timed(lambda a=a: qlm(*a)) for a in asked), strict=True)
    best = [try_all(problem) for problem, _ in asked] if sizes[1] <= MOST_JOBS else []
    return {
        "groups": f"{sizes[0]}-{sizes[1]}",
        "machines": machines,
        "problems": len(asked),
        "p50_ms": round(statistics.median(passed), 2),
        "p99_ms": round(percentile(list(passed), 0.99), 2),
        "cpu_p50_ms": round(statistics.median(cpu), 2),
        "cpu_p99_ms": round(percentile(list(cpu), 0.99), 2),
        "late_last": summed(asked, plans, [late_last.plan(*a) for a in asked]),
        "optimum": summed(asked, plans, best) if best else None,
        "optimum_worst": max(ratios(asked, plans, best)) if best else None,
        "best_found": sum(ratio <= 1.0 for ratio in ratios(asked, plans, best)) if best else None,
    }


def ratios(asked: list[tuple[Problem, Plan]], plans: tuple[Plan, ...], others: list[Plan]) -> Iterator[float]:
    for (problem, _), plan, other in zip(asked, plans, others, strict=True):
        ours, theirs = (max(cost(problem, p).penalty, SMALLEST_PENALTY) for p in (plan, other))
        yield round(ours / theirs, 4)


def summed(asked: list[tuple[Problem, Plan]], plans: tuple[Plan, ...], others: list[Plan]) -> float:
    """All penalties over all of the other plans."""
    ours, theirs = (
        sum(cost(problem, p).penalty for (problem, _), p in zip(asked, made, strict=True)) for made in (plans, others)
    )
    return round(ours / max(theirs, SMALLEST_PENALTY), 4)


def measure_captured(problems: int) -> None:
    large = [captured_row(*size, problems) for size in CAPTURED]
    show(large)
    print("\nagainst the best plans there are")
    small = [captured_row(*size, problems) for size in CAPTURED_SMALL]
    show(small)
    print(json.dumps({"captured": large + small, "python": platform.python_version(), "numpy": version("numpy")}))


def show(rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    print("  ".join(f"{name:>14}" for name in names))
    for values in rows:
        print("  ".join(f"{values[name]!s:>14}" for name in names), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100, help="problems of each size (default 100)")
    parser.add_argument("--exact", type=int, default=20, help="problems of each small size; 0 leaves the table out")
    parser.add_argument("--largest", type=int, default=400, help="most groups in the table of times (default 400)")
    parser.add_argument("--captured", action="store_true", help="measure QLM on problems that its queue posed")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--budget-moves", type=int, help="of one plan (default: as QLM's, by the number of groups)")
    budget.add_argument("--budget-ms", type=float, help="of one plan at 200 groups and 16 machines, turned into moves")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.captured:
        measure_captured(options.problems)
        return
    pace = moves_per_second(draw(0, 200, 16))
    budget: int | None = (
        options.budget_moves if options.budget_ms is None else moves_within(options.budget_ms / 1e3, pace)
    )
    print(
        f"{pace / 1e6:.1f} million moves/s at 200 groups and 16 machines; "
        f"{budget or ONLINE.moves(200)} moves and {ONLINE.starts} starts at most\n"
    )
    sizes = [size for size in SIZES if size[0] <= options.largest]
    times = [row(*size, options.problems, budget, again=again) for size in sizes for again in (False, True)]
    show(times)
    exact = [compared(*size, options.exact, budget) for size in SMALL if size[0] <= MOST_JOBS and options.exact]
    if exact:
        print("\nagainst the best plans there are")
        show(exact)
    figures = {
        "times": times,
        "exact": exact,
        "budget_moves": budget or ONLINE.moves(200),
        "moves_per_second": round(pace),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
