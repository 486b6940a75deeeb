"""The files that components read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.api import keys
from trimtab.local import config, fakes, paths
from trimtab.local.record import PORTS

PORT = {name: 21000 + index for index, name in enumerate(PORTS)}
PROGRAMS = {
    name: Path("/p", name) for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
}


def kwokctl(**more: bool) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(config.kwokctl(PORT, PROGRAMS, Path("/c"), **more)))


def test_everything_binds_to_loopback() -> None:
    assert kwokctl()[0]["options"]["bindAddress"] == "127.0.0.1"


def test_every_port_and_program_is_given_so_that_nothing_is_looked_for_or_downloaded() -> None:
    options = kwokctl()[0]["options"]
    assert {options[name] for name in options if name.endswith("Port")} == set(range(21000, 21006))
    assert {options[name] for name in options if name.endswith("Binary")} == {str(path) for path in PROGRAMS.values()}


def test_rate_limits_are_lifted_only_when_asked() -> None:
    assert kwokctl()[0]["options"]["disableQPSLimits"] is False
    assert kwokctl(disable_qps_limits=True)[0]["options"]["disableQPSLimits"] is True


def test_kwok_keeps_its_hands_off_nodes_without_its_annotation() -> None:
    patches = {patch["name"]: patch["extraArgs"] for patch in kwokctl()[0]["componentsPatches"]}
    assert {"key": "manage-all-nodes", "value": "false"} in patches["kwok-controller"]
    selector = f"{keys.FAKE_TAINT}=fake"
    assert {"key": "manage-nodes-with-annotation-selector", "value": selector} in patches["kwok-controller"]


def test_stages_cover_nodes_and_the_life_of_pods() -> None:
    stages = kwokctl()[1:]
    assert {stage["metadata"]["name"] for stage in stages} == {
        "node-ready",
        "pod-ready",
        "pod-resized",
        "pod-resize-pending",
        "pod-complete",
        "pod-delete",
    }
    assert all(stage["kind"] == "Stage" for stage in stages)


def test_stages_use_the_annotation_of_the_key_table() -> None:
    assert paths.shipped("stages.yaml").read_text().count(f'annotations["{keys.PLAY_RESIZE}"]') == 2


def test_the_scheduler_asks_our_extender_on_its_port_and_survives_without_it() -> None:
    (extender,) = yaml.safe_load(config.scheduler(21007))["extenders"]
    assert extender["urlPrefix"] == "http://127.0.0.1:21007/v1"
    assert extender["ignorable"] is True
    assert extender["nodeCacheCapable"] is True
    assert extender["httpTimeout"] == "200ms"
    managed = {item["name"]: item["ignoredByScheduler"] for item in extender["managedResources"]}
    assert managed[keys.GPU_RESOURCE] is False
    assert managed[keys.PLACEMENT_RESOURCE] is True


def test_prometheus_scrapes_each_component_on_loopback() -> None:
    jobs = yaml.safe_load(config.prometheus(PORT, Path("/k"), Path("/pki")))["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"][0] for job in jobs if "static_configs" in job}
    assert targets["etcd"] == f"127.0.0.1:{PORT['etcd']}"
    assert targets["kube-scheduler"] == f"127.0.0.1:{PORT['scheduler']}"
    assert all(target.startswith("127.0.0.1:") for target in targets.values())


def test_prometheus_finds_process_pods_through_the_api_server() -> None:
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load(config.prometheus(PORT, Path("/k"), Path("/pki")))["scrape_configs"]
    }
    for name in ("trimtab-pods", "engines"):
        assert jobs[name]["kubernetes_sd_configs"] == [{"role": "pod", "kubeconfig_file": "/k"}]
        kept = [rule["source_labels"][0] for rule in jobs[name]["relabel_configs"] if rule.get("action") == "keep"]
        assert "__meta_kubernetes_pod_label_trimtab_dev_run_as" in kept


@pytest.mark.parametrize(
    ("index", "row", "rack", "aisle"),
    [
        (0, "row-1", "row-1-rack-0", "aisle-1"),
        (3, "row-1", "row-1-rack-0", "aisle-1"),
        (4, "row-1", "row-1-rack-1", "aisle-1"),
        (8, "row-2", "row-2-rack-0", "aisle-1"),
        (16, "row-3", "row-3-rack-0", "aisle-2"),
    ],
)
def test_a_node_has_its_place_in_the_hall(index: int, row: str, rack: str, aisle: str) -> None:
    labels = fakes.place(index)
    assert (labels[keys.ROW], labels[keys.RACK], labels[keys.AISLE]) == (row, rack, aisle)


def test_nodes_are_ready_tainted_and_have_accelerators() -> None:
    nodes = list(fakes.nodes(9, ["a100", "h100"], now="2026-01-01T00:00:00Z"))
    assert [node["metadata"]["name"] for node in nodes][::8] == ["fake-0001", "fake-0009"]
    assert [node["metadata"]["labels"][keys.ACCELERATOR] for node in nodes] == ["a100"] * 4 + ["h100"] * 4 + ["a100"]
    for node in nodes:
        assert node["status"]["allocatable"][keys.GPU_RESOURCE] == "8"
        assert node["status"]["conditions"][0] | {"message": ""} == {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        assert node["spec"]["taints"] == [{"key": keys.FAKE_TAINT, "value": "fake", "effect": "NoSchedule"}]
        assert node["metadata"]["annotations"] == {keys.FAKE_TAINT: "fake"}
        assert node["metadata"]["labels"][keys.NODE_TYPE] == "fake"


def test_every_node_has_a_name_of_its_own() -> None:
    names = [node["metadata"]["name"] for node in fakes.nodes(12000, ["h100"], now="")]
    assert len(set(names)) == 12000
