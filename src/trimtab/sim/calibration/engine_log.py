"""How large a recorded engine's KV cache was, from the usage that its log shows: a check of what memory should give.

The log (`NAME_engine_log.csv`) has a clock of its own. It is set so that as many lines as possible show as many
requests as were being served. Then the tokens of those requests, over the usage, are the size of the cache.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from trimtab.sim.calibration.recorded import RecordedRun
from trimtab.workload.textfile import Row, csv_rows

_COLUMNS: Final = ("time", "running", "waiting", "kv_usage_pct")
_OFFSETS: Final = np.arange(-20.0, 40.0, 0.25)  # when the log began, in seconds after the first request
_TELLING: Final = 5.0  # percent of usage, which is given to a tenth
_FEWEST: Final = 3

Array = npt.NDArray[np.float64]


def log_of(spans: Path, run_id: str) -> Path:
    """Return where a run's log would be."""
    return spans.with_name(f"{run_id}_engine_log.csv")


def implied_blocks(run: RecordedRun, log: Path) -> int | None:
    """How many KV blocks the log implies; None where too few of its lines say.

    Raises:
        TraceError: The log is malformed.
    """
    rows = list(csv_rows(log, _COLUMNS))
    if not rows:
        return None
    at = np.array([_seconds(row) for row in rows])
    shown = np.array([[row.number_of(column) for column in _COLUMNS[1:]] for row in rows])
    at = at - at[0] + _offset(run, at - at[0], shown[:, 0] + shown[:, 1])
    served = _in_flight(run, at)
    told = (shown[:, 1] == 0) & (shown[:, 2] >= _TELLING) & (served.sum(axis=1) == shown[:, 0])
    if told.sum() < _FEWEST:
        return None
    return int(np.median(_blocks(run, at[told]) / shown[told, 2] * 100))


def _seconds(row: Row) -> float:
    text = str(row.value("time"))
    try:
        return datetime.fromisoformat(text.replace(",", ".")).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise row.fault("time", f"{text!r} is not a time like 2026-01-20 07:26:34,658") from error


def _offset(run: RecordedRun, at: Array, requests: Array) -> float:
    """When the log began: where its lines fit best, in the middle of all such times."""
    start = run.first.arrived_at
    fits = [float((_in_flight(run, at + start + offset).sum(axis=1) == requests).sum()) for offset in _OFFSETS]
    return start + float(np.median(_OFFSETS[np.array(fits) == max(fits)]))


def _in_flight(run: RecordedRun, at: Array) -> npt.NDArray[np.bool_]:
    """Which requests were there at which times; one row for each time."""
    requests = (run.first, *run.requests)
    arrived = np.array([r.arrived_at for r in requests])
    finished = np.array([r.finished_at for r in requests])
    there: npt.NDArray[np.bool_] = (arrived <= at[:, None]) & (at[:, None] < finished)
    return there


def _blocks(run: RecordedRun, at: Array) -> Array:
    """Blocks that the requests held at some times: of their prompts, and of as much of their answers as was there."""
    requests = (run.first, *run.requests)
    first = np.array([r.arrived_at + r.latency.ttft for r in requests])
    finished = np.array([r.finished_at for r in requests])
    part = np.clip((at[:, None] - first) / np.maximum(finished - first, 1e-9), 0.0, 1.0)
    tokens = np.array([r.prompt_tokens for r in requests]) + part * np.array([r.output_tokens for r in requests])
    held: Array = np.where(_in_flight(run, at), np.ceil(tokens / run.setup.block_size), 0).sum(axis=1)
    return held
