"""Container logs as files, one per start, in the line format of the container runtime interface (CRI).

    2026-11-24T18:00:00.000000001Z stdout F the line itself

`F` is a whole line, `P` a part of one. Two starts are kept: the current and the previous.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import structlog

_log = structlog.get_logger(__name__)

LONGEST_LINE_BYTES: Final = 16 * 1024
ROTATE_BYTES: Final = 16 * 1024 * 1024
_NANOSECONDS = 1_000_000_000


def stamp(nanoseconds: int) -> str:
    """Return a Unix time as a log line starts: RFC 3339 with nanoseconds."""
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class LogFile:
    """The log of one start of a container.

    A full disk costs lines, never the node: lines that cannot be written are dropped and counted.

    Args:
        path: where it is written; its folder exists.
        now_ns: the clock, Unix nanoseconds.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        self.path = path
        self.dropped_lines = 0
        self._now_ns = now_ns
        self._file: BinaryIO | None = path.open("ab", buffering=0)
        self._size = path.stat().st_size
        self._partial: dict[str, bytes] = {}
        self._growth = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Return whether no more lines will come."""
        return self._file is None

    def write(self, stream: str, data: bytes) -> None:
        """Append output of `stdout` or `stderr`; an unfinished line waits for its rest."""
        *lines, rest = (self._partial.get(stream, b"") + data).split(b"\n")
        at = f"{stamp(self._now_ns())} {stream} ".encode()
        written = b"".join(at + b"F " + line + b"\n" for line in lines)
        while len(rest) >= LONGEST_LINE_BYTES:
            written += at + b"P " + rest[:LONGEST_LINE_BYTES] + b"\n"
            rest = rest[LONGEST_LINE_BYTES:]
        self._partial[stream] = rest
        if written:
            self._append(written, len(lines))

    def close(self) -> None:
        """Write unfinished lines and close the file."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(f"{stamp(self._now_ns())} {stream} F ".encode() + rest + b"\n", 1)
        self._partial.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._growth.set()

    async def grown(self) -> None:
        """Return when lines were written after this call, or the file is closed."""
        if self.closed:
            return
        if self._growth.is_set():
            self._growth = asyncio.Event()
        await self._growth.wait()

    def _append(self, written: bytes, lines: int) -> None:
        if self._file is None:
            return
        try:
            self._file.write(written)
        except OSError as error:
            if not self.dropped_lines:
                _log.warning("log lines dropped", path=str(self.path), error=str(error))
            self.dropped_lines += lines
            return
        self._size += len(written)
        self._growth.set()
        if self._size > ROTATE_BYTES:
            self._rotate()

    def _rotate(self) -> None:
        """Move what was written aside; only the newest file is served, as the kubelet does it."""
        assert self._file is not None
        self.path.replace(self.path.with_suffix(".rotated"))
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self._size = 0


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines are wanted.

    Attributes:
        follow: go on with lines to come.
        tail: only the last lines of what is there; None is all.
        since_ns: only lines written at or after this Unix time.
        timestamps: each line starts with its time.
        limit_bytes: end after so many bytes; None is no limit.
    """

    follow: bool = False
    tail: int | None = None
    since_ns: int = 0
    timestamps: bool = False
    limit_bytes: int | None = None


@dataclass(slots=True)
class _Reader:
    """Lines of one file as they should be shown, up to the byte limit."""

    query: LogQuery
    left: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.query.limit_bytes

    def show(self, line: bytes) -> bytes:
        at, _, rest = line.partition(b" ")
        _stream, _, rest = rest.partition(b" ")
        kind, _, text = rest.partition(b" ")
        if kind == b"P":
            text = text.removesuffix(b"\n")
        shown = at + b" " + text if self.query.timestamps else text
        if self.left is not None:
            shown = shown[: self.left]
            self.left -= len(shown)
        return shown

    @property
    def finished(self) -> bool:
        return self.left is not None and self.left <= 0


def _present(file: BinaryIO, query: LogQuery) -> Iterator[bytes]:
    """Yield the whole lines that are in the file and wanted."""
    since = stamp(query.since_ns).encode() if query.since_ns else b""
    lines = (line for line in file if line >= since)  # stamps sort as text
    return iter(lines if query.tail is None else deque(lines, maxlen=query.tail))


async def read(path: Path, query: LogQuery, live: LogFile | None = None) -> AsyncIterator[bytes]:
    """Yield lines of a log file as they should be shown, in chunks.

    Args:
        path: the file.
        query: which lines.
        live: the log that is still written to this path, if any; only such a log can be followed.

    Raises:
        FileNotFoundError: there is no such log.
    """
    reader = _Reader(query)
    file = path.open("rb")
    try:
        yield b"".join(map(reader.show, _present(file, query)))
        while query.follow and live is not None and not reader.finished:
            ended = live.closed
            if chunk := b"".join(map(reader.show, file)):
                yield chunk
            elif ended:
                return
            elif _replaced(file, path):
                file.close()
                file = path.open("rb")
            else:
                await live.grown()
    finally:
        file.close()


def _replaced(file: BinaryIO, path: Path) -> bool:
    return not os.path.samestat(os.fstat(file.fileno()), path.stat())


def last_lines(path: Path, lines: int, limit_bytes: int) -> str:
    """Return the end of a log as text, for a termination message; empty if there is none."""
    try:
        with path.open("rb") as file:
            shown = b"".join(map(_Reader(LogQuery()).show, _present(file, LogQuery(tail=lines))))
    except OSError:
        return ""
    return shown[-limit_bytes:].decode(errors="replace")
