"""The files of a run for other programs: CSV of rows and of the summary, JSON of all of it."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.sim.experiment import Cell, Part
from trimtab.sim.findings import Finding, Line, Record, Table
from trimtab.sim.statistics import CONFIDENCE, Estimate

Values = Mapping[str, Any]


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a run that is killed, never sees half of it."""
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(scratch, path)  # noqa: PTH105 - Path.replace returns what nobody needs


def rows_csv(part: Part, records: Sequence[Record]) -> str:
    """Return every row, with its setting and seed; numbers are written so that reading gives the same ones."""
    settings = _columns(setting.values for setting in part.settings)
    own = [name for name in _columns(record.row for record in records) if name != "policy"]
    metrics = [metric.name for metric in part.metrics]
    own.sort(key=lambda name: metrics.index(name) if name in metrics else len(metrics))
    clashes = {name: f"{name} (measured)" if name in settings else name for name in own}
    lines: list[list[Cell]] = []
    for record in records:
        setting = part.settings[record.place]
        values = [setting.values.get(name) for name in settings]
        lines.append([setting.name, *values, record.seed, record.policy, *(record.row.get(name) for name in own)])
    return _csv(["setting", *settings, "seed", "policy", *clashes.values()], lines)


def summary_csv(table: Table) -> str:
    """Return one line for each setting, policy and metric."""
    header = ["setting", "policy", "metric", "unit", *(f"value_{name}" for name in _ESTIMATE)]
    header += ["difference_relative", *(f"difference_{name}" for name in _ESTIMATE), "expected"]
    lines: list[list[Cell]] = []
    for line in table.lines:
        start = [line.setting.name, line.policy, line.metric.name, line.metric.unit, *_cells(line.value)]
        difference = (
            [line.metric.relative, *_cells(line.difference)] if line.difference else [None] * (len(_ESTIMATE) + 1)
        )
        lines.append([*start, *difference, line.expected])
    return _csv(header, lines)


_ESTIMATE = ("seeds", "mean", "low", "high")


def _cells(estimate: Estimate) -> list[Cell]:
    return [estimate.n, estimate.mean, estimate.low, estimate.high]


def _columns(rows: Iterable[Mapping[str, Cell]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(header: Sequence[str], lines: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(cell) for cell in line] for line in lines)
    return text.getvalue()


def _cell(cell: Cell) -> str:
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, int | str | np.integer):
        return str(cell)
    return "" if cell is None else repr(float(cell))


def to_json(values: Values) -> str:
    """Return JSON that is the same for the same values: NaN and infinities are null."""
    return json.dumps(_plain(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if isfinite(value) else None


def table_values(table: Table) -> dict[str, Any]:
    """Return a part's results for JSON."""
    part = table.part
    return {
        "name": part.name,
        "title": part.title,
        "complete": table.complete,
        "seeds": table.seeds,
        "baseline": part.baseline,
        "settings": [{"name": setting.name, "values": dict(setting.values)} for setting in part.settings],
        "metrics": [
            {"name": m.name, "title": m.title, "unit": m.unit, "better": m.better, "relative": m.relative}
            for m in part.metrics
        ],
        "lines": [_line_values(line) for line in table.lines],
        "claims": [
            {"text": claim.text, "verdict": table.verdict(claim), "tests": _tests(table, claim.text)}
            for claim in part.claims
        ],
    }


def _line_values(line: Line) -> dict[str, Any]:
    return {
        "setting": line.setting.name,
        "policy": line.policy,
        "metric": line.metric.name,
        "value": estimate_values(line.value),
        "difference": estimate_values(line.difference) if line.difference else None,
        "expected": line.expected,
    }


def _tests(table: Table, claim: str) -> list[dict[str, Any]]:
    return [_finding_values(finding) for finding in table.findings if finding.claim.text == claim]


def _finding_values(finding: Finding) -> dict[str, Any]:
    return {
        "setting": finding.setting.name,
        "metric": finding.metric.name,
        "policy": finding.claim.policy,
        "against": finding.claim.against,
        "margin": finding.claim.margin,
        "gain": estimate_values(finding.gain),
        "p_holm": finding.p,
        "verdict": finding.verdict,
    }


def estimate_values(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate for JSON."""
    low, high = estimate.low, estimate.high
    return {"mean": estimate.mean, "low": low, "high": high, "seeds": estimate.n, "confidence": CONFIDENCE}
