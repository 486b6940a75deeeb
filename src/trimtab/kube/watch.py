"""List, then watch, for ever: a stream of events from which a store can be kept exact."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

import orjson
import structlog

from trimtab.kube.client import Kube, Object
from trimtab.kube.errors import Forbidden, Gone, KubeError, NotFound, from_status
from trimtab.kube.resources import Resource

_log = structlog.get_logger(__name__)

_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 10.0
_BOOKMARK = "BOOKMARK"
_WATCH_SECONDS = 290
_IDLE_SECONDS = 90.0  # bookmarks come about once a minute; silence beyond that is a dead connection


class EventType(StrEnum):
    """What happened; `SYNCED` carries no object and says that every object of the last list has been reported."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    SYNCED = "SYNCED"


@dataclass(frozen=True, slots=True)
class Event:
    """One change, or the end of a (re)list."""

    type: EventType
    object: Object


async def list_then_watch(
    kube: Kube,
    resource: Resource,
    namespace: str | None = None,
    *,
    label_selector: str = "",
    field_selector: str = "",
) -> AsyncIterator[Event]:
    """Yield every matching object, `SYNCED`, then every change.

    After a lost connection the watch goes on where it stopped; after an expired version all is listed again, what
    vanished meanwhile is reported as `DELETED`, and `SYNCED` comes again. Errors are waited out with a growing delay.

    Raises:
        Forbidden: our role does not grant list or watch.
        NotFound: the server does not have this resource.
    """
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    known: dict[tuple[str, str], Object] = {}
    version = ""
    delay = _FIRST_DELAY_SECONDS
    while True:
        try:
            if not version:
                listing = await kube.list(
                    resource, namespace, label_selector=label_selector, field_selector=field_selector
                )
                for event in _compare(known, listing.items):
                    yield event
                version = listing.resource_version
                yield Event(EventType.SYNCED, {})
            async for kind, obj in _watch(kube, resource, namespace, selectors, version):
                delay = _FIRST_DELAY_SECONDS
                version = obj["metadata"]["resourceVersion"]
                if kind != _BOOKMARK:
                    event = Event(EventType(kind), obj)
                    _remember(known, event)
                    yield event
        except (Forbidden, NotFound):
            raise
        except Gone:
            version = ""
        except KubeError as error:
            _log.warning("watch interrupted", resource=resource.plural, error=error.message, retry_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY_SECONDS)


async def _watch(
    kube: Kube, resource: Resource, namespace: str | None, selectors: dict[str, str], version: str
) -> AsyncIterator[tuple[str, Object]]:
    query = {key: value for key, value in selectors.items() if value} | {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(_WATCH_SECONDS),
        "resourceVersion": version,
    }
    async for line in kube.stream(resource.path(namespace), query, _IDLE_SECONDS):
        change = orjson.loads(line)
        obj = change["object"]
        if change["type"] == "ERROR":
            raise from_status(int(obj.get("code") or 0), obj)
        yield change["type"], obj


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _stub(obj: Object) -> Object:
    """Keep only what a DELETED event must carry, so that the watch holds no second copy of the world."""
    metadata = obj["metadata"]
    kept = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion", "labels") if key in metadata}
    return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": kept}


def _remember(known: dict[tuple[str, str], Object], event: Event) -> None:
    if event.type is EventType.DELETED:
        known.pop(_key(event.object), None)
    else:
        known[_key(event.object)] = _stub(event.object)


def _compare(known: dict[tuple[str, str], Object], items: list[Object]) -> list[Event]:
    """Bring `known` up to the listed items and return the events that lead there."""
    present = {_key(item): item for item in items}
    events = [Event(EventType.DELETED, known[key]) for key in sorted(known.keys() - present.keys())]
    for key, item in present.items():
        before = known.get(key)
        if before is None or before["metadata"]["uid"] != item["metadata"]["uid"]:
            if before is not None:
                events.append(Event(EventType.DELETED, before))
            events.append(Event(EventType.ADDED, item))
        elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            events.append(Event(EventType.MODIFIED, item))
    known.clear()
    known.update({key: _stub(item) for key, item in present.items()})
    return events
