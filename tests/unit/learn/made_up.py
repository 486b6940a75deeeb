"""Logs of a made-up service whose answers depend on what a template, or a prompt, asks for."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.decide.queueing.lengths import Example, Features, Outcome

TEMPLATES = ((90, 16), (380, 80), (1_310, 150), (2_200, 400))
"""Tokens of a template's prompts, and of a typical answer."""

PROMPTS = ("Is this right? Answer yes or no only.", "Write a detailed essay of 900 words, step by step.")


def service(count: int, seed: int, *, noise: float = 0.3, cut_off: float = 0.0) -> list[Example]:
    """Requests one second apart whose length is that of their template, give or take."""
    rng = np.random.default_rng(seed)
    examples = []
    for at, choice in enumerate(rng.integers(0, len(TEMPLATES), count)):
        size, typical = TEMPLATES[choice]
        request = Features(int(size + rng.integers(-5, 6)), arrived_at=float(at))
        tokens = max(1, round(typical * np.exp(noise * rng.normal())))
        exact = rng.random() >= cut_off
        examples.append(Example(request, Outcome(tokens if exact else 1, bool(exact), at + 0.02 * tokens)))
    return examples


def log_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of an own log; only the text tells short answers from long ones."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for at, choice in enumerate(rng.integers(0, 2, count)):
        row = {
            "arrived_at": float(at),
            "ended_at": at + 2.5,
            "input_tokens": int(rng.integers(50, 60)),
            "output_tokens": max(1, round((5, 700)[choice] * np.exp(0.2 * rng.normal()))),
            "finish_reason": "stop",
            "tenant": "app",
            "conversation": f"c{at // 3}",
            "text": f"{PROMPTS[choice]} Secret{at}",
        }
        rows.append(row)
    return rows


def write_log(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines, or as CSV where the file's name says so."""
    if path.suffix == ".csv":
        header = list(rows[0])
        lines = [",".join(header), *(",".join(str(row[name]) for name in header) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
