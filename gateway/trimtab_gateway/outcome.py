"""How a request ended, as metrics and the journal name it."""

from enum import StrEnum


class Outcome(StrEnum):
    """Ends that are not errors of the gateway; those are named by their `ErrorCode`."""

    OK = "ok"
    CLIENT_ERROR = "client_error"  # the engine answered 4xx
    ERROR = "error"  # the engine answered 5xx, or sent an error inside a stream
    CANCELLED = "cancelled"  # the client left first


_FIRST_CLIENT_ERROR = 400
_FIRST_SERVER_ERROR = 500


def of_status(status: int) -> Outcome:
    """Return the outcome of a complete answer."""
    if status >= _FIRST_SERVER_ERROR:
        return Outcome.ERROR
    return Outcome.CLIENT_ERROR if status >= _FIRST_CLIENT_ERROR else Outcome.OK
