"""What can go wrong when talking to the API server, in place of the client's `ApiException`."""

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Cause:
    """One detail of a refusal: which field, which reason, and the server's message."""

    field: str
    reason: str
    message: str


class KubeError(Exception):
    """The API server refused a request, or could not be asked.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        reason: the server's machine-readable reason, e.g. `AlreadyExists`.
        message: the server's message for people.
        causes: per-field details, if the server gave any.
        retry_after_seconds: how long the server asked us to wait; 0 if it did not.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        causes: tuple[Cause, ...] = (),
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message or reason or f"HTTP {status}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after_seconds = retry_after_seconds


class BadRequest(KubeError):
    """400: the request itself was malformed, e.g. an unknown field under strict validation."""


class Unauthorized(KubeError):
    """401: our credentials were not accepted."""


class Forbidden(KubeError):
    """403: our role does not grant this, or an admission policy or quota refused it."""


class NotFound(KubeError):
    """404: no such object, or no such resource on this server."""


class AlreadyExists(KubeError):
    """409: an object of that name exists."""


class Conflict(KubeError):
    """409: the object has changed since it was read, or another manager owns a field."""

    @property
    def managers(self) -> tuple[str, ...]:
        """Return the field managers that a server-side apply conflicted with, sorted; empty for other conflicts."""
        quoted = (cause.message.split('"') for cause in self.causes if cause.reason == "FieldManagerConflict")
        return tuple(sorted({parts[1] for parts in quoted if len(parts) > 1}))


class Gone(KubeError):
    """410: the resource version is too old; list again."""


class Invalid(KubeError):
    """422: the object does not satisfy its schema or a validation rule."""


class TooManyRequests(KubeError):
    """429: the server sheds load, or a disruption budget forbids an eviction."""


class Unavailable(KubeError):
    """No answer, a time-out, or a 5xx: try again later."""


_BY_STATUS: dict[int, type[KubeError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}
_SERVER_ERROR = 500


def from_response(status: int, body: bytes, retry_after: str | None = None) -> KubeError:
    """Turn an error answer into the matching exception; a body that is no `Status` object still gives one."""
    try:
        answer: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"message": body.decode(errors="replace").strip()[:1000]}
    return from_status(status, answer, retry_after)


def from_status(status: int, answer: dict[str, Any], retry_after: str | None = None) -> KubeError:
    """Turn a Kubernetes `Status` object (also the body of a watch's ERROR event) into the matching exception."""
    reason = str(answer.get("reason") or "")
    kind = AlreadyExists if reason == "AlreadyExists" else _BY_STATUS.get(status, KubeError)
    if status >= _SERVER_ERROR:
        kind = Unavailable
    details = answer.get("details") or {}
    causes = tuple(
        Cause(cause.get("field", ""), cause.get("reason", ""), cause.get("message", ""))
        for cause in details.get("causes") or ()
    )
    wait = retry_after or details.get("retryAfterSeconds") or 0
    try:
        seconds = float(wait)
    except ValueError:  # an HTTP date: rare, and a plain back-off serves as well
        seconds = 0.0
    return kind(status, reason, str(answer.get("message") or ""), causes=causes, retry_after_seconds=seconds)
