"""Watches outside kopf: owned objects, targets, autoscalers and the pods of pools, kept as small projections."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from trimtab.actuate.scaling import find_resource
from trimtab.api import keys
from trimtab.kube import Event, EventType, Forbidden, KubeError, NotFound, Resource, list_then_watch
from trimtab.kube.resources import DEPLOYMENTS, HPAS, PDBS, PODS, SERVICES, STATEFUL_SETS
from trimtab.model.pool import Target
from trimtab_operator.parse import key_of, parse_owned, parse_pod, parse_scaler
from trimtab_operator.records import Key
from trimtab_operator.runtime import MANAGER, Runtime

_log = structlog.get_logger(__name__)

_REFUSALS: Final = 15
_REFUSAL_SECONDS: Final = 2.0

_OWNED: Final = (DEPLOYMENTS, SERVICES, PDBS, STATEFUL_SETS)
WATCHED: Final = (*_OWNED, HPAS, PODS)


class WatchEnded(RuntimeError):
    """A watch that the operator cannot do without is not allowed or not served; the message says which."""


async def watch_world(runtime: Runtime) -> None:
    """Keep the store up to date with everything but our own kinds, for ever.

    Raises:
        WatchEnded: a watch is not allowed or not served.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for resource in _OWNED:
                group.create_task(watch_owned(runtime, resource), name=f"watch {resource.plural}")
            group.create_task(_watch_scalers(runtime), name="watch autoscalers")
            group.create_task(_watch_pods(runtime), name="watch pods")
    except* WatchEnded as ended:
        raise ended.exceptions[0] from None


async def watch_owned(runtime: Runtime, resource: Resource) -> None:
    """Watch one type of owned object or target in all namespaces."""
    store = runtime.store
    async for event in _events(runtime, resource):
        if event.type is EventType.DELETED:
            store.drop_owned(resource, key_of(event.object))
        else:
            store.put_owned(resource, key_of(event.object), parse_owned(resource, event.object, MANAGER))


async def _watch_scalers(runtime: Runtime) -> None:
    async for event in _events(runtime, HPAS):
        if event.type is EventType.DELETED:
            runtime.store.drop_scaler(key_of(event.object))
        else:
            runtime.store.put_scaler(key_of(event.object), parse_scaler(event.object))


async def _watch_pods(runtime: Runtime) -> None:
    async for event in _events(runtime, PODS, label_selector=keys.POOL):
        if event.type is EventType.DELETED:
            runtime.store.drop_pod(key_of(event.object))
        else:
            runtime.store.put_pod(key_of(event.object), parse_pod(event.object))


async def _events(runtime: Runtime, resource: Resource, label_selector: str = "") -> AsyncIterator[Event]:
    """Yield changes only; the end of a list makes the process a little readier.

    An API server that has just been started refuses everybody until it has read the roles, so a refusal counts only
    when it lasts; the watch then begins anew, and what vanished meanwhile is reported as deleted.
    """
    known: set[Key] = set()
    refusals = 0
    while True:
        listed: set[Key] | None = set()
        try:
            async for event in list_then_watch(runtime.kube, resource, label_selector=label_selector):
                refusals = 0
                if event.type is not EventType.SYNCED:
                    _note(known, listed, event)
                    yield event
                    continue
                for key in sorted(known - listed) if listed is not None else ():
                    known.discard(key)
                    yield Event(EventType.DELETED, {"metadata": {"namespace": key[0], "name": key[1]}})
                listed = None
                runtime.pulse.synced(resource.plural)
        except (Forbidden, NotFound) as error:
            refusals += 1
            if refusals > _REFUSALS:
                raise WatchEnded(f"cannot watch {resource.plural}: {error.message}; grant get, list, watch") from error
            _log.warning("watch refused", resource=resource.plural, error=error.message)
            await runtime.clock.sleep(_REFUSAL_SECONDS)


def _note(known: set[Key], listed: set[Key] | None, event: Event) -> None:
    key = key_of(event.object)
    if event.type is EventType.DELETED:
        known.discard(key)
        return
    known.add(key)
    if listed is not None:
        listed.add(key)


@dataclass(slots=True)
class Targets:
    """The types of workload that pools point at: found once, then watched like owned ones."""

    runtime: Runtime
    _found: dict[tuple[str, str], Resource | None] = field(default_factory=dict)
    _watches: "dict[Resource, asyncio.Task[None]]" = field(default_factory=dict)

    async def resource(self, target: Target) -> Resource | None:
        """Return where a target's kind lives, None if it has no `/scale`; it is watched from here on.

        Raises:
            KubeError: the server could not be asked.
        """
        kind = (target.api_version, target.kind)
        if self._found.get(kind) is None:
            self._found[kind] = await self._find(target)
        resource = self._found[kind]
        if resource is not None and resource not in {*_OWNED, *self._watches}:
            watch = asyncio.create_task(self._watch(resource), name=f"watch {resource.plural}")
            self._watches[resource] = watch
        return resource

    async def _find(self, target: Target) -> Resource | None:
        for known in (DEPLOYMENTS, STATEFUL_SETS):
            if (target.api_version, target.kind) == (known.api_version, known.kind):
                return known
        return await find_resource(self.runtime.kube, target.api_version, target.kind)

    async def _watch(self, resource: Resource) -> None:
        """Watch a further type; without the right to, its pools still see it whenever they are looked at."""
        try:
            await watch_owned(self.runtime, resource)
        except (WatchEnded, KubeError) as error:
            _log.warning("target not watched", resource=resource.plural, error=str(error))
