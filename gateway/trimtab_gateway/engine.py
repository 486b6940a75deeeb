"""Connections to engines: one request at a time on each, answers handed on as they come."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from trimtab_gateway import wire
from trimtab_gateway.limits import Limits

_INFORMATIONAL = 200  # statuses below are interim answers
_SWITCHING_PROTOCOLS = 101
_NO_BODY = frozenset({204, 304})


class AnswerHead:
    """Status and headers of an engine's answer.

    Attributes:
        status: the HTTP status.
        phrase: what follows it.
        headers: with lower-case names.
        chunked: the body is framed in chunks.
        until_close: the body ends with the connection.
        event_stream: the body is a stream of server-sent events.
    """

    __slots__ = ("chunked", "event_stream", "headers", "phrase", "status", "until_close")

    def __init__(self) -> None:
        self.status = 0
        self.phrase = b""
        self.headers: wire.Headers = []
        self.chunked = False
        self.until_close = False
        self.event_stream = False


class Answered(Protocol):
    """Who gets the answer. Exactly one of `ended` and `broken` is called, and nothing after it."""

    def connected(self, connection: "EngineConnection") -> None:
        """A connection is ready for `EngineConnection.send`."""

    def unreachable(self, error: str) -> None:
        """No connection could be made; the engine has not seen the request."""

    def answer_started(self, head: AnswerHead) -> None:
        """The head of the answer is complete; `body` follows at once, with whatever of the body came with it."""

    def body(self, raw: bytes, content: list[bytes]) -> None:
        """A part of the body came, perhaps an empty first one: as framed on the wire, and without the frames."""

    def ended(self) -> None:
        """The answer is complete."""

    def broken(self, error: str, *, invalid: bool, unanswered: bool) -> None:
        """The answer will not be completed.

        Args:
            error: what happened, for logs.
            invalid: the engine sent something that is not HTTP; otherwise the connection was lost.
            unanswered: a used connection was closed before any byte came: most likely the engine gave it up as idle.
        """


class EngineConnection(asyncio.Protocol):
    """The client side of one connection."""

    __slots__ = (
        "_bytes_seen",
        "_content",
        "_done",
        "_exchange",
        "_head",
        "_head_done",
        "_link",
        "_messages",
        "_parser",
        "_paused",
        "_pending",
        "_requests",
        "_reusable",
        "idle_since",
        "mid_chunk",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, link: "EngineLink") -> None:
        self._link = link
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Answered | None = None
        self._requests = 0
        self._paused = False
        self.idle_since = 0.0
        self._expect_answer()

    def send(self, exchange: Answered, head: bytes, body: bytes | bytearray) -> None:
        """Send a request on a connection that is idle."""
        assert self._exchange is None, "one request at a time"
        self._exchange = exchange
        self._requests += 1
        self._bytes_seen = False
        self._expect_answer()
        self.transport.writelines((head, body))

    def cancel(self) -> None:
        """Close the connection at once; that is how an engine learns that nobody wants the answer."""
        self._exchange = None
        self.transport.abort()

    def pause(self) -> None:
        """Read nothing more for the time being, so that the engine has to wait."""
        if self.usable and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.usable and self._paused:
            self._paused = False
            self.transport.resume_reading()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self.transport.is_closing()

    # Events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self._link.discard(self)  # nothing was asked
            self.transport.abort()
            return
        self._bytes_seen = True
        try:
            body = data if self._head_done else self._take_head(data)
            if body:
                self._parser.feed_data(body)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(str(error), invalid=True)
            return
        if self._messages > 1:
            self._break("the engine sent more than one answer", invalid=True)
        elif self._head_done:
            self._hand_on(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._head_done and self._head.until_close and exc is None:
            exchange.ended()
            return
        error = str(exc) if exc else "the engine closed the connection"
        exchange.broken(error, invalid=False, unanswered=self._requests > 1 and not self._bytes_seen)

    # Events of the parser

    def on_message_begin(self) -> None:
        self._messages += 1

    def on_status(self, status: bytes) -> None:
        self._head.phrase += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._head.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._head.status = self._parser.get_status_code()
        self._reusable = self._parser.should_keep_alive()
        self._head_done = True

    def on_body(self, content: bytes) -> None:
        self._content.append(content)

    def on_chunk_header(self) -> None:
        self.mid_chunk = True

    def on_chunk_complete(self) -> None:
        self.mid_chunk = False

    def on_message_complete(self) -> None:
        self._done = True
        self.mid_chunk = False

    # Inside

    def _expect_answer(self) -> None:
        self._head = AnswerHead()
        self._head_done = self._done = self.mid_chunk = False
        self._reusable = False
        self._messages = 0
        self._pending = b""
        self._content: list[bytes] = []

    def _take_head(self, data: bytes) -> bytes:
        """Collect the head of the answer, announce it, and return what follows it.

        llhttp accepts CRLF as the only line end, so the first empty line is where it sees the end of the head too.
        """
        self._pending += data
        while (end := self._pending.find(wire.HEAD_END)) >= 0:
            end += len(wire.HEAD_END)
            head, rest = self._pending[:end], self._pending[end:]
            self._parser.feed_data(head)
            if not self._head_done:
                raise httptools.HttpParserError("the head of the answer is not complete")
            if self._head.status >= _INFORMATIONAL or self._head.status == _SWITCHING_PROTOCOLS:
                self._announce()
                return rest
            self._expect_answer()  # an interim answer
            self._pending = rest
        if self._pending.count(b"\n") != self._pending.count(b"\r\n"):
            raise httptools.HttpParserError("the head of the answer has a line end other than CRLF")
        if len(self._pending) > self._link.limits.head_bytes:
            raise httptools.HttpParserError("the head of the answer is too large")
        return b""

    def _announce(self) -> None:
        head, has_length = self._head, False
        for name, value in head.headers:
            if name == b"content-length":
                has_length = True
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise httptools.HttpParserError("the answer has an unsupported transfer encoding")
                head.chunked = True
            elif name == b"content-type":
                head.event_stream = value.startswith(b"text/event-stream")
        head.until_close = not (has_length or head.chunked or head.status in _NO_BODY)
        assert self._exchange is not None
        self._exchange.answer_started(head)

    def _hand_on(self, raw: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return  # it was cancelled while its head was handed on
        content, self._content = self._content, []
        exchange.body(raw, content)
        if self._done and self._exchange is exchange:
            self._exchange = None
            self.resume()  # whoever was too slow for this answer has all of it
            self._link.put_back(self, reusable=self._reusable and not self._head.until_close)
            exchange.ended()

    def _break(self, error: str, *, invalid: bool) -> None:
        exchange, self._exchange = self._exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.broken(error, invalid=invalid, unanswered=False)


class EngineLink:
    """The connections to one engine: idle ones are used again, the most recent first."""

    def __init__(self, host: str, port: int, limits: Limits, now: Callable[[], float]) -> None:
        self.host_header = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()
        self.limits = limits
        self._host = host
        self._port = port
        self._now = now
        self._idle: list[EngineConnection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def open(self, exchange: Answered, *, fresh: bool = False) -> "asyncio.Task[None] | None":
        """Give the exchange a connection: at once if one is idle, else by a task that the exchange may cancel."""
        oldest = self._now() - self.limits.engine_idle_seconds
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                exchange.connected(connection)
                return None
            connection.transport.close()
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return task

    def put_back(self, connection: EngineConnection, *, reusable: bool) -> None:
        """Keep a connection whose answer is complete, if it can carry another request."""
        if not reusable or self._closed or not connection.usable:
            connection.transport.close()
            return
        connection.idle_since = self._now()
        self._idle.append(connection)

    def discard(self, connection: EngineConnection) -> None:
        """Forget a connection that ended."""
        if connection in self._idle:
            self._idle.remove(connection)

    @property
    def has_idle(self) -> bool:
        """Whether any connection waits for its next request."""
        return bool(self._idle)

    def close_idle(self, *, older_than: float) -> None:
        """Close connections that have been idle since before a time."""
        while self._idle and self._idle[0].idle_since < older_than:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Close idle connections, and busy ones when their answers end."""
        self._closed = True
        while self._idle:
            self._idle.pop().transport.close()

    async def _connect(self, exchange: Answered) -> None:
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: EngineConnection(self), self._host, self._port
                )
        except TimeoutError:
            exchange.unreachable(f"no connection within {self.limits.connect_seconds:g} s")
        except OSError as error:
            exchange.unreachable(error.strerror or str(error))
        else:
            if connection.usable:
                exchange.connected(connection)
            else:
                exchange.unreachable("the engine closed the connection at once")
