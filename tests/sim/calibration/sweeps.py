"""Recorded runs that the tests make: a sweep of requests whose times the physics itself gives."""

import csv
import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from trimtab.sim.calibration.fitting import GUESS, engine_of, seconds_of
from trimtab.sim.calibration.recorded import Recorded, RecordedRun, Setup
from trimtab.sim.calibration.replay import Engine, watch
from trimtab.sim.calibration.source import Latency
from trimtab.sim.calibration.stages import Stage, stages_of
from trimtab.sim.hardware import Accelerator, Architecture, architecture_of

SETUP = Setup(model="meta-llama/Llama-2-7b-hf", max_model_len=4096, max_num_batched_tokens=2048, max_num_seqs=64)
TRUTH = replace(GUESS, name="h100", weights_per_second=2.6e12, arithmetic_per_second=6.6e14, per_layer=4e-5)
"""Speeds that made runs, other than those that a fit begins with."""


def shape(name: str) -> Architecture:
    """A model whose shape is known."""
    found = architecture_of(name)
    assert found is not None
    return found


def request(at: float, prompt: int = 500, answer: int = 20, e2e: float = 0.5) -> Recorded:
    """One request that took `e2e` seconds, a tenth of it to its first token."""
    return Recorded(at, prompt, answer, Latency(e2e / 10, e2e, answer), e2e / 10, e2e * 0.9)


def sweep(per_stage: int = 6, rates: Sequence[float] = (2.0, 3.0), seed: int = 3) -> RecordedRun:
    """A synchronous stage, a burst, and constant rates, of requests that last half a second each."""
    rng = np.random.default_rng(seed)
    at, arrivals = 0.0, []
    for _ in range(per_stage + 1):
        arrivals.append(at)
        at += 0.51
    at += 3
    arrivals += [at + 0.004 * n for n in range(per_stage)]
    for rate in rates:
        at = arrivals[-1] + 5
        arrivals += [at + n / rate for n in range(per_stage)]
    prompts = rng.integers(40, 1500, len(arrivals))
    answers = rng.integers(8, 120, len(arrivals))
    requests = [request(t, int(p), int(a)) for t, p, a in zip(arrivals, prompts, answers, strict=True)]
    return RecordedRun("sweep", SETUP, requests[0], tuple(requests[1:]))


def engine(accelerator: Accelerator = TRUTH, setup: Setup = SETUP) -> Engine:
    """What the runs here are made with."""
    return engine_of(replace(sweep(), setup=setup), shape(setup.model), accelerator)


def measured(run: RecordedRun, accelerator: Accelerator = TRUTH) -> RecordedRun:
    """The run as an engine with these speeds would have recorded it."""
    stages: list[Stage] = stages_of(run)
    made_by = engine(accelerator, run.setup)
    lived = watch(run, stages, made_by)
    waits = made_by.front_end
    timed = []
    elapsed = np.concatenate([[0.0], np.cumsum(seconds_of(made_by.cost, lived.shapes))])
    for number, (old, took) in enumerate(zip(run.requests, lived.latencies, strict=True)):
        prefill = float(elapsed[lived.first[number] + 1] - elapsed[lived.admitted[number]])
        assert prefill <= took.ttft - waits.seconds(old.prompt_tokens) + 1e-9
        timed.append(
            replace(old, arrived_at=lived.arrivals[number], latency=took, prefill=prefill, decode=took.e2e - took.ttft)
        )
    return replace(run, requests=tuple(timed))


def write(run: RecordedRun, folder: Path, **settings: Any) -> Path:
    """Write a run as the files that it would be read from; returns that of the spans."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.id}_otel_requests.csv.gz"
    columns = ("arrival_s", "latency.time_to_first_token", "latency.e2e", "latency.time_in_model_prefill",
               "latency.time_in_model_decode", "usage.prompt_tokens", "usage.completion_tokens")  # fmt: skip
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for r in (run.first, *run.requests):
            values = (r.arrived_at, r.latency.ttft, r.latency.e2e, r.prefill, r.decode)
            writer.writerow([*values, r.prompt_tokens, r.output_tokens])
    setup = run.setup
    config = {
        "model": setup.model,
        "tensor_parallelism": setup.tensor_parallel,
        "max_model_len": setup.max_model_len,
        "max_num_batched_tokens": setup.max_num_batched_tokens,
        "max_num_seqs": setup.max_num_seqs,
        **settings,
    }
    (folder / f"{run.id}_exp-config.yaml").write_text(yaml.safe_dump(config))
    load = {"rate-type": setup.rate_type, "rate": 4, "data": {"prefix_tokens": setup.prefix_tokens}}
    (folder / f"{run.id}_workload.yaml").write_text(yaml.safe_dump(load))
    return path
