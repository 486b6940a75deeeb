"""Finding and stopping the processes of a cluster by the mark in their environment."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from trimtab.local import owned
from trimtab.local.components import Component
from trimtab.model.problem import Problem

OBSTINATE = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
)
MEEK = "import time; print('up', flush=True); time.sleep(60)"


class Nursery:
    """Starts processes, and sees to it that none is left."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, program: str, **environment: str) -> subprocess.Popen[bytes]:
        environ = {**os.environ, **environment}
        process = subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    with ExitStack() as stack:
        yield Nursery(stack)


def mark(root: Path, role: str = "") -> dict[str, str]:
    return {owned.MARK: str(root)} | ({owned.ROLE: role} if role else {})


def test_marked_processes_are_found_with_their_role(nursery: Nursery, tmp_path: Path) -> None:
    process = nursery.start(MEEK, **mark(tmp_path, "etcd"))
    assert owned.processes(tmp_path) == [owned.Process(process.pid, (sys.executable, "-c", MEEK), "etcd")]


def test_children_of_marked_processes_are_found_too(nursery: Nursery, tmp_path: Path) -> None:
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {MEEK!r}]).wait()"
    nursery.start(parent, **mark(tmp_path))
    assert len(owned.processes(tmp_path)) == 2
    owned.stop(tmp_path, grace_seconds=5)
    assert owned.processes(tmp_path) == []


def test_strangers_and_other_clusters_are_left_alone(nursery: Nursery, tmp_path: Path) -> None:
    strangers = [
        nursery.start(MEEK),
        nursery.start(MEEK, **mark(tmp_path / "b")),
        nursery.start(MEEK, OTHER=str(tmp_path)),
    ]
    ours = nursery.start(MEEK, **mark(tmp_path))
    assert owned.stop(tmp_path, grace_seconds=5) == []
    assert ours.wait(5) != 0
    assert [process.poll() for process in strangers] == [None, None, None]


def test_the_caller_itself_is_never_found(tmp_path: Path) -> None:
    """Somebody may run the launcher in a shell that a pod started."""
    program = f"import trimtab.local.owned as o, pathlib; print(o.processes(pathlib.Path({str(tmp_path)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **mark(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_what_ignores_term_is_killed_after_its_grace_and_reported(nursery: Nursery, tmp_path: Path) -> None:
    process = nursery.start(OBSTINATE, **mark(tmp_path))
    started = time.monotonic()
    killed = owned.stop(tmp_path, grace_seconds=0.2)
    assert [item.pid for item in killed] == [process.pid]
    assert process.wait(5) == -9
    assert time.monotonic() - started < 5


def test_only_those_that_are_meant_are_stopped(nursery: Nursery, tmp_path: Path) -> None:
    one, other = nursery.start(MEEK, **mark(tmp_path, "etcd")), nursery.start(MEEK, **mark(tmp_path, "kwok-controller"))
    owned.stop(tmp_path, grace_seconds=5, which=lambda process: process.role == "etcd")
    assert one.wait(5) == -15
    assert other.poll() is None


def test_what_survives_even_sigkill_is_named(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = nursery.start(MEEK, **mark(tmp_path))
    monkeypatch.setattr(owned, "_KILL_SECONDS", 0.0)
    monkeypatch.setattr(owned.signal, "pidfd_send_signal", lambda *_: None)
    with pytest.raises(Problem, match=rf"processes {process.pid} of .* do not end\nfix: .*ps -o"):
        owned.stop(tmp_path, grace_seconds=0)


def test_stopping_nothing_is_quick(tmp_path: Path) -> None:
    started = time.monotonic()
    assert owned.stop(tmp_path, grace_seconds=30) == []
    assert time.monotonic() - started < 2


def test_a_component_starts_as_an_orphan_with_mark_role_and_log(tmp_path: Path) -> None:
    component = Component("etcd", (sys.executable, "-c", MEEK), tmp_path / "log")
    component.start(tmp_path)
    try:
        (process,) = [item for item in owned.processes(tmp_path) if component.runs_as(item)]
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert int(stat[1]) != os.getpid(), "an orphan needs nobody to wait for it"
    finally:
        owned.stop(tmp_path, grace_seconds=5)


def test_a_component_of_kwokctl_is_known_by_its_program(tmp_path: Path) -> None:
    component = Component("etcd", (str(tmp_path / "bin" / "etcd"), "--name=x"), tmp_path / "log")
    assert component.runs_as(owned.Process(1, (str(tmp_path / "bin" / "etcd"), "--name=x")))
    assert not component.runs_as(owned.Process(1, (str(tmp_path / "bin" / "kube-apiserver"),)))
    assert not component.runs_as(owned.Process(1, component.argv, role="pod"))
    assert not component.runs_as(owned.Process(1, ()))
