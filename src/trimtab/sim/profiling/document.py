"""What a measurement leaves behind: a profile for `trimtab engine` and the lab, and the same as JSON."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from trimtab.model.problem import Problem
from trimtab.sim.profile import Errors, OutputLength, Profile, SleepCost, parse_profile
from trimtab.sim.profiling.session import Result

_DIGITS: Final = 6
_UNMEASURED: Final = (
    "Not measured: answer lengths (the median and spread of the Azure 2023 conversation trace, of use only for requests"
    " that do not say how long the answer is), sleep and wake times (0: put in your own before you simulate sleep)."
)
_ERROR_FIELDS: Final = {
    "time to first token": "ttft",
    "time between tokens": "time_between_tokens",
    "end to end": "e2e",
}


def profile_of(result: Result, *, name: str, accelerator: str, tensor_parallel: int, at: datetime) -> Profile:
    """The profile that a measurement amounts to.

    Args:
        result: The measurement.
        name: What the profile is called.
        accelerator: What the engine runs on, which no API tells.
        tensor_parallel: On how many of them.
        at: When it was measured.
    """
    values, speed = result.fit.estimate.values, result.fit.estimate.speed
    config, limits = result.config, result.engine.limits
    version = f" {result.engine.version}" if result.engine.version else ""
    return Profile(
        name=name,
        model=result.engine.model,
        accelerator=accelerator,
        tensor_parallel=tensor_parallel,
        max_model_len=limits.max_model_len,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_seqs=config.max_num_seqs,
        block_size=config.block_size,
        kv_blocks=config.kv_blocks,
        iteration=speed.cost,
        output_length=OutputLength(median_tokens=129, log_sigma=0.86),
        sleep=SleepCost(0.0, 0.0, 0.0, 0.0),
        extrapolated=False,
        source=f"Measured by `trimtab profile` on {at:%Y-%m-%d} in {result.seconds / 60:.1f} minutes, engine{version}:"
        f" {len(result.fit.rows)} equations of idle requests, of up to {result.clients} at once, and of prompts among"
        f" decoding sequences. {_UNMEASURED} {' '.join(f'Note: {note}.' for note in result.notes)}".strip(),
        error=_error_text(result),
        front_end=speed.front_end,
        errors=_errors(result),
        intervals={key: result.fit.estimate.intervals[key] for key in values},
    )


def _errors(result: Result) -> Errors:
    medians = {
        _ERROR_FIELDS[figure.metric]: abs(figure.error)
        for figure in result.judged
        if figure.quantile == 0.5  # noqa: PLR2004 - the median
    }
    return Errors(**medians)


def _error_text(result: Result) -> str:
    def text(metric: str) -> str:
        errors = [f.error for f in result.judged if f.metric == metric]
        return f"{metric} {errors[0]:+.1%}" + (f" (p90 {errors[1]:+.1%})" if len(errors) > 1 else "")

    metrics = dict.fromkeys(figure.metric for figure in result.judged)
    return (
        f"Error of the medians predicted for a phase that was not fitted, {result.requests} requests of mixed lengths"
        f" from {result.clients} clients without pause: {', '.join(map(text, metrics))}."
    )


def text_of(profile: Profile) -> str:
    """The YAML of a profile, numbers at six digits."""
    raw = asdict(replace(profile, intervals={}))
    for part in ("iteration", "output_length", "sleep", "front_end", "errors", "worst_errors"):
        raw[part] = {name: _rounded(value) for name, value in raw[part].items()}
    raw["intervals"] = {name: list(map(_rounded, pair)) for name, pair in profile.intervals.items()}
    parse_profile(raw)  # what is written can be read
    body = yaml.safe_dump(raw, sort_keys=False, width=100)
    return f"# A measured profile, for `trimtab engine --profile FILE` and the lab.\n{body}"


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def fields_of(result: Result, profile: Profile) -> Mapping[str, Any]:
    """Everything as JSON can hold it."""
    estimate = result.fit.estimate
    return {
        "profile": asdict(replace(profile, intervals={})),
        "values": {
            name: {"value": value, "low": estimate.intervals[name][0], "high": estimate.intervals[name][1]}
            for name, value in estimate.values.items()
        },
        "residuals": {kind: {"p50": p50, "p90": p90} for kind, (p50, p90) in estimate.residuals.items()},
        "held_out": [
            {
                "metric": figure.metric,
                "quantile": figure.quantile,
                "measured": figure.measured,
                "predicted": figure.predicted,
                "error": figure.error,
            }
            for figure in result.judged
        ],
        "clients": result.clients,
        "requests": result.requests,
        "seconds": result.seconds,
        "notes": list(result.notes),
    }


def check_writable(path: Path) -> None:
    """See to it that a profile can be written before ten minutes are spent on it.

    Raises:
        Problem: It cannot.
    """
    if path.suffix not in {".yaml", ".yml"}:
        raise Problem(f"--out {path} does not end in .yaml", fix="name it so: that is how profiles are told from names")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise Problem(f"cannot write {path}", fix="pass --out with a file in a folder that is there and writable")


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        Problem: It cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}", fix="pass --out with another folder") from error
