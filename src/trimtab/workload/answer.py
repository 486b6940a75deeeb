"""One streamed answer: when its parts came, and how it ended."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson

_OK = 200
_REFUSALS = frozenset({429, 503})
_CUT_REASONS = frozenset({"abort", "error"})
_MAX_TEXT = 300
_TEXT_FIELDS = ("content", "text", "reasoning_content", "reasoning")


class Outcome(StrEnum):
    """How a request ended. Everything but `OK` counts as missed."""

    OK = "ok"
    """Complete: a finish reason and the end of the stream."""
    REJECTED = "rejected"
    """Refused for load: status 429 or 503."""
    ERROR = "error"
    """No connection, or any other status."""
    STREAM_ERROR = "stream-error"
    """Status 200, then an error inside the stream."""
    TRUNCATED = "truncated"
    """The stream ended, or was cut off, before the answer was complete."""
    TIMEOUT = "timeout"
    """Not complete in time; given up by the client."""
    UNFINISHED = "unfinished"
    """Under way when the replay was stopped."""


class Answer:
    """Takes in one answer of an OpenAI-compatible server, streamed or not.

    Times are those of the clock that the caller hands in; 0.0 means that it has not happened.

    Args:
        empty_pieces: Whether pieces without text count, as vLLM sends them for tokens that spell nothing.

    Attributes:
        status: HTTP status; 0 before the head.
        first_content: when the first piece of text came.
        last_content: when the latest piece of text came.
        pieces: how many pieces of text came; a server may put several tokens into one.
        prompt_tokens: as the server counted; 0 when it did not say.
        cached_tokens: the part of them that it found in its prefix cache; 0 when it did not say.
        output_tokens: as the server counted; 0 when it did not say.
        finish_reason: why the model stopped; empty before it did.
        complete: whether the server said that it is done.
        error: what the server said went wrong.
        largest_gap: the longest time between two pieces.
        gaps: the times between pieces, since they were last taken.
    """

    __slots__ = (
        "_empty_pieces",
        "_gathered",
        "_rest",
        "_streamed",
        "cached_tokens",
        "complete",
        "error",
        "finish_reason",
        "first_content",
        "gaps",
        "largest_gap",
        "last_content",
        "output_tokens",
        "pieces",
        "prompt_tokens",
        "status",
    )

    def __init__(self, *, empty_pieces: bool = False) -> None:
        self._empty_pieces = empty_pieces
        self.status = 0
        self.first_content = 0.0
        self.last_content = 0.0
        self.pieces = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.finish_reason = ""
        self.complete = False
        self.error = ""
        self.largest_gap = 0.0
        self.gaps: list[float] = []
        self._streamed = True
        self._rest = b""
        self._gathered = bytearray()

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the status; only a 200 that says so is read as a stream of events."""
        self.status = status
        self._streamed = status == _OK and headers.get("content-type", "").startswith("text/event-stream")

    def on_data(self, data: bytes, at_seconds: float) -> None:
        """Take a piece of the body; events are separated by empty lines, and only `data:` lines matter."""
        if not self._streamed:
            self._gathered += data
            return
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), at_seconds)

    def on_end(self, at_seconds: float) -> None:
        """Take the end of the body; an answer in one piece is read only here."""
        if self._streamed:
            return
        record = _parsed(bytes(self._gathered))
        if self.status != _OK or record is None or "choices" not in record:
            self.error = _error_text(record, bytes(self._gathered)) or f"status {self.status}"
            return
        try:
            self._record(record, at_seconds)
        except (AttributeError, TypeError):
            self.error = f"an answer of an unknown shape: {bytes(self._gathered[:80])!r}"
        else:
            self.complete = True

    def _event(self, payload: bytes, at_seconds: float) -> None:
        if payload == b"[DONE]":
            self.complete = True
            return
        record = _parsed(payload)
        if record is None:
            self.error = self.error or f"an event that is not JSON: {payload[:80]!r}"
        elif "error" in record:
            self.error = _error_text(record, payload)
        else:
            try:
                self._record(record, at_seconds)
            except (AttributeError, TypeError):
                self.error = self.error or f"an event of an unknown shape: {payload[:80]!r}"

    def _record(self, record: Mapping[str, Any], at_seconds: float) -> None:
        for choice in record.get("choices") or ():
            part = choice.get("delta") or choice.get("message") or choice
            if any(part.get(field) for field in _TEXT_FIELDS) or (self._empty_pieces and _may_be_a_token(part)):
                self._piece(at_seconds)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        usage = record.get("usage")
        if usage:
            self.prompt_tokens = usage.get("prompt_tokens") or 0
            self.output_tokens = usage.get("completion_tokens") or 0
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    def _piece(self, at_seconds: float) -> None:
        if self.pieces:
            gap = at_seconds - self.last_content
            self.gaps.append(gap)
            self.largest_gap = max(self.largest_gap, gap)
        else:
            self.first_content = at_seconds
        self.last_content = at_seconds
        self.pieces += 1

    def outcome(self) -> Outcome:
        """Say how an answer ended whose connection the client did not close."""
        if self.status in _REFUSALS:
            return Outcome.REJECTED
        if self.status != _OK or (not self._streamed and not self.complete):
            return Outcome.ERROR
        if self.error:
            return Outcome.STREAM_ERROR
        if not self.complete or not self.finish_reason or self.finish_reason in _CUT_REASONS:
            return Outcome.TRUNCATED
        return Outcome.OK


def _may_be_a_token(part: Mapping[str, Any]) -> bool:
    """Say whether a piece has a place for text, and is not the one that only opens the answer."""
    return not part.get("role") and any(field in part for field in _TEXT_FIELDS)


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _error_text(record: Mapping[str, Any] | None, raw: bytes) -> str:
    """Find the message in OpenAI's shape (`{"error": {"message"}}`), in vLLM's others, else show the raw text."""
    error = (record or {}).get("error") or (record or {}).get("detail") or (record or {}).get("message")
    if isinstance(error, dict):
        error = error.get("message")
    return str(error or raw.decode("utf-8", "replace").strip())[:_MAX_TEXT]
