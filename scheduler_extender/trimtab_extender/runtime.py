"""The parts of the process, built in one place, and the jobs that keep its memory current."""

import asyncio
import gc
from dataclasses import dataclass, field

import structlog

from trimtab.api import keys
from trimtab.decide.wake import Wake
from trimtab.kube import Forbidden, Kube, KubeError, NotFound, Resource, list_then_watch
from trimtab.kube.election import Election
from trimtab.kube.resources import LEASES, PODS
from trimtab.obs.clock import WallClock
from trimtab.obs.metrics import ExtenderMetrics
from trimtab_extender.placer import Placer
from trimtab_extender.settings import Settings
from trimtab_extender.world import World

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 5.0


@dataclass(slots=True)
class Duty:
    """What changes while the process runs, outside of its knowledge of the cluster."""

    leading: bool = False
    draining: bool = False
    epoch: int = 0
    unsent: Wake | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that the process is made of."""

    settings: Settings
    clock: WallClock
    metrics: ExtenderMetrics
    world: World
    placer: Placer
    duty: Duty = field(default_factory=Duty)

    def not_ready(self) -> str:
        """Why the scheduler should not ask us; empty when it should."""
        if self.duty.draining:
            return "draining"
        if not self.duty.leading:
            return "standby"
        return self.world.doubt


def build(settings: Settings, clock: WallClock | None = None) -> Runtime:
    """Put the parts together; nothing runs yet."""
    clock = clock or WallClock()
    metrics = ExtenderMetrics()
    world = World(clock, metrics, settings.hold_seconds)
    return Runtime(settings, clock, metrics, world, Placer(world, clock, metrics))


async def watch(runtime: Runtime, kube: Kube, resource: Resource) -> None:
    """Feed one watch into the world, for ever."""
    while True:
        try:
            async for event in list_then_watch(kube, resource, managed_fields=False):
                runtime.world.take(resource, event)
        except (Forbidden, NotFound) as error:
            runtime.metrics.watch_failed(resource.plural)
            _log.error("watch refused", resource=resource.plural, problem=error.message, fix=_fix(error, resource))
            await runtime.clock.sleep(_RETRY_SECONDS)


def _fix(error: KubeError, resource: Resource) -> str:
    if isinstance(error, NotFound):
        return "apply the CRDs: kubectl apply --server-side -f crds/"
    return f"grant list and watch on {resource.plural} to our service account"


async def freeze_when_synced(runtime: Runtime) -> None:
    """Take what the first lists left behind out of the garbage collector's sight, once: it would stop answers."""
    while runtime.world.doubt == "syncing":
        await runtime.clock.sleep(runtime.settings.tick_seconds)
    gc.collect()
    gc.freeze()


async def tick(runtime: Runtime, kube: Kube) -> None:
    """Keep gauges current, doubt what has gone quiet, and ask for nudges, for ever."""
    while True:
        await runtime.clock.sleep(runtime.settings.tick_seconds)
        await doubt_silence(runtime, kube)
        wake = report(runtime) or runtime.duty.unsent
        if wake is not None and runtime.duty.leading:
            await ask_for_nudge(runtime, kube, wake)


def report(runtime: Runtime) -> Wake | None:
    """Bring gauges up to date; return a nudge that is worth giving."""
    world, ledger, metrics, at = runtime.world, runtime.world.ledger, runtime.metrics, runtime.clock.now()
    metrics.expired(len(ledger.settle(at)))
    pods = {
        "charged": ledger.charged_pods,
        "undeclared": ledger.undeclared,
        "held": ledger.on_their_way,
        "waiting": len(world.waiting),
    }
    metrics.known(fresh=not world.doubt, epoch=runtime.duty.epoch, pods=pods)
    metrics.led(runtime.duty.leading)
    for book in ledger.books():
        watts = {"charged": book.charged, "held": book.held} | ({} if book.usable is None else {"usable": book.usable})
        metrics.domain(book.domain.name, watts)
    if world.bypasses:
        _log.warning("pods were bound without passing here, charged on sight", **world.bypasses)
        world.bypasses.clear()
    return None if world.doubt else world.waiting.call(ledger, at)


async def doubt_silence(runtime: Runtime, kube: Kube) -> None:
    """Ask the API server about a pod that we should have heard of, to tell a quiet cluster from a dead watch."""
    suspect = runtime.world.suspect(runtime.settings.suspect_seconds)
    if suspect is None:
        return
    namespace, name = suspect
    try:
        pod = await kube.get(PODS, name, namespace)
    except KubeError:  # gone without our hearing of it, or the API server is out of reach
        runtime.world.confirm(missed=True)
    else:
        runtime.world.confirm(missed=bool(pod["spec"].get("nodeName")))


async def ask_for_nudge(runtime: Runtime, kube: Kube, wake: Wake) -> None:
    """Ask the operator, which may patch nodes, to wake rejected pods: by annotations of a Lease of ours."""
    duty = runtime.duty
    duty.epoch = max(duty.epoch + 1, int(runtime.clock.now()))  # never one that an earlier process has used
    wish = {keys.PLACEMENT_EPOCH: str(duty.epoch), keys.PLACEMENT_NODE: wake.node}
    lease = {"metadata": {"name": keys.PLACEMENT_LEASE, "namespace": runtime.settings.namespace, "annotations": wish}}
    try:
        await kube.apply(LEASES, lease, force=True)
    except KubeError as error:
        duty.unsent = wake
        runtime.metrics.nudged("failed")
        _log.warning("nudge not asked for", node=wake.node, error=error.message)
        return
    duty.unsent = None
    runtime.metrics.nudged("asked")
    _log.info("nudge asked for", node=wake.node, pods=wake.pods, epoch=duty.epoch)


async def serve_as_leader(runtime: Runtime, kube: Kube) -> None:
    """Be the active replica for as long as the Lease is ours; without election, always."""
    settings = runtime.settings
    if not settings.election:
        await _on_duty(runtime)
        return
    await Election(kube, settings.namespace, settings.lease, settings.identity).lead(lambda: _on_duty(runtime))


async def _on_duty(runtime: Runtime) -> None:
    runtime.duty.leading = True
    runtime.world.active_since = runtime.clock.now()
    try:
        await asyncio.Event().wait()
    finally:
        runtime.duty.leading = False
