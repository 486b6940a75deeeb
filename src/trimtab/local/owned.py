"""The processes of one local cluster, found by a mark in their environment rather than by a remembered pid.

Every component is started with `TRIMTAB_CLUSTER_ROOT=<state folder>`, and a process hands its environment to its
children. So what belongs to a cluster can be read from `/proc` at any time: after a killed launcher, a lost pid
file, a reboot that gave old pids to strangers. Signals go through a pidfd that is opened before the mark is read,
so a recycled pid is never hit.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trimtab.model.problem import Problem

MARK: Final = "TRIMTAB_CLUSTER_ROOT"
ROLE: Final = "TRIMTAB_COMPONENT"

_PROC = Path("/proc")
_KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """A live process of a cluster.

    Attributes:
        pid: Its process id.
        argv: Its command line.
        role: The component it was started as, empty when only its command line can tell.
    """

    pid: int
    argv: tuple[str, ...]
    role: str = ""


def processes(root: Path) -> list[Process]:
    """All live processes that carry the mark of the cluster whose state folder is `root`, by pid."""
    pids = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    found = (_read(pid, root) for pid in pids if pid != os.getpid())
    return [process for process in found if process is not None]


def stop(root: Path, *, grace_seconds: float, which: Callable[[Process], bool] = lambda _: True) -> list[Process]:
    """Stop marked processes: SIGTERM, `grace_seconds` to leave, then SIGKILL, until none is left.

    Returns:
        Those that had to be killed.

    Raises:
        Problem: A process survived SIGKILL for ten seconds.
    """
    _signal(root, signal.SIGTERM, which, grace_seconds)
    stragglers = [process for process in processes(root) if which(process)]
    deadline = time.monotonic() + _KILL_SECONDS
    while left := [process for process in processes(root) if which(process)]:
        if time.monotonic() > deadline:
            pids = " ".join(str(process.pid) for process in left)
            raise Problem(
                f"processes {pids} of {root} do not end", fix=f"look at them with `ps -o pid,stat,cmd {pids}`"
            )
        _signal(root, signal.SIGKILL, which, 1.0)
    return stragglers


def _signal(root: Path, number: signal.Signals, which: Callable[[Process], bool], wait_seconds: float) -> None:
    """Send a signal to each marked process and wait until all are gone or the time is over."""
    with ExitStack() as stack:
        handles = [handle for process in processes(root) if which(process) for handle in _open(process, root, stack)]
        for handle in handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
        _wait(handles, wait_seconds)


def _open(process: Process, root: Path, stack: ExitStack) -> Iterator[int]:
    """Yield a pidfd of the process if it is still the marked one."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    stack.callback(os.close, handle)
    if _read(process.pid, root) is not None:
        yield handle


def _wait(handles: Sequence[int], seconds: float) -> None:
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    left, deadline = set(handles), time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(remaining * 1000):
            poll.unregister(handle)
            left.discard(handle)


def _read(pid: int, root: Path) -> Process | None:
    """The process if it carries our mark; None for strangers, zombies (no environment) and what has just ended."""
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        if f"{MARK}={root}".encode() not in environ:
            return None
        argv = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    role = next((line.partition(b"=")[2].decode() for line in environ if line.startswith(f"{ROLE}=".encode())), "")
    return Process(pid, tuple(part.decode(errors="replace") for part in argv), role)
