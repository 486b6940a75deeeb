"""HTTP/1.1 as the simulator needs it: requests as whole bodies, answers whole or streamed in chunks.

Callbacks from one parser per connection, no task and no queue per request: a streamed token costs one formatted line
and one write, which is what lets one core carry thousands of tokens per second through several engines.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import parse_qs

import httptools

MAX_BODY_BYTES: Final = 64 * 2**20
MAX_PIPELINED: Final = 32
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed request; header names are lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


class Exchange:
    """A request and the one answer to it.

    Attributes:
        started: The head of the answer has been sent.
        done: The answer is complete, or there is nobody to send it to.
        on_disconnect: Called once if the client goes away before the answer is complete.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_keep_alive",
        "done",
        "extra_headers",
        "on_disconnect",
        "request",
        "started",
    )

    def __init__(self, connection: "Connection", request: Request, *, keep_alive: bool, chunked: bool) -> None:
        self._connection = connection
        self._keep_alive = keep_alive and chunked
        self._chunked = chunked
        self.request = request
        self.started = False
        self.done = False
        self.extra_headers: list[Header] = []
        self.on_disconnect: Callable[[], None] | None = None

    def respond(self, status: int, body: bytes, content_type: str = JSON, headers: Iterable[Header] = ()) -> None:
        """Send a whole answer."""
        lines = [("content-length", str(len(body))), *headers]
        if body:
            lines.append(("content-type", content_type))
        self._head(status, lines)
        self._finish(b"" if self.request.method == "HEAD" else body)

    def start_stream(self) -> None:
        """Send the head of a streamed answer."""
        framing = [("transfer-encoding", "chunked")] if self._chunked else [("connection", "close")]
        self._head(HTTPStatus.OK, [("content-type", EVENT_STREAM), *framing])

    def write(self, data: bytes) -> None:
        """Send a piece of a streamed answer."""
        self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self, data: bytes) -> None:
        """Send the last piece of a streamed answer."""
        self._finish(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if self._chunked else data)

    def give_up(self) -> None:
        """Break the connection, because the answer cannot be completed."""
        self.lost()
        self._connection.close()

    def lost(self) -> None:
        """The connection is gone."""
        if not self.done:
            self.done = True
            if self.on_disconnect is not None:
                self.on_disconnect()

    def _head(self, status: int, headers: Iterable[Header]) -> None:
        self.started = True
        phrase = HTTPStatus(status).phrase
        lines = [f"HTTP/1.1 {status} {phrase}", self._connection.server.date_line(), "server: trimtab-engine"]
        lines += [f"{name}: {value}" for name, value in (*headers, ("vary", "Origin"), *self.extra_headers)]
        self._connection.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def _finish(self, data: bytes) -> None:
        self.done = True
        if data:
            self._connection.write(data)
        self._connection.exchange_done(keep_alive=self._keep_alive)


Application = Callable[[Exchange], None]


class Connection(asyncio.Protocol):
    """One client connection: parses requests and hands them to the application one after the other."""

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._current: Exchange | None = None
        self._pipelined: deque[Exchange] = deque()
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_size = 0

    @property
    def idle(self) -> bool:
        """Whether no answer is under way."""
        return self._current is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without inheriting from it
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`: answers under way learn that their client is gone."""
        del exc
        self._transport = None
        self.server.connections.discard(self)
        pipelined, self._pipelined = self._pipelined, deque()
        for exchange in ([self._current] if self._current else []) + list(pipelined):
            exchange.lost()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.BAD_REQUEST, "Upgrades are not supported.")
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")

    def eof_received(self) -> None:
        """A client that half-closes is taken as gone, as uvicorn does; asyncio closes the transport."""

    def on_url(self, url: bytes) -> None:
        """From the parser: a piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """From the parser: one header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """From the parser: the body may follow."""
        if self._headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """From the parser: a piece of the body."""
        self._body_size += len(body)
        if self._body_size > MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large.")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """From the parser: the request is whole."""
        if self._transport is None:
            return
        url = httptools.parse_url(self._url)
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=(url.path or b"/").decode("latin-1"),
            query=parse_qs((url.query or b"").decode("latin-1")),
            headers=self._headers,
            body=b"".join(self._body),
        )
        chunked = self._parser.get_http_version() == "1.1"
        exchange = Exchange(self, request, keep_alive=self._parser.should_keep_alive(), chunked=chunked)
        self._reset()
        if self._current is not None:
            self._pipeline(exchange)
        else:
            self._start(exchange)

    def write(self, data: bytes) -> None:
        """Send bytes, unless the client is gone."""
        if self._transport is not None:
            self._transport.write(data)

    def exchange_done(self, *, keep_alive: bool) -> None:
        """Go on to the next request, or close."""
        self._current = None
        if not keep_alive or self.server.closing:
            self.close()
        elif self._pipelined:
            self._start(self._pipelined.popleft())

    def close(self) -> None:
        """Close once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        self.server.application(exchange)

    def _pipeline(self, exchange: Exchange) -> None:
        if len(self._pipelined) >= MAX_PIPELINED:
            self.close()
        else:
            self._pipelined.append(exchange)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-type: text/plain\r\n"
        self.write(f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
        self.close()


class HttpServer:
    """A listener on one address.

    Args:
        application: Called with each exchange; must answer it, at once or later.
        unix_time: The wall clock, for the `date` header.
    """

    def __init__(self, application: Application, unix_time: Callable[[], float]) -> None:
        self.application = application
        self.connections: set[Connection] = set()
        self.closing = False
        self._unix_time = unix_time
        self._listener: asyncio.Server | None = None
        self._date = (0, "")

    async def listen(self, host: str, port: int) -> int:
        """Start to accept connections; returns the port, which is chosen by the system when `port` is 0."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), host, port, backlog=2048)
        return int(self._listener.sockets[0].getsockname()[1])

    def stop_listening(self) -> None:
        """Refuse new connections and close the idle ones; answers under way go on."""
        self.closing = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            if connection.idle:
                connection.close()

    def date_line(self) -> str:
        """The `date` header of this second."""
        second = int(self._unix_time())
        if second != self._date[0]:
            self._date = (second, f"date: {formatdate(second, usegmt=True)}")
        return self._date[1]
