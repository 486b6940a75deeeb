"""HTTP/1.1 on the wire: which headers pass, and how heads and whole answers are written. Pure functions of bytes."""

from collections.abc import Iterable
from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]
"""Pairs of a lower-case name and a value, in the order in which they came."""

HEAD_END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
SERVICE_LEVEL = b"x-trimtab-service-level"
REQUEST_ID = b"x-request-id"
REASON = b"x-trimtab-reason"

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Written anew for the engine.
_REWRITTEN = frozenset({b"host", b"content-length", b"expect", b"http2-settings", REQUEST_ID})
# Instructions to routers and sidecars behind us, which clients must not give: they choose endpoints, cache sources and
# objectives. (Gateway API inference extension, llm-d, and our own.)
_ROUTING = frozenset(
    {
        b"x-slo-ttft-ms",
        b"x-slo-tpot-ms",
        b"x-session-id",
        b"x-session-token",
        b"x-data-parallel-host-port",
        b"x-prefiller-host-port",
        b"x-kv-cache-source-host-port",
        b"x-encoder-hosts-ports",
        b"epp-profile",
    }
)
_ROUTING_PREFIXES = (b"x-trimtab-", b"x-llm-d-", b"x-gateway-")
_NOT_FORWARDED = _HOP_BY_HOP | _REWRITTEN | _ROUTING
# The body goes to the client as it is framed, so the header that says how stays with it.
_NOT_RETURNED = (_HOP_BY_HOP - {b"transfer-encoding"}) | {REASON}

_MOST_REQUEST_ID_BYTES = 128
_REQUEST_ID_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")


def connection_options(headers: Headers) -> frozenset[bytes]:
    """Return the names in `Connection` headers: they describe this hop only."""
    options = [value for name, value in headers if name == b"connection"]
    if not options:
        return frozenset()
    return frozenset(option.strip().lower() for value in options for option in value.split(b","))


def is_request_id(value: bytes) -> bool:
    """Whether a client's request id is safe to pass on and to log."""
    return 0 < len(value) <= _MOST_REQUEST_ID_BYTES and _REQUEST_ID_BYTES.issuperset(value)


def request_head(path: str, host: bytes, headers: Headers, request_id: bytes, length: int) -> bytes:
    """Return the head of a request to an engine.

    It is written from scratch and always declares its length, so nothing about the client's framing reaches the
    engine.
    """
    options = connection_options(headers)
    lines = [b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (path.encode("ascii"), host)]
    lines += [
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name not in _NOT_FORWARDED and not name.startswith(_ROUTING_PREFIXES) and name not in options
    ]
    lines.append(b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (request_id, length))
    return b"".join(lines)


def response_head(
    status: int, phrase: bytes, headers: Headers, request_id: bytes, *, close: bool, dechunked: bool = False
) -> bytes:
    """Return the head of an engine's answer as the client gets it."""
    options = connection_options(headers)
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase)]
    has_id = False
    for name, value in headers:
        if name in _NOT_RETURNED or name in options or (dechunked and name == b"transfer-encoding"):
            continue
        has_id = has_id or name == REQUEST_ID
        lines.append(b"%b: %b\r\n" % (name, value))
    if not has_id:
        lines.append(b"x-request-id: %b\r\n" % request_id)
    lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(lines)


def whole_response(
    status: int, body: bytes, *, headers: Iterable[tuple[bytes, bytes]] = (), close: bool, head_only: bool = False
) -> bytes:
    """Return an answer of our own: JSON with its length."""
    phrase = HTTPStatus(status).phrase.encode("ascii")
    lines = [
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status, phrase, len(body))
    ]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(lines) + (b"" if head_only else body)


def chunk(data: bytes) -> bytes:
    """Frame bytes as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
