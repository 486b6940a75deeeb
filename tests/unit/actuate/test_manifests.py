from typing import Any

import orjson
import pytest

from tests.support.operators import a_pool, target
from trimtab.actuate.manifests import OWNED, Blueprint
from trimtab.api import ServingPool, keys
from trimtab.kube import Object
from trimtab.kube.resources import DEPLOYMENTS, PDBS, SERVICES


def parsed(**spec: Any) -> ServingPool:
    pool = a_pool("chat", "ai", **spec)
    pool["metadata"] |= {"uid": "u-1", "generation": 1}
    return ServingPool.model_validate(pool)


def a_blueprint(**spec: Any) -> Blueprint:
    found = Blueprint.of(parsed(**spec))
    assert found is not None
    return found


def engine(deployment: Object) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"][0]


def test_a_target_has_no_blueprint() -> None:
    assert Blueprint.of(parsed(targetRef=target("web"))) is None


@pytest.mark.parametrize("resource", OWNED)
def test_every_object_is_owned_labelled_and_named_like_the_pool(resource: Any) -> None:
    obj = a_blueprint().build(resource)
    metadata = obj["metadata"]
    assert (metadata["name"], metadata["namespace"], metadata["labels"][keys.POOL]) == ("chat", "ai", "chat")
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("ServingPool", "u-1", True)
    assert obj["kind"] == resource.kind


def test_selectors_are_the_pools_label_alone() -> None:
    blueprint = a_blueprint()
    assert blueprint.build(DEPLOYMENTS)["spec"]["selector"] == {"matchLabels": {keys.POOL: "chat"}}
    assert blueprint.build(SERVICES)["spec"]["selector"] == {keys.POOL: "chat"}
    assert blueprint.build(PDBS)["spec"]["selector"] == {"matchLabels": {keys.POOL: "chat"}}


def test_replicas_are_absent_when_others_set_them() -> None:
    assert "replicas" not in a_blueprint().build(DEPLOYMENTS)["spec"]
    assert a_blueprint().build(DEPLOYMENTS, 0)["spec"]["replicas"] == 0


def test_the_template_keeps_everything_it_says_and_gains_the_label() -> None:
    template = {
        "metadata": {"labels": {"team": "search"}, "annotations": {"a": "b"}},
        "spec": {"containers": [{"name": "engine", "image": "x"}, {"name": "sidecar", "image": "y"}], "priority": 3},
    }
    built = a_blueprint(workload={"template": template}).build(DEPLOYMENTS)["spec"]["template"]
    assert built["metadata"] == {"labels": {"team": "search", keys.POOL: "chat"}, "annotations": {"a": "b"}}
    assert built["spec"] == template["spec"]


def test_the_best_variant_adds_its_arguments_and_gpus_to_the_engine_alone() -> None:
    variants = [
        {"name": "bf16", "args": ["--tp=2"], "gpus": 2, "qualityPermille": 1000},
        {"name": "fp8", "args": ["--fp8"], "gpus": 1, "qualityPermille": 990},
    ]
    template = {
        "spec": {"containers": [{"name": "engine", "image": "x", "args": ["serve"]}, {"name": "s", "image": "y"}]}
    }
    built = a_blueprint(models=[{"name": "m", "variants": variants}], workload={"template": template}).build(
        DEPLOYMENTS
    )
    assert engine(built)["args"] == ["serve", "--tp=2"]
    assert engine(built)["resources"] == {"limits": {keys.GPU_RESOURCE: "2"}}
    assert built["spec"]["template"]["spec"]["containers"][1] == {"name": "s", "image": "y"}


def test_a_template_that_names_its_gpus_keeps_them() -> None:
    resources = {"limits": {keys.GPU_RESOURCE: "8", "memory": "1Gi"}}
    template = {"spec": {"containers": [{"name": "engine", "image": "x", "resources": resources}]}}
    models = [{"name": "m", "variants": [{"name": "v", "gpus": 2}]}]
    built = a_blueprint(models=models, workload={"template": template}).build(DEPLOYMENTS)
    assert engine(built)["resources"] == resources


def test_building_twice_gives_the_same_bytes() -> None:
    one, other = a_blueprint(), a_blueprint()
    for resource in OWNED:
        assert orjson.dumps(one.build(resource, 2)) == orjson.dumps(other.build(resource, 2))
