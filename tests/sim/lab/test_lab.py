"""Running an experiment: parts, seeds, workers, interruptions."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest

from tests.sim.lab import toy
from tests.sim.lab.toy import FOREST, MAIN, NEEDY, TOY
from trimtab.model.problem import Problem
from trimtab.sim import lab
from trimtab.sim.lab import Order, run
from trimtab.sim.report.folder import RowKeeper, write_report
from trimtab.sim.sweep import execute, sweep, tasks_of


class Silent:
    """Remembers the last it was told."""

    def __init__(self) -> None:
        self.seen = {}

    def advance(self, task: Any, done: Any, total: Any, note: Any = "") -> None:
        self.seen[task] = (done, total)


def run_into(folder: Any, order: Any = None, **configuration: Any) -> Any:
    folder.mkdir()
    with joblib.parallel_config(**(configuration or {"n_jobs": 1})):
        result = run(order or Order(TOY), RowKeeper(folder), Silent())
    write_report(result, folder)
    return result


def files(folder: Any) -> Any:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "timing.json"}


def test_every_part_gets_its_seeds(tmp_path: Any) -> None:
    watch = Silent()
    with joblib.parallel_config(n_jobs=1):
        result = run(Order(TOY), RowKeeper(tmp_path), watch)
    assert watch.seen == {"main": (48, 48), "forest": (6, 6)}
    assert [part.table.seeds if part.table else None for part in result.parts] == [8, 3, None]
    assert result.parts[2].skipped == (
        "needs the data set made-up-set: point --data or TRIMTAB_DATA at a folder that holds it"
    )


@pytest.mark.parametrize(
    ("order", "seeds"), [(Order(TOY, quick=True), (5, 3)), (Order(TOY, seeds=2), (2, 2)), (Order(TOY), (8, 3))]
)
def test_seeds_are_the_parts_own_fewer_or_as_asked(order: Any, seeds: Any) -> None:
    assert (order.seeds_of(MAIN), order.seeds_of(FOREST)) == seeds


def test_a_part_that_lacks_its_data_says_what(tmp_path: Any) -> None:
    order = Order(TOY, data=tmp_path)
    assert order.reason_to_skip(NEEDY) == "needs the data set made-up-set, which the data folder lacks"
    (tmp_path / "made-up-set").mkdir()
    assert order.reason_to_skip(NEEDY) == ""


def test_an_unknown_part_gets_a_suggestion() -> None:
    with pytest.raises(Problem) as error:
        Order(TOY, parts=("mian",)).chosen()
    assert (
        str(error.value)
        == "the experiment toy has no part 'mian'\nfix: did you mean main? its parts are main, forest, needy"
    )
    assert [part.name for part in Order(TOY, parts=("needy", "main")).chosen()] == ["main", "needy"]


def test_processes_threads_and_one_worker_write_the_same_bytes(tmp_path: Any) -> None:
    order = Order(TOY, seeds=3)
    run_into(tmp_path / "one", order)
    run_into(tmp_path / "threads", order, backend="threading", n_jobs=3)
    run_into(tmp_path / "processes", order, backend="loky", n_jobs=2)
    one = files(tmp_path / "one")
    assert {"main.csv", "main-summary.csv", "main-1.png", "forest.png", "report.html", "result.json"} <= set(one)
    assert files(tmp_path / "threads") == one
    assert files(tmp_path / "processes") == one


def test_the_hash_seed_changes_no_byte(tmp_path: Any) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.sim.lab.test_lab import run_into; "
        "from tests.sim.lab.toy import TOY; from trimtab.sim.lab import Order; "
        "run_into(Path(sys.argv[1]), Order(TOY, seeds=2, parts=('main',)))"
    )
    folders = [tmp_path / seed for seed in ("1", "2")]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            env={**os.environ, "PYTHONHASHSEED": folder.name},
            cwd=Path(__file__).parents[3],
        )
        for folder in folders
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    assert files(folders[0]) == files(folders[1])


def test_ctrl_c_keeps_what_has_finished(tmp_path: Any, monkeypatch: Any) -> Any:
    def interrupted(tasks: Any) -> Any:
        for place, outcome in enumerate(sweep(tasks)):
            if place == 15:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(lab, "sweep", interrupted)
    result = run_into(tmp_path / "out")
    main, forest, _ = result.parts
    assert result.interrupted
    assert not main.table.complete
    assert main.table.line("rate 0.5, 1 slots", "fcfs", "jct").value.n == 3
    assert forest.table is None
    assert forest.skipped == "interrupted before it began"
    assert (tmp_path / "out" / "main.csv").read_text().count("\n") == 15 * 4 + 1
    assert "Interrupted" in (tmp_path / "out" / "report.html").read_text()


def test_rows_are_on_disk_while_others_are_still_to_come(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(lab, "_SECONDS_BETWEEN_WRITES", 0.0)
    monkeypatch.setattr(lab, "_WRITING_SHARE", 0.0)
    seen = []

    class Reading(Silent):
        def advance(self, task: Any, done: Any, total: Any, note: Any = "") -> None:
            file = tmp_path / "main.csv"
            seen.append(file.read_text().count("\n") if file.exists() else 0)

    with joblib.parallel_config(n_jobs=1):
        run(Order(TOY, parts=("main",), seeds=1), RowKeeper(tmp_path), Reading())
    assert seen == [0, 0, 5, 9, 13, 17, 21]


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_a_run_that_cannot_be_made_is_named(backend: Any) -> None:
    part = replace(MAIN, run=toy.fail_on_seed_two)
    with joblib.parallel_config(backend=backend, n_jobs=2), pytest.raises(Problem) as error:
        list(sweep(tasks_of(part, 4, None)))
    assert error.value.what.startswith("setting 'rate ")
    assert "seed 2: the pool has no server" in error.value.what
    assert error.value.fix == "give it one"


def test_a_defect_says_in_which_run_it_was() -> None:
    task = tasks_of(replace(MAIN, run=toy.break_down), 1, None)[0]
    with pytest.raises(ZeroDivisionError) as error:
        execute(task)
    assert error.value.__notes__ == ["in a run of the lab: setting 'rate 0.5, 1 slots', seed 0"]


def test_an_experiment_without_a_part_that_can_run_still_reports(tmp_path: Any) -> None:
    result = run_into(tmp_path / "out", Order(TOY, parts=("needy",)))
    assert [part.table for part in result.parts] == [None]
    assert "needs the data set made-up-set" in (tmp_path / "out" / "report.html").read_text()
