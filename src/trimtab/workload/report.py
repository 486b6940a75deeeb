"""A replay as files: every request as CSV, the summary as JSON."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from trimtab.workload.record import RequestRecord
from trimtab.workload.summary import LevelSummary, Summary

REQUESTS_FILE = "requests.csv"
SUMMARY_FILE = "summary.json"
PLOT_FILE = "replay.png"
FIGURE_FILES = (REQUESTS_FILE, SUMMARY_FILE, PLOT_FILE)


def write_requests(path: Path, records: Iterable[RequestRecord]) -> None:
    """Write one line for each request, in the order of the trace; times in reported seconds, empty where unknown."""
    names = [field.name for field in fields(RequestRecord)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for record in sorted(records, key=lambda record: record.number):
            writer.writerow(_cell(record, name) for name in names)


def _cell(record: RequestRecord, name: str) -> object:
    value = getattr(record, name)
    match value:
        case None:
            return ""
        case bool():
            return int(value)
        case float():
            return f"{value:.6f}"
        case _:
            return value.name if name == "level" else value


def summary_fields(summary: Summary, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary as plain data for JSON; what is not known is null.

    Args:
        summary: the figures.
        about: what was replayed, how, and with which versions.
    """
    record: dict[str, Any] = {
        "about": dict(about),
        "offeredSeconds": summary.offered_seconds,
        "outputTokensPerSecond": summary.output_tokens_per_second,
        "goodTokensPerSecond": summary.good_tokens_per_second,
        "clientLagSeconds": asdict(summary.lag),
        "gapSeconds": {"p50": summary.gap_p50, "p99": summary.gap_p99},
        "cachedPromptTokensFraction": summary.cached_fraction,
        "total": _level_fields(summary.total),
        "levels": [_level_fields(level) for level in summary.levels],
        "errors": [{"error": error, "count": count} for error, count in summary.errors],
        "warnings": list(summary.warnings),
    }
    plain: dict[str, Any] = _without_nan(record)
    return plain


def _level_fields(level: LevelSummary) -> dict[str, Any]:
    return {
        "name": level.level.name,
        "targets": {
            "ttftSeconds": level.level.ttft_seconds,
            "tpotSeconds": level.level.tpot_seconds,
            "completionSeconds": level.level.completion_seconds,
        },
        "offered": level.offered,
        "met": level.met,
        "attainment": level.attainment,
        "goodputPerSecond": level.goodput,
        "outcomes": {outcome.value: count for outcome, count in level.outcomes.items()},
        "ttftSeconds": asdict(level.ttft),
        "tpotSeconds": asdict(level.tpot),
        "completionSeconds": asdict(level.completion),
    }


def _without_nan(value: Any) -> Any:
    match value:
        case float():
            return None if math.isnan(value) else value
        case dict():
            return {key: _without_nan(inner) for key, inner in value.items()}
        case list():
            return [_without_nan(inner) for inner in value]
        case _:
            return value


def write_summary(path: Path, record: Mapping[str, Any]) -> None:
    """Write the summary as indented JSON."""
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
