"""Profiles from a table of step times."""

import csv
from pathlib import Path

import numpy as np
import pytest

from trimtab.sim.calibration.steps import FOLDER, read_steps, step_profiles
from trimtab.sim.profile import OutputLength
from trimtab.workload.fault import TraceError

LENGTHS = OutputLength(100, 1.0)
TRUTH = np.array([0.03, 5e-5, 2e-4, 2e-7, 5e-9])


def table(folder: Path, hosts: tuple[str, ...] = ("h100-80gb", "a100-80gb")) -> Path:
    """Steps that take what `TRUTH` says, twice as long on the older host."""
    path = folder / FOLDER / "perf_model_llama2-70b.csv"
    path.parent.mkdir()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "hardware", "prompt_size", "batch_size", "token_size", "prompt_time", "token_time",
                         "tensor_parallel"])  # fmt: skip
        for host in hosts:
            slower = 2000 if host.startswith("a100") else 1000
            for prompt in (128, 256, 512, 1024, 2048, 4096):
                for batch in (1, 2, 4, 16):
                    prefill = slower * TRUTH @ [1, prompt * batch, 0, 0, batch * prompt**2 / 2]
                    decode = slower * TRUTH @ [1, 0, batch, batch * (prompt + 64), 0]
                    writer.writerow(["llama2-70b", host, prompt, batch, 128, prefill, decode, 8])
        writer.writerow(["llama2-70b", hosts[0], 128, 1, 128, 9e9, 9e9, 2])
    return path


def test_steps_are_two_per_row_but_for_prompts_beyond_the_budget(tmp_path: Path) -> None:
    steps = list(read_steps(table(tmp_path), "h100-80gb", 8))
    assert sum(not step.is_prefill for step in steps) == 24
    prefills = [step.features[1] for step in steps if step.is_prefill]
    assert max(prefills) == 2048
    assert {step.held_out for step in steps} == {True, False}
    assert all(step.seconds == pytest.approx(float(step.features @ TRUTH)) for step in steps)


def test_profiles_give_back_the_costs_that_made_the_table(tmp_path: Path) -> None:
    table(tmp_path)
    old, new = step_profiles(tmp_path, LENGTHS)
    assert (old.name, new.name) == ("llama-2-70b-a100-tp8", "llama-2-70b-h100-tp8")
    assert new.iteration.base == pytest.approx(0.03, rel=1e-3)
    assert old.iteration.per_prefill_token == pytest.approx(1e-4, rel=1e-3)
    assert new.errors.ttft < 1e-3
    assert "decode 0.0%" in new.error
    assert not new.extrapolated


def test_no_table_no_profiles(tmp_path: Path) -> None:
    assert step_profiles(tmp_path, LENGTHS) == []


def test_a_malformed_table_is_named(tmp_path: Path) -> None:
    path = table(tmp_path)
    path.write_text(path.read_text().replace("llama2-70b,a100-80gb,128,1", "llama2-70b,a100-80gb,few,1", 1))
    with pytest.raises(TraceError) as caught:
        step_profiles(tmp_path, LENGTHS)
    assert caught.value.field == "prompt_size"
