"""Entry point of the scheduler extender."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
import uvloop

from trimtab.kube import Kube, KubeError
from trimtab.kube.election import LeadershipLost
from trimtab.model.problem import Problem
from trimtab.obs.logging import configure
from trimtab.obs.serving import asked_to_stop, listen, serving_metrics
from trimtab_extender.app import create_app
from trimtab_extender.runtime import Runtime, build, freeze_when_synced, serve_as_leader, tick, watch
from trimtab_extender.settings import load
from trimtab_extender.world import WATCHED

_log = structlog.get_logger(__name__)


# Longer than the 90 s after which the scheduler closes an idle connection: were we first, a question could meet the
# closing connection, fail, and be skipped.
_KEEP_ALIVE_SECONDS = 300


class _Server(uvicorn.Server):
    """A server that leaves signals to us: readiness has to fail some time before it stops."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    try:
        settings = load()
    except Problem as wrong:
        sys.exit(f"trimtab-extender: {wrong}")
    configure(settings.log_format, settings.log_level)
    _log.info("starting", **settings.model_dump(mode="json"))
    try:
        uvloop.run(run(build(settings)))
    except* (Problem, KubeError, LeadershipLost) as problems:
        for problem in problems.exceptions:
            _log.error("cannot go on", problem=str(problem))
        sys.exit(1)


async def run(runtime: Runtime) -> None:
    """Serve until a signal comes or a job fails; a failed job ends the process, which is then started again."""
    settings = runtime.settings
    listener = listen(settings.address, settings.port)
    web = server(runtime)
    async with (
        serving_metrics(settings.address, settings.metrics_port, runtime.metrics.registry),
        Kube.connect(settings.kubeconfig, field_manager="trimtab-extender") as kube,
        asyncio.TaskGroup() as group,
    ):
        serving = group.create_task(web.serve(sockets=[listener]), name="server")
        background = [group.create_task(watch(runtime, kube, resource)) for resource in WATCHED]
        background += [group.create_task(tick(runtime, kube)), group.create_task(freeze_when_synced(runtime))]
        duty = group.create_task(serve_as_leader(runtime, kube), name="duty")
        await asked_to_stop()
        await _drain(runtime, duty)
        web.should_exit = True
        await serving
        for job in background:
            job.cancel()


def server(runtime: Runtime) -> uvicorn.Server:
    """Return the HTTP server of a runtime, not yet serving."""
    return _Server(
        uvicorn.Config(
            create_app(runtime),
            loop="none",
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
    )


async def _drain(runtime: Runtime, duty: "asyncio.Task[None]") -> None:
    """Fail readiness and give the Lease back, so that a standby takes over, and go on answering for a while."""
    _log.info("draining", seconds=runtime.settings.drain_seconds)
    runtime.duty.draining = True
    duty.cancel()
    await asyncio.wait([duty])
    await runtime.clock.sleep(runtime.settings.drain_seconds)
