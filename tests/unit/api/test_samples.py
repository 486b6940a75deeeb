"""The samples: parsed strictly, and one for every kind that people write."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.objects import MODELS
from trimtab.api.keys import GROUP

SAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "samples"
REAL = SAMPLES.with_name("samples-real")
DOCUMENTS = [
    (path.name, document)
    for path in sorted(SAMPLES.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
OURS = [(name, document) for name, document in DOCUMENTS if document["apiVersion"].startswith(GROUP)]


@pytest.mark.parametrize(("name", "document"), OURS, ids=[f"{n}-{d['metadata']['name']}" for n, d in OURS])
def test_a_sample_is_valid(name: str, document: dict[str, Any]) -> None:
    MODELS[document["kind"]].check(document)
    assert (SAMPLES / name).read_text(encoding="utf-8").startswith("# "), "a sample begins with what it shows"


def test_the_namespace_comes_first_and_is_the_only_one() -> None:
    assert DOCUMENTS[0][1]["kind"] == "Namespace"
    assert {document["metadata"].get("namespace", "ai") for _, document in OURS} == {"ai"}


def test_every_kind_that_people_write_has_a_sample() -> None:
    """Stages come from pipelines and node states from nodes."""
    assert {document["kind"] for _, document in OURS} == set(MODELS) - {"MultimodalStage", "NodeState"}


def test_parents_members_and_neighbors_exist() -> None:
    named = {(document["kind"], document["metadata"]["name"]) for _, document in OURS}
    for _, document in OURS:
        spec = document["spec"]
        if "parent" in spec:
            assert ("PowerDomain", spec["parent"]) in named
        for member in spec.get("members", []):
            assert (member["poolRef"]["kind"], member["poolRef"]["name"]) in named


REAL_DOCUMENTS = [
    (path, document)
    for path in sorted(REAL.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
REAL_POOLS = [(path, document) for path, document in REAL_DOCUMENTS if document["kind"] == "ServingPool"]


def test_there_is_a_sample_with_a_real_engine() -> None:
    assert REAL_POOLS
    assert REAL_DOCUMENTS[0][1]["kind"] == "Namespace"


@pytest.mark.parametrize(("path", "document"), REAL_POOLS, ids=[f"{p.name}" for p, _ in REAL_POOLS])
def test_a_sample_with_a_real_engine_is_valid_and_needs_no_local_cluster(path: Path, document: dict[str, Any]) -> None:
    pool = MODELS[document["kind"]].check(document)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "a sample begins with what it shows"
    assert not [word for word in ("process-node", "run-as", "kwok", "trimtab-engine") if word in text]
    (container,) = document["spec"]["workload"]["template"]["spec"]["containers"]
    (model,) = document["spec"]["models"]
    served = f"--served-model-name={model['name']}"
    weights = f"--model={model['weights'].removeprefix('hf://')}"
    assert {served, weights, f"--port={document['spec']['engine']['port']}"} <= {*container["args"]}
    assert pool
