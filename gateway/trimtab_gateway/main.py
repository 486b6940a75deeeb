"""Entry point of the gateway."""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn
import uvloop
from pydantic import ValidationError
from pydantic_settings import SettingsError

from trimtab.api import keys
from trimtab.kube import EventType, Forbidden, Kube, KubeError, NotFound, Resource, list_then_watch
from trimtab.kube.resources import PODS, SERVING_POOLS
from trimtab.model.problem import Problem
from trimtab.obs.logging import configure
from trimtab.obs.metrics import GatewayMetrics
from trimtab.obs.serving import asked_to_stop, listen, serving_metrics
from trimtab_gateway import endpoint_file
from trimtab_gateway.admin import create_app
from trimtab_gateway.cluster import ClusterView
from trimtab_gateway.endpoint_file import WatchedFile
from trimtab_gateway.gateway import Gateway
from trimtab_gateway.probe import probe
from trimtab_gateway.settings import Settings

_log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.25
_FILE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_RETRY_SECONDS = 5.0
_BACKLOG = 1024


class _Server(uvicorn.Server):
    """A server that leaves signals to us: open requests have to end before it stops."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    try:
        settings = Settings(_cli_parse_args=True)
    except (ValidationError, SettingsError) as error:
        sys.exit(f"trimtab-gateway: {error}")
    configure(settings.log_format, settings.log_level)
    _log.info("starting", **settings.model_dump(mode="json"))
    try:
        uvloop.run(run(settings))
    except* (Problem, KubeError) as problems:
        for problem in problems.exceptions:
            _log.error("cannot go on", problem=str(problem))
        sys.exit(1)


async def run(settings: Settings) -> None:
    """Serve until a signal comes, then drain."""
    metrics = GatewayMetrics()
    gateway = Gateway(settings.limits(), metrics, time.perf_counter)
    asyncio.get_running_loop().set_exception_handler(partial(_note_defect, metrics))
    async with (
        serving_metrics(settings.address, settings.metrics_port, metrics.registry),
        _serving_admin(settings, gateway),
        asyncio.TaskGroup() as group,
    ):
        jobs = [group.create_task(_tick(gateway)), group.create_task(_follow(settings, gateway))]
        listener = listen(settings.address, settings.port, backlog=_BACKLOG)
        gc.collect()
        gc.freeze()  # what start-up left behind lives for ever: looking at it again would stop requests
        server = await asyncio.get_running_loop().create_server(gateway.connect, sock=listener, backlog=_BACKLOG)
        _log.info("listening", address=settings.address, port=settings.port, admin_port=settings.admin_port)
        await asked_to_stop()
        await _drain(settings, gateway, server)
        for job in jobs:
            job.cancel()


def _note_defect(metrics: GatewayMetrics, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a callback raised; its connection is closed by the loop, all others go on."""
    metrics.defects.inc()
    _log.error("unexpected error", problem=context["message"], exc_info=context.get("exception"))


async def _drain(settings: Settings, gateway: Gateway, server: asyncio.Server) -> None:
    """Fail readiness, go on for a moment, then take nothing new and let what is open end."""
    gateway.leaving = True
    _log.info(
        "draining",
        delay_seconds=settings.drain_delay_seconds,
        seconds=settings.drain_seconds,
        open_requests=len(gateway.exchanges),
        open_streams=gateway.open_streams,
    )
    await asyncio.sleep(settings.drain_delay_seconds)
    server.close()
    gateway.start_draining()
    await _until(lambda: not gateway.exchanges, settings.drain_seconds)
    cut = {"cut_requests": len(gateway.exchanges), "cut_streams": gateway.open_streams}
    gateway.cut_off()
    if cut["cut_requests"]:
        _log.warning("drained too late for some", **cut, fix="raise --drain-seconds, and the pod's grace with it")
    else:
        _log.info("drained", **cut)
    await _until(lambda: not gateway.clients, gateway.limits.linger_seconds)


async def _tick(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        try:
            gateway.tick()
        except Exception:  # noqa: BLE001 - the process's edge: requests must go on
            gateway.metrics.defects.inc()
            _log.exception("tick failed")


async def _follow(settings: Settings, gateway: Gateway) -> None:
    """Keep pools and engines current, for ever."""
    if settings.endpoints is not None:
        await _follow_file(settings, settings.endpoints, gateway)
    else:
        await _follow_cluster(settings, gateway)


async def _follow_file(settings: Settings, path: Path, gateway: Gateway) -> None:
    parse = partial(
        endpoint_file.read,
        default_concurrency=settings.default_concurrency,
        without_endpoint_seconds=settings.without_endpoint_seconds,
    )
    file = WatchedFile(path, parse)
    gateway.configure(file.load())
    gateway.synced = True
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(_probe_all(settings, gateway))
        while True:
            await _wait(asked, _FILE_SECONDS)
            if asked.is_set() or file.changed():
                asked.clear()
                _reload(file, gateway)


def _reload(file: WatchedFile, gateway: Gateway) -> None:
    try:
        pools = file.load()
    except Problem as problem:
        gateway.metrics.config_errors.inc()
        _log.error("endpoints file ignored, the last good one stays in use", problem=str(problem))
        return
    gateway.configure(pools)
    _log.info("endpoints file read", pools=len(pools))


async def _probe_all(settings: Settings, gateway: Gateway) -> None:
    while True:
        async with asyncio.TaskGroup() as group:
            for pool in gateway.pools.values():
                for engine in pool.engines.values():
                    group.create_task(probe(pool, engine, settings.connect_seconds))
        await asyncio.sleep(settings.probe_seconds)


async def _follow_cluster(settings: Settings, gateway: Gateway) -> None:
    view = ClusterView(gateway, gateway.metrics, settings.default_concurrency, settings.without_endpoint_seconds)
    scopes: tuple[str | None, ...] = settings.namespaces or (None,)
    async with Kube.connect(settings.kubeconfig, field_manager="trimtab-gateway") as kube, asyncio.TaskGroup() as group:
        for namespace in scopes:
            for resource in (SERVING_POOLS, PODS):
                view.expect(resource.plural, namespace or "")
                group.create_task(_watch(kube, resource, namespace, view))


async def _watch(kube: Kube, resource: Resource, namespace: str | None, view: ClusterView) -> None:
    selector = keys.POOL if resource is PODS else ""
    while True:
        try:
            async for event in list_then_watch(kube, resource, namespace, label_selector=selector):
                if event.type is EventType.SYNCED:
                    view.synced(resource.plural, namespace or "")
                elif resource is PODS:
                    view.take_pod(event)
                else:
                    view.take_pool(event)
        except (Forbidden, NotFound) as error:
            _log.error("watch refused", resource=resource.plural, problem=error.message, fix=_fix(error, resource))
            await asyncio.sleep(_RETRY_SECONDS)


def _fix(error: KubeError, resource: Resource) -> str:
    if isinstance(error, NotFound):
        return "apply the CRDs: kubectl apply --server-side -f crds/"
    return f"grant list and watch on {resource.plural} to our service account"


@asynccontextmanager
async def _serving_admin(settings: Settings, gateway: Gateway) -> AsyncIterator[None]:
    listener = listen(settings.address, settings.admin_port)
    config = uvicorn.Config(
        create_app(gateway), loop="none", http="httptools", lifespan="off", log_config=None, access_log=False
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, but no longer than some time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds() and loop.time() < deadline:  # noqa: ASYNC110 - the condition is a set that many events empty
        await asyncio.sleep(_POLL_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than some time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
