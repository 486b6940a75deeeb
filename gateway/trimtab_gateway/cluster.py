"""Pools and engines from the API server: ServingPools, and the pods that carry their label."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic import ValidationError

from trimtab.api import ServingPool, keys
from trimtab.decide.queueing import Bounds
from trimtab.kube import Event, EventType
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.gateway import Gateway
from trimtab_gateway.pools import BEST_EFFORT, EngineAddress, Level, PoolConfig

_log = structlog.get_logger(__name__)

Object = Mapping[str, Any]
PoolKey = tuple[str, str]
"""A namespace and the name of a pool in it."""


class ClusterView:
    """What the watches have told so far, handed to the gateway once each of them is complete.

    A pool whose object cannot be read keeps its last good configuration. Nothing is taken away while the API server
    is silent: engines stay as they were last seen, and their own failures take them out of rotation.
    """

    def __init__(
        self, gateway: Gateway, metrics: GatewayMetrics, default_concurrency: int, without_endpoint_seconds: float
    ) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self._default_concurrency = default_concurrency
        self._without_endpoint_seconds = without_endpoint_seconds
        self._pools: dict[PoolKey, _Pool] = {}
        self._pods: dict[PoolKey, dict[str, Object]] = {}
        self._pool_of_pod: dict[tuple[str, str], PoolKey] = {}
        self._unsynced: set[tuple[str, str]] = set()

    def expect(self, resource: str, namespace: str) -> None:
        """Wait for one more watch before the gateway is told anything."""
        self._unsynced.add((resource, namespace))

    def synced(self, resource: str, namespace: str) -> None:
        """Note that a watch has reported everything that exists."""
        self._unsynced.discard((resource, namespace))
        if not self._unsynced and not self._gateway.synced:
            self._gateway.configure([self._config(key) for key in self._pools])
            self._gateway.synced = True

    def take_pool(self, event: Event) -> None:
        """Note a change of a ServingPool."""
        metadata = event.object["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if event.type is EventType.DELETED:
            if self._pools.pop(key, None) is not None and self._gateway.synced:
                self._gateway.remove_pool(_name(key))
            return
        try:
            pool = self._read(key, ServingPool.model_validate(event.object))
        except ValidationError as error:
            self._metrics.config_errors.inc()
            _log.error("pool cannot be read", namespace=key[0], pool=key[1], problem=str(error))
            return
        if pool == self._pools.get(key):
            return  # nothing that we look at has changed
        self._pools[key] = pool
        if self._gateway.synced:
            self._gateway.set_pool(self._config(key))

    def take_pod(self, event: Event) -> None:
        """Note a change of a pod."""
        metadata = event.object["metadata"]
        pod = (metadata["namespace"], metadata["name"])
        before = self._pool_of_pod.pop(pod, None)
        if before is not None:
            self._forget(before, pod[1])
        pool = metadata.get("labels", {}).get(keys.POOL)
        after: PoolKey | None = None
        if pool and event.type is not EventType.DELETED:
            after = self._pool_of_pod[pod] = (pod[0], pool)
            self._pods.setdefault(after, {})[pod[1]] = _essence(event.object)
        if self._gateway.synced:
            for key in sorted({each for each in (before, after) if each in self._pools}):
                self._gateway.set_pool(self._config(key))

    def _forget(self, pool: PoolKey, pod: str) -> None:
        pods = self._pods[pool]
        pods.pop(pod, None)
        if not pods:
            del self._pods[pool]

    def _read(self, key: PoolKey, pool: ServingPool) -> "_Pool":
        spec = pool.spec
        levels = tuple(
            Level(level.name, level.ttft_milliseconds / 1000 if level.ttft_milliseconds else None)
            for level in spec.service_levels
        )
        chosen = next((at for at, level in enumerate(spec.service_levels) if level.default), 0)
        config = PoolConfig(
            name=_name(key),
            models=tuple(_model_names(pool)),
            levels=levels,
            default_level=levels[chosen] if levels else BEST_EFFORT,
            bounds=Bounds(
                spec.queue.max_requests, float(spec.queue.max_waiting_seconds), self._without_endpoint_seconds
            ),
            since=str(pool.metadata.creation_timestamp),
        )
        return _Pool(config, spec.engine.port, spec.declared_concurrency or self._default_concurrency)

    def _config(self, key: PoolKey) -> PoolConfig:
        pool = self._pools[key]
        engines = tuple(
            EngineAddress(name, pod["ip"], pool.port, pool.concurrency, ready=pod["ready"])
            for name, pod in sorted(self._pods.get(key, {}).items())
            if pod["ip"]
        )
        return replace(pool.config, engines=engines)


@dataclass(frozen=True, slots=True)
class _Pool:
    """What of a ServingPool matters here; its engines come from the pods."""

    config: PoolConfig
    port: int
    concurrency: int


def _name(key: PoolKey) -> str:
    return f"{key[0]}/{key[1]}"


def _model_names(pool: ServingPool) -> Iterable[str]:
    for model in pool.spec.models:
        yield model.name
        yield from (adapter.name for adapter in model.adapters)


def _essence(pod: Object) -> Object:
    """Return the little of a pod that matters. One that is being deleted ends its requests and gets no new ones."""
    status = pod.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    ready = conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
    return {"ip": status.get("podIP", ""), "ready": ready}
