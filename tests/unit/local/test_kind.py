"""The files for kind agree with those for other clusters, and with each other. kind itself is not run."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.api import keys
from trimtab.local import paths

TOP = paths.shipped("manifests").parent


def load(name: str) -> dict[str, Any]:
    content = yaml.safe_load((TOP / name).read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture
def cluster() -> dict[str, Any]:
    return load("kind-config.yaml")


def patches(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    loaded = [yaml.safe_load(text) for text in cluster["kubeadmConfigPatches"]]
    return {patch["apiVersion"].rpartition("/")[2]: patch for patch in loaded}


def test_both_forms_of_the_kubeadm_patch_say_the_same(cluster: dict[str, Any]) -> None:
    found = patches(cluster)
    old, new = found["v1beta3"]["scheduler"], found["v1beta4"]["scheduler"]
    assert [{"name": name, "value": value} for name, value in old["extraArgs"].items()] == new["extraArgs"]
    assert old["extraVolumes"] == new["extraVolumes"]


def test_the_file_that_the_scheduler_reads_is_mounted_twice(cluster: dict[str, Any]) -> None:
    """Into kind's node, and from there into the static pod."""
    (mount,) = cluster["nodes"][0]["extraMounts"]
    (volume,) = patches(cluster)["v1beta4"]["scheduler"]["extraVolumes"]
    (argument,) = patches(cluster)["v1beta4"]["scheduler"]["extraArgs"]
    assert mount["containerPath"] == volume["hostPath"]
    in_pod = Path(argument["value"])
    assert in_pod.parent == Path(volume["mountPath"])
    assert (TOP / mount["hostPath"] / in_pod.name).is_file()


def test_the_scheduler_asks_the_extender_as_everywhere_else() -> None:
    (ours,) = load("manifests/kind/scheduler-config.yaml")["extenders"]
    (general,) = load("manifests/scheduler-config.yaml")["extenders"]
    assert {**ours, "urlPrefix": ""} == {**general, "urlPrefix": ""}


def test_the_scheduler_asks_the_address_of_the_service(cluster: dict[str, Any]) -> None:
    service = load("manifests/kind/extender-service.yaml")["spec"]
    (extender,) = load("manifests/kind/scheduler-config.yaml")["extenders"]
    assert extender["urlPrefix"] == f"http://{service['clusterIP']}:{service['ports'][0]['port']}/v1"
    assert ipaddress.ip_address(service["clusterIP"]) in ipaddress.ip_network(cluster["networking"]["serviceSubnet"])


def test_workers_have_a_place_and_an_accelerator(cluster: dict[str, Any]) -> None:
    workers = [node for node in cluster["nodes"] if node["role"] == "worker"]
    wanted = {keys.SITE, keys.AISLE, keys.ROW, keys.RACK, keys.ACCELERATOR}
    assert [set(node["labels"]) for node in workers] == [wanted, wanted]
    racks = {node["labels"][keys.RACK] for node in workers}
    documents = yaml.safe_load_all((TOP / "manifests" / "samples" / "10-power.yaml").read_text())
    assert racks == {item["metadata"]["name"] for item in documents if item["spec"]["type"] == "Rack"}
