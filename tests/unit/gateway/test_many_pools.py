"""What one event costs does not grow with the number of pools."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit.gateway.test_cluster import Cluster, a_pod, a_pool
from trimtab.kube import EventType
from trimtab_gateway.dispatcher import Dispatcher
from trimtab_gateway.pools import Level, PoolConfig

POOLS = 50


class Touched(list[str]):
    """The names of pools whose method was called."""


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, method: str) -> Iterator[Touched]:
    touched, real = Touched(), getattr(Dispatcher, method)

    def noting(pool: Dispatcher, *args: Any) -> Any:
        touched.append(pool.config.name)
        return real(pool, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Dispatcher, method, noting)
        yield touched


@pytest.fixture
async def cluster() -> Cluster:
    cluster = Cluster()
    for number in range(POOLS):
        cluster.pool(a_pool(f"p{number}", models=[{"name": f"m{number}"}]))
        cluster.pod(a_pod(f"p{number}-0", pool=f"p{number}"))
    return cluster


def series(cluster: Cluster, pool: str) -> set[str]:
    return {
        sample.name
        for metric in cluster.metrics.registry.collect()
        for sample in metric.samples
        if sample.labels.get("pool") == pool
    }


async def test_a_change_of_a_pool_touches_that_pool(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch, "configure") as touched:
        cluster.pool(a_pool("p7", models=[{"name": "m7"}, {"name": "new"}]), EventType.MODIFIED)
    assert touched == ["ai/p7"]
    assert cluster.serving("new") == "ai/p7"


async def test_pools_that_come_and_go_touch_no_other_one(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch, "configure") as touched:
        cluster.pool(a_pool("more", models=[{"name": "more"}]))
        cluster.pool(a_pool("p7"), EventType.DELETED)
    assert touched == ["ai/more"]
    assert (cluster.serving("more"), cluster.serving("m7")) == ("ai/more", None)


async def test_a_pod_that_says_nothing_new_touches_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch, "configure") as touched:
        cluster.pod(a_pod("p7-0", pool="p7"), EventType.MODIFIED)
    assert touched == []


async def test_time_touches_no_idle_pool(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch, "tick") as touched:
        cluster.gateway.tick()
    assert touched == []


async def test_time_touches_a_pool_until_its_engine_is_well_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = cluster.gateway.pools["ai/p7"]
    engine = pool.engines["p7-0"]
    pool.report(engine, failed=True, unreachable=True)
    with watched(monkeypatch, "tick") as touched:
        cluster.gateway.tick()
        cluster.gateway.tick()
        pool.report(engine, failed=False)
        cluster.gateway.tick()
        cluster.gateway.tick()
    assert touched == ["ai/p7"] * 3  # the third time it turned out to be quiet


async def test_an_unused_pool_has_gauges_only(cluster: Cluster) -> None:
    assert series(cluster, "ai/p7") == {
        "trimtab_gateway_endpoint_up",
        "trimtab_gateway_in_flight",
        "trimtab_gateway_ready_capacity",
        "trimtab_gateway_waiting",
    }


async def test_every_series_of_a_pool_goes_with_it_and_does_not_come_back(cluster: Cluster) -> None:
    pool, level = cluster.gateway.pools["ai/p7"], Level("gold", 1.0)
    count_everything(pool, level)
    assert len(series(cluster, "ai/p7")) > 10
    cluster.pool(a_pool("p7"), EventType.DELETED)
    assert series(cluster, "ai/p7") == set()
    count_everything(pool, level)
    count_everything(pool, Level("other", 1.0))
    assert series(cluster, "ai/p7") == set()


def count_everything(pool: Dispatcher, level: Level) -> None:
    pool.saw_first_token(level, 0.5)
    pool.saw_gap(level, 0.1)
    pool._counts.dispatched(0.1)
    pool._counts.served(1.0)
    pool._counts.missed(level)
    pool._counts.ejected()


async def test_a_contested_model_is_logged_once_and_counted() -> None:
    cluster = Cluster()
    with capture_logs() as logs:
        cluster.pool(a_pool("old", created="2026-11-24T09:00:00Z"))
        cluster.pool(a_pool("young", created="2026-11-24T12:00:00Z"))
        for number in range(5):
            cluster.pool(a_pool(f"p{number}", models=[{"name": f"m{number}"}]))
            cluster.pool(a_pool("young", created="2026-11-24T12:00:00Z", queue={"maxRequests": number}))
    (line,) = [each for each in logs if each["event"] == "model claimed twice"]
    assert (line["model"], line["served_by"], line["ignored"]) == ("llama", "ai/old", ["ai/young"])
    assert cluster.metrics.registry.get_sample_value("trimtab_gateway_contested_models") == 1


@pytest.mark.parametrize(("giver", "taker"), ["ab", "ba"])
async def test_a_model_that_moves_between_known_pools_is_not_contested(giver: str, taker: str) -> None:
    gateway = Cluster().gateway
    gateway.configure([PoolConfig(giver, ("m", "n")), PoolConfig(taker, ("o",))])
    with capture_logs() as logs:
        gateway.configure([PoolConfig(giver, ("n",)), PoolConfig(taker, ("o", "m"))])
    assert logs == []
    moved = gateway.serving("m")
    assert moved is not None
    assert moved.config.name == taker
