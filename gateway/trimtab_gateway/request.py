"""A client's request as it was received, and what makes its head unacceptable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trimtab.api.openai import ErrorCode
from trimtab_gateway import wire
from trimtab_gateway.limits import Limits


class Incoming:
    """A request that is being received, or that waits for its turn."""

    __slots__ = (
        "body",
        "body_bytes",
        "content_encoding",
        "head_bytes",
        "headers",
        "hosts",
        "http_1_0",
        "keep_alive",
        "method",
        "received_at",
        "request_id",
        "service_level",
        "target",
        "wants_continue",
    )

    def __init__(self) -> None:
        self.target = b""
        self.method = b""
        self.headers: wire.Headers = []
        self.body = bytearray()  # not parts to be joined: for a moment, or for long, they would be held twice
        self.head_bytes = 0
        self.hosts = 0
        self.body_bytes = 0
        self.request_id = b""
        self.service_level = b""
        self.content_encoding = b""
        self.keep_alive = False
        self.http_1_0 = False
        self.wants_continue = False
        self.received_at = 0.0

    @property
    def path(self) -> str:
        """The path without the query; engines take none on the paths that are forwarded."""
        return self.target.partition(b"?")[0].decode("latin-1")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a connection's input makes no sense; nothing more is read from it."""

    code: ErrorCode
    message: str


def body_too_large(limits: Limits) -> str:
    """Say what the limit is."""
    return f"The request body is larger than {limits.body_bytes} bytes."


def read_head(request: Incoming, version: str, limits: Limits, *, upgrade: bool) -> Rejection | None:
    """Note what matters of a head, or return what is wrong with it although llhttp accepts it.

    llhttp refuses what is no HTTP, a length beside a transfer encoding, two lengths, line ends other than CRLF and
    folded headers. What is left are versions and encodings that it knows and we do not, and sizes.
    """
    if version not in {"1.1", "1.0"}:
        return Rejection(ErrorCode.INVALID_HTTP, "Only HTTP/1.1 and HTTP/1.0 are supported.")
    if upgrade:
        return Rejection(ErrorCode.INVALID_HTTP, "`Upgrade` and CONNECT are not supported; use plain HTTP/1.1.")
    if request.head_bytes > limits.head_bytes:
        return Rejection(ErrorCode.HEADERS_TOO_LARGE, "The request's headers are too large.")
    return _read_fields(request, limits)


def _read_fields(request: Incoming, limits: Limits) -> Rejection | None:
    """Note the fields that matter here, in one pass; return the first one that is wrong."""
    for name, value in request.headers:
        read = _READERS.get(name)
        if read is not None and (fault := read(request, value, limits)) is not None:
            return fault
    if request.hosts > 1 or (request.hosts == 0 and not request.http_1_0):
        return Rejection(ErrorCode.INVALID_HTTP, "An HTTP/1.1 request has exactly one `Host` header.")
    return None


def _host(request: Incoming, _value: bytes, _limits: Limits) -> None:
    request.hosts += 1


def _content_length(_request: Incoming, value: bytes, limits: Limits) -> Rejection | None:
    if int(value) > limits.body_bytes:
        return Rejection(ErrorCode.BODY_TOO_LARGE, body_too_large(limits))
    return None


def _transfer_encoding(request: Incoming, value: bytes, _limits: Limits) -> Rejection | None:
    if value.lower() != b"chunked" or request.http_1_0:
        return Rejection(ErrorCode.INVALID_HTTP, "The only supported transfer encoding is `chunked` in HTTP/1.1.")
    return None


def _expect(request: Incoming, value: bytes, _limits: Limits) -> Rejection | None:
    if value.lower() != b"100-continue":
        return Rejection(ErrorCode.EXPECTATION_FAILED, "The only supported expectation is `100-continue`.")
    request.wants_continue = not request.http_1_0
    return None


def _request_id(request: Incoming, value: bytes, _limits: Limits) -> None:
    request.request_id = value


def _service_level(request: Incoming, value: bytes, _limits: Limits) -> None:
    request.service_level = value


def _content_encoding(request: Incoming, value: bytes, _limits: Limits) -> None:
    request.content_encoding = value


_READERS: Final[dict[bytes, Callable[[Incoming, bytes, Limits], Rejection | None]]] = {
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"expect": _expect,
    wire.REQUEST_ID: _request_id,
    wire.SERVICE_LEVEL: _service_level,
    b"content-encoding": _content_encoding,
}
