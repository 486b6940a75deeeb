"""How slow work tells what it is doing."""

from typing import Protocol


class Progress(Protocol):
    """Somebody who watches slow work: the terminal, or nobody."""

    def say(self, text: str) -> None:
        """Tell one fact that stays on the screen."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Tell how far a task is; `done == total` ends it.

        Args:
            task: Name of the task, the same each time.
            done: How much is done, in units of the task's own.
            total: How much there is to do; 0 when unknown.
            note: What is being worked on.
        """


class Silent:
    """Nobody watches."""

    def say(self, text: str) -> None:
        """Ignore it."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Ignore it."""
