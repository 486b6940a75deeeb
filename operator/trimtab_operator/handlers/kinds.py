"""What kopf's watches bring: parsed into the store, and nothing else."""

from typing import Any

import kopf

from trimtab.api import keys
from trimtab.kube import Object, Resource
from trimtab.kube.resources import SERVING_POOLS, TRIMTAB_KINDS
from trimtab.obs import journal
from trimtab_operator.parse import is_news, key_of, parse_pool, parse_state
from trimtab_operator.records import PlaceholderRecord, PoolRecord
from trimtab_operator.runtime import Runtime
from trimtab_operator.status import remember
from trimtab_operator.store import Store

PLACEHOLDERS = tuple(resource for resource in TRIMTAB_KINDS if resource != SERVING_POOLS)


def register(registry: kopf.OperatorRegistry) -> None:
    """Have kopf watch all our kinds and hand every event to the store."""
    kopf.on.event(keys.GROUP, keys.VERSION, SERVING_POOLS.plural, registry=registry)(on_pool)
    for resource in PLACEHOLDERS:
        kopf.on.event(keys.GROUP, keys.VERSION, resource.plural, registry=registry)(_on_placeholder(resource))


async def on_pool(event: kopf.RawEvent, memo: Runtime, **_: Any) -> None:
    """Take in what happened to a ServingPool."""
    take_pool(memo.store, event["type"], dict(event["object"]))


def _on_placeholder(resource: Resource) -> Any:
    async def on_placeholder(event: kopf.RawEvent, memo: Runtime, **_: Any) -> None:
        take_placeholder(memo.store, resource, event["type"], dict(event["object"]))

    return on_placeholder


def take_pool(store: Store, happened: str | None, obj: Object) -> None:
    """Bring the store up to one event about a ServingPool; our own status writes change nothing."""
    key = key_of(obj)
    record = store.pools.get(key)
    if happened == "DELETED":
        if record is not None and record.asked.uid == obj["metadata"]["uid"]:
            store.drop_pool(key)
        return
    if record is not None and not is_news(record.asked, obj):
        return
    asked = parse_pool(obj)
    record = store.put_pool(key, asked)
    if record.status.at == 0.0:
        _recall(record, obj)


def take_placeholder(store: Store, resource: Resource, happened: str | None, obj: Object) -> None:
    """Bring the store up to one event about an object of a kind that nothing reconciles yet."""
    subject = (resource.plural, *key_of(obj))
    metadata = obj["metadata"]
    known = store.placeholders.get(subject)
    if happened == "DELETED":
        store.placeholders.pop(subject, None)
    elif known is None or (known.uid, known.generation) != (metadata["uid"], metadata["generation"]):
        record = PlaceholderRecord(metadata["uid"], metadata["generation"])
        remember(record.status, _shown(obj, ("observedGeneration", "conditions")), 0.0)
        store.placeholders[subject] = record
        store.agenda.add(subject)


def _recall(record: PoolRecord, obj: Object) -> None:
    """Go on from what an earlier process wrote into the pool's status."""
    status = obj.get("status") or {}
    record.status.at = 1.0
    if not status:
        return
    if record.asked.spec is not None:
        record.state = parse_state(obj, record.asked.spec.knob)
    record.journal = journal.from_wire(status.get("recentDecisions") or ())
    remember(record.status, _shown(obj, _POOL_FIELDS), 1.0)


_POOL_FIELDS = (
    "observedGeneration",
    "replicas",
    "readyReplicas",
    "selector",
    "conditions",
    "serviceLevels",
    "recentDecisions",
    "proposals",
    "heldKnobs",
)


def _shown(obj: Object, fields: tuple[str, ...]) -> Object:
    """Return the part of a status that we write, so that what is shown already is not written again."""
    status = obj.get("status") or {}
    return {name: status[name] for name in fields if name in status}
