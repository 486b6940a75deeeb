"""What the gateway makes of ServingPools and pods as the API server reports them."""

import time
from typing import Any

import pytest

from trimtab.api import keys
from trimtab.decide.queueing import Bounds
from trimtab.kube import Event, EventType
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.cluster import ClusterView
from trimtab_gateway.gateway import Gateway
from trimtab_gateway.limits import Limits
from trimtab_gateway.pools import Level, PoolConfig


def a_pool(
    name: str = "chat", *, created: str = "2026-11-24T10:00:00Z", models: Any = None, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": name, "namespace": "ai", "uid": f"uid-{name}", "creationTimestamp": created},
        "spec": {
            "models": models or [{"name": "llama"}],
            "replicas": 1,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        }
        | spec,
    }


def a_pod(
    name: str, *, pool: str = "chat", ip: str = "10.0.0.1", ready: bool = True, deleted: bool = False
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "ai", "labels": {keys.POOL: pool}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": metadata, "status": {"podIP": ip, "conditions": [condition]} if ip else {}}


class Cluster:
    def __init__(self, *, synced: bool = True) -> None:
        self.metrics = GatewayMetrics()
        self.gateway = Gateway(Limits(), self.metrics, time.perf_counter)
        self.view = ClusterView(self.gateway, self.metrics, default_concurrency=64, without_endpoint_seconds=10.0)
        for resource in ("servingpools", "pods"):
            self.view.expect(resource, "")
        if synced:
            self.sync()

    def sync(self) -> None:
        for resource in ("servingpools", "pods"):
            self.view.synced(resource, "")

    def pool(self, obj: dict[str, Any], kind: EventType = EventType.ADDED) -> None:
        self.view.take_pool(Event(kind, obj))

    def pod(self, obj: dict[str, Any], kind: EventType = EventType.ADDED) -> None:
        self.view.take_pod(Event(kind, obj))

    def config(self, name: str = "ai/chat") -> PoolConfig:
        return self.gateway.pools[name].config

    def serving(self, model: str) -> str | None:
        pool = self.gateway.serving(model)
        return pool.config.name if pool else None

    def engines(self, name: str = "ai/chat") -> dict[str, tuple[str, bool]]:
        return {engine.name: (engine.host, engine.ready) for engine in self.config(name).engines}


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


async def test_a_pool_and_its_pods_become_a_pool_and_its_engines(cluster: Cluster) -> None:
    cluster.pool(a_pool(engine={"port": 9000}, queue={"maxRequests": 7, "maxWaitingSeconds": 3}))
    cluster.pod(a_pod("chat-0"))
    cluster.pod(a_pod("chat-1", ip="10.0.0.2", ready=False))
    config = cluster.config()
    assert (config.models, config.bounds) == (("llama",), Bounds(7, 3.0, 10.0))
    assert [(each.name, each.host, each.port, each.ready) for each in config.engines] == [
        ("chat-0", "10.0.0.1", 9000, True),
        ("chat-1", "10.0.0.2", 9000, False),
    ]


async def test_pods_may_come_before_their_pool(cluster: Cluster) -> None:
    cluster.pod(a_pod("chat-0"))
    assert cluster.gateway.pools == {}
    cluster.pool(a_pool())
    assert cluster.engines() == {"chat-0": ("10.0.0.1", True)}


async def test_nothing_is_served_before_both_watches_are_complete() -> None:
    cluster = Cluster(synced=False)
    cluster.pool(a_pool())
    cluster.view.synced("servingpools", "")
    assert (cluster.gateway.pools, cluster.gateway.not_ready) == ({}, "syncing")
    cluster.pod(a_pod("chat-0"))
    cluster.view.synced("pods", "")
    assert (cluster.engines(), cluster.gateway.not_ready) == ({"chat-0": ("10.0.0.1", True)}, "")


async def test_a_pod_that_is_deleted_drains_and_then_leaves(cluster: Cluster) -> None:
    cluster.pool(a_pool())
    cluster.pod(a_pod("chat-0"))
    cluster.pod(a_pod("chat-0", deleted=True), EventType.MODIFIED)
    assert cluster.engines() == {"chat-0": ("10.0.0.1", False)}
    cluster.pod(a_pod("chat-0", deleted=True), EventType.DELETED)
    assert cluster.engines() == {}


async def test_a_pod_without_an_address_is_no_engine_yet(cluster: Cluster) -> None:
    cluster.pool(a_pool())
    cluster.pod(a_pod("chat-0", ip=""))
    assert cluster.engines() == {}
    cluster.pod(a_pod("chat-0"), EventType.MODIFIED)
    assert cluster.engines() == {"chat-0": ("10.0.0.1", True)}


async def test_a_pod_that_changes_its_label_changes_its_pool(cluster: Cluster) -> None:
    cluster.pool(a_pool())
    cluster.pool(a_pool("other", models=[{"name": "m"}]))
    cluster.pod(a_pod("chat-0"))
    cluster.pod(a_pod("chat-0", pool="other"), EventType.MODIFIED)
    assert (cluster.engines(), cluster.engines("ai/other")) == ({}, {"chat-0": ("10.0.0.1", True)})


async def test_adapters_are_models_too_and_levels_and_concurrency_are_read(cluster: Cluster) -> None:
    variants = [
        {"name": "a", "profiles": [{"accelerator": "x", "concurrency": 128}, {"accelerator": "y", "concurrency": 32}]},
    ]
    cluster.pool(
        a_pool(
            models=[{"name": "base", "adapters": [{"name": "bot", "weights": "pvc://a/b"}], "variants": variants}],
            serviceLevels=[
                {"name": "batch", "completionSeconds": 60},
                {"name": "interactive", "default": True, "ttftMilliseconds": 500},
            ],
        )
    )
    cluster.pod(a_pod("chat-0"))
    config = cluster.config()
    assert config.models == ("base", "bot")
    assert config.levels == (Level("batch"), Level("interactive", 0.5))
    assert config.default_level == Level("interactive", 0.5)
    assert config.engines[0].concurrency == 32


async def test_a_model_that_two_pools_claim_stays_with_the_older_one(cluster: Cluster) -> None:
    cluster.pool(a_pool("young", created="2026-11-24T12:00:00Z"))
    cluster.pool(a_pool("old", created="2026-11-24T09:00:00Z"))
    assert cluster.serving("llama") == "ai/old"
    cluster.pool(a_pool("old", created="2026-11-24T09:00:00Z"), EventType.DELETED)
    assert cluster.serving("llama") == "ai/young"


async def test_a_pool_that_cannot_be_read_keeps_its_last_good_form(cluster: Cluster) -> None:
    cluster.pool(a_pool(queue={"maxRequests": 7}))
    cluster.pool(a_pool(queue={"maxRequests": -1}), EventType.MODIFIED)
    assert cluster.config().bounds.max_requests == 7
    assert cluster.metrics.registry.get_sample_value("trimtab_gateway_config_errors_total") == 1


async def test_a_change_that_does_not_matter_here_touches_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.pool(a_pool())
    monkeypatch.delattr(Gateway, "set_pool")
    cluster.pool(a_pool(replicas=7) | {"status": {"replicas": 3}}, EventType.MODIFIED)


async def test_a_deleted_pool_is_no_longer_served_and_its_gauges_are_gone(cluster: Cluster) -> None:
    cluster.pool(a_pool())
    cluster.pod(a_pod("chat-0"))
    cluster.pool(a_pool(), EventType.DELETED)
    assert cluster.gateway.pools == {}
    assert cluster.metrics.registry.get_sample_value("trimtab_gateway_waiting", {"pool": "ai/chat"}) is None
    labels = {"pool": "ai/chat", "endpoint": "chat-0"}
    assert cluster.metrics.registry.get_sample_value("trimtab_gateway_endpoint_up", labels) is None


async def test_two_namespaces_are_waited_for_separately() -> None:
    cluster = Cluster(synced=False)
    cluster.view.expect("pods", "other")
    cluster.sync()
    assert cluster.gateway.not_ready
    cluster.view.synced("pods", "other")
    assert not cluster.gateway.not_ready
