"""Profiles from a table of step times: each row is one prefill iteration and one decode iteration of a known shape.

The table (folder `splitwise-perf`) was measured on an engine of 2023; its profiles are for studies of that hardware.
They predict no newer engine, so that recorded runs are not held against them. Prefills above the token budget of an
iteration are left out: chunked prefill never makes them. Some shapes judge, the others are fitted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from trimtab.learn.profiles import Array, solve
from trimtab.sim.calibration.fitting import GUESS
from trimtab.sim.hardware import architecture_of, kv_blocks_of
from trimtab.sim.profile import Errors, IterationCost, OutputLength, Profile, SleepCost
from trimtab.workload.textfile import csv_rows

FOLDER: Final = "splitwise-perf"
_COLUMNS: Final = ("model", "hardware", "prompt_size", "batch_size", "token_size", "prompt_time", "token_time",
                   "tensor_parallel")  # fmt: skip
_TOKEN_BUDGET: Final = 2048
_SEQUENCES: Final = 256
_HELD_OUT_PROMPT: Final = 1024
_HELD_OUT_BATCHES: Final = frozenset({2, 8, 32})
_HOSTS: Final = {"a100-80gb": "NVIDIA A100 80GB", "h100-80gb": "NVIDIA H100 80GB"}
_MODEL: Final = "meta-llama/Llama-2-70b-hf"
_DEVICES: Final = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One measured iteration.

    Attributes:
        features: What the coefficients of `IterationCost` multiply, in its order, up to the pairs of attention.
    """

    features: Array
    seconds: float
    held_out: bool

    @property
    def is_prefill(self) -> bool:
        """Whether it processes prompts."""
        return bool(self.features[1])


def read_steps(path: Path, hardware: str, tensor_parallel: int) -> Iterator[Step]:
    """Read the iterations of the table, two per row.

    Raises:
        TraceError: The file is not there or malformed.
    """
    for row in csv_rows(path, _COLUMNS):
        if row.fields["hardware"] != hardware or row.tokens("tensor_parallel") != tensor_parallel:
            continue
        prompt, batch, tokens = row.tokens("prompt_size"), row.tokens("batch_size"), row.tokens("token_size")
        held_out = batch in _HELD_OUT_BATCHES or prompt == _HELD_OUT_PROMPT
        prefill = np.array([1.0, prompt * batch, 0.0, 0.0, batch * prompt * prompt / 2])
        decode = np.array([1.0, 0.0, batch, batch * (prompt + tokens / 2), 0.0])
        if prompt * batch <= _TOKEN_BUDGET:
            yield Step(prefill, row.number_of("prompt_time") / 1000, held_out)
        yield Step(decode, row.number_of("token_time") / 1000, held_out)


def step_profiles(data: Path, lengths: OutputLength) -> list[Profile]:
    """Return a profile for each kind of host in the table; none where the table is not there.

    Raises:
        TraceError: The table is malformed.
    """
    found = sorted((data / FOLDER).glob("perf_model_*70b.csv"))
    return [_profile(found[0], hardware, lengths) for hardware in _HOSTS] if found else []


def _profile(path: Path, hardware: str, lengths: OutputLength) -> Profile:
    model = architecture_of(_MODEL)
    assert model is not None, "its shape ships"
    steps = list(read_steps(path, hardware, _DEVICES))
    fitted, judged = ([s for s in steps if s.held_out is held_out] for held_out in (False, True))
    solution = solve(np.array([s.features for s in fitted]), np.array([s.seconds for s in fitted]))
    weights = model.bytes_of_weights / 1e9 / _DEVICES
    prefill, decode = (_errors(judged, solution, is_prefill=kind) for kind in (True, False))
    return Profile(
        name=f"{model.name}-{hardware.partition('-')[0]}-tp{_DEVICES}",
        model=_MODEL,
        accelerator=_HOSTS[hardware],
        tensor_parallel=_DEVICES,
        max_model_len=4096,
        max_num_batched_tokens=_TOKEN_BUDGET,
        max_num_seqs=_SEQUENCES,
        block_size=16,
        kv_blocks=kv_blocks_of(model, GUESS, tensor_parallel=_DEVICES, max_num_batched_tokens=_TOKEN_BUDGET,
                               max_num_seqs=_SEQUENCES),
        iteration=IterationCost(*map(float, solution)),
        output_length=lengths,
        sleep=SleepCost(weights / 20, 0.1, weights / 20, weights),
        extrapolated=False,
        source="Least absolute relative errors on the step times of Splitwise's performance model"
        " (Mutinifni/splitwise-sim, data/perf_model.csv, MIT license), an engine of 2023. KV-cache blocks computed from"
        " the memory, 90 % of it used.",
        error="Median relative error on the steps not fitted:"
        f" prefill {np.median(prefill):.1%} of {len(prefill)} (worst {max(prefill):.1%}),"
        f" decode {np.median(decode):.1%} of {len(decode)} (worst {max(decode):.1%}).",
        errors=Errors(*(float(np.median(each)) for each in (prefill, decode, decode))),
        worst_errors=Errors(*(max(each) for each in (prefill, decode, decode))),
    )  # fmt: skip


def _errors(steps: Sequence[Step], solution: Array, *, is_prefill: bool) -> list[float]:
    chosen = [step for step in steps if step.is_prefill is is_prefill]
    return [abs(float(step.features @ solution) / step.seconds - 1) for step in chosen]
