"""Profiles: the shipped ones are sound, and a malformed one is refused with the field's name."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.model.problem import Problem
from trimtab.sim.profile import (
    SHIPPED,
    Errors,
    FrontEnd,
    IterationCost,
    SleepCost,
    load_profile,
    parse_profile,
    shipped_profiles,
)
from trimtab.sim.serving import EngineConfig


def raw(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((SHIPPED / "tiny.yaml").read_text()), **changes}


@pytest.mark.parametrize("name", shipped_profiles())
def test_a_shipped_profile_is_sound(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    config = EngineConfig.of(profile)
    assert profile.max_model_len <= (config.kv_blocks - 1) * config.block_size
    assert len(profile.source) > 20, "it says where the numbers come from"
    assert profile.error
    decode = profile.iteration.seconds(prefill_tokens=0, decodes=8, context_tokens=8000, attention_pairs=0)
    prefill = profile.iteration.seconds(prefill_tokens=1024, decodes=0, context_tokens=0, attention_pairs=1024**2 / 2)
    assert 0.002 < decode < prefill < 0.5


def test_the_shipped_profiles_cover_what_the_samples_name() -> None:
    assert {"tiny", "llama-3.1-8b-h100", "llama-2-70b-a100-tp8", "llama-2-70b-h100-tp8"} <= set(shipped_profiles())


def test_what_was_not_measured_is_marked() -> None:
    derived = {"llama-3.1-8b-h100", "llama-3.1-70b-h100-tp4", "llama-2-70b-h100-tp4"}
    assert {"tiny", *derived} <= {name for name in shipped_profiles() if load_profile(name).extrapolated}
    measured = load_profile("codellama-34b-h100")
    assert not measured.extrapolated


@pytest.mark.parametrize("name", [name for name in shipped_profiles() if load_profile(name).extrapolated])
def test_what_was_not_measured_is_less_sure(name: str) -> None:
    profile = load_profile(name)
    measured = [other for other in map(load_profile, shipped_profiles()) if not other.extrapolated]
    mates = [other for other in measured if other.accelerator == profile.accelerator and other.front_end != FrontEnd()]
    named = [mate for mate in mates if mate.name in profile.source]
    assert mates or name == "tiny"
    for f in fields(Errors):
        for mate in named or mates:
            assert getattr(profile.errors, f.name) > 1.99 * getattr(mate.errors, f.name)
            assert getattr(profile.worst_errors, f.name) > 1.99 * getattr(mate.worst_errors, f.name)


@pytest.mark.parametrize("name", shipped_profiles())
def test_the_median_error_is_not_the_worst_one(name: str) -> None:
    profile = load_profile(name)
    for f in fields(Errors):
        usual, worst = (getattr(errors, f.name) for errors in (profile.errors, profile.worst_errors))
        assert (usual, worst) == (0, 0) if name == "tiny" else 0 < usual < worst


def test_errors_are_twice_the_largest_where_nothing_was_measured() -> None:
    assert Errors.extrapolated(Errors(0.1, 0.2, 0.3), Errors(0.4, 0.0, 0.1)) == Errors(0.8, 0.4, 0.6)


def test_products_overlap_the_sharper_the_larger_they_are() -> None:
    gradual = IterationCost(0.001, 0, 0, 0, 0, weights=0.01, arithmetic=1e-4)
    sharp = replace(gradual, sharpness=4.0)

    def seconds(cost: IterationCost, tokens: int) -> float:
        return cost.seconds(prefill_tokens=tokens, decodes=0, context_tokens=0, attention_pairs=0) - cost.base

    assert seconds(gradual, 100) == pytest.approx(0.01 * 2**0.5)
    assert seconds(sharp, 100) == pytest.approx(0.01 * 2**0.25)
    for cost in (gradual, sharp):
        assert seconds(cost, 1) == pytest.approx(cost.weights, rel=1e-3), "reading the weights is all"
        assert seconds(cost, 10_000) == pytest.approx(1.0, rel=1e-3), "computing is all"


def test_what_a_profile_need_not_say() -> None:
    old = raw()
    for name in ("front_end", "errors", "worst_errors", "intervals"):
        old.pop(name, None)
    profile = parse_profile(old)
    assert profile.front_end.seconds(1000) == 0.0
    assert profile.errors.e2e == 0.0
    assert profile.worst_errors == Errors()
    assert parse_profile(raw(errors={"ttft": 0.2})).errors == Errors(ttft=0.2), "only one was measured"
    told = parse_profile(raw(front_end={"per_request": 0.5, "per_prompt_token": 0.001}))
    assert told.front_end.seconds(1000) == 1.5


def test_a_faster_accelerator_is_faster() -> None:
    old, new = load_profile("llama-2-70b-a100-tp8").iteration, load_profile("llama-2-70b-h100-tp8").iteration
    shape = {"prefill_tokens": 1024, "decodes": 16, "context_tokens": 16_000, "attention_pairs": 5e5}
    assert new.seconds(**shape) < old.seconds(**shape)  # type: ignore[arg-type]


def test_a_profile_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw(name="mine")))
    assert load_profile(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surplus": 1}, "surplus is not a field"),
        ({"max_num_seqs": 0}, "max_num_seqs must be a whole number above zero, got 0"),
        ({"max_num_seqs": 4096}, "max_num_batched_tokens is 2048, below max_num_seqs"),
        ({"kv_blocks": 256}, "kv_blocks holds 4080 tokens beside the block kept free, fewer than max_model_len"),
        ({"model": 7}, "model must be text, got 7"),
        ({"extrapolated": "no"}, "extrapolated must be true or false, got 'no'"),
        ({"intervals": [1]}, "intervals must be a mapping"),
        ({"intervals": {"iteration.base": [2, 1]}}, "iteration.base must be a list of two ascending numbers"),
        ({"intervals": {"iteration.base": 0.1}}, "iteration.base must be a list of two ascending numbers"),
        ({"block_size": 1.5}, "block_size must be a whole number above zero, got 1.5"),
        ({"kv_blocks": True}, "kv_blocks must be a whole number above zero, got True"),
        ({"iteration": 3}, "iteration must be a mapping"),
        ({"iteration": {"base": 0.1}}, "iteration.per_attention_pair is missing"),
        ({"errors": 0.1}, "errors must be a mapping"),
        ({"errors": {"worst": 0.1}}, "errors.worst is not a field of a profile"),
        ({"worst_errors": {"ttft": "10 %"}}, "worst_errors.ttft must be a number of at least 0, got '10 %'"),
        (
            {"errors": {"e2e": 0.2}, "worst_errors": {"e2e": 0.1}},
            "worst_errors.e2e is 0.1, below errors.e2e, the median, which is 0.2",
        ),
        ({"sleep": dict.fromkeys(SleepCost.__dataclass_fields__, -1)}, "must be a number of at least 0, got -1"),
        ({"iteration": dict.fromkeys(IterationCost.__dataclass_fields__, 0)}, "iteration.base must be above zero"),
        (
            {"iteration": dict.fromkeys(IterationCost.__dataclass_fields__, float("nan"))},
            "must be a number of at least 0, got nan",
        ),
    ],
)
def test_a_malformed_profile_names_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_profile(raw(**changes))


def test_a_missing_field_is_named() -> None:
    incomplete = raw()
    del incomplete["kv_blocks"]
    with pytest.raises(ValueError, match="kv_blocks is missing"):
        parse_profile(incomplete)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "name: x"])
def test_a_malformed_file_names_itself(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(Problem, match=r"broken\.yaml is malformed"):
        load_profile(str(path))


@pytest.mark.parametrize("name", ["nope", "nowhere/nope.yaml"])
def test_an_unknown_profile_lists_the_known_ones(name: str) -> None:
    with pytest.raises(Problem, match="there is no profile") as caught:
        load_profile(name)
    assert "tiny" in caught.value.fix


@pytest.mark.parametrize(("level", "asleep", "awake"), [(0, 0.0, 0.0), (1, 1.0, 3.0), (2, 2.0, 4.0)])
def test_sleep_costs_by_level(level: int, asleep: float, awake: float) -> None:
    cost = SleepCost(sleep_level_1=1.0, sleep_level_2=2.0, wake_level_1=3.0, wake_level_2=4.0)
    assert (cost.to_sleep(level), cost.to_wake(level)) == (asleep, awake)
