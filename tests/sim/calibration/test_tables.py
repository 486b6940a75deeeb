"""Tables of kernels, messages and decode steps: found by pattern, read by column."""

import csv
from pathlib import Path
from typing import Any

import pytest

from trimtab.sim.calibration.tables import read_decode_steps, read_kernels, read_messages
from trimtab.workload.fault import TraceError


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def kernel(tokens: int, devices: int = 1) -> dict[str, Any]:
    """A layer of width 1024 that reads 2e12 B/s, computes 5e14/s, and moves 1e12 B/s between the products."""
    width, inner = 1024, 4096
    weights = (4 * width * width + 3 * width * inner) / devices
    products = max(5e-6 + 2 * weights / 2e12, 2 * weights * tokens / 5e14) * 1000
    between = 2 * (8 * width + 3 * inner / devices) * tokens / 1e12 * 1000
    names = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
    times = {f"time_stats.{name}.median": products / 4 for name in names}
    shape = {"n_head": 8, "n_kv_head": 8, "n_embd": width, "n_expanded_embd": inner}
    own = {"num_tokens": tokens, "num_tensor_parallel_workers": devices, "time_stats.mlp_act.median": between}
    return {**times, "time_stats.add.median": "", **own, **shape}


def test_speeds_of_kernels(tmp_path: Path) -> None:
    rows = [kernel(tokens, devices) for devices in (1, 2, 4) for tokens in (1, 8, 64, 2048, 4096)]
    table(tmp_path / "vidur-profiles" / "compute_h100__some__Model__mlp.csv", rows)
    table(tmp_path / "vidur-profiles" / "compute_a100__some__Model__mlp.csv", [kernel(1)] * 3)
    kernels = read_kernels(tmp_path, "h100")
    assert kernels is not None
    assert kernels.weights_per_second == pytest.approx(2e12, rel=0.01), "launching does not count as reading"
    assert kernels.arithmetic_per_second == pytest.approx(5e14, rel=0.01)
    assert kernels.elementwise_per_second == pytest.approx(1e12, rel=0.01)
    assert read_kernels(tmp_path, "b200") is None
    assert read_kernels(tmp_path / "nowhere", "h100") is None


def test_cost_of_messages(tmp_path: Path) -> None:
    rows = [
        {"num_workers": devices, "size": size, "time_stats.all_reduce.median": 0.03 + devices * size * 1e-9}
        for devices in (2, 8)
        for size in (2048, *(n * 2**20 for n in (16, 32, 64)))
    ]
    table(tmp_path / "vidur-profiles" / "network_h100_dgx__all_reduce.csv", rows)
    per_byte = read_messages(tmp_path, "h100")
    assert per_byte == {2: pytest.approx(2e-12, rel=1e-3), 8: pytest.approx(8e-12, rel=1e-3)}
    assert read_messages(tmp_path, "a100") == {}


def step(**changes: Any) -> dict[str, Any]:
    return {
        "task": "lm-arena-chat", "gpu_model": "H100", "weight_precision": "bfloat16", "avg_batch_size": 8.0,
        "model_id": "meta-llama/Llama-3.1-8B-Instruct", "tensor_parallel": 1.0, "avg_output_len": 400.0,
        "median_itl_ms": 7.5, **changes,
    }  # fmt: skip


def test_decode_steps_of_models_whose_shape_is_known(tmp_path: Path) -> None:
    others = [
        step(gpu_model="B200"), step(weight_precision="fp8"), step(model_id="nobody/knows-7b"), step(median_itl_ms=""),
        step(model_id="mistralai/Mixtral-8x7B-v0.1"), step(avg_batch_size=256.0), step(task="code-completion"),
    ]  # fmt: skip
    table(tmp_path / "mlenergy-v3" / "configurations.csv", [step(), *others, step(tensor_parallel=2.0)])
    found = read_decode_steps(tmp_path, "h100")
    assert [(s.model.name, s.tensor_parallel, s.batch, s.context) for s in found] == [
        ("llama-3.1-8b", 1, 8.0, 450.0),
        ("llama-3.1-8b", 2, 8.0, 450.0),
    ]
    assert found[0].seconds == pytest.approx(0.0075)
    assert [s.batch for s in read_decode_steps(tmp_path, "h100", small=False)] == [256.0]


def test_a_malformed_table_is_named(tmp_path: Path) -> None:
    table(tmp_path / "mlenergy-v3" / "configurations.csv", [step(), step(avg_batch_size="eight")])
    with pytest.raises(TraceError) as caught:
        read_decode_steps(tmp_path, "h100")
    assert (caught.value.row, caught.value.field) == (3, "avg_batch_size")
    table(tmp_path / "vidur-profiles" / "compute_h100__m__mlp.csv", [{"num_tokens": 1}])
    with pytest.raises(TraceError, match="n_head"):
        read_kernels(tmp_path, "h100")
