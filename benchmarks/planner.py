"""How long the planner of the several-model queue takes, and how good its plans are.

Two tables. The first is time against the number of groups and machines: for a first plan, and for a new plan while one
is in force from which a tenth of the groups is missing. The clock runs for `search` alone, problem and plan are given.
The bar is a p99 under 100 ms at 200 groups and 16 machines. The second compares plans of small problems with the best
there are, by the integer program where it proves its plan, and by trying all plans of up to eight groups: the bar is an
objective of at most 1.05 times the optimum plus 0.01 times the largest deadline. Problems are overloaded, with three
models and 15 s swaps; they are those of `trimtab lab run qlm`, table `planners`.

Nothing else should run: a busy machine shows in the p99. `cpu` is the CPU time of the planning thread.

    .venv/bin/python benchmarks/planner.py [--problems 100] [--budget-moves N | --budget-ms N] [--exact 20]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from trimtab.decide.queueing.exact import MOST_JOBS, solve, try_all
from trimtab.decide.queueing.plan import Plan, Problem, cost
from trimtab.decide.queueing.planner import BUDGET, STARTS, earliest_deadline_first, improve, search
from trimtab.sim.experiments.qlm_planner import draw
from trimtab.sim.planner_pace import moves_per_second, moves_within
from trimtab.sim.streams import stream

SIZES = ((10, 2), (25, 4), (50, 8), (100, 8), (100, 16), (200, 8), (200, 16), (400, 16), (1000, 32))
SMALL = ((4, 2), (6, 2), (8, 2), (8, 4))
MOST_FOR_PROGRAM = 6


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


def row(groups: int, machines: int, problems: int, budget: int, *, again: bool) -> dict[str, Any]:
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


def compared(groups: int, machines: int, problems: int, budget: int) -> dict[str, Any]:
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
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--budget-moves", type=int, default=BUDGET, help=f"of one plan (default {BUDGET})")
    budget.add_argument("--budget-ms", type=float, help="of one plan at 200 groups and 16 machines, turned into moves")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    pace = moves_per_second(draw(0, 200, 16))
    budget = options.budget_moves if options.budget_ms is None else moves_within(options.budget_ms / 1e3, pace)
    print(
        f"{pace / 1e6:.1f} million moves/s at 200 groups and 16 machines; {budget} moves and {STARTS} starts at most\n"
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
        "budget_moves": budget,
        "moves_per_second": round(pace),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
