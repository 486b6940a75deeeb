"""Fits everything that ships to a folder of data sets: speeds of accelerators, and profiles of models.

`trimtab lab calibrate --data DIR --fit --out OUT` writes the files, as they are in the package.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from trimtab.sim.calibration.fitting import (
    Sample,
    engine_of,
    fingerprint,
    first_guess,
    fit_accelerator,
    predicted_step,
    tune,
)
from trimtab.sim.calibration.recorded import Recorded, RecordedRun
from trimtab.sim.calibration.replay import Engine, replay
from trimtab.sim.calibration.source import METRICS, Latency
from trimtab.sim.calibration.steps import step_profiles
from trimtab.sim.calibration.tables import LARGEST_BATCH, DecodeStep, read_decode_steps, read_kernels, read_messages
from trimtab.sim.hardware import Accelerator, Fitted, architecture_of, cost_of, kv_blocks_of
from trimtab.sim.profile import WIDER, Errors, OutputLength, Profile, SleepCost
from trimtab.workload.fault import TraceError

_SOURCE: Final = (
    "Replay through the serving physics of vLLM 0.11 request spans (inference-sim/inference-sim, eval/ground_truth,"
    " Apache-2.0 license), with median inter-token latencies of other models (ml-energy/leaderboard, Apache-2.0), near"
    " speeds of kernels measured alone (microsoft/vidur, MIT)."
)
_OTHER: Final = (
    " Sleep and wake are taken as copying the weights at 20 GB/s, and as loading them at 1 GB/s after level 2; answer"
    " lengths are the median (129 tokens) and spread of the Azure 2023 conversation trace: neither was fitted here."
)
_SHIPS: Final = "h100"  # of which derived profiles are made
_SEQUENCES: Final = 256
_CHAT_LENGTHS: Final = OutputLength(median_tokens=129, log_sigma=0.86)


@dataclass(frozen=True, slots=True)
class Refit:
    """What a fit made.

    Attributes:
        accelerators: By the names in the runs' settings.
        profiles: Of the models of the runs.
        files: The same for the package, by name.
        problems: What was missing.
        notes: What the fit says about itself.
    """

    accelerators: dict[str, Fitted | None]
    profiles: tuple[Profile, ...]
    files: Mapping[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def refit(data: Path, runs: Sequence[RecordedRun]) -> Refit:
    """Fit to the runs, and to what tables there are beside them."""
    samples = [Sample.of(run, model) for run in runs if (model := architecture_of(run.setup.model)) is not None]
    accelerators: dict[str, Fitted | None] = {}
    profiles: list[Profile] = []
    problems: list[str] = []
    notes: list[str] = []
    for name in sorted({sample.run.setup.accelerator for sample in samples}):
        mine = [sample for sample in samples if sample.run.setup.accelerator == name]
        guess, steps, missing = _tables(data, name)
        problems += missing
        made = _accelerator(mine, steps, guess)
        tuned = list(_profiles(mine, made))
        accelerators[name] = replace(made, tuned=tuple(profile.name for profile in tuned))
        profiles += tuned
        beyond = _unfitted_steps(data, made.accelerator)
        profiles += _derived(mine, made, beyond) if name == _SHIPS else ()
        notes += _halves(mine, steps, guess)
        notes += _large_batches(beyond)
    try:
        profiles += step_profiles(data, _CHAT_LENGTHS)
    except TraceError as error:
        problems.append(str(error))
    files = {f"accelerators/{name}.yaml": render_accelerator(fitted) for name, fitted in accelerators.items() if fitted}
    return Refit(accelerators, tuple(profiles), files, tuple(problems), tuple(notes))


def _tables(data: Path, name: str) -> tuple[Accelerator, list[DecodeStep], list[str]]:
    """What is known of an accelerator besides runs, and what is not."""
    try:
        kernels, messages = read_kernels(data, name), read_messages(data, name)
        steps = read_decode_steps(data, name)
    except TraceError as error:
        return replace(first_guess(None, {}), name=name), [], [str(error)]
    missing = []
    if kernels is None:
        missing.append(f"No table of kernels of {name} in {data}: their speeds are guesses near which the fit stays.")
    if not messages:
        missing.append(f"No table of all-reduces of {name} in {data}: their cost is a guess.")
    if not steps:
        missing.append(
            f"No table of decode steps of {name} in {data}: what several devices cost each other is a guess."
        )
    return replace(first_guess(kernels, messages), name=name), steps, missing


def _accelerator(samples: Sequence[Sample], steps: Sequence[DecodeStep], guess: Accelerator) -> Fitted:
    without = {}
    for left_out in samples:
        rest = [sample for sample in samples if sample is not left_out]
        without[fingerprint(left_out.run)] = fit_accelerator(rest, steps, guess)
    return Fitted(fit_accelerator(samples, steps, guess), without, (), _SOURCE)


def _profiles(samples: Sequence[Sample], fitted: Fitted) -> Iterator[Profile]:
    """One profile for each model and number of devices that was run."""
    kinds = sorted({(sample.model.name, sample.run.setup.tensor_parallel) for sample in samples})
    for model, devices in kinds:
        mine = [s for s in samples if (s.model.name, s.run.setup.tensor_parallel) == (model, devices)]
        setup = mine[0].run.setup
        speeds = tune(mine, fitted.accelerator)
        unseen = [engine_of(s.run, s.model, fitted.without[fingerprint(s.run)]) for s in mine]
        whole = Errors(*map(max, zip(*(_medians(s, e) for s, e in zip(mine, unseen, strict=True)), strict=True)))
        usual, worst = _by_stage(_stage_errors(s, e) for s, e in zip(mine, unseen, strict=True))
        made = profile_of(speeds, Shipped(setup.model, devices, setup.max_model_len, setup.max_num_batched_tokens))
        yield replace(
            made,
            max_num_seqs=setup.max_num_seqs,
            extrapolated=False,
            source=f"{_SOURCE}{_OTHER}",
            error=f"Predicted without this run: its medians {_in_words(whole)}; those of its load stages in the median"
            f" {_in_words(usual)}, at worst {_in_words(worst)}.",
            errors=usual,
            worst_errors=worst,
        )


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model for which a profile is made from speeds alone, and the limits that its engine is given."""

    model: str
    tensor_parallel: int
    max_model_len: int
    max_num_batched_tokens: int


DERIVED: Final = (
    Shipped("meta-llama/Llama-3.1-8B-Instruct", 1, 32_768, 8192),
    Shipped("meta-llama/Llama-3.1-70B-Instruct", 4, 32_768, 8192),
    Shipped("meta-llama/Llama-2-70b-hf", 4, 4096, 4096),
)
"""What ships besides the models that were measured."""


def _derived(samples: Sequence[Sample], fitted: Fitted, beyond: Sequence[float]) -> Iterator[Profile]:
    """Profiles of models that were not recorded: their errors are those of what was left out of a fit, made larger.

    Args:
        samples: Runs of other models, each of which was left out once.
        fitted: The speeds.
        beyond: Relative errors of decode steps of other models that were not fitted.
    """
    runs = [
        _by_stage([_stage_errors(s, engine_of(s.run, s.model, fitted.without[fingerprint(s.run)]))]) for s in samples
    ]
    steps = [Errors(0.0, x, x) for x in (float(np.median(beyond)), max(beyond))] if beyond else [Errors(), Errors()]
    usual, worst = (
        Errors.extrapolated(of_steps, *of_runs)
        for of_steps, of_runs in zip(steps, zip(*runs, strict=True), strict=True)
    )
    for wanted in DERIVED:
        yield replace(
            profile_of(fitted.accelerator, wanted),
            source=f"From the shape of the model and the speeds of the accelerator. {_SOURCE}{_OTHER}",
            error=f"Not recorded for this model: {WIDER} times the errors of load stages of other models that were"
            " predicted without their run, or of decode steps of larger batches than were fitted, where those are"
            f" larger: in the median {_in_words(usual)}, at worst {_in_words(worst)}.",
            errors=usual,
            worst_errors=worst,
        )


def _by_stage(runs: Iterable[Mapping[str, Sequence[float]]]) -> tuple[Errors, Errors]:
    """The median and the largest error over all stages of some runs; 0 where nothing was measured."""
    stages: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for run in runs:
        for metric, errors in run.items():
            stages[metric] += errors
    medians = {metric: float(np.median(errors)) if errors else 0.0 for metric, errors in stages.items()}
    return Errors(**medians), Errors(**{metric: max(errors, default=0.0) for metric, errors in stages.items()})


def _in_words(errors: Errors) -> str:
    return (
        f"time to first token {errors.ttft:.1%}, time between tokens {errors.time_between_tokens:.1%},"
        f" end to end {errors.e2e:.1%}"
    )


def profile_of(speeds: Accelerator, wanted: Shipped) -> Profile:
    """The profile of a model on so many devices, as the speeds make it; marked extrapolated."""
    model, devices = architecture_of(wanted.model), wanted.tensor_parallel
    assert model is not None, "its shape ships"
    blocks = kv_blocks_of(
        model,
        speeds,
        tensor_parallel=devices,
        max_num_batched_tokens=wanted.max_num_batched_tokens,
        max_num_seqs=_SEQUENCES,
    )
    weights = model.bytes_of_weights / 1e9 / devices
    return Profile(
        name=f"{model.name}-{speeds.name}" + (f"-tp{devices}" if devices > 1 else ""),
        model=wanted.model,
        accelerator=f"NVIDIA {speeds.name.upper()} 80GB",
        tensor_parallel=devices,
        max_model_len=wanted.max_model_len,
        max_num_batched_tokens=wanted.max_num_batched_tokens,
        max_num_seqs=_SEQUENCES,
        block_size=16,
        kv_blocks=blocks,
        iteration=cost_of(model, speeds, devices),
        output_length=_CHAT_LENGTHS,
        sleep=SleepCost(weights / 20, 0.1, weights / 20, weights),
        extrapolated=True,
        source="",
        error="",
        front_end=speeds.front_end,
    )


def _medians(sample: Sample, engine: Engine, numbers: Sequence[int] | None = None) -> tuple[float, float, float]:
    """Relative errors of the medians of a run's three metrics, over some of its requests or all."""
    predicted = replay(sample.run, sample.stages, engine)
    chosen = range(len(predicted)) if numbers is None else numbers
    errors = _errors([sample.run.requests[n] for n in chosen], [predicted[n] for n in chosen])
    ttft, between, end = (errors.get(metric, 0.0) for metric in METRICS)
    return ttft, between, end


def _errors(requests: Sequence[Recorded], predicted: Sequence[Latency]) -> dict[str, float]:
    """Relative errors of the medians, by metric of which something was measured."""
    errors = {}
    for name, value in METRICS.items():
        both = [(value(r.latency), value(p)) for r, p in zip(requests, predicted, strict=True)]
        if pairs := [pair for pair in both if None not in pair]:
            measured, said = np.median(np.array(pairs, float), axis=0)
            errors[name] = abs(float(said / measured) - 1)
    return errors


def _stage_errors(sample: Sample, engine: Engine) -> dict[str, list[float]]:
    """By metric, the errors of the medians of a run's stages."""
    predicted = replay(sample.run, sample.stages, engine)
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for stage in sample.stages:
        part = slice(stage.start, stage.stop)
        for metric, error in _errors(sample.run.requests[part], predicted[part]).items():
            found[metric].append(error)
    return found


def _halves(samples: Sequence[Sample], steps: Sequence[DecodeStep], guess: Accelerator) -> Iterator[str]:
    """Fit to the first half of each run's requests, and say how well the second half is predicted."""
    for sample in samples:
        half = len(sample.run.requests) // 2
        first = replace(sample, used=frozenset(range(half)))
        speeds = tune([first], fit_accelerator([first], steps, guess))
        engine = engine_of(sample.run, sample.model, speeds)
        ttft, gap, e2e = _medians(sample, engine, range(half, len(sample.run.requests)))
        yield (
            f"{sample.run.id}: fitted to the first half of its requests, the medians of the second half are off by"
            f" {ttft:.1%} (time to first token), {gap:.1%} (between tokens), {e2e:.1%} (end to end)."
        )


def _unfitted_steps(data: Path, accelerator: Accelerator) -> list[float]:
    """Relative errors of decode steps of batches that are larger than any that was fitted."""
    try:
        steps = read_decode_steps(data, accelerator.name, small=False)
    except TraceError:  # said already
        return []
    return [abs(predicted_step(step, accelerator) / step.seconds - 1) for step in steps]


def _large_batches(errors: Sequence[float]) -> Iterator[str]:
    if errors:
        yield (
            f"{len(errors)} decode steps of batches above {LARGEST_BATCH:.0f}, which were not fitted, are off by"
            f" {np.median(errors):.1%} in the median and by {max(errors):.1%} at worst."
        )


# Files.


def render_accelerator(fitted: Fitted) -> str:
    """The YAML of an accelerator's speeds, numbers at six digits."""
    speeds = _plain(fitted.accelerator)
    apart = {run: _plain(accelerator) for run, accelerator in fitted.without.items()}
    raw = {
        "source": fitted.source,
        "speeds": speeds,
        "without": {run: {k: v for k, v in mine.items() if v != speeds[k]} for run, mine in apart.items()},
        "tuned": list(fitted.tuned),
    }
    return _HEADER + yaml.safe_dump(raw, sort_keys=False, width=100)


_HEADER: Final = "# Made by `trimtab lab calibrate --fit`; not edited by hand.\n"


def _plain(accelerator: Accelerator) -> dict[str, Any]:
    raw = asdict(accelerator)
    del raw["name"]
    return {name: _rounded(value) for name, value in raw.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def render_profile(profile: Profile) -> str:
    """The YAML of a profile, numbers at six digits; what has its default is left out."""
    return _HEADER + yaml.safe_dump(_rounded(_told(profile)), sort_keys=False, width=100)


def _told(part: Any) -> Any:
    """A dataclass as a mapping, without what has its default."""
    if not is_dataclass(part):
        return part
    values = {f.name: getattr(part, f.name) for f in fields(part) if getattr(part, f.name) != _default(f)}
    return {name: _told(value) for name, value in values.items()}


def _default(of: "Field[Any]") -> Any:
    return of.default_factory() if of.default_factory is not MISSING else of.default
