"""Fits an accelerator's speeds, and profiles of measured models, to recorded runs.

Which iterations a request lived through, and what else was in them, depends on the speeds, and the speeds are found
from the iterations: replay and solution alternate. One solution explains the prefill and the decode time of every
request of every run, and the steps of decoding in `tables`; kernels measured alone are the guess that it stays near.
What several devices cost each other is found from the steps of decoding alone, as the runs here have one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from trimtab.learn.profiles import Array, fit_positive, solve
from trimtab.sim.calibration.recorded import Recorded, RecordedRun
from trimtab.sim.calibration.replay import Engine, Watched, watch
from trimtab.sim.calibration.stages import Stage, stages_of
from trimtab.sim.calibration.tables import DecodeStep, Kernels
from trimtab.sim.hardware import Accelerator, Architecture, cost_of, kv_blocks_of
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import FrontEnd, IterationCost

_ROUNDS: Final = 3
_MEMORY_ERROR: Final = 0.05
_PREFILL_ERROR: Final = 0.05  # what is usual: a prompt may meet one iteration more or less
_DECODE_ERROR: Final = 0.01
_STEP_ERROR: Final = 0.03  # prompts are guessed, and each model has kernels of its own
_STEPS_WEIGHT: Final = 2.0  # a step is the median of many requests

# What is fitted, with how far it may well be from its guess.
_SPREADS: Final[Mapping[str, float]] = {
    "weights_per_second": 0.1,
    "arithmetic_per_second": 0.1,
    "kv_per_second": 0.3,
    "attention_per_second": 0.5,
    "elementwise_per_second": 0.3,
    "sharp_bytes": 0.7,
    "per_layer": 0.7,
    "per_step": 1.0,
    "per_sequence": 1.0,
    "per_step_parallel": 1.0,
}
_LATENCY_SPREAD: Final = 0.6
_TUNED: Final = 0.3  # of those spreads, where one run refines what all have said

GUESS: Final = Accelerator(
    name="",
    memory_gib=79.19,
    weights_per_second=2.9e12,
    arithmetic_per_second=7.2e14,
    kv_per_second=2.6e12,
    attention_per_second=4e14,
    elementwise_per_second=1.6e12,
    sharp_bytes=4.2e8,
    per_layer=3e-5,
    per_mixed_layer=2.1e-4,  # the shortest prompts of the recorded 7B run take 7.4 to 7.6 ms, of 7 tokens or of 141
    per_step=5e-4,
    per_sequence=1e-5,
    per_step_parallel=3e-4,
    all_reduce_latency={2: 7e-6, 4: 8e-6, 8: 1e-5},
    all_reduce_per_byte={2: 3.4e-12, 4: 4.5e-12, 8: 4.5e-12},
    front_end=FrontEnd(0.0017, 1e-7),
    activation_bytes=10.2,
    logit_bytes=16.0,
    parallel_gib=0.7,
)
"""What is taken for an H100 with 80 GB before a fit; where a table of kernels is there, its speeds instead."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A run that speeds are fitted to; its model's shape is known."""

    run: RecordedRun
    model: Architecture
    stages: tuple[Stage, ...]
    used: frozenset[int] | None = None  # numbers of the requests that count; None: all

    @classmethod
    def of(cls, run: RecordedRun, model: Architecture, used: frozenset[int] | None = None) -> "Sample":
        """Make a sample of a run, all of it or only some requests."""
        return cls(run, model, tuple(stages_of(run)), used)


def fingerprint(run: RecordedRun) -> str:
    """What a run is known by, whatever its file is called: a digest of its requests."""
    text = repr([(r.arrived_at, r.prompt_tokens, r.output_tokens, r.latency) for r in run.requests])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def engine_of(run: RecordedRun, model: Architecture, accelerator: Accelerator) -> Engine:
    """The engine of a run as the accelerator's speeds make it, with the run's own settings.

    Raises:
        Problem: No engine has these settings.
    """
    setup = run.setup
    config = EngineConfig(
        kv_blocks=max(blocks_of(run, model, accelerator), 1),
        block_size=setup.block_size,
        max_num_seqs=setup.max_num_seqs,
        max_num_batched_tokens=setup.max_num_batched_tokens,
        prefix_caching=setup.prefix_caching,
    )
    return Engine(config, cost_of(model, accelerator, setup.tensor_parallel), accelerator.front_end)


def blocks_of(run: RecordedRun, model: Architecture, accelerator: Accelerator) -> int:
    """KV blocks of a run: as the memory should give, unless the run's log says that it gave clearly more or fewer."""
    computed = computed_blocks(run, model, accelerator)
    differs = run.logged_blocks and abs(computed / run.logged_blocks - 1) > _MEMORY_ERROR
    return run.logged_blocks if differs else computed


def computed_blocks(run: RecordedRun, model: Architecture, accelerator: Accelerator) -> int:
    """KV blocks that the memory should give."""
    setup = run.setup
    return kv_blocks_of(
        model,
        accelerator,
        tensor_parallel=setup.tensor_parallel,
        max_num_batched_tokens=setup.max_num_batched_tokens,
        max_num_seqs=setup.max_num_seqs,
        block_size=setup.block_size,
        gpu_memory_utilization=setup.gpu_memory_utilization,
    )


def first_guess(kernels: Kernels | None, messages: Mapping[int, float]) -> Accelerator:
    """What an accelerator's speeds are taken for before the fit, from kernels measured alone."""
    guess = replace(GUESS, all_reduce_per_byte={**GUESS.all_reduce_per_byte, **messages})
    if kernels is None:
        return guess
    return replace(
        guess,
        weights_per_second=kernels.weights_per_second,
        arithmetic_per_second=kernels.arithmetic_per_second,
        elementwise_per_second=kernels.elementwise_per_second,
    )


def fit_front_end(runs: Sequence[Sample]) -> FrontEnd:
    """What the front end takes: the time to the first token of requests that met nobody, less their prefill."""
    lone = [r for s in runs for stage in s.stages if stage.chained for r in s.run.requests[stage.start : stage.stop]]
    if not lone:
        return GUESS.front_end
    prompts = np.array([float(r.prompt_tokens) for r in lone])
    waits = np.array([r.latency.ttft - r.prefill for r in lone])
    good = waits > 0
    if not good.any():
        return GUESS.front_end
    constant, per_token = solve(np.column_stack([np.ones(good.sum()), prompts[good]]), waits[good])
    return FrontEnd(float(constant), float(per_token))


def fit_accelerator(samples: Sequence[Sample], steps: Sequence[DecodeStep], guess: Accelerator) -> Accelerator:
    """Speeds that explain runs and steps together."""
    return _fit(samples, steps, guess, 1.0)


def tune(samples: Sequence[Sample], accelerator: Accelerator) -> Accelerator:
    """Speeds that explain the runs of one model, not far from those that explain all."""
    return _fit(samples, [], accelerator, _TUNED)


def _fit(samples: Sequence[Sample], steps: Sequence[DecodeStep], guess: Accelerator, width: float) -> Accelerator:
    accelerator = guess if not samples else replace(guess, front_end=fit_front_end(samples))
    unknown = _Unknown(guess, width)
    for _ in range(_ROUNDS if samples else 1):
        lived = [watch(s.run, s.stages, engine_of(s.run, s.model, accelerator)) for s in samples]
        misfits = _Misfits(unknown, samples, lived, steps)
        accelerator = replace(
            unknown.accelerator(fit_positive(misfits, unknown.start, unknown.spread)), front_end=accelerator.front_end
        )
    return accelerator


class _Unknown:
    """The parameters that are fitted, as an array and back."""

    def __init__(self, guess: Accelerator, width: float) -> None:
        self._guess = guess
        self._devices = sorted(guess.all_reduce_latency)
        latencies = [guess.all_reduce_latency[devices] for devices in self._devices]
        self.start = np.array([*(getattr(guess, name) for name in _SPREADS), *latencies])
        self.spread = width * np.array([*_SPREADS.values(), *[_LATENCY_SPREAD] * len(latencies)])

    def accelerator(self, values: Array) -> Accelerator:
        """Put the values in their places."""
        known = len(_SPREADS)
        speeds: dict[str, Any] = dict(zip(_SPREADS, map(float, values[:known]), strict=True))
        latencies = dict(zip(self._devices, map(float, values[known:]), strict=True))
        return replace(self._guess, **speeds, all_reduce_latency=latencies)


@dataclass(frozen=True, slots=True)
class _Misfits:
    """Relative errors of everything that was measured, each over the error that is usual for it."""

    unknown: _Unknown
    samples: Sequence[Sample]
    lived: Sequence[Watched]
    steps: Sequence[DecodeStep]

    def __call__(self, values: Array) -> Array:
        accelerator = self.unknown.accelerator(values)
        found = [self._of_run(s, w, accelerator) for s, w in zip(self.samples, self.lived, strict=True)]
        return np.concatenate([*found, self._of_steps(accelerator)])

    def _of_run(self, sample: Sample, watched: Watched, accelerator: Accelerator) -> Array:
        cost = cost_of(sample.model, accelerator, sample.run.setup.tensor_parallel)
        elapsed = np.concatenate([[0.0], np.cumsum(seconds_of(cost, watched.shapes))])
        chosen = [n for n in range(len(sample.run.requests)) if sample.used is None or n in sample.used]
        requests = [sample.run.requests[n] for n in chosen]
        begun, first = elapsed[watched.admitted[chosen]], elapsed[watched.first[chosen] + 1]
        prefill = np.log((first - begun) / np.array([r.prefill for r in requests]))
        longer = np.array([_decodes(r) for r in requests])
        decode = (elapsed[watched.last[chosen] + 1] - first)[longer]
        measured = np.array([r.decode for r in requests])[longer]
        return np.concatenate([prefill / _PREFILL_ERROR, np.log(decode / measured) / _DECODE_ERROR])

    def _of_steps(self, accelerator: Accelerator) -> Array:
        ratios = [predicted_step(step, accelerator) / step.seconds for step in self.steps]
        return np.log(ratios) / _STEP_ERROR * _STEPS_WEIGHT if ratios else np.empty(0)


def predicted_step(step: DecodeStep, accelerator: Accelerator) -> float:
    """Seconds that a step of decoding would take."""
    cost = cost_of(step.model, accelerator, step.tensor_parallel)
    shape = np.array([[1.0, 0.0, step.batch, step.batch * step.context, 0.0]])
    return float(seconds_of(cost, shape)[0])


def _decodes(request: Recorded) -> bool:
    return request.output_tokens > 1 and request.decode > 0


def seconds_of(cost: IterationCost, shapes: Array) -> Array:
    """Durations of many steps; see `WatchedEngine.shapes` for the columns."""
    iterations, prefill, decodes, context, pairs = shapes.T
    each: Array = (
        cost.base
        + _products(cost, prefill + decodes)
        + cost.per_prefill_token * prefill
        + cost.per_decode_sequence * decodes
    )
    seconds: Array = iterations * each + cost.per_context_token * context + cost.per_attention_pair * pairs
    return np.where(prefill > 0, np.maximum(seconds + cost.mixed, cost.mixed_floor), seconds)


def _products(cost: IterationCost, tokens: Array) -> Array:
    computing = cost.arithmetic * tokens
    seconds: Array = (cost.weights**cost.sharpness + computing**cost.sharpness) ** (1 / cost.sharpness)
    return seconds
