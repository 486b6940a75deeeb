"""Makes the shipped profiles from measured data: `python -m trimtab.sim.fit --data DIR [--out DIR]`.

Two kinds of data, one cost form (see `profile`):

* **Request traces of a real vLLM** (folder `vllm-h100-groundtruth`): the recorded requests are replayed through the
  serving physics. Which iterations a request lived through, and what else was in them, gives one linear equation for
  its prefill time and one for its decode time. Their solution (least absolute relative errors) changes the timing,
  hence the iterations, so replay and solution alternate. Odd requests are fitted, the even ones judge.
* **Tables of step times** (folder `splitwise-perf`): each row is one prefill iteration and one decode iteration of a
  known shape, solved directly. Prefills above the token budget of an iteration are left out: chunked prefill never
  makes them. Some shapes judge, the others are fitted.

A model that was not measured is scaled from its nearest relative by parameters (weights, arithmetic) and by bytes per
token of the KV cache, and marked extrapolated.
"""

import argparse
import csv
import gzip
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Ordered
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import yaml

from trimtab.model.problem import Problem
from trimtab.sim.profile import SHIPPED, IterationCost, OutputLength, Profile, SleepCost
from trimtab.sim.serving import EngineConfig, Iteration, Sequence, ServingEngine, Work

Array = npt.NDArray[np.float64]
_ROUNDS: Final = 24
_REWEIGHTINGS: Final = 12
_SMALL_ERROR: Final = 0.003  # relative errors below this all weigh the same
_GIB: Final = 2**30
_TOKEN_BUDGET: Final = 2048  # of the profiles made from step times
_HELD_OUT_PROMPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """One request of a trace, in seconds."""

    arrived_at: float
    prompt_tokens: int
    output_tokens: int
    ttft: float
    e2e: float
    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class Lived:
    """What a request went through in a replay: sums of the cost features over its prefill and its decode."""

    prefill: Array
    decode: Array
    ttft: float
    e2e: float


# Fitting.


def solve(features: Array, seconds: Array) -> IterationCost:
    """Coefficients, none negative, with the least absolute relative errors (by reweighted least squares).

    Absolute, not squared: a request that met another one in the replay but not in reality is an outlier.
    """
    relative = features / seconds[:, None]
    weights = np.ones(len(seconds))
    for _ in range(_REWEIGHTINGS):
        coefficients = _least_squares(relative * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ coefficients - 1), _SMALL_ERROR))
    return IterationCost(*map(float, coefficients))


def _least_squares(rows: Array, targets: Array) -> Array:
    """Least squares without negative coefficients: the most negative one is dropped until there is none."""
    scale = np.abs(rows).max(axis=0) + 1e-300
    active = list(range(rows.shape[1]))
    while True:
        solution = np.linalg.lstsq(rows[:, active] / scale[active], targets, rcond=None)[0]
        if (solution >= 0).all() or len(active) == 1:
            break
        active.pop(int(solution.argmin()))
    coefficients = np.zeros(rows.shape[1])
    coefficients[active] = solution / scale[active]
    return coefficients


def replay(requests: Iterable[Measured], config: EngineConfig, cost: IterationCost) -> list[Lived]:
    """Run requests at their recorded times through the physics."""
    engine = ServingEngine(config, cost)
    pending = list(requests)[::-1]
    sequences: list[Sequence] = []
    at_admission: dict[Sequence, Array] = {}
    at_first_token: dict[Sequence, Array] = {}
    at_end: dict[Sequence, Array] = {}
    total = np.zeros(5)
    now = 0.0
    while pending or engine.num_running or engine.num_waiting:
        while pending and (pending[-1].arrived_at <= now or not (engine.num_running or engine.num_waiting)):
            request = pending.pop()
            now = max(now, request.arrived_at)
            work = Work(request.prompt_tokens, request.output_tokens)
            sequences.append(engine.add(work, request.arrived_at))
        iteration = engine.next_iteration(now)
        assert iteration is not None
        for sequence in iteration.tokens:
            at_admission.setdefault(sequence, total)
        total = total + _features(iteration)
        now = iteration.end
        for sequence in engine.complete(iteration):
            at_first_token.setdefault(sequence, total)
            at_end[sequence] = total
    return [
        Lived(
            prefill=at_first_token[sequence] - at_admission[sequence],
            decode=at_end[sequence] - at_first_token[sequence],
            ttft=_since(sequence.arrived_at, sequence.first_token_at),
            e2e=_since(sequence.arrived_at, sequence.last_token_at),
        )
        for sequence in sequences
    ]


def fit_trace(requests: Ordered[Measured], config: EngineConfig, start: IterationCost) -> IterationCost:
    """Alternate replay and solution, half a step at a time, and keep the costs whose replay fits best.

    A request that just misses an iteration lives through another one, so that the alternation never quite settles.
    """
    cost, best, least = start, start, float("inf")
    for _ in range(_ROUNDS):
        lived = replay(requests, config, cost)
        pairs = list(zip(lived, requests, strict=True))[1::2]
        error = float(np.mean([_error(life.ttft, m.ttft) + _error(life.e2e, m.e2e) for life, m in pairs]))
        if error < least:
            best, least = cost, error
        features = [life.prefill for life, _ in pairs] + [life.decode for life, m in pairs if m.output_tokens > 1]
        seconds = [m.prefill for _, m in pairs] + [m.decode for _, m in pairs if m.output_tokens > 1]
        solution = solve(np.array(features), np.array(seconds))
        cost = IterationCost(*map(float, (np.array(astuple(cost)) + np.array(astuple(solution))) / 2))
    return best


def judge_trace(requests: Ordered[Measured], config: EngineConfig, cost: IterationCost) -> str:
    """Errors on the requests that were not fitted, in words."""
    judged = list(zip(replay(requests, config, cost), requests, strict=True))[0::2]
    ttft = [_error(life.ttft, m.ttft) for life, m in judged]
    longer = [(life, m) for life, m in judged if m.output_tokens > 1]
    gap = [_error(life.e2e - life.ttft, m.e2e - m.ttft) for life, m in longer]
    end = [_error(life.e2e, m.e2e) for life, m in judged]
    rows = (("time to first token", ttft), ("time between tokens", gap), ("end to end", end))
    parts = [f"{name} {np.median(errors):.1%} (p90 {np.quantile(errors, 0.9):.1%})" for name, errors in rows]
    return f"Median relative error on the {len(judged)} requests not fitted: {', '.join(parts)}."


def _features(iteration: Iteration) -> Array:
    return np.array(
        [
            1.0,
            iteration.prefill_tokens,
            iteration.decodes,
            iteration.context_tokens,
            iteration.attention_pairs,
        ]
    )


def _error(predicted: float, measured: float) -> float:
    return abs(predicted - measured) / measured


def _since(start: float, end: float | None) -> float:
    assert end is not None
    return end - start


# Reading.


def read_requests(path: Path) -> list[Measured]:
    """The requests of one trace; the first one is dropped, because it met a cold engine.

    Raises:
        Problem: The file is not there.
    """
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise Problem(f"no file matches {path}", fix="point --data at the folder that holds vllm-h100-groundtruth")
    with gzip.open(found[0], "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    requests = [
        Measured(
            arrived_at=float(row["arrival_s"]),
            prompt_tokens=int(row["usage.prompt_tokens"]),
            output_tokens=int(row["usage.completion_tokens"]),
            ttft=float(row["latency.time_to_first_token"]),
            e2e=float(row["latency.e2e"]),
            prefill=float(row["latency.time_in_model_prefill"]),
            decode=float(row["latency.time_in_model_decode"]),
        )
        for row in rows
    ]
    return sorted(requests[1:], key=lambda request: request.arrived_at)


@dataclass(frozen=True, slots=True)
class Step:
    """One measured iteration."""

    features: Array
    seconds: float
    held_out: bool

    @property
    def is_prefill(self) -> bool:
        """Whether it processes prompts."""
        return bool(self.features[1])


def read_steps(path: Path, hardware: str, tensor_parallel: int) -> Iterator[Step]:
    """The iterations of the splitwise table, two per row.

    Raises:
        Problem: The file is not there.
    """
    if not path.exists():
        raise Problem(f"{path} is not there", fix="point --data at the folder that holds splitwise-perf")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["hardware"] == hardware]
    for row in rows:
        if int(row["tensor_parallel"]) != tensor_parallel:
            continue
        prompt, batch, tokens = int(row["prompt_size"]), int(row["batch_size"]), int(row["token_size"])
        held_out = batch in {2, 8, 32} or prompt == _HELD_OUT_PROMPT
        prefill = np.array([1.0, prompt * batch, 0.0, 0.0, batch * prompt * prompt / 2])
        decode = np.array([1.0, 0.0, batch, batch * (prompt + tokens / 2), 0.0])
        if prompt * batch <= _TOKEN_BUDGET:
            yield Step(prefill, float(row["prompt_time"]) / 1000, held_out)
        yield Step(decode, float(row["token_time"]) / 1000, held_out)


# The shipped profiles.


def llama_2_7b_h100(data: Path) -> Profile:
    """Llama-2-7B on one H100, from a trace."""
    profile = Profile(
        name="llama-2-7b-h100",
        model="meta-llama/Llama-2-7b-hf",
        accelerator="NVIDIA H100 80GB",
        tensor_parallel=1,
        max_model_len=4096,
        max_num_batched_tokens=4096,
        max_num_seqs=256,
        block_size=16,
        kv_blocks=_kv_blocks(memory_gib=80, devices=1, weights_gb=13.5, bytes_per_token=524_288),
        iteration=IterationCost(0.006, 2e-5, 1e-5, 5e-8, 1e-10),
        output_length=_CHAT_LENGTHS,
        sleep=_sleep_of(13.5),
        extrapolated=False,
        source="",
        error="",
    )
    return _from_trace(profile, data / "vllm-h100-groundtruth" / "*llama7b*_otel_requests.csv.gz")


def codellama_34b_h100(data: Path) -> Profile:
    """CodeLlama-34B on one H100, from a trace."""
    profile = Profile(
        name="codellama-34b-h100",
        model="codellama/CodeLlama-34b-Instruct-hf",
        accelerator="NVIDIA H100 80GB",
        tensor_parallel=1,
        max_model_len=8192,
        max_num_batched_tokens=4096,
        max_num_seqs=256,
        block_size=16,
        kv_blocks=40_592 // 16,  # the engine's own log
        iteration=IterationCost(0.026, 1e-4, 1e-5, 5e-8, 1e-10),
        output_length=_CHAT_LENGTHS,
        sleep=_sleep_of(67.5),
        extrapolated=False,
        source="",
        error="",
    )
    return _from_trace(profile, data / "vllm-h100-groundtruth" / "*codellama-train*_otel_requests.csv.gz")


def llama_31_8b_h100(relative: Profile) -> Profile:
    """Llama-3.1-8B on one H100, scaled from Llama-2-7B."""
    weights, keys = 8.03 / 6.74, 131_072 / 524_288
    old = relative.iteration
    cost = IterationCost(
        base=old.base * weights,
        per_prefill_token=old.per_prefill_token * weights,
        per_decode_sequence=old.per_decode_sequence * weights,
        per_context_token=old.per_context_token * keys,
        per_attention_pair=old.per_attention_pair,
    )
    return replace(
        relative,
        name="llama-3.1-8b-h100",
        model="meta-llama/Llama-3.1-8B-Instruct",
        max_model_len=32_768,
        max_num_batched_tokens=8192,
        kv_blocks=_kv_blocks(memory_gib=80, devices=1, weights_gb=16.1, bytes_per_token=131_072),
        iteration=cost,
        sleep=_sleep_of(16.1),
        extrapolated=True,
        source=f"Scaled from {relative.name}: weights and arithmetic by 8.03/6.74 parameters, reading of the KV cache"
        " by a quarter of the bytes per token, attention unchanged (32 layers of width 4096 both). KV-cache blocks"
        f" computed from 90 % of 80 GiB less weights and 3 GiB. {relative.source}",
        error="Not measured on this model. Expect more than the relative's: " + relative.error,
    )


def llama_2_70b(data: Path, hardware: str, accelerator: str, tensor_parallel: int) -> Profile:
    """Llama-2-70B from the table of step times."""
    steps = list(read_steps(data / "splitwise-perf" / "perf_model_llama2-70b.csv", hardware, tensor_parallel))
    fitted = [step for step in steps if not step.held_out]
    cost = solve(np.array([step.features for step in fitted]), np.array([step.seconds for step in fitted]))
    return Profile(
        name=f"llama-2-70b-{hardware.partition('-')[0]}-tp{tensor_parallel}",
        model="meta-llama/Llama-2-70b-hf",
        accelerator=accelerator,
        tensor_parallel=tensor_parallel,
        max_model_len=4096,
        max_num_batched_tokens=_TOKEN_BUDGET,
        max_num_seqs=256,
        block_size=16,
        kv_blocks=_kv_blocks(memory_gib=80, devices=tensor_parallel, weights_gb=138, bytes_per_token=327_680),
        iteration=cost,
        output_length=_CHAT_LENGTHS,
        sleep=_sleep_of(138),
        extrapolated=False,
        source="Least absolute relative errors on the step times of Splitwise's performance model"
        " (Mutinifni/splitwise-sim, data/perf_model.csv, MIT licence). KV-cache blocks computed from 90 % of the memory"
        f" less weights and 3 GiB per device. {_OTHER_SOURCES}",
        error=judge_steps([step for step in steps if step.held_out], cost),
    )


def judge_steps(steps: Ordered[Step], cost: IterationCost) -> str:
    """Errors on steps that were not fitted, in words."""
    coefficients = np.array(astuple(cost))
    parts = []
    for name, is_prefill in (("prefill", True), ("decode", False)):
        chosen = [step for step in steps if step.is_prefill is is_prefill]
        errors = [_error(float(step.features @ coefficients), step.seconds) for step in chosen]
        parts.append(f"{name} {np.median(errors):.1%} of {len(errors)} (worst {max(errors):.1%})")
    return f"Median relative error on the steps not fitted: {', '.join(parts)}."


_OTHER_SOURCES: Final = (
    "Sleep and wake are taken as copying the weights at 20 GB/s, and as loading them at 1 GB/s after level 2; answer"
    " lengths are the median (129 tokens) and spread of the Azure 2023 conversation trace: neither was fitted here."
)
_CHAT_LENGTHS: Final = OutputLength(median_tokens=129, log_sigma=0.86)


def _from_trace(profile: Profile, path: Path) -> Profile:
    requests = read_requests(path)
    config = EngineConfig.of(profile)
    cost = fit_trace(requests, config, profile.iteration)
    return replace(
        profile,
        iteration=cost,
        source="Replay through the serving physics of vLLM 0.11 request spans (inference-sim/inference-sim,"
        f" eval/ground_truth, Apache-2.0 licence), half of {len(requests)} requests fitted. {_OTHER_SOURCES}",
        error=judge_trace(requests, config, cost),
    )


def _kv_blocks(*, memory_gib: float, devices: int, weights_gb: float, bytes_per_token: int) -> int:
    free = devices * (memory_gib * 0.9 - 3) * _GIB - weights_gb * 1e9
    return int(free / bytes_per_token / 16)


def _sleep_of(weights_gb: float) -> SleepCost:
    copy, load = weights_gb / 20, weights_gb / 1
    return SleepCost(sleep_level_1=copy, sleep_level_2=0.1, wake_level_1=copy, wake_level_2=load)


def shipped(data: Path) -> list[Profile]:
    """All profiles that are made from data."""
    seven = llama_2_7b_h100(data)
    return [
        seven,
        llama_31_8b_h100(seven),
        codellama_34b_h100(data),
        llama_2_70b(data, "a100-80gb", "NVIDIA A100 80GB", 8),
        llama_2_70b(data, "h100-80gb", "NVIDIA H100 80GB", 8),
    ]


def render(profile: Profile) -> str:
    """The YAML of a profile, numbers at six digits."""
    raw = asdict(profile)
    for part in ("iteration", "output_length", "sleep"):
        raw[part] = {name: float(f"{value:.6g}") for name, value in raw[part].items()}
    return "# Made by `python -m trimtab.sim.fit`; not edited by hand.\n" + yaml.safe_dump(
        raw, sort_keys=False, width=100
    )


def main() -> None:
    """Write the profiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=Path(str(SHIPPED)), help="folder for the profiles")
    arguments = parser.parse_args()
    for profile in shipped(arguments.data):
        (arguments.out / f"{profile.name}.yaml").write_text(render(profile), encoding="utf-8")
        print(f"{profile.name}: {profile.error}")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
