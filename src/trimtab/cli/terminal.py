"""Progress of slow work on a terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class TerminalProgress:
    """Shows facts as lines and running tasks as bars below them; without a terminal, lines only.

    Used as a context manager, so that the bars are gone before an error is printed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        note = TextColumn("{task.fields[note]}", style="dim", markup=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), note)
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False)

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Move the bar of a task, which appears with its first move and goes when it is done."""
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, note="")
        if total and done >= total:
            self._bars.remove_task(self._tasks.pop(task))
            return
        self._bars.update(self._tasks[task], completed=done, total=total or None, note=note[-60:])
