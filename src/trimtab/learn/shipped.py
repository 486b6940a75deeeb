"""The weights of length predictors as files: what comes with the package, and what an operator trained."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.decide.queueing.length_boosted import Boosted, Encoder
from trimtab.model.problem import Problem

SHIPPED = Path(__file__).parent / "weights" / "lengths.json"
"""The weights that come with the package; the file says what they were trained on and how they did."""


def read_weights(path: Path | None = None) -> Mapping[str, Any]:
    """Read weights, those that come with the package by default.

    Raises:
        Problem: the file cannot be read or does not hold weights.
    """
    file = path or SHIPPED
    fix = "train weights with `trimtab predictor train`"
    try:
        weights = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"{file}: cannot be read: {error.strerror}", fix=fix) from error
    except ValueError as error:
        raise Problem(f"{file}: not JSON: {error}", fix=fix) from error
    if not isinstance(weights, dict):
        raise Problem(f"{file}: a {type(weights).__name__} where an object is needed", fix=fix)
    return weights


def predictor_from(path: Path | None = None, encoder: Encoder | None = None) -> Boosted:
    """Return a fresh predictor with these weights, those that come with the package by default.

    Raises:
        Problem: the file cannot be read, or its weights are of another version or damaged.
    """
    weights = read_weights(path)
    try:
        return Boosted(weights, encoder)
    except (ValueError, LookupError, TypeError) as error:
        fix = "train weights with `trimtab predictor train`"
        raise Problem(f"{path or SHIPPED}: {error}", fix=fix) from error


def write_weights(weights: Mapping[str, Any], path: Path) -> None:
    """Write weights, all or nothing; one line per tree, so that a new training shows as a readable difference.

    Raises:
        Problem: the file cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_text(_laid_out(weights), encoding="utf-8")
        os.replace(unfinished, path)  # noqa: PTH105 - atomic by name
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise Problem(f"{path}: cannot be written: {error.strerror}", fix="pass --out with another file") from error


def _laid_out(weights: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in weights.items() if key != "heads"}
    heads = []
    for name, head in weights["heads"].items():
        trees = ",\n".join(f"    {json.dumps(tree, separators=(',', ':'))}" for tree in head["trees"])
        heads.append(f'  "{name}": {{"baseline": {head["baseline"]!r}, "trees": [\n{trees}\n  ]}}')
    opening = json.dumps(plain, indent=1, allow_nan=False).removesuffix("\n}")
    body = ",\n".join(heads)
    return f'{opening},\n "heads": {{\n{body}\n }}\n}}\n'
