"""From shapes and speeds to costs: what is divided among devices, and what is not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.calibration.sweeps import shape
from trimtab.sim.calibration.fitting import GUESS
from trimtab.sim.hardware import (
    accelerators,
    architecture_of,
    cost_of,
    kv_blocks_of,
    load_accelerator,
    sharpness_of,
)


@pytest.mark.parametrize(
    ("name", "billions", "kv_bytes"),
    [
        ("meta-llama/Llama-2-7b-hf", 6.74, 524_288),
        ("meta-llama/Llama-2-70b-hf", 68.98, 327_680),
        ("codellama/CodeLlama-34b-Instruct-hf", 33.74, 196_608),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", 8.03, 131_072),
        ("meta-llama/Llama-3.2-1B-Instruct", 1.236, 32_768),
        ("Qwen/Qwen3-32B", 32.76, 262_144),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7, 131_072),
    ],
)
def test_weights_and_cache_are_those_of_the_model_cards(name: str, billions: float, kv_bytes: int) -> None:
    model = shape(name)
    assert model.bytes_of_weights / 2e9 == pytest.approx(billions, rel=0.003)
    assert model.kv_bytes_per_token == kv_bytes


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-2-13b-chat-hf", 13.02),
        ("meta-llama/Llama-3.1-405B", 405.9),
        ("meta-llama/Llama-3.2-3B", 3.21),
        ("mistralai/Mistral-7B-Instruct-v0.2", 7.24),
        ("mistralai/Mistral-Nemo-Instruct-2407", 12.25),
        ("mistralai/Mistral-Small-24B-Instruct-2501", 23.57),
        ("mistralai/Mixtral-8x22B-v0.1", 140.6),
        ("Qwen/Qwen2.5-1.5B", 1.54),
        ("Qwen/Qwen2.5-3B-Instruct", 3.09),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62),
        ("Qwen/Qwen2.5-14B", 14.77),
        ("Qwen/Qwen2.5-32B", 32.76),
        ("Qwen/Qwen2.5-72B", 72.71),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-14B", 14.77),
        ("microsoft/phi-4", 14.66),
        ("01-ai/Yi-34B-Chat", 34.39),
        ("ibm-granite/granite-3.1-8b-instruct", 8.17),
        ("internlm/internlm2-20b", 19.86),
    ],
)
def test_shapes_have_as_many_weights_as_their_model_cards_say(name: str, billions: float) -> None:
    assert shape(name).bytes_of_weights / 2e9 == pytest.approx(billions, rel=0.003)


@pytest.mark.parametrize(
    "name", ["nobody/Unheard-Of-9B", "nvidia/Llama-3.1-8B-Instruct-FP8", "x/Llama-2-70b-AWQ", "Llama-2-7b2", ""]
)
def test_a_shape_that_is_not_known_is_none(name: str) -> None:
    assert architecture_of(name) is None


def test_experts_are_read_but_not_all_of_them_computed_with() -> None:
    mixtral = shape("mixtral-8x7b")
    assert mixtral.active_weights < 0.3 * mixtral.layer_weights


def test_more_devices_divide_the_work_and_talk() -> None:
    model = shape("llama-2-70b")
    one, four = cost_of(model, GUESS, 1), cost_of(model, GUESS, 4)
    assert four.weights == pytest.approx(one.weights / 4)
    assert four.arithmetic == pytest.approx(one.arithmetic / 4)
    assert four.per_context_token == pytest.approx(one.per_context_token / 4)
    assert four.per_attention_pair == pytest.approx(one.per_attention_pair / 4)
    assert four.base == pytest.approx(one.base + GUESS.per_step_parallel + 160 * GUESS.all_reduce_latency[4])
    assert four.per_prefill_token > one.per_prefill_token / 4
    assert four.sharpness < one.sharpness


def test_a_kv_head_is_not_divided() -> None:
    model = replace(shape("llama-2-70b"), kv_heads=2)
    assert cost_of(model, GUESS, 4).per_context_token == pytest.approx(cost_of(model, GUESS, 2).per_context_token)


def test_sharpness_is_bounded() -> None:
    assert sharpness_of(4e8, 4e8) == 2
    assert 1 < sharpness_of(1e3, 4e8) < 2 < sharpness_of(1e14, 4e8) < 10


def test_the_cache_is_as_large_as_an_engine_logged() -> None:
    """CodeLlama-34B on one H100: 40,592 tokens, in the recorded run's log; Llama-2-7B: from the usage in its log."""
    limits = {"max_num_batched_tokens": 4096, "max_num_seqs": 256}
    blocks = kv_blocks_of(shape("codellama-34b"), GUESS, **limits)
    assert blocks == pytest.approx(40_592 / 16, rel=0.01)
    assert kv_blocks_of(shape("llama-2-7b"), GUESS, **limits) == pytest.approx(7440, rel=0.01)


def test_what_takes_memory_from_the_cache() -> None:
    model = shape("llama-2-7b")
    usual = kv_blocks_of(model, GUESS, max_num_batched_tokens=2048, max_num_seqs=64)
    assert kv_blocks_of(model, GUESS, max_num_batched_tokens=8192, max_num_seqs=64) < usual
    assert kv_blocks_of(model, GUESS, max_num_batched_tokens=2048, max_num_seqs=1024) < usual
    less = kv_blocks_of(model, GUESS, max_num_batched_tokens=2048, max_num_seqs=64, gpu_memory_utilization=0.5)
    assert less < 0.6 * usual
    halved = kv_blocks_of(model, GUESS, max_num_batched_tokens=2048, max_num_seqs=64, block_size=32)
    assert halved == pytest.approx(usual / 2, abs=1)
    both = kv_blocks_of(model, GUESS, tensor_parallel=2, max_num_batched_tokens=2048, max_num_seqs=64)
    assert both > 2 * usual, "the weights are divided too"
    assert kv_blocks_of(shape("llama-2-70b"), GUESS, max_num_batched_tokens=2048, max_num_seqs=64) < 0


def test_what_ships_is_complete() -> None:
    assert "h100" in accelerators()
    fitted = load_accelerator("h100")
    assert fitted is not None
    assert len(fitted.without) == 2
    assert fitted.tuned
    for speeds in (fitted.accelerator, *fitted.without.values()):
        assert 2.0e12 < speeds.weights_per_second < 3.35e12, "below what the memory can do"
        assert 4e14 < speeds.arithmetic_per_second < 9.9e14, "below what the cores can do"
        assert set(speeds.all_reduce_latency) == set(speeds.all_reduce_per_byte) == {2, 4, 8}
    assert load_accelerator("abacus") is None
    assert load_accelerator("../profiles/tiny") is None


SHAPES = st.sampled_from(["llama-2-7b", "codellama-34b", "llama-2-70b", "llama-3.1-8b", "qwen3-32b", "llama-3.2-3b"])
LOADS = st.tuples(st.integers(1, 8192), st.integers(1, 256), st.integers(1, 10_000), st.integers(0, 10**7))


@given(SHAPES, st.sampled_from([1, 2, 4, 8]), LOADS, LOADS)
def test_more_work_takes_longer(name: str, devices: int, one: tuple[int, ...], other: tuple[int, ...]) -> None:
    cost = cost_of(shape(name), GUESS, devices)

    def seconds(load: tuple[int, ...]) -> float:
        prompt, decodes, context, pairs = load
        return cost.seconds(
            prefill_tokens=prompt, decodes=decodes, context_tokens=context * decodes, attention_pairs=pairs
        )

    both = tuple(map(max, one, other))
    assert seconds(both) >= max(seconds(one), seconds(other))
    assert (
        0
        < seconds(both)
        < seconds(one)
        + seconds(other)
        + cost.seconds(prefill_tokens=0, decodes=256, context_tokens=256 * 10_000, attention_pairs=0)
    )


@given(SHAPES, LOADS)
def test_devices_help_and_never_more_than_their_number(name: str, load: tuple[int, ...]) -> None:
    prompt, decodes, context, pairs = load
    times = [
        cost_of(shape(name), GUESS, devices).seconds(
            prefill_tokens=prompt, decodes=decodes, context_tokens=context * decodes, attention_pairs=pairs
        )
        for devices in (1, 2, 4)
    ]
    for devices, time in zip((2, 4), times[1:], strict=True):
        assert time > times[0] / devices


@given(SHAPES, st.integers(1, 16_384), st.integers(1, 512), st.floats(0.3, 0.95))
def test_the_cache_never_exceeds_the_memory(name: str, budget: int, sequences: int, utilization: float) -> None:
    model = shape(name)
    blocks = kv_blocks_of(
        model, GUESS, max_num_batched_tokens=budget, max_num_seqs=sequences, gpu_memory_utilization=utilization
    )
    used = blocks * 16 * model.kv_bytes_per_token + model.bytes_of_weights
    assert used <= utilization * GUESS.memory_gib * 2**30 + 16 * model.kv_bytes_per_token
