"""Fits profiles to closed-loop sweeps: what an iteration costs, and the front end, for each number of devices.

The runs without offloading that judge are replayed, their first part for the sake of speed. A few numbers, in
logarithms, are moved by Gauss-Newton steps until the quantiles of time to first token, time between tokens and end to
end agree. A weak pull towards a first guess settles what the runs do not tell. The numbers with which a run is judged
come from one more such step, at the end, without the residuals of that run.

What no quantile tells is not fitted: pairs of attention, and the speed of the bus, are design values. What copying to
the host costs is read off pairs of runs that differ in nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
import yaml

from trimtab.sim.calibration.closed_loop import replay
from trimtab.sim.calibration.source import METRICS, Latency
from trimtab.sim.calibration.sweep_profiles import PROFILES, WITHOUT, Fits, Speeds, config_of, play, with_speeds
from trimtab.sim.calibration.sweeps import Sweep, why_not
from trimtab.sim.profile import WIDER, Errors, FrontEnd, IterationCost, OutputLength, Profile, SleepCost

Array = npt.NDArray[np.float64]

_LARGE: Final = 8  # devices of the largest sweep; each device has one of the model's KV heads
_PER_HEAD: Final = 300  # decoding sequences, per KV head of a device, whose attention is shared out
_FITTED: Final = (
    "iteration.base", "iteration.per_prefill_token", "iteration.per_decode_sequence", "iteration.per_context_token",
    "iteration.unsplit_context_token", "iteration.per_longest_token", "iteration.mixed", "iteration.mixed_floor",
    "front_end.per_request", "front_end.busy_per_request", "front_end.per_prompt_token",
)  # fmt: skip
_GUESS: Final[Mapping[int, tuple[float, ...]]] = {
    1: (10e-3, 36e-6, 60e-6, 0.1e-6, 0.047e-6, 1.17e-6, 15e-3, 50e-3, 18e-3, 6e-3, 1.4e-6),
    _LARGE: (6.8e-3, 4e-6, 23e-6, 0.013e-6, 0.006e-6, 0.1e-6, 15e-3, 61e-3, 18e-3, 6e-3, 1.4e-6),
}
"""First guesses, read off five-second windows of the servers' counters and the shortest times to first token."""
_PULL: Final = 0.03  # of the logarithm of a number towards its guess, as the residual of a quantile
_STEP: Final = 0.06
_FARTHEST: Final = 0.4  # that one Gauss-Newton step may move a logarithm
_ROUNDS: Final = 2
_REQUESTS: Final = 1200  # at least, of each run, that are replayed for the fit
_PER_CLIENT: Final = 8
_COMPARED: Final = 0.8  # of those; at the end of the replayed part clients run out of work sooner than they did
_WEIGHTS: Final[Mapping[tuple[str, float], float]] = {
    ("ttft", 0.5): 1.0, ("ttft", 0.9): 0.5, ("time_between_tokens", 0.5): 2.0, ("time_between_tokens", 0.9): 0.5,
    ("e2e", 0.5): 1.0,
}  # fmt: skip
_QUEUED: Final = 0.3  # weight of the time to first token where it is waiting for memory, which magnifies every error
_BYTES_PER_TOKEN: Final = 163_840  # 80 layers, 8 KV heads of 128 numbers, keys and values of a byte each
_BUS: Final = 50e9  # bytes per second of one device's PCIe 5 x16, both ways the same [design]
_PAIR: Final = 1e-9  # seconds per pair of attention on one device [design]
_HOST_TOKENS: Final = {1: 2_000_000}
_HOST_TOKENS_ELSE: Final = 400_000
_SOURCE: Final = (
    "Closed-loop replay through the serving physics of vLLM sweeps of conversations (SemiAnalysisAI/InferenceX,"
    " 2026-02, Apache-2.0 license). Fitted to quantiles of the runs without offloading. KV-cache size from the servers'"
    " usage; attention pairs and the bus (50 GB/s) are design values; the host's size matches the servers' counters of"
    " host hits at TP 1 and 2 and is a guess elsewhere. Sleep and wake are taken as copying the weights at 20 GB/s, and"
    " as loading them at 1 GB/s after level 2: not fitted."
)


@dataclass(frozen=True, slots=True)
class Refit:
    """What a fit made: see `Findings` for the rest."""

    fits: Fits
    profiles: tuple[Profile, ...]
    files: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Solution:
    """The fitted numbers of one number of devices, and those without each number of clients."""

    profile: Profile
    without: Mapping[int, Speeds]


def refit(sweeps: Sequence[Sweep]) -> Refit:
    """Fit to the runs that judge."""
    judging = [sweep for sweep in sweeps if not why_not(sweep, sweeps)]
    solved = dict(_solve(judging))
    without = {
        sweep.fingerprint: solution.without[sweep.setting.max_num_seqs]
        for sweep in judging
        if (solution := solved.get(sweep.setting.tensor_parallel)) and sweep.setting.max_num_seqs in solution.without
    }
    profiles = {devices: solution.profile for devices, solution in solved.items()}
    profiles = {d: _with_errors(p, judging, without) for d, p in profiles.items()}
    profiles |= {between.tensor_parallel: between for between in _between(profiles)}
    ordered = tuple(profiles[devices] for devices in sorted(profiles))
    files = {f"calibration/{WITHOUT.name}": render(without)}
    return Refit(Fits(profiles, without), ordered, files, ())


def render(without: Mapping[str, Speeds]) -> str:
    """The YAML of what was fitted without the runs that it predicts, numbers at six digits."""
    plain = {run: {name: float(f"{x:.6g}") for name, x in speeds.items()} for run, speeds in without.items()}
    return "# Made by `trimtab lab calibrate --fit`; not edited by hand.\n" + yaml.safe_dump(plain, sort_keys=True)


def _solve(judging: Sequence[Sweep]) -> Iterator[tuple[int, _Solution]]:
    for devices in sorted({sweep.setting.tensor_parallel for sweep in judging}):
        mine = [sweep for sweep in judging if sweep.setting.tensor_parallel == devices]
        start = _first_profile(devices, mine, judging)
        plain = [sweep for sweep in mine if not sweep.setting.offload]
        if plain:
            yield devices, _Fit(start, plain).solve()


class _Fit:
    """Gauss-Newton on the logarithms of the fitted numbers."""

    def __init__(self, start: Profile, sweeps: Sequence[Sweep]) -> None:
        self._start = start
        self._clients = [sweep.setting.max_num_seqs for sweep in sweeps]
        self._parts = [(config_of(sweep, start), _part(sweep)) for sweep in sweeps]
        self._guess = np.log([_number(start, name) for name in _FITTED])

    def solve(self) -> _Solution:
        at = self._guess
        residuals = self._residuals(at)
        slopes = self._slopes(at, residuals)
        for _ in range(_ROUNDS):
            at, residuals = self._better(at, residuals, self._step(at, residuals, slopes))
            slopes = self._slopes(at, residuals)
        without = {
            clients: self._speeds(at + self._step(at, residuals, slopes, without=number))
            for number, clients in enumerate(self._clients)
        }
        return _Solution(with_speeds(self._start, self._speeds(at)), without)

    def _speeds(self, at: Array) -> dict[str, float]:
        return dict(zip(_FITTED, map(float, np.exp(at)), strict=True))

    def _residuals(self, at: Array) -> Array:
        """One row for each run: logarithms of predicted over measured, weighted."""
        profile = with_speeds(self._start, self._speeds(at))
        rows = []
        for config, part in self._parts:
            replayed = replay(part.requests, config, profile.iteration, profile.front_end)
            rows.append(_misfit(part, replayed.latencies))
        return np.array(rows)

    def _slopes(self, at: Array, residuals: Array) -> Array:
        """By number, run and quantile."""
        steps = np.eye(len(at)) * _STEP
        return np.array([(self._residuals(at + step) - residuals) / _STEP for step in steps])

    def _step(self, at: Array, residuals: Array, slopes: Array, without: int | None = None) -> Array:
        """Where the residuals vanish, as far as the slopes tell; one run may be left out."""
        if without is not None:
            residuals, slopes = np.delete(residuals, without, axis=0), np.delete(slopes, without, axis=1)
        pull = np.eye(len(at)) * _PULL
        matrix = np.concatenate([slopes.reshape(len(at), -1).T, pull])
        wanted = np.concatenate([-residuals.ravel(), _PULL * (self._guess - at)])
        step: Array = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
        return np.clip(step, -_FARTHEST, _FARTHEST)

    def _better(self, at: Array, residuals: Array, step: Array) -> tuple[Array, Array]:
        """Go the step, or half of it, whichever is better; nowhere if neither is."""
        tried = [(at, residuals)]
        for share in (1.0, 0.5):
            there = at + share * step
            tried.append((there, self._residuals(there)))
        return min(tried, key=lambda each: self._objective(*each))

    def _objective(self, at: Array, residuals: Array) -> float:
        return float((residuals**2).sum() + (_PULL**2) * ((at - self._guess) ** 2).sum())


def _part(sweep: Sweep) -> Sweep:
    return replace(sweep, requests=sweep.requests[: max(_REQUESTS, _PER_CLIENT * sweep.clients)])


def _misfit(part: Sweep, predicted: Sequence[Latency]) -> list[float]:
    compared = range(1, int(_COMPARED * len(predicted)))
    row = []
    for (metric, quantile), weight in _WEIGHTS.items():
        pairs = _pairs(metric, [part.requests[n].latency for n in compared], [predicted[n] for n in compared])
        measured, said = np.quantile(pairs, quantile, axis=0)
        queued = metric == "ttft" and measured > 1.0
        row.append(weight * (_QUEUED if queued else 1.0) * log(said / measured))
    return row


def _pairs(metric: str, measured: Sequence[Latency], predicted: Sequence[Latency]) -> Array:
    value = METRICS[metric]
    both = [(value(m), value(p)) for m, p in zip(measured, predicted, strict=True)]
    return np.array([pair for pair in both if None not in pair], float)


# Profiles.


def _first_profile(devices: int, mine: Sequence[Sweep], judging: Sequence[Sweep]) -> Profile:
    """The profile before the fit."""
    guess = dict(zip(_FITTED, _guess(devices), strict=True))
    weights = 40e9 / devices  # bytes of four-bit weights and their scales
    sizes = [tokens for sweep in mine if (tokens := sweep.kv_tokens()) is not None]
    plain = Profile(
        name=f"{PROFILES}{devices}",
        model="nvidia/Llama-3.3-70B-Instruct-FP4",
        accelerator="NVIDIA B200",
        tensor_parallel=devices,
        max_model_len=131_072,
        max_num_batched_tokens=8192,
        max_num_seqs=512,
        block_size=16,
        kv_blocks=int(median(sizes)) // 16,
        iteration=IterationCost(
            0.0, 0.0, 0.0, 0.0, _PAIR / devices,
            split_decodes=_PER_HEAD * devices // _LARGE,
            per_host_block=16 * _BYTES_PER_TOKEN / devices / _BUS,
            per_stored_token=_per_stored_token(mine) or _per_stored_token(judging),
        ),
        output_length=_answers(mine),
        sleep=SleepCost(weights / 20e9, 0.1, weights / 20e9, weights / 1e9),
        extrapolated=False,
        source=_SOURCE,
        error="Not measured.",
        front_end=FrontEnd(),
        async_scheduling=True,
        host_kv_blocks=_HOST_TOKENS.get(devices, _HOST_TOKENS_ELSE) // 16,
        host_kv_answers=False,
        kv_bytes_per_token=_BYTES_PER_TOKEN,
    )  # fmt: skip
    return with_speeds(plain, guess)


def _guess(devices: int) -> Array:
    """Between those of one device and of many, by the logarithm of their number."""
    share = min(log(devices) / log(_LARGE), 1.0)
    return np.exp((1 - share) * np.log(_GUESS[1]) + share * np.log(_GUESS[_LARGE]))


def _number(profile: Profile, name: str) -> float:
    part, _, own = name.partition(".")
    return float(getattr(getattr(profile, part), own))


def _per_stored_token(sweeps: Sequence[Sweep]) -> float:
    """What copying costs each sequence of an iteration: runs with and without it that did not wait for memory."""
    plain = {(s.setting.tensor_parallel, s.setting.max_num_seqs): s for s in sweeps if not s.setting.offload}
    costs = []
    for sweep in sweeps:
        other = plain.get((sweep.setting.tensor_parallel, sweep.setting.max_num_seqs))
        if sweep.setting.offload and other is not None and median(r.latency.ttft for r in other.requests) < 1:
            costs.append(max(sweep.time_between_tokens - other.time_between_tokens, 0.0) / sweep.clients)
    return median(costs) if costs else 0.0


def _answers(sweeps: Sequence[Sweep]) -> OutputLength:
    lengths = np.log([request.latency.output_tokens for sweep in sweeps for request in sweep.requests])
    return OutputLength(float(np.exp(np.median(lengths))), float(lengths.std()))


def _with_errors(profile: Profile, judging: Sequence[Sweep], without: Mapping[str, Speeds]) -> Profile:
    """The profile, with what its errors were on runs that it was not fitted to."""
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for sweep in judging:
        if sweep.setting.tensor_parallel != profile.tensor_parallel or sweep.fingerprint not in without:
            continue
        replayed = play(sweep, with_speeds(profile, without[sweep.fingerprint]))
        for metric, mine in found.items():
            pairs = _pairs(metric, [r.latency for r in sweep.requests[1:]], replayed.latencies[1:])
            measured, said = np.median(pairs, axis=0)
            mine.append(abs(float(said / measured) - 1))
    if not found["ttft"]:
        return profile
    usual, worst = (Errors(*(of(each) for each in found.values())) for of in (median, max))
    words = (
        f"Of a run's median, predicted without runs of as many clients; the median of {len(found['ttft'])} runs (and"
        f" the worst of them): time to first token {usual.ttft:.1%} ({worst.ttft:.1%}), time between tokens"
        f" {usual.time_between_tokens:.1%} ({worst.time_between_tokens:.1%}), end to end {usual.e2e:.1%}"
        f" ({worst.e2e:.1%})."
    )
    return replace(profile, errors=usual, worst_errors=worst, error=words)


def _between(profiles: Mapping[int, Profile]) -> Iterator[Profile]:
    """Profiles of numbers of devices that were not run, between those that were."""
    for low, high in zip(sorted(profiles), sorted(profiles)[1:], strict=False):
        if high == 4 * low:
            yield _middle(profiles[low], profiles[high])


def _middle(low: Profile, high: Profile) -> Profile:
    """The profile of twice the devices of `low`, half of those of `high`: geometric means, and memory in proportion."""
    devices = 2 * low.tensor_parallel
    names = (*_FITTED, "iteration.per_attention_pair", "iteration.per_host_block", "iteration.per_stored_token")
    speeds = {name: sqrt(_number(low, name) * _number(high, name)) for name in names}
    per_device = (high.kv_blocks - low.kv_blocks) / (high.tensor_parallel - low.tensor_parallel)
    return replace(
        with_speeds(low, {**speeds, "iteration.split_decodes": float(_PER_HEAD * devices // _LARGE)}),
        name=f"{PROFILES}{devices}",
        tensor_parallel=devices,
        kv_blocks=int(low.kv_blocks + per_device * (devices - low.tensor_parallel)),
        sleep=SleepCost(*(sqrt(pair[0] * pair[1]) for pair in zip(_sleep(low), _sleep(high), strict=True))),
        extrapolated=True,
        source=f"Geometric means of {low.name} and {high.name}; KV cache by memory. {_SOURCE}",
        errors=Errors.extrapolated(low.errors, high.errors),
        worst_errors=Errors.extrapolated(low.worst_errors, high.worst_errors),
        error=f"Not measured on {devices} devices. Its errors are {WIDER} times the larger of its neighbors'.",
    )


def _sleep(profile: Profile) -> tuple[float, float, float, float]:
    sleep = profile.sleep
    return sleep.sleep_level_1, sleep.sleep_level_2, sleep.wake_level_1, sleep.wake_level_2
