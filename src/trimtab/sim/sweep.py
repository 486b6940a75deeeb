"""Runs a part of an experiment under many settings and seeds, on whatever joblib is configured with.

Each (setting, seed) is a task of its own that shares nothing with others, so that processes of this machine, threads,
or the workers of a Dask or Ray cluster can carry them in any order: what they return is put in order afterwards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from warnings import catch_warnings, simplefilter

from joblib import Parallel, delayed

from trimtab.model.problem import Problem
from trimtab.sim.experiment import Part, Row, Run, Setting


@dataclass(frozen=True, slots=True)
class Task:
    """One call of a part's `run`.

    Attributes:
        place: Of the setting among the part's settings, from 0.
        data: The folder of data sets, as the workers see it.
    """

    run: Run
    place: int
    setting: Setting
    seed: int
    data: Path | None

    @property
    def described(self) -> str:
        """What a person calls it."""
        return f"setting {self.setting.name!r}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task returned.

    Attributes:
        seconds: Of wall clock; never part of a result.
        problem: What went wrong, with its fix, both empty where nothing did. Exceptions do not survive every backend.
    """

    task: Task
    rows: tuple[Row, ...]
    seconds: float
    problem: tuple[str, str] = ("", "")


def tasks_of(part: Part, seeds: int, data: Path | None) -> list[Task]:
    """Return the tasks of a part; all settings of one seed before the next, so that an early end leaves whole seeds."""
    return [
        Task(part.run, place, setting, seed, data)
        for seed in range(seeds)
        for place, setting in enumerate(part.settings)
    ]


def execute(task: Task) -> Outcome:
    """Run one task, in whatever process this is; a defect is raised with a note that says which task it was."""
    started = perf_counter()
    try:
        rows = tuple(dict(row) for row in task.run(task.seed, task.setting, task.data))
    except Problem as error:
        return Outcome(task, (), perf_counter() - started, (f"{task.described}: {error.what}", error.fix))
    except Exception as error:
        error.add_note(f"in a run of the lab: {task.described}")
        raise
    return Outcome(task, rows, perf_counter() - started)


def sweep(tasks: Sequence[Task]) -> Iterator[Outcome]:
    """Yield outcomes as they come in, from the backend and with the workers that `joblib.parallel_config` names.

    Raises:
        Problem: A task ended with one; the others are given up.
    """
    with_results = Parallel(return_as="generator_unordered")
    outcomes = with_results(delayed(execute)(task) for task in tasks)
    try:
        for outcome in outcomes:
            what, fix = outcome.problem
            if what:
                raise Problem(what, fix=fix)
            yield outcome
    finally:
        with catch_warnings():
            simplefilter("ignore", UserWarning)  # that some results are not used: that is what giving up means
            outcomes.close()
