"""A client's request as it was received, and what makes its head unacceptable."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.api.openai import ErrorCode
from trimtab_gateway.limits import Limits

if TYPE_CHECKING:
    from trimtab_gateway import wire

_HEADER_OVERHEAD = 4  # colon, space and line end


class Incoming:
    """A request that is being received, or that waits for its turn."""

    __slots__ = (
        "body_bytes",
        "headers",
        "http_1_0",
        "keep_alive",
        "method",
        "parts",
        "received_at",
        "target",
        "wants_continue",
    )

    def __init__(self) -> None:
        self.target = b""
        self.method = b""
        self.headers: wire.Headers = []
        self.parts: list[bytes] = []
        self.body_bytes = 0
        self.keep_alive = False
        self.http_1_0 = False
        self.wants_continue = False
        self.received_at = 0.0

    @property
    def path(self) -> str:
        """The path without the query; engines take none on the paths that are forwarded."""
        return self.target.partition(b"?")[0].decode("latin-1")

    def header(self, name: bytes) -> bytes:
        """Return the first value of a header, empty when it is absent."""
        return next((value for key, value in self.headers if key == name), b"")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a connection's input makes no sense; nothing more is read from it."""

    code: ErrorCode
    message: str


def body_too_large(limits: Limits) -> str:
    """Say what the limit is."""
    return f"The request body is larger than {limits.body_bytes} bytes."


def head_fault(request: Incoming, version: str, limits: Limits, *, upgrade: bool) -> Rejection | None:
    """Return what is wrong with a head that llhttp accepts.

    llhttp refuses what is no HTTP, a length beside a transfer encoding, two lengths, line ends other than CRLF and
    folded headers. What is left are versions and encodings that it knows and we do not, and sizes.
    """
    if version not in {"1.1", "1.0"}:
        return Rejection(ErrorCode.INVALID_HTTP, "Only HTTP/1.1 and HTTP/1.0 are supported.")
    if upgrade:
        return Rejection(ErrorCode.INVALID_HTTP, "`Upgrade` and CONNECT are not supported; use plain HTTP/1.1.")
    size = len(request.target) + sum(len(name) + len(value) + _HEADER_OVERHEAD for name, value in request.headers)
    if size > limits.head_bytes:
        return Rejection(ErrorCode.HEADERS_TOO_LARGE, "The request's headers are too large.")
    return _field_fault(request, limits)


def _field_fault(request: Incoming, limits: Limits) -> Rejection | None:
    hosts = 0
    for name, value in request.headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if int(value) > limits.body_bytes:
                return Rejection(ErrorCode.BODY_TOO_LARGE, body_too_large(limits))
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or request.http_1_0:
                text = "The only supported transfer encoding is `chunked` in HTTP/1.1."
                return Rejection(ErrorCode.INVALID_HTTP, text)
        elif name == b"expect":
            if value.lower() != b"100-continue":
                text = "The only supported expectation is `100-continue`."
                return Rejection(ErrorCode.EXPECTATION_FAILED, text)
            request.wants_continue = not request.http_1_0
    if hosts > 1 or (hosts == 0 and not request.http_1_0):
        return Rejection(ErrorCode.INVALID_HTTP, "An HTTP/1.1 request has exactly one `Host` header.")
    return None
