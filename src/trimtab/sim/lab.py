"""Runs an experiment: chooses parts and seeds, sweeps, and keeps the rows on disk while it works."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import Protocol

from trimtab.model.problem import Problem
from trimtab.sim.experiment import Experiment, Part
from trimtab.sim.findings import Table, tabulate
from trimtab.sim.sweep import Outcome, sweep, tasks_of

QUICK_SEEDS = 5
_SECONDS_BETWEEN_WRITES = 5.0
_WRITING_SHARE = 30.0  # times as long as a write takes, until the next one


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run.

    Attributes:
        parts: Names of the parts; empty: all of them.
        seeds: How many, from 0; None: as many as each part says.
        data: The folder of data sets.
        quick: Whether a first look with few seeds is enough.
    """

    experiment: Experiment
    parts: tuple[str, ...] = ()
    seeds: int | None = None
    data: Path | None = None
    quick: bool = False

    def chosen(self) -> Sequence[Part]:
        """Return the parts that are asked for, in the experiment's order.

        Raises:
            Problem: One does not exist.
        """
        known = {part.name: part for part in self.experiment.parts()}
        for name in self.parts:
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                meant = f"did you mean {near[0]}? " if near else ""
                what = f"the experiment {self.experiment.name} has no part {name!r}"
                raise Problem(what, fix=f"{meant}its parts are {', '.join(known)}")
        return [part for name, part in known.items() if not self.parts or name in self.parts]

    def seeds_of(self, part: Part) -> int:
        """Return how many seeds a part gets."""
        usual = part.seeds or self.experiment.seeds
        if self.seeds is not None:
            return self.seeds
        return min(usual, QUICK_SEEDS) if self.quick else usual

    def reason_to_skip(self, part: Part) -> str:
        """Return what a part needs and does not find; empty when it can run."""
        if not part.needs:
            return ""
        names = " and ".join(part.needs)
        if self.data is None:
            return f"needs the data set {names}: point --data or TRIMTAB_DATA at a folder that holds it"
        absent = [name for name in part.needs if not (self.data / name).is_dir()]
        return f"needs the data set {' and '.join(absent)}, which the data folder lacks" if absent else ""


@dataclass(frozen=True, slots=True)
class PartResult:
    """What became of a part: a table, or the reason why there is none."""

    part: Part
    table: Table | None
    skipped: str = ""
    seconds: tuple[float, ...] = ()  # of wall clock, by run


@dataclass(slots=True)
class Result:
    """What a run of the lab found.

    Attributes:
        interrupted: Whether somebody ended it early.
        wall_seconds: How long it took; never part of a table.
    """

    order: Order
    parts: list[PartResult] = field(default_factory=list)
    interrupted: bool = False
    wall_seconds: float = 0.0


class Watch(Protocol):
    """Who is shown the progress."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """A part has `done` of its `total` runs behind it."""


Keep = Callable[[Table], None]
"""Puts what a part has so far where it survives."""


def run(order: Order, keep: Keep, watch: Watch) -> Result:
    """Run every part that is asked for, with the backend and workers that joblib is configured with.

    Ctrl-C ends it; what has finished by then is in the result, and has been kept.

    Args:
        order: What to run.
        keep: Is given each part's table every few seconds while rows come in, and at its end.
        watch: Who sees the progress.

    Raises:
        Problem: An unknown part, or a run that could not be made.
    """
    result, started = Result(order), perf_counter()
    for part in order.chosen():
        reason = order.reason_to_skip(part)
        if reason or result.interrupted:
            result.parts.append(PartResult(part, None, reason or "interrupted before it began"))
            continue
        outcomes: list[Outcome] = []
        try:
            _collect(order, part, keep, watch, outcomes)
        except KeyboardInterrupt:
            result.interrupted = True
        result.parts.append(_close(order, part, keep, outcomes))
    result.wall_seconds = perf_counter() - started
    return result


def _collect(order: Order, part: Part, keep: Keep, watch: Watch, outcomes: list[Outcome]) -> None:
    tasks = tasks_of(part, order.seeds_of(part), order.data)
    due = perf_counter() + _SECONDS_BETWEEN_WRITES
    watch.advance(part.name, 0, len(tasks))
    for outcome in sweep(tasks):
        outcomes.append(outcome)
        watch.advance(part.name, len(outcomes), len(tasks), outcome.task.described)
        if (began := perf_counter()) >= due:
            _close(order, part, keep, outcomes)
            took = perf_counter() - began
            due = began + max(_SECONDS_BETWEEN_WRITES, _WRITING_SHARE * took)


def _close(order: Order, part: Part, keep: Keep, outcomes: Sequence[Outcome]) -> PartResult:
    table = tabulate(part, order.seeds_of(part), outcomes)
    keep(table)
    return PartResult(part, table, seconds=tuple(outcome.seconds for outcome in outcomes))
