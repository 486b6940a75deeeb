"""Requests whose lengths are known, to train and to judge length predictors: from traces, and from an own log."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trimtab.decide.queueing.lengths import UNLIMITED, Example, Features, Outcome
from trimtab.workload.fault import TraceError
from trimtab.workload.request import MAX_TOKENS, Trace, TraceRequest
from trimtab.workload.textfile import Row, csv_rows, json_rows

REQUIRED = ("arrived_at", "input_tokens", "output_tokens")
OPTIONAL = ("ended_at", "finish_reason", "max_tokens", "tenant", "model", "turn", "conversation", "text")
"""The columns of a log. An optional one may be missing, and a value of it empty or null: not known."""

COMPLETE = frozenset({"", "stop", "tool_calls", "function_call"})
"""Reasons to finish that say that the answer ended by itself; any other means that it was cut off."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a request takes where nobody wrote down when it ended.

    A predictor may only learn from what had ended, so a trace without ends needs some. The figures are those of the
    code behind ssjf.md §2; every statement about such a trace holds under them.

    Attributes:
        constant_seconds: whatever the answer is.
        seconds_per_token: of the answer.
    """

    constant_seconds: float = 0.1
    seconds_per_token: float = 0.02

    def __str__(self) -> str:
        return f"{self.constant_seconds:g} s + {self.seconds_per_token:g} s per token"

    def end(self, arrived_at: float, tokens: int) -> float:
        """Return when a request ends that never waits."""
        return arrived_at + self.constant_seconds + self.seconds_per_token * tokens


def examples_of(trace: Trace, pace: Pace | None = None) -> list[Example]:
    """Return the requests of a trace with what was known of each: token counts, time, client, and no text."""
    pace = pace or Pace()
    return [_example(request, pace) for request in trace.requests]


def _example(request: TraceRequest, pace: Pace) -> Example:
    known = Features(request.input_tokens, tenant=request.client, arrived_at=request.at_seconds)
    ended_at = pace.end(request.at_seconds, request.output_tokens)
    return Example(known, Outcome(request.output_tokens, ended_at=ended_at))


def read_log(path: Path, pace: Pace | None = None) -> list[Example]:
    """Read an own log, CSV or JSON lines, plain or compressed, in any order of rows; the answer is in order of arrival.

    Raises:
        TraceError: a fault in the file, by row and field.
    """
    rows = json_rows(path) if ".json" in path.name else csv_rows(path, REQUIRED)
    examples = [_logged(row, pace or Pace()) for row in rows]
    if not examples:
        raise TraceError(path, f"no request in the file; each row needs {', '.join(REQUIRED)}")
    return sorted(examples, key=lambda example: example.request.arrived_at)


def _logged(row: Row, pace: Pace) -> Example:
    arrived_at = _moment(row, "arrived_at")
    limit = _count(row, "max_tokens", 1)
    max_tokens = UNLIMITED if limit is None else limit
    turn = _count(row, "turn", 0)
    tokens = _count(row, "output_tokens", 0)
    if tokens is None:
        raise row.fault("output_tokens", "empty; every request needs it, one that was cut off too")
    exact = _text(row, "finish_reason") in COMPLETE and tokens < max_tokens
    if exact and tokens == 0:
        raise row.fault("output_tokens", "0 tokens of an answer that ended by itself; say what cut it off")
    ended_at = pace.end(arrived_at, tokens) if _unknown(row, "ended_at") else _moment(row, "ended_at")
    if ended_at < arrived_at:
        raise row.fault("ended_at", f"{ended_at:g} s is before its arrival, {arrived_at:g} s")
    request = Features(
        input_tokens=row.tokens("input_tokens"),
        max_tokens=max_tokens,
        tenant=_text(row, "tenant"),
        model=_text(row, "model"),
        turn=turn,
        arrived_at=arrived_at,
        text=None if _unknown(row, "text") else _text(row, "text"),
    )
    return Example(request, Outcome(tokens, exact, ended_at), _text(row, "conversation"))


def _unknown(row: Row, field: str) -> bool:
    return row.fields.get(field) in (None, "")


def _text(row: Row, field: str) -> str:
    value = row.fields.get(field)
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise row.fault(field, f"a {type(value).__name__} where text is needed")
    return str(value)


def _count(row: Row, field: str, least: int) -> int | None:
    """Read a whole number of at least `least`; None where it is not known."""
    if _unknown(row, field):
        return None
    number = row.number_of(field)
    if number != math.floor(number) or not least <= number <= MAX_TOKENS:
        raise row.fault(field, f"{number:g} is not a whole number from {least} to {MAX_TOKENS}")
    return int(number)


def _moment(row: Row, field: str) -> float:
    """Read a time in seconds, or one like 2023-11-16T18:15:46.68+00:00; one without a zone is UTC."""
    value = row.value(field)
    if isinstance(value, str) and not _is_number(value):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise row.fault(field, f"{value[:40]!r} is neither seconds nor a time like 2023-11-16T18:15:46Z") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return row.number_of(field)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
