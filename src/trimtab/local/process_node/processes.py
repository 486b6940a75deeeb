"""One local process: its start, its output, its end, and the certainty that it does not outlive the node."""

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from trimtab.local import owned

_log = structlog.get_logger(__name__)

MARKER: Final = "TRIMTAB_PROCESS_NODE"
"""Variable that marks every process of a node, descendants included: `<state dir>:<pod uid>:<container>:`."""

_PR_SET_PDEATHSIG: Final = 1
_READ_BYTES: Final = 65536
_REAP_PAUSE_SECONDS: Final = 0.01
_LAST_READS: Final = 16  # a pipe holds 16 pages unless someone enlarged it
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended; the code is 128 + signal when a signal ended it, as shells and kubelets count."""

    code: int
    signal: int = 0


class Process:
    """A running process, leader of its own session and process group.

    Its output goes through pipes to `output`. When the node dies, by whatever means, the kernel kills it.
    """

    def __init__(self, popen: subprocess.Popen[bytes], output: Callable[[str, bytes], None]) -> None:
        self.pid = popen.pid
        self._popen = popen
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        self._pipes = {"stdout": _fileno(popen.stdout), "stderr": _fileno(popen.stderr)}
        for stream, fd in self._pipes.items():
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._readable, stream, fd)
        self._loop.add_reader(self._pidfd, self._ended)

    async def wait(self) -> Exit:
        """Return how the process ended, when it has and all its output was taken."""
        return await asyncio.shield(self._exit)

    def terminate(self) -> None:
        """Send TERM to the process alone, as a runtime does to a container's first process."""
        if not self._exit.done():
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send KILL to the whole process group."""
        _kill_group(self.pid)

    async def stop(self, grace_seconds: float) -> Exit:
        """Send TERM, and KILL when the grace period is over."""
        self.terminate()
        try:
            async with asyncio.timeout(grace_seconds):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()

    def _readable(self, stream: str, fd: int) -> None:
        if self._take(stream, fd) == 0:
            self._loop.remove_reader(fd)

    def _take(self, stream: str, fd: int) -> int:
        """Pass on what a pipe holds; return how much it was: 0 at its end, -1 when nothing is there yet."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return -1
        if data:
            self._output(stream, data)
        return len(data)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _kill_group(self.pid)  # before the wait: until then the pid cannot be anyone else's
        code = self._popen.wait()
        self._close_pipes()
        self._exit.set_result(Exit(code) if code >= 0 else Exit(128 - code, -code))

    def _close_pipes(self) -> None:
        """Take the last output. A descendant that left the group may hold the pipe open: nobody waits for it."""
        for stream, fd in self._pipes.items():
            self._loop.remove_reader(fd)
            for _ in range(_LAST_READS):
                if self._take(stream, fd) <= 0:
                    break
        for pipe in (self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()


def spawn(argv: Sequence[str], env: Mapping[str, str], cwd: Path, output: Callable[[str, bytes], None]) -> Process:
    """Start a process.

    Args:
        argv: the program's path and its arguments.
        env: its whole environment.
        cwd: its working directory.
        output: takes (`stdout` or `stderr`, bytes) as they come.

    Raises:
        OSError: it could not be started.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died between the fork and the call above
            os._exit(1)

    popen = subprocess.Popen(
        argv,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # One system call between fork and exec; the interpreter's locks are reset by the fork itself.
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )
    return Process(popen, output)


def _fileno(pipe: object) -> int:
    assert hasattr(pipe, "fileno")
    number: int = pipe.fileno()
    return number


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


# What a dead predecessor left


@dataclass(frozen=True, slots=True)
class Mark:
    """What marks processes: those of a node, of one of its pods, or of one container of that pod."""

    state_dir: Path
    pod_uid: str = ""
    container: str = ""

    @property
    def text(self) -> str:
        """Return the variable's value, or the start that all of them have in common."""
        names = [name for name in (self.pod_uid, self.container) if name]
        return ":".join([str(self.state_dir), *names, ""])

    def variables(self) -> dict[str, str]:
        """Return the variables that mark a process: as ours, and as the local cluster's if we belong to one."""
        root = os.environ.get(owned.MARK)
        cluster = {owned.MARK: root, owned.ROLE: "pod"} if root else {}
        return {MARKER: self.text} | cluster


def marked(mark: Mark) -> list[int]:
    """Return the pids of the processes, of any parent, that carry a mark."""
    return [pid for pid in _pids() if _carries(pid, mark)]


def _pids() -> list[int]:
    own = os.getpid()
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != own]  # noqa: PTH208


def _carries(pid: int, mark: Mark) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    wanted = f"{MARKER}={mark.text}".encode()
    return any(variable.startswith(wanted) for variable in environ.split(b"\0"))


async def reap(mark: Mark, *, timeout_seconds: float = 5.0) -> int:
    """Kill every marked process and return how many there were, when they are gone or the time is over."""
    found: set[int] = set()
    try:
        async with asyncio.timeout(timeout_seconds):
            while left := marked(mark):
                for pid in left:
                    _kill(pid, mark)
                found.update(left)
                await asyncio.sleep(_REAP_PAUSE_SECONDS)
    except TimeoutError:
        _log.warning("processes not gone after KILL", pids=sorted(found))
    return len(found)


def _kill(pid: int, mark: Mark) -> None:
    """Kill a process if, once it is held fast, it still carries the mark: pids are used again."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _carries(pid, mark):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
