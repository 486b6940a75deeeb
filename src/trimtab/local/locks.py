"""Locks between launchers: held by an open file, so a killed holder leaves nothing behind."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path`. Whoever holds it may delete it: those who wait notice and take the new one.

    Args:
        path: The lock file; its folder is made when absent.
        waiting: Called once with the holder's process id (may be empty) when somebody else holds the lock.
    """
    with _held(path, waiting) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


@contextmanager
def deleted_afterwards(path: Path) -> Iterator[None]:
    """Delete a lock file that is held; its last user leaves nothing behind."""
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _held(path: Path, waiting: Callable[[str], None]) -> IO[str]:
    """Open and lock the file that is at `path`, however often it is replaced meanwhile."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:  # a holder that was the last one has just deleted the folder
            continue
        _take(file, waiting)
        if _is_current(file, path):
            return file
        file.close()


def _take(file: IO[str], waiting: Callable[[str], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        waiting(file.read().strip())
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_current(file: IO[str], path: Path) -> bool:
    """Whether the locked file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
