"""`trimtab-operator`: reconciles the custom resources. One replica leads by Lease, the others stand by, synced."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import kopf
import structlog
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import ValidationError
from pydantic_settings import CliApp

from trimtab.actuate.nudge import carry_nudges
from trimtab.kube import Kube, KubeError
from trimtab.kube.election import Election, LeadershipLost
from trimtab.kube.resources import SERVING_POOLS
from trimtab.obs import logging
from trimtab.obs.clock import WallClock
from trimtab.obs.metrics import OperatorMetrics
from trimtab_operator.audit import keep_stock, take_stock
from trimtab_operator.census import keep_census
from trimtab_operator.events import Events
from trimtab_operator.handlers import kinds, startup
from trimtab_operator.loops.placeholders import PlaceholderReconciler
from trimtab_operator.loops.pools import PoolReconciler
from trimtab_operator.loops.reconcile import ReconcileLoop
from trimtab_operator.pulse import Pulse, serve
from trimtab_operator.runtime import MANAGER, Runtime
from trimtab_operator.schema import await_schema, refuse_old_schema
from trimtab_operator.settings import OperatorSettings
from trimtab_operator.watches import WATCHED, WatchEnded, watch_world

_log = structlog.get_logger(__name__)

_SYNC_POLL_SECONDS = 0.05
_START_RETRY_SECONDS = 1.0
_LEASE_SECONDS = 3.0  # to finish what has begun and give the Lease back
_KOPF_SECONDS = 5.0
_NUDGE_RETRY_SECONDS = 10.0


def main() -> None:
    """Run the operator until it is told to stop, or must stop."""
    try:
        settings = CliApp.run(OperatorSettings)
    except ValidationError as error:
        sys.exit(f"trimtab-operator: {error}")
    logging.configure(settings.log_format, settings.log_level)
    sys.exit(asyncio.run(run(settings)))


async def run(settings: OperatorSettings) -> int:
    """Stand by, lead, stop; returns the exit code: 0 when told to stop, 1 when it could not go on."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    try:
        async with Kube.connect(field_manager=MANAGER, timeout_seconds=settings.request_timeout_seconds) as kube:
            return await _serve(build(settings, kube), stop)
    except KubeError as error:
        _log.error("cannot start", error=error.message)
    except OSError as error:
        ports = f"{settings.health_port} and {settings.metrics_port}"
        _log.error("cannot listen", error=str(error), address=settings.bind_address, ports=ports)
    return 1


def build(settings: OperatorSettings, kube: Kube) -> Runtime:
    """Return the parts of the process; nothing is started, and nothing is ready."""
    clock, metrics = WallClock(), OperatorMetrics()
    pulse = Pulse(settings.stale_seconds, {resource.plural for resource in WATCHED})
    return Runtime(settings, kube, clock, metrics, Events(kube, clock, metrics), pulse)


async def _serve(runtime: Runtime, stop: asyncio.Event) -> int:
    settings = runtime.settings
    with (
        serve(runtime.pulse, settings.bind_address, settings.health_port),
        _metrics(runtime.metrics.registry, settings.bind_address, settings.metrics_port),
    ):
        return await _work(runtime, stop)


@contextmanager
def _metrics(registry: CollectorRegistry, address: str, port: int) -> Iterator[None]:
    """Answer `/metrics` from a thread of the client library while the context is open."""
    server, thread = start_http_server(port, address, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _work(runtime: Runtime, stop: asyncio.Event) -> int:
    settings = runtime.settings
    _log.info("operator started", identity=settings.identity, lease=f"{settings.namespace}/{settings.lease}")
    election = Election(runtime.kube, settings.namespace, settings.lease, settings.identity, on_try=runtime.pulse.beat)
    ending: list[asyncio.Task[None]] = []
    leadership = asyncio.create_task(election.lead(partial(_lead, runtime, stop, ending)), name="leadership")
    helpers = [
        asyncio.create_task(watch_world(runtime), name="watches"),
        asyncio.create_task(runtime.events.run(), name="events"),
    ]
    stopping = asyncio.create_task(_flag(stop), name="stop")
    try:
        done, _ = await asyncio.wait({leadership, stopping, *helpers}, return_when=asyncio.FIRST_COMPLETED)
        return _why_ended(done)
    finally:
        stop.set()
        await _end(leadership, seconds=_LEASE_SECONDS if election.leading else 0.0)
        await _end(*helpers, stopping)
        await _end(*ending, seconds=_KOPF_SECONDS)
        _log.info("operator stopped", identity=settings.identity)


async def _end(*tasks: "asyncio.Future[Any]", seconds: float = 0.0) -> None:
    """Have tasks end: by themselves within `seconds`, else by cancellation."""
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _flag(stop: asyncio.Event) -> None:
    await stop.wait()


def _why_ended(done: "set[asyncio.Task[None]]") -> int:
    for task in done:
        error = task.exception()
        if isinstance(error, (LeadershipLost, WatchEnded)):
            _log.error("operator must end", error=str(error))
            return 1
        if error is not None:
            _log.error("operator must end: defect", task=task.get_name(), exc_info=error)
            return 1
    return 0


async def _lead(runtime: Runtime, stop: asyncio.Event, ending: "list[asyncio.Task[None]]") -> None:
    """Do the leader's work until told to stop: kopf feeds the store, one loop acts on it.

    When this returns, nothing is written any more, so the Lease can be given back; kopf, which only reads, takes some
    seconds longer and is left in `ending`.
    """
    runtime.metrics.led(leading=True)
    await _prepare(runtime)
    workers = [
        asyncio.create_task(_loop(runtime).run(), name="reconcile loop"),
        asyncio.create_task(keep_stock(runtime), name="audit"),
        asyncio.create_task(keep_census(runtime), name="census"),
        asyncio.create_task(_carry_nudges(runtime), name="nudges"),
    ]
    if runtime.refusal.reason is not None:
        workers.append(asyncio.create_task(await_schema(runtime), name="schema"))
    watching = asyncio.create_task(_watch_kinds(runtime, stop), name="kopf")
    ending.append(watching)
    stopping = asyncio.create_task(_flag(stop), name="stop leading")
    working = asyncio.gather(*workers)  # ends with the first error of any
    running: set[asyncio.Future[Any]] = {watching, stopping, working}
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        runtime.metrics.led(leading=False)
        await _end(*workers, working, stopping)


async def _carry_nudges(runtime: Runtime) -> None:
    """Wake rejected pods when the extender asks for it, for ever; pools do not wait for a role that lacks this."""
    while True:
        try:
            await carry_nudges(runtime.kube, runtime.settings.namespace)
        except KubeError as error:
            _log.warning("nudges not carried", error=error.message)
            await runtime.clock.sleep(_NUDGE_RETRY_SECONDS)


async def _prepare(runtime: Runtime) -> None:
    """Know the world before the first decision; an API server that does not answer is waited for."""
    while True:
        runtime.pulse.beat()
        try:
            await refuse_old_schema(runtime)
            await take_stock(runtime, runtime.pulse.beat)
            break
        except KubeError as error:
            _log.warning("not ready to lead", error=error.message)
            await runtime.clock.sleep(_START_RETRY_SECONDS)
    while runtime.pulse.awaited:
        runtime.pulse.beat()
        await runtime.clock.sleep(_SYNC_POLL_SECONDS)
    _log.info("ready to act", pools=len(runtime.store.pools))


def _loop(runtime: Runtime) -> ReconcileLoop:
    reconcilers = {SERVING_POOLS.plural: PoolReconciler.of(runtime).reconcile}
    for resource in kinds.PLACEHOLDERS:
        reconcilers[resource.plural] = PlaceholderReconciler(runtime, resource).reconcile
    return ReconcileLoop(runtime, reconcilers)


async def _watch_kinds(runtime: Runtime, stop: asyncio.Event) -> None:
    """Run kopf; it ends by itself once told to stop."""
    registry = kopf.OperatorRegistry()
    startup.register(registry)
    kinds.register(registry)
    already = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(registry=registry, memo=runtime, standalone=True, clusterwide=True, stop_flag=stop)
    _stop_on_signals(stop)  # kopf has taken them over
    await kopf.run_tasks(tasks, ignored=already)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)


if __name__ == "__main__":
    main()
