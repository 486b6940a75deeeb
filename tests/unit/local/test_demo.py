"""What the demo reads out of objects."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import trimtab
from trimtab.api import keys
from trimtab.api.serving_pool import ServingPool
from trimtab.local import demo as act
from trimtab.local.cluster import LocalCluster
from trimtab.local.demo import Seen
from trimtab.model.problem import Problem


@pytest.fixture
def sample() -> ServingPool:
    """The sample pool that the demo talks to."""
    text = (act.find_checkout().samples / "20-chat.yaml").read_text()
    return ServingPool.model_validate(yaml.safe_load(text))


def a_pod(name: str, pool: str, node: str = "", watts: str = "") -> dict[str, Any]:
    annotations = {keys.WATTS: watts} if watts else {}
    return {
        "metadata": {"name": name, "labels": {keys.POOL: pool}, "annotations": annotations},
        "spec": {"nodeName": node} if node else {},
    }


def a_node(name: str, rack: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {keys.RACK: rack}}}


def an_event(name: str, at: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": at}, "reason": "R"} | fields


def test_checkout_has_what_the_demo_needs() -> None:
    checkout = act.find_checkout()
    assert (checkout.chart / "values-local.yaml").is_file()
    assert list(checkout.samples.glob("*.yaml"))


def test_without_a_checkout_the_missing_part_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trimtab, "__file__", str(tmp_path / "site-packages" / "trimtab" / "__init__.py"))
    with pytest.raises(Problem, match=r"needs helm/trimtab/Chart\.yaml, which only a source checkout has"):
        act.find_checkout()


def test_sample_pool_says_how_fast_its_engines_run(sample: ServingPool) -> None:
    assert act.engine_speed(sample) == 5.0


@pytest.mark.parametrize(
    ("args", "speed"), [(["--speed=2.5"], 2.5), (["--speed", "3"], 3.0), ([], 1.0), (["--max-model-len=9"], 1.0)]
)
def test_engine_speed(args: list[str], speed: float, sample: ServingPool) -> None:
    fields = sample.model_dump(by_alias=True, exclude_none=True)
    fields["spec"]["workload"]["template"]["spec"]["containers"] = [{"name": "engine", "args": args}]
    assert act.engine_speed(ServingPool.model_validate(fields)) == speed


def test_service_levels_of_the_pool_become_those_of_the_replay(sample: ServingPool) -> None:
    interactive, batch = act.service_levels(sample)
    assert (interactive.name, interactive.ttft_seconds, interactive.tpot_seconds) == ("interactive", 2.0, 0.06)
    assert (batch.name, batch.completion_seconds) == ("batch", 3600)
    assert interactive.share == pytest.approx(0.85)
    assert batch.share == pytest.approx(0.15)


def test_placements_are_gathered_by_pool_and_rack() -> None:
    seen = Seen(
        nodes={"n1": a_node("n1", "r1"), "n2": a_node("n2", "r1"), "n3": a_node("n3", "r2")},
        domains={"r1": {"spec": {"limits": {"powerWatts": 6000}}}},
        pods={
            pod["metadata"]["name"]: pod
            for pod in (
                a_pod("a", "summarize", "n1", "2600"),
                a_pod("b", "summarize", "n2", "2600"),
                a_pod("c", "summarize", "n3", "2600"),
                a_pod("d", "chat", "n3"),
                a_pod("e", "summarize"),
                a_pod("f", "", "n1"),
            )
        },
    )
    found = [(p.pool, p.rack, p.nodes, p.watts, p.limit_watts) for p in seen.placements()]
    assert found == [
        ("chat", "r2", ["n3"], 0.0, None),
        ("summarize", "r1", ["n1", "n2"], 5200.0, 6000.0),
        ("summarize", "r2", ["n3"], 2600.0, None),
    ]
    assert seen.unplaced() == 1


def test_latest_events_are_in_the_order_of_their_last_time() -> None:
    seen = Seen(
        events={
            "old but repeated": an_event("x", "2026-01-01T00:00:00Z", lastTimestamp="2026-01-01T00:00:09Z"),
            "new": an_event("y", "2026-01-01T00:00:05Z"),
            "older": an_event("z", "2026-01-01T00:00:01Z", eventTime="2026-01-01T00:00:02.0Z"),
        }
    )
    assert [event["metadata"]["name"] for event in seen.latest_events(2)] == ["y", "x"]


def test_conditions_are_found_by_type() -> None:
    obj = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert act.condition_of(obj, "Ready")["status"] == "True"
    assert act.condition_of({}, "Ready") == {}


async def test_pool_that_does_not_become_ready_says_why() -> None:
    pool = {"status": {"conditions": [{"type": "Ready", "status": "False", "message": "0 of 2 replicas are ready"}]}}
    with pytest.raises(Problem, match=r"pool ai/chat is not Ready after 0\.2 s: 0 of 2 replicas are ready"):
        await act.wait_until_ready(Seen(pools={"ai/chat": pool}), "ai/chat", patience_seconds=0.2)
    with pytest.raises(Problem, match="does the operator run"):
        await act.wait_until_ready(Seen(), "ai/chat", patience_seconds=0.2)


async def test_ready_pool_is_returned(sample: ServingPool) -> None:
    pool = sample.model_dump(by_alias=True, exclude_none=True)
    ready = {"type": "Ready", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    pool["status"] = {"conditions": [ready]}
    found = await act.wait_until_ready(Seen(pools={"ai/chat": pool}), "ai/chat", patience_seconds=0.2)
    assert found.spec.models[0].name == "llama-3.1-8b"


class Programs(LocalCluster):
    """A cluster whose programs are a shell script that notes how it was called."""

    def __init__(self, folder: Path, script: str) -> None:
        super().__init__("fake", home=folder)
        self.script = folder / "program"
        self.script.write_text(f"#!/bin/sh\n{script}\n")
        self.script.chmod(0o755)

    def program(self, name: str) -> Path:
        assert name in {"helm", "kubectl"}
        return self.script


class TestInstall:
    def test_helm_is_told_chart_values_and_cluster(self, tmp_path: Path) -> None:
        cluster = Programs(tmp_path, f'echo "$@" > {tmp_path}/args; env | grep -E "KUBE|HELM" > {tmp_path}/env')
        act.install(cluster, act.find_checkout())
        called = (tmp_path / "args").read_text()
        assert called.startswith("upgrade --install trimtab /")
        assert "-n trimtab-system --create-namespace" in called
        assert "values-local.yaml --wait --timeout 120s" in called
        told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
        assert told["KUBECONFIG"] == str(cluster.kubeconfig)
        # Nothing of Helm's lands outside the cluster's own folder, which goes with the cluster.
        assert all(told[f"HELM_{kind}_HOME"].startswith(str(cluster.root)) for kind in ("CACHE", "CONFIG", "DATA"))

    def test_samples_are_applied(self, tmp_path: Path) -> None:
        act.apply_samples(Programs(tmp_path, f'echo "$@" > {tmp_path}/args'), act.find_checkout())
        assert (tmp_path / "args").read_text().strip().endswith("manifests/samples")

    def test_what_a_failing_program_said_last_is_shown(self, tmp_path: Path) -> None:
        cluster = Programs(tmp_path, "for n in 1 2 3 4 5 6 7; do echo line $n >&2; done; exit 1")
        with pytest.raises(Problem, match="`helm upgrade` failed: line 3\nline 4\nline 5\nline 6\nline 7") as caught:
            act.install(cluster, act.find_checkout())
        assert "trimtab cluster status --name fake" in caught.value.fix


class TestRemove:
    def test_only_own_files_are_deleted(self, tmp_path: Path) -> None:
        for name in ("replay.png", "requests.csv", "diary.txt"):
            (tmp_path / name).touch()
        cluster = LocalCluster("nobody", home=tmp_path / "home")
        assert act.remove(cluster, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
        assert not act.remove(cluster, tmp_path)

    def test_an_emptied_folder_goes_too(self, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "summary.json").touch()
        assert act.remove(LocalCluster("nobody", home=tmp_path / "home"), folder)
        assert not folder.exists()
