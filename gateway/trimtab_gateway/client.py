"""A client's connection: requests in, answers out, in order."""

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from trimtab.api.openai import ErrorCode
from trimtab_gateway import wire
from trimtab_gateway.limits import Limits
from trimtab_gateway.request import Incoming, Rejection, body_too_large, read_head

if TYPE_CHECKING:
    from trimtab_gateway.exchange import Exchange

_CHUNK_OVERHEAD_BYTES = 64 * 1024  # framing that a chunked body may have on top of as much as its content
_HEADER_OVERHEAD_BYTES = 4  # colon, space and line end
_READ_BYTES = 256 * 1024  # the most that one read of the event loop brings


class _Rejected(Exception):
    """Stops the parser; the connection holds the reason."""


class Front(Protocol):
    """What a client's connection needs of the gateway."""

    limits: Limits
    buffered_bytes: int
    clients: "set[ClientConnection]"

    def now(self) -> float:
        """Return a time that never goes back, in seconds."""

    def handle(self, client: "ClientConnection", request: Incoming) -> None:
        """Serve a complete request: an answer at once, or an exchange that answers later."""

    def reject(self, client: "ClientConnection", rejection: Rejection) -> None:
        """Answer input that is no request."""


class ClientConnection(asyncio.Protocol):
    """The server side of one connection.

    llhttp alone says where a request begins and ends. Requests that come before their predecessor is answered are
    parsed and kept, a few at most; their answers go out in order. Reading goes on while a request is served, since
    that is how a client's disconnect is seen.
    """

    __slots__ = (
        "_closed",
        "_deaf",
        "_exchange",
        "_fed_bytes",
        "_front",
        "_head_open",
        "_incoming",
        "_parser",
        "_reading_paused",
        "_ready",
        "_rejection",
        "_serving",
        "deadline",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, front: Front) -> None:
        self._front = front
        self._parser = httptools.HttpRequestParser(self)
        self._incoming: Incoming | None = None
        self._ready: deque[Incoming | Rejection] = deque()
        self._exchange: Exchange | None = None
        self._rejection: Rejection | None = None
        self._fed_bytes = 0
        self._head_open = True
        self._serving = False
        self._deaf = False
        self._reading_paused = False
        self._closed = False
        self.write_paused = False
        self.deadline = inf

    # Events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        limits = self._front.limits
        self.transport.set_write_buffer_limits(high=limits.write_buffer_bytes)
        self.deadline = self._front.now() + limits.head_seconds
        if len(self._front.clients) >= limits.connections:
            self._stop_reading(Rejection(ErrorCode.OVERLOADED, "Too many clients are connected; try again later."))
            self._serve()
        self._front.clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._fed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._stop_reading(self._rejection or Rejection(ErrorCode.INVALID_HTTP, f"Invalid HTTP request: {error}."))
        else:
            self._check_sizes()
        self._serve()

    def eof_received(self) -> None:
        """A client that ends its side is gone, as for the engines themselves; the transport closes."""

    def connection_lost(self, _exc: Exception | None) -> None:
        self._closed = True
        self._front.clients.discard(self)
        for item in (self._incoming, *self._ready):
            if isinstance(item, Incoming):
                self._front.buffered_bytes -= item.body_bytes
        self._incoming = None
        self._ready.clear()
        if self._exchange is not None:
            self._exchange.client_lost()
            self._exchange = None

    def pause_writing(self) -> None:
        self.write_paused = True
        self.deadline = self._front.now() + self._front.limits.stall_seconds
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._closed:
            return
        if self._exchange is not None:
            self._exchange.resume()
        else:
            self._serve()

    # Events of the parser

    def on_message_begin(self) -> None:
        self._incoming = Incoming()
        self._head_open = True
        self._fed_bytes = 0
        if self._exchange is None:
            self.deadline = self._front.now() + self._front.limits.head_seconds

    def on_url(self, url: bytes) -> None:
        assert self._incoming is not None
        self._incoming.target += url
        self._incoming.head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._incoming
        assert request is not None
        if not self._head_open:
            return  # a trailer: nothing that we forward depends on one
        if len(request.headers) >= self._front.limits.headers:
            self._refuse(ErrorCode.HEADERS_TOO_LARGE, "The request has too many headers.")
        request.head_bytes += len(name) + len(value) + _HEADER_OVERHEAD_BYTES
        request.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        request = self._incoming
        assert request is not None
        self._head_open = False
        request.method = self._parser.get_method()
        self._check_head(request)
        request.keep_alive = self._parser.should_keep_alive() and not request.http_1_0
        if self._exchange is None:
            self.deadline = self._front.now() + self._front.limits.body_seconds

    def on_body(self, body: bytes) -> None:
        request = self._incoming
        assert request is not None
        request.body += body
        request.body_bytes += len(body)
        self._front.buffered_bytes += len(body)
        if request.body_bytes > self._front.limits.body_bytes:
            self._refuse(ErrorCode.BODY_TOO_LARGE, body_too_large(self._front.limits))
        if self._front.buffered_bytes > self._front.limits.buffered_bytes:
            self._refuse(ErrorCode.OVERLOADED, "Too many request bodies are held; try again later.")

    def on_message_complete(self) -> None:
        request, self._incoming = self._incoming, None
        assert request is not None
        request.received_at = self._front.now()
        self._ready.append(request)

    # Answers

    def begin(self, exchange: "Exchange") -> None:
        """Let an exchange answer the request that is being served."""
        self._exchange = exchange
        self.deadline = inf

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""
        self.transport.write(data)

    def end(self, *, keep_alive: bool) -> None:
        """End the answer, and go on with the next request if the connection stays open."""
        self._exchange = None
        if not self.write_paused:
            self.deadline = inf
        if keep_alive:
            self._serve()
        else:
            self.close()

    def close(self) -> None:
        """Close the connection after everything written has been sent."""
        self._closed = True
        self.deadline = self._front.now() + self._front.limits.stall_seconds
        self.transport.close()

    def abort(self) -> None:
        """Close the connection at once, so that the client sees that its answer is incomplete."""
        self._closed = True
        self.transport.abort()

    def linger(self) -> None:
        """End our side, and discard for a moment what the client still sends.

        Closing a socket with unread input would reset the connection, and the client might never read why.
        """
        self._deaf = True
        self._closed = True
        self.deadline = self._front.now() + self._front.limits.linger_seconds
        if self.transport.can_write_eof():
            self.transport.write_eof()

    @property
    def idle(self) -> bool:
        """Whether nothing is being received or served."""
        return self._exchange is None and not self._ready and self._incoming is None

    def expire(self) -> None:
        """Act on a deadline that has passed."""
        if self._exchange is not None and not self.write_paused:
            self.deadline = inf
            self._exchange.expire()
        elif self._closed or self._exchange is not None:
            self.abort()
        elif self._incoming is None:
            self.close()
        else:
            self._stop_reading(Rejection(ErrorCode.REQUEST_TIMEOUT, "The request was not received in time."))
            self._serve()

    # Inside

    def _serve(self) -> None:
        """Serve complete requests until one of them needs an engine. Requests answered at once do not recurse.

        A client that does not read its answers gets no further ones: they would pile up here.
        """
        if self._serving:
            return
        self._serving = True
        while self._ready and self._exchange is None and not self._closed and not self.write_paused:
            item = self._ready.popleft()
            if isinstance(item, Rejection):
                self._front.reject(self, item)
            else:
                self._front.handle(self, item)
        self._serving = False
        if self._exchange is None and not self._closed:
            self._rest()
        self._pace_reading()

    def _rest(self) -> None:
        """Wait for the next request, or for the rest of one."""
        request = self._incoming
        if request is not None:
            if request.wants_continue and not self._head_open:
                request.wants_continue = False
                self.transport.write(wire.CONTINUE)
            if self.deadline == inf:
                self.deadline = self._front.now() + self._front.limits.body_seconds
        elif not self.write_paused:
            self.deadline = self._front.now() + self._front.limits.idle_seconds

    def _pace_reading(self) -> None:
        crowded = len(self._ready) > self._front.limits.pipelined
        if crowded != self._reading_paused and not self._closed and not self.transport.is_closing():
            self._reading_paused = crowded
            if crowded:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _check_head(self, request: Incoming) -> None:
        version = self._parser.get_http_version()
        request.http_1_0 = version == "1.0"
        rejection = read_head(request, version, self._front.limits, upgrade=self._parser.should_upgrade())
        if rejection is not None:
            self._refuse(rejection.code, rejection.message)

    def _refuse(self, code: ErrorCode, message: str) -> None:
        """Leave the parser with a reason."""
        self._rejection = Rejection(code, message)
        raise _Rejected

    def _check_sizes(self) -> None:
        """Bound what the parser swallows without telling: long names, values and chunk framing."""
        request, limits = self._incoming, self._front.limits
        if request is None:
            self._fed_bytes = 0
        elif self._head_open:
            if self._fed_bytes > limits.head_bytes:
                self._stop_reading(Rejection(ErrorCode.HEADERS_TOO_LARGE, "The request's headers are too large."))
        elif self._fed_bytes > 2 * request.body_bytes + limits.head_bytes + _CHUNK_OVERHEAD_BYTES + _READ_BYTES:
            self._stop_reading(Rejection(ErrorCode.INVALID_HTTP, "The request's chunks carry too little data."))

    def _stop_reading(self, rejection: Rejection) -> None:
        """Answer what was received completely, then say what is wrong and read nothing more."""
        self._deaf = True
        if self._incoming is not None:
            self._front.buffered_bytes -= self._incoming.body_bytes
            self._incoming = None
        self._ready.append(rejection)
