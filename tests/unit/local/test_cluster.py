"""What a local cluster says and does when it is not, or no longer, what it should be. No process is started."""

import json
from pathlib import Path

import pytest

from trimtab.local import components
from trimtab.local.cluster import LocalCluster
from trimtab.local.components import Component
from trimtab.model.problem import Problem


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "..", "x" * 33])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(Problem, match=r"--name: .* is not a name for a cluster"):
        LocalCluster(name)


def test_a_cluster_that_is_not_there_says_how_to_start_it(tmp_path: Path) -> None:
    for ask in (lambda c: c.ports, lambda c: c.status(), lambda c: c.components(), lambda c: c.restart("etcd")):
        with pytest.raises(Problem, match=r"there is no cluster demo\nfix: trimtab cluster up --name demo"):
            ask(LocalCluster("demo", home=tmp_path))


def test_taking_down_what_is_not_there_is_no_error_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert LocalCluster("demo", home=home).down() is False
    assert not home.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": {}}', '{"ports": {}, "programs": {}, "options": {"x": 1}}'])
def test_a_damaged_record_is_named_and_can_be_taken_down(tmp_path: Path, text: str) -> None:
    cluster = LocalCluster("demo", home=tmp_path)
    cluster.root.mkdir(parents=True)
    (cluster.root / "cluster.json").write_text(text)
    with pytest.raises(Problem, match=r"cluster\.json is damaged\nfix: trimtab cluster down --name demo"):
        cluster.status()
    assert cluster.down() is True
    assert not cluster.root.exists()


def test_a_cluster_that_never_came_up_says_so(tmp_path: Path) -> None:
    cluster = LocalCluster("demo", home=tmp_path)
    cluster.root.mkdir(parents=True)
    options = {
        "nodes": 1,
        "accelerators": ["x"],
        "prometheus": False,
        "process_node": False,
        "disable_qps_limits": False,
    }
    (cluster.root / "cluster.json").write_text(json.dumps({"ports": {}, "programs": {}, "options": options}))
    with pytest.raises(Problem, match="cluster demo never came up completely"):
        cluster.status()


def test_clusters_are_listed_by_name(tmp_path: Path) -> None:
    assert LocalCluster.names(tmp_path) == []
    for name in ("b", "a", "Not-One"):
        (tmp_path / "clusters" / name).mkdir(parents=True)
    (tmp_path / "clusters" / "c.lock").touch()
    assert LocalCluster.names(tmp_path) == ["a", "b"]


def test_the_name_is_left_out_of_commands_for_the_default_cluster(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"fix: trimtab cluster up$"):
        LocalCluster(home=tmp_path).status()


KWOK = """\
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokctlConfiguration
components:
- name: kube-apiserver
  binary: /c/bin/kube-apiserver
  args: [--secure-port=1]
  metric: {scheme: https, host: "127.0.0.1:1"}
- name: etcd
  binary: /c/bin/etcd
  metric: {scheme: http, host: "127.0.0.1:2"}
- name: kwok-controller
  binary: /c/bin/kwok-controller
  metric: {scheme: http, host: "127.0.0.1:3"}
---
kind: Stage
"""


def test_components_are_read_from_kwokctl_in_the_order_they_start_in(tmp_path: Path) -> None:
    (tmp_path / "kwok.yaml").write_text(KWOK)
    found = components.from_kwokctl(tmp_path)
    assert [item.name for item in found] == ["etcd", "kube-apiserver", "kwok-controller"]
    assert found[1].argv == ("/c/bin/kube-apiserver", "--secure-port=1")
    assert found[1].health == "https://127.0.0.1:1/readyz?verbose"
    assert found[0].health == "http://127.0.0.1:2/health"
    assert found[2].log == tmp_path / "logs" / "kwok-controller.log"


def test_a_component_that_does_not_answer_says_why(tmp_path: Path) -> None:
    assert "Connection refused" in Component("x", (), tmp_path, "http://127.0.0.1:9/").ailment()
    assert Component("x", (), tmp_path).ailment() == ""


@pytest.mark.parametrize("text", ["", "kind: X\n", "components:\n", "a: [", "---\n---\n"])
def test_a_file_that_kwokctl_has_not_finished_has_no_components(tmp_path: Path, text: str) -> None:
    assert components.from_kwokctl(tmp_path) == []
    (tmp_path / "kwok.yaml").write_text(text)
    assert components.from_kwokctl(tmp_path) == []


def test_failed_checks_of_a_verbose_answer_are_named() -> None:
    body = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: x\nreadyz check failed\n"
    assert components._failed_checks(body) == "not ready: etcd, poststarthook/rbac"


def test_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    component = Component("x", (), log)
    assert component.last_lines(3) == []
    log.write_text("".join(f"{number}\n" for number in range(100_000)))
    assert component.last_lines(3) == ["99997", "99998", "99999"]
