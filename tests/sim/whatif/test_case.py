"""A pool's manifest becomes something that can be simulated, or says why not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sim.whatif.pools import LEVELS, case, manifest, write_pool
from trimtab.api import ServingPool
from trimtab.model.problem import Problem
from trimtab.sim.whatif import case as module
from trimtab.sim.whatif.case import case_of, read_pool

ROOT = Path(__file__).parents[3]


def test_the_sample_pool_is_what_its_manifest_says() -> None:
    pool = read_pool(ROOT / "manifests" / "samples" / "20-chat.yaml")
    found = case_of(pool, profile=None, model=None, shares={}, replicas=None)
    assert (found.name, found.profile_name, found.replicas, found.gpus) == ("chat", "llama-3.1-8b-h100", 2, 1)
    assert (found.capacity, found.policy) == (64, "FCFS")
    assert (found.bounds.max_requests, found.bounds.max_waiting_seconds) == (2000, 120.0)
    (level,) = found.levels
    assert (level.name, level.ttft_seconds, level.tpot_seconds, level.objective) == ("interactive", 2.0, 0.06, 95.0)
    assert level.described == "TTFT ≤ 2 s, TPOT ≤ 60 ms for 95 % of requests"
    assert any("extrapolated" in warning for warning in found.warnings)


@pytest.mark.parametrize("sample", ["20-chat.yaml", "21-summarize.yaml"])
def test_every_sample_that_serves_a_known_model_can_be_asked_about(sample: str) -> None:
    pool = read_pool(ROOT / "manifests" / "samples" / sample)
    assert case_of(pool, profile=None, model=None, shares={}, replicas=None).profile.kv_blocks > 1000


def test_engine_arguments_set_the_engines_limits() -> None:
    arguments = ("--profile", "tiny", "--max-num-seqs", "8", "--max-num-batched-tokens=512", "--max-model-len=300")
    found = case(args=arguments)
    assert (found.config.max_num_seqs, found.config.max_num_batched_tokens, found.longest) == (8, 512, 300)
    assert found.gpus == 2


def test_limits_beyond_the_profile_are_warned_of_or_refused() -> None:
    found = case(args=("--profile=tiny", "--max-num-seqs=1000", "--max-num-batched-tokens=100000"))
    assert sum("beyond" in warning for warning in found.warnings) == 2
    with pytest.raises(Problem, match="--max-model-len 9999999 is beyond"):
        case(args=("--profile=tiny", "--max-model-len=9999999"))
    with pytest.raises(Problem, match="--max-num-seqs is 'many'"):
        case(args=("--profile=tiny", "--max-num-seqs=many"))


def test_a_profile_of_something_else_is_used_with_warnings_only_if_it_is_named() -> None:
    changes: dict[str, Any] = {"args": ("--tensor-parallel-size=2",), "selector": "nvidia-a100"}
    found = case(profile="llama-3.1-8b-h100", **changes)
    said = "; ".join(found.warnings)
    assert "the profile is of meta-llama/Llama-3.1-8B-Instruct, the pool serves tiny" in said
    assert "the pool asks for nvidia-a100" in said
    assert "tensor parallelism 1, the pool runs 2" in said
    with pytest.raises(Problem, match="nothing was calibrated for tiny on nvidia-a100 at tensor parallelism 2"):
        case(**changes)


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("hf://meta-llama/Llama-3.1-8B-Instruct", "llama318b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama318b"),
        ("llama-3.1-8b", "llama318b"),
        ("codellama/CodeLlama-34b-Instruct-hf", "codellama34b"),
    ],
)
def test_names_of_a_model_are_the_same_model(name: str, bare: str) -> None:
    assert module._bare(name) == bare


@pytest.mark.parametrize(
    ("name", "gpu"), [("NVIDIA H100 80GB", "h100"), ("nvidia-h100", "h100"), ("NVIDIA A100-SXM4-80GB", "a100")]
)
def test_names_of_an_accelerator_are_the_same_accelerator(name: str, gpu: str) -> None:
    assert module._gpu(name) == gpu


def test_a_model_that_nobody_measured_is_scaled_and_said_to_be() -> None:
    models = [{"name": "big", "weights": "hf://Qwen/Qwen2.5-32B-Instruct"}]
    found = case(args=("--tensor-parallel-size=4",), selector="nvidia-h100", models=models)
    assert found.profile.extrapolated
    assert found.profile.tensor_parallel == 4
    assert any("scaled" in warning for warning in found.warnings)


def test_shares_say_who_asks_for_what() -> None:
    assert [level.name for level in case().levels] == ["fast"]
    fast, slow = case(shares={"fast": 3, "slow": 1}).levels
    assert (fast.share, slow.share) == (0.75, 0.25)
    assert (fast.deadline_seconds, slow.deadline_seconds) == (0.5, 60)
    with pytest.raises(Problem, match="--share names no level of the pool: medium\nfix: name one of fast, slow"):
        case(shares={"medium": 1})


def test_a_pool_without_levels_promises_nothing() -> None:
    with pytest.raises(Problem, match="declares no service level"):
        case(serviceLevels=[])


def test_profiles_of_the_pool_say_how_much_a_replica_gets_at_once() -> None:
    variant = {"name": "one", "gpus": 4, "profiles": [{"accelerator": "nvidia-h100", "concurrency": 12}]}
    found = case(models=[{"name": "tiny", "variants": [variant]}])
    assert (found.capacity, found.gpus) == (12, 4)


@pytest.mark.parametrize(
    ("queue", "policy"),
    [({}, "FCFS"), ({"orderWithinGroup": "SSJF"}, "SSJF"), ({"policy": "EDF", "orderWithinGroup": "SSJF"}, "EDF")],
)
def test_the_pools_own_order_is_named(queue: dict[str, str], policy: str) -> None:
    assert case(queue=queue).policy == policy


def test_several_models_are_looked_at_one_by_one() -> None:
    pool = ServingPool.model_validate(manifest(models=[{"name": "tiny"}, {"name": "other"}]))
    with pytest.raises(Problem, match="several models"):
        case_of(pool, profile=None, model=None, shares={}, replicas=None)
    assert case_of(pool, profile=None, model="tiny", shares={}, replicas=None).model == "tiny"
    with pytest.raises(Problem, match="does not serve 'nobody'"):
        case_of(pool, profile=None, model="nobody", shares={}, replicas=None)


def test_a_pool_is_found_among_other_documents(tmp_path: Path) -> None:
    other = manifest() | {"metadata": {"name": "second"}}
    path = write_pool(tmp_path, {"kind": "Namespace", "metadata": {"name": "ai"}}, manifest(), other)
    assert read_pool(path, "second").metadata.name == "second"
    with pytest.raises(Problem, match="holds 2 ServingPools\nfix: it holds small, second; choose with --pool"):
        read_pool(path)
    with pytest.raises(Problem, match="no ServingPool called 'third'"):
        read_pool(path, "third")


def test_what_is_wrong_with_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"cannot read .*absent.yaml"):
        read_pool(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(Problem, match="is not YAML"):
        read_pool(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text(yaml.safe_dump({"kind": "Pod"}))
    with pytest.raises(Problem, match="holds no ServingPool"):
        read_pool(tmp_path / "empty.yaml")
    path = write_pool(tmp_path, manifest(serviceLevels=[LEVELS[0] | {"percentile": 200}]))
    with pytest.raises(Problem, match=r"explain servingpool\.spec\.serviceLevels\.percentile"):
        read_pool(path)
    path = write_pool(tmp_path, manifest() | {"metadata": {"namespace": "ai"}})
    with pytest.raises(Problem, match=r"correct metadata\.name in the manifest"):
        read_pool(path)
