"""Refusals in vLLM's words: `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError

BAD_REQUEST: Final = "Bad Request"
_MOST_ERRORS: Final = 10
_LONGEST_INPUT: Final = 200
_BRANCHES: Final = frozenset({"str", "int", "float", "bool"})  # names of union members, no part of a field's path


@dataclass(frozen=True, slots=True)
class ApiError(Exception):
    """An answer that is an error: `{"error": {"message", "type", "param", "code"}}`."""

    message: str
    kind: str = "BadRequestError"
    param: str | None = None
    status: int = HTTPStatus.BAD_REQUEST

    def body(self) -> dict[str, object]:
        """The parsed JSON of the answer."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": int(self.status)}
        return {"error": error}

    def __str__(self) -> str:
        return self.message


def invalid(message: str, param: str, value: object = None) -> ApiError:
    """A parameter out of range, worded as vLLM words it."""
    shown = f", value={value}" if value is not None else ""
    return ApiError(f"{message} (parameter={param}{shown})", param=param)


def unknown_model(model: str, known: Sequence[str]) -> ApiError:
    """A model that this engine does not serve."""
    message = f"The model `{model}` does not exist. Valid aliases: {', '.join(known)}."
    return ApiError(message, "NotFoundError", "model", HTTPStatus.NOT_FOUND)


BUSY: Final = ApiError(
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.",
    "Service Unavailable",
    status=HTTPStatus.SERVICE_UNAVAILABLE,
)
DRAINING: Final = ApiError(
    "cannot schedule new futures after shutdown", "InternalServerError", status=HTTPStatus.INTERNAL_SERVER_ERROR
)


def not_json(reason: str, position: int) -> ApiError:
    """A body that is not JSON.

    Args:
        reason: The message of the standard library's parser, because that is what vLLM's web framework shows.
        position: Where it stopped.
    """
    location = f"body.{position}"
    entry = {
        "type": "json_invalid",
        "loc": location,
        "msg": "JSON decode error",
        "input": "<dict of 0 items>",
        "ctx": {"error": reason},
    }
    return _of_entries([entry])


def missing(fields: Sequence[str], body: Mapping[str, Any]) -> ApiError:
    """Fields of which one is needed."""
    shared = {"msg": "Field required", "input": _shown(body)}
    return _of_entries([{"type": "missing", "loc": f"body.{name}", **shared} for name in fields])


def not_valid(error: ValidationError, root: str = "body") -> ApiError:
    """Values of the wrong type or out of range.

    Args:
        error: What pydantic, which vLLM uses too, found.
        root: `body`, or `query` for the parameters of a URL.
    """
    entries = []
    for found in error.errors(include_url=False):
        path = [str(part) for part in found["loc"] if not _is_branch(str(part))]
        entry: dict[str, Any] = {
            "type": found["type"],
            "loc": ".".join((root, *path)),
            "msg": found["msg"],
            "input": _shown(found["input"]),
        }
        if "ctx" in found:
            entry["ctx"] = dict(found["ctx"])
        entries.append(entry)
    return _of_entries(entries)


def _of_entries(entries: Sequence[Mapping[str, Any]]) -> ApiError:
    noun = "error" if len(entries) == 1 else "errors"
    lines = [f"{len(entries)} validation {noun}:", *(f"  {entry}" for entry in entries[:_MOST_ERRORS])]
    if len(entries) > _MOST_ERRORS:
        lines.append(f"  ...and {len(entries) - _MOST_ERRORS} more {noun}")
    return ApiError("\n".join(lines), BAD_REQUEST, entries[0]["loc"])


def _is_branch(part: str) -> bool:
    return part in _BRANCHES or "[" in part


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return f"<dict of {len(value)} items>"
    if isinstance(value, list):
        return f"<list of {len(value)} items>"
    text = str(value)
    return text if len(text) <= _LONGEST_INPUT else f"{text[:_LONGEST_INPUT]}...[truncated]"
