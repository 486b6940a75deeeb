"""OpenAI's HTTP API as a gateway sees it: which paths it has, what a request asks for, how errors and models read.

Sources: OpenAI's API reference for the shapes; a real vLLM 0.32 for what engines accept and answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MODELS = "/v1/models"

INFERENCE_PATHS = frozenset({CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS})
"""Paths that an engine serves with POST. Engines have many more, some of them dangerous: only these are forwarded."""

DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""

STREAM_ERROR_MARK = b'data: {"error"'
"""How an error inside a stream begins. Quotes inside JSON strings are escaped, so no generated text contains it."""


class ErrorCode(StrEnum):
    """Stable machine-readable names of the errors that a gateway makes itself; never renamed and never reused."""

    INVALID_HTTP = "invalid_http"
    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    MODEL_REQUIRED = "model_required"
    UNKNOWN_SERVICE_LEVEL = "unknown_service_level"
    MODEL_NOT_FOUND = "model_not_found"
    UNKNOWN_PATH = "unknown_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    EXPECTATION_FAILED = "expectation_failed"
    RATE_LIMITED = "rate_limited"
    QUEUE_TIMEOUT = "queue_timeout"
    HEADERS_TOO_LARGE = "headers_too_large"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_INVALID = "upstream_invalid"
    NO_CAPACITY = "no_capacity"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    UPSTREAM_TIMEOUT = "upstream_timeout"


STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_HTTP: 400,
    ErrorCode.INVALID_JSON: 400,
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.MODEL_REQUIRED: 400,
    ErrorCode.UNKNOWN_SERVICE_LEVEL: 400,
    ErrorCode.MODEL_NOT_FOUND: 404,
    ErrorCode.UNKNOWN_PATH: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.UNSUPPORTED_ENCODING: 415,
    ErrorCode.EXPECTATION_FAILED: 417,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.QUEUE_TIMEOUT: 429,
    ErrorCode.HEADERS_TOO_LARGE: 431,
    ErrorCode.UPSTREAM_UNREACHABLE: 502,
    ErrorCode.UPSTREAM_FAILED: 502,
    ErrorCode.UPSTREAM_INVALID: 502,
    ErrorCode.NO_CAPACITY: 503,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.SHUTTING_DOWN: 503,
    ErrorCode.UPSTREAM_TIMEOUT: 504,
}
"""The HTTP status of each error."""

_TYPES = {404: "not_found_error", 429: "rate_limit_error"}
_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """What a gateway needs to know of a request's body.

    Attributes:
        model: the value of `model`; None when the field is absent.
        stream: whether the answer is to be streamed.
    """

    model: str | None
    stream: bool


class InvalidBody(ValueError):
    """A request body that no engine could serve; `str()` says what is wrong, without quoting the body."""

    def __init__(self, code: ErrorCode, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def read_request(body: bytes | bytearray) -> Asked:
    """Read the fields that decide where a request goes; everything else is the engine's business.

    Raises:
        InvalidBody: not JSON, not an object, or a `model` that is no string.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise InvalidBody(ErrorCode.INVALID_JSON, f"The request body is not valid JSON ({at}).") from error
    if not isinstance(fields, dict):
        raise InvalidBody(ErrorCode.INVALID_REQUEST, "The request body must be a JSON object.")
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidBody(ErrorCode.INVALID_REQUEST, "`model` must be a string.", "model")
    return Asked(model, fields.get("stream") is True)


def error_body(code: ErrorCode, message: str, param: str | None = None) -> bytes:
    """Return an error as OpenAI's clients expect it."""
    return orjson.dumps({"error": _error(code, message, param)})


def stream_error(code: ErrorCode, message: str) -> bytes:
    """Return an error event and the end of the stream, for a stream whose status was already sent."""
    return b'data: {"error":' + orjson.dumps(_error(code, message, None)) + b"}\n\n" + DONE


def model_list(models: Iterable[tuple[str, str]]) -> bytes:
    """Return the body of `GET /v1/models` for pairs of a model's name and the name of what serves it."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": owner} for name, owner in models]
    return orjson.dumps({"object": "list", "data": data})


def _error(code: ErrorCode, message: str, param: str | None) -> dict[str, Any]:
    status = STATUS[code]
    kind = _TYPES.get(status, "server_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error")
    return {"message": message, "type": kind, "param": param, "code": code.value}
