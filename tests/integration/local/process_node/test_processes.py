"""Local processes: output, ends, groups, marks."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.until import until
from trimtab.local import owned
from trimtab.local.process_node import processes
from trimtab.local.process_node.processes import Exit, Mark, Process, spawn


class Output:
    """Takes a process's output."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def __call__(self, stream: str, data: bytes) -> None:
        self.parts[stream] += data

    async def has(self, text: bytes) -> bool:
        return text in self.parts["stdout"]


@pytest.fixture
async def mark(tmp_path: Path) -> AsyncIterator[Mark]:
    found = Mark(tmp_path, "pod")
    yield found
    await processes.reap(Mark(tmp_path))


def shell(script: str, mark: Mark, output: Output | None = None) -> Process:
    env = {"PATH": os.defpath} | mark.variables()
    return spawn(["/bin/sh", "-c", script], env, mark.state_dir, output or Output())


async def test_output_and_exit_code_are_taken(mark: Mark) -> None:
    output = Output()

    end = await shell("echo one; echo two >&2; exit 3", mark, output).wait()

    assert end == Exit(3)
    assert output.parts == {"stdout": b"one\n", "stderr": b"two\n"}


async def test_a_lot_of_output_is_taken_whole(mark: Mark) -> None:
    output = Output()

    await shell("head -c 3000000 /dev/zero", mark, output).wait()

    assert len(output.parts["stdout"]) == 3_000_000


async def test_a_signal_counts_as_128_more(mark: Mark) -> None:
    assert await shell("kill -KILL $$", mark).wait() == Exit(137, 9)


async def test_the_environment_is_exactly_what_was_given(mark: Mark) -> None:
    output = Output()

    await spawn(["/usr/bin/env"], {"A": "1"}, mark.state_dir, output).wait()

    assert output.parts["stdout"] == b"A=1\n"


async def test_a_polite_process_ends_at_term_and_a_stubborn_one_at_kill(mark: Mark) -> None:
    output = Output()
    polite = shell("trap 'exit 4' TERM; echo up; while true; do sleep 0.05; done", mark, output)
    await until(lambda: output.has(b"up"))
    assert await polite.stop(grace_seconds=20) == Exit(4)

    output = Output()
    stubborn = shell("trap '' TERM; echo up; while true; do sleep 0.05; done", mark, output)
    await until(lambda: output.has(b"up"))
    assert await stubborn.stop(grace_seconds=0.2) == Exit(137, 9)


async def test_a_process_takes_its_group_with_it(mark: Mark) -> None:
    await shell("sleep 1000 & exit 0", mark).wait()

    await until(lambda: _none_left(mark))


async def test_what_left_the_group_does_not_hold_up_the_end_and_is_reaped(mark: Mark) -> None:
    leave = "setsid sh -c 'touch away; exec sleep 1000' & until [ -e away ]; do sleep 0.01; done"
    process = shell(f"{leave}; exit 0", mark)

    assert await asyncio.wait_for(process.wait(), 10) == Exit(0)
    assert len(processes.marked(mark)) == 1

    assert await processes.reap(mark) == 1
    assert processes.marked(mark) == []


async def _none_left(mark: Mark) -> bool:
    return not processes.marked(mark)


async def test_marks_tell_nodes_pods_and_containers_apart(tmp_path: Path) -> None:
    marks = [
        Mark(tmp_path, "a", "x"),
        Mark(tmp_path, "a", "x-y"),
        Mark(tmp_path, "b", "x"),
        Mark(tmp_path / "other", "a", "x"),
    ]
    running = [spawn(["/bin/sleep", "1000"], mark.variables(), tmp_path, Output()) for mark in marks]
    pids = [process.pid for process in running]

    assert processes.marked(Mark(tmp_path, "a", "x")) == pids[:1]
    assert sorted(processes.marked(Mark(tmp_path, "a"))) == sorted(pids[:2])
    assert sorted(processes.marked(Mark(tmp_path))) == sorted(pids[:3])

    for process in running:
        process.kill()
        await process.wait()


def test_processes_of_a_local_cluster_carry_its_mark_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(owned.MARK, "/clusters/one")

    assert Mark(tmp_path, "a").variables() == {
        processes.MARKER: f"{tmp_path}:a:",
        owned.MARK: "/clusters/one",
        owned.ROLE: "pod",
    }


async def test_a_program_that_cannot_be_started_is_an_error(mark: Mark) -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["/no/such/program"], {}, mark.state_dir, Output())


async def test_processes_die_with_a_parent_that_is_killed(mark: Mark) -> None:
    program = f"""
import asyncio
from pathlib import Path
from trimtab.local.process_node.processes import Mark, spawn
async def main():
    mark = Mark(Path({str(mark.state_dir)!r}), "pod")
    print(spawn(["/bin/sleep", "1000"], mark.variables(), mark.state_dir, print).pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert processes.marked(mark) == [child]
    parent.kill()
    await parent.wait()

    await until(lambda: _none_left(mark))
