"""Progress on a terminal, and where there is none."""

import io

import pytest
from rich.console import Console

from trimtab.cli.terminal import TerminalProgress


def shown(*, terminal: bool) -> tuple[io.StringIO, TerminalProgress]:
    screen = io.StringIO()
    return screen, TerminalProgress(Console(file=screen, force_terminal=terminal, width=120))


def test_without_a_terminal_there_are_lines_and_no_bars() -> None:
    screen, progress = shown(terminal=False)
    with progress:
        progress.say("etcd v3.7.3: no release ([Errno -2] no name)")
        progress.advance("build etcd", 1, 3, "a/b")
    assert screen.getvalue() == "etcd v3.7.3: no release ([Errno -2] no name)\n"


def test_on_a_terminal_a_task_shows_its_name_and_what_is_worked_on() -> None:
    screen, progress = shown(terminal=True)
    with progress:
        progress.advance("build etcd", 1, 3, "go.etcd.io/raft")
    assert "build etcd" in screen.getvalue()
    assert "go.etcd.io/raft" in screen.getvalue()


@pytest.mark.parametrize("total", [0, 10])
def test_tasks_may_begin_again_and_end_without_having_begun(total: float) -> None:
    _, progress = shown(terminal=True)
    with progress:
        progress.advance("download x", 0, total)
        progress.advance("download x", 10, 10)
        progress.advance("download y", 10, 10)
        progress.advance("download x", 5, total)
    assert list(progress._tasks) == ["download x"]
