"""List, then watch, for ever: a stream of events from which a store can be kept exact."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import orjson
import structlog

from trimtab.kube.client import Kube, Object, selectors
from trimtab.kube.errors import Forbidden, Gone, KubeError, NotFound, from_status
from trimtab.kube.resources import Resource

_log = structlog.get_logger(__name__)

_Key = tuple[str, str]

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
    managed_fields: bool = True,
) -> AsyncIterator[Event]:
    """Yield every matching object, `SYNCED`, then every change.

    After a lost connection the watch goes on where it stopped; after an expired version all is listed again, what
    vanished meanwhile is reported as `DELETED` once the rest has been reported, and `SYNCED` comes again. Errors are
    waited out with a growing delay. Of a list, one page is in memory at a time.

    Args:
        kube: a connection to the API server.
        resource: what to watch.
        namespace: where; None for everywhere.
        label_selector: only objects with these labels.
        field_selector: only objects with these fields.
        managed_fields: whether objects keep `metadata.managedFields`, which are a large part of an object and of use
            only to who asks who owns a field.

    Raises:
        Forbidden: our role does not grant list or watch.
        NotFound: the server does not have this resource.
    """
    feed = _Feed(kube, resource, namespace, label_selector, field_selector, managed_fields)
    while True:
        try:
            if not feed.version:
                async for event in feed.listed():
                    yield event
            async for event in feed.changed():
                yield event
        except (Forbidden, NotFound):
            raise
        except Gone:
            feed.version = ""
        except KubeError as error:
            await feed.wait_out(error)


@dataclass(slots=True)
class _Feed:
    """How far one watch has come.

    Attributes:
        version: where the watch goes on; empty when all must be listed.
        known: stubs of what has been reported and not yet been reported as deleted.
        delay_seconds: how long the next error is waited out.
    """

    kube: Kube
    resource: Resource
    namespace: str | None
    label_selector: str
    field_selector: str
    managed_fields: bool
    version: str = ""
    known: dict[_Key, Object] = field(default_factory=dict)
    delay_seconds: float = _FIRST_DELAY_SECONDS

    async def listed(self) -> AsyncIterator[Event]:
        """List all, yield what differs from what is known, then `SYNCED`. A list that breaks off can be begun anew."""
        present: set[_Key] = set()
        version = ""
        async for page in self.kube.pages(
            self.resource, self.namespace, label_selector=self.label_selector, field_selector=self.field_selector
        ):
            version = page.resource_version
            for event in self._differences(page.items, present):
                yield event
        for key in sorted(self.known.keys() - present):
            yield Event(EventType.DELETED, self.known.pop(key))
        self.version = version
        yield Event(EventType.SYNCED, {})

    def _differences(self, items: list[Object], present: set[_Key]) -> Iterator[Event]:
        items.reverse()
        while items:  # taken out of the page: what its reader is done with need not wait for the rest
            item = items.pop()
            present.add(_key(item))
            yield from self._difference(item)

    def _difference(self, item: Object) -> Iterator[Event]:
        before = self.known.get(_key(item))
        if before is not None and before["metadata"]["uid"] != item["metadata"]["uid"]:
            yield self._took(EventType.DELETED, before)
            before = None
        if before is None:
            yield self._took(EventType.ADDED, item)
        elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            yield self._took(EventType.MODIFIED, item)

    async def changed(self) -> AsyncIterator[Event]:
        """Yield changes until the server ends the watch."""
        query = selectors(self.label_selector, self.field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
            "resourceVersion": self.version,
        }
        async for line in self.kube.stream(self.resource.path(self.namespace), query, _IDLE_SECONDS):
            change = orjson.loads(line)
            kind, obj = change["type"], change["object"]
            if kind == "ERROR":
                raise from_status(int(obj.get("code") or 0), obj)
            self.delay_seconds = _FIRST_DELAY_SECONDS
            self.version = obj["metadata"]["resourceVersion"]
            if kind != _BOOKMARK:
                yield self._took(EventType(kind), obj)

    def _took(self, kind: EventType, obj: Object) -> Event:
        if kind is EventType.DELETED:
            self.known.pop(_key(obj), None)
        else:
            self.known[_key(obj)] = _stub(obj)
        if not self.managed_fields:
            obj["metadata"].pop("managedFields", None)
        return Event(kind, obj)

    async def wait_out(self, error: KubeError) -> None:
        """Let some time pass, longer with every error in a row."""
        _log.warning(
            "watch interrupted", resource=self.resource.plural, error=error.message, retry_seconds=self.delay_seconds
        )
        await asyncio.sleep(self.delay_seconds)
        self.delay_seconds = min(self.delay_seconds * 2, _LONGEST_DELAY_SECONDS)


def _key(obj: Object) -> _Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _stub(obj: Object) -> Object:
    """Keep only what a DELETED event must carry, so that the watch holds no second copy of the world."""
    metadata = obj["metadata"]
    kept = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion", "labels") if key in metadata}
    return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": kept}
