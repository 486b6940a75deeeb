"""A small HTTP/1.1 client for load: many connections on one core, with the moment of every byte kept.

General clients spend 2 to 9 times as much of the core on a streamed token (`docs/decisions` has the figures), and a
client that is short of CPU measures itself. httptools parses; this module frames, pools and gives up.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from trimtab.model.problem import Problem

Clock = Callable[[], float]


class Reader(Protocol):
    """What takes in one answer, as it comes."""

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The status and the headers (names in lower case) are there."""

    def on_data(self, data: bytes, at_seconds: float) -> None:
        """A piece of the body came at this time of the client's clock."""


class AnswerLost(Exception):
    """The connection failed before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Attributes:
        host: name or address.
        port: TCP port.
        prefix: what comes before `/v1/...` in paths; empty or beginning with a slash.
        tls: how to encrypt; None: plain HTTP.
    """

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Read a base URL such as `http://127.0.0.1:8000`; a trailing `/v1` is understood.

    Raises:
        Problem: not an http or https URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise Problem(f"{url!r} is not a URL: {error}", fix="write http://HOST:PORT") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Problem(f"{url!r} is not an http or https URL", fix="write http://HOST:PORT")
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Target(parts.hostname, port, prefix, ssl.create_default_context() if parts.scheme == "https" else None)


class Connection(asyncio.Protocol):
    """One connection, used for one request after another."""

    def __init__(self, clock: Clock, left: Callable[["Connection"], None]) -> None:
        self._clock = clock
        self._left = left
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser
        self._reader: Reader
        self._done: asyncio.Future[None] | None = None
        self._headers: dict[str, str] = {}
        self._now = 0.0
        self._keep = False
        self.answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport that asyncio made."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange under way, if there is one, and leave the pool."""
        self._left(self)
        if self._done is None or self._done.done():
            return
        if exc is None and self._ends_with_connection():
            self._done.set_result(None)
        else:
            self._done.set_exception(AnswerLost(str(exc) if exc else "the server closed the connection"))

    def _ends_with_connection(self) -> bool:
        return self.answered and not self._headers.keys() & {"content-length", "transfer-encoding"}

    def data_received(self, data: bytes) -> None:
        """Parse what came; all of it came at the same moment."""
        self._now = self._clock()
        if self._done is None or self._done.done():
            self.close()  # bytes that nobody asked for
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._done.set_exception(AnswerLost(f"the answer is not HTTP: {error}"))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header (called by the parser)."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Hand over the head (called by the parser)."""
        status = self._parser.get_status_code()
        if status >= 200:  # noqa: PLR2004 - what is below announces another answer
            self.answered = True
            self._keep = self._parser.should_keep_alive()
            self._reader.on_head(status, self._headers)

    def on_body(self, data: bytes) -> None:
        """Hand over a piece of the body (called by the parser)."""
        self._reader.on_data(data, self._now)

    def on_message_complete(self) -> None:
        """End the exchange (called by the parser)."""
        if self.answered and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def exchange(self, request: bytes, reader: Reader) -> bool:
        """Send one request and read its answer; say whether the connection can be used again.

        Raises:
            AnswerLost: the connection failed first.
        """
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._reader, self._headers, self.answered = reader, {}, False
        self._done = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            await self._done
        finally:
            self._done = None
        return self._keep and not self._transport.is_closing()

    def close(self) -> None:
        """Drop the connection at once; the server sees its client go."""
        if self._transport is not None:
            self._transport.abort()


class Client:
    """Sends requests to one target over as many connections as there are requests under way."""

    def __init__(self, target: Target, headers: Mapping[str, str] | None = None, clock: Clock = time.monotonic) -> None:
        self._target = target
        self._clock = clock
        self._idle: list[Connection] = []
        fixed = {"host": target.authority, "content-type": "application/json", **(headers or {})}
        self._fixed = _header_lines(fixed)

    async def send(
        self, method: str, path: str, body: bytes, reader: Reader, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send one request and let `reader` take in its answer; cancelling closes the connection.

        A connection that was left open may close at the very moment it is used again: then, and only if no byte of an
        answer came, the request goes out once more on a new connection.

        Raises:
            AnswerLost: no connection, or it failed before the answer was complete.
        """
        lines = _header_lines({**(headers or {}), "content-length": str(len(body))})
        request = f"{method} {self._target.prefix}{path} HTTP/1.1\r\n{self._fixed}{lines}\r\n".encode() + body
        if self._idle:
            connection = self._idle.pop()
            try:
                return await self._exchange(connection, request, reader)
            except AnswerLost:
                if connection.answered:
                    raise
        return await self._exchange(await self._connect(), request, reader)

    async def _exchange(self, connection: Connection, request: bytes, reader: Reader) -> None:
        reusable = False
        try:
            reusable = await connection.exchange(request, reader)
        finally:
            if reusable:
                self._idle.append(connection)
            else:
                connection.close()

    async def _connect(self) -> Connection:
        target = self._target
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._clock, self._forget), target.host, target.port, ssl=target.tls
            )
        except OSError as error:
            raise AnswerLost(f"cannot connect to {target.authority}: {error.strerror or error}") from error
        return connection

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close the connections that wait for work."""
        for connection in tuple(self._idle):
            connection.close()
        self._idle.clear()


def _header_lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
