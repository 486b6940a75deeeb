"""Who owns which fields of an object, read from `metadata.managedFields`."""

from hashlib import blake2b
from typing import Any

import orjson

from trimtab.kube.client import Object
from trimtab.model.pool import Writer

_APPLY = "Apply"


def fingerprint(obj: Object, manager: str) -> str:
    """Return a hash of the fields that `manager` holds by server-side apply; empty if it holds none.

    The set shrinks as soon as somebody else changes or removes one of the fields, so an object has drifted from what
    was applied exactly when this differs from the fingerprint of the answer to the apply.
    """
    fields = next((one.get("fieldsV1") for one in _entries(obj) if _applied_by(one, manager)), None)
    if not fields:
        return ""
    return blake2b(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def replica_writers(obj: Object, manager: str) -> tuple[bool, tuple[Writer, ...]]:
    """Return whether `manager` is among the owners of `spec.replicas`, and the other owners, sorted."""
    ours = False
    others: set[Writer] = set()
    for one in _entries(obj):
        if "f:replicas" not in _spec_fields(one):
            continue
        if one.get("manager") == manager:
            ours = True
        else:
            others.add(Writer(str(one.get("manager") or "unknown"), one.get("operation") == _APPLY))
    return ours, tuple(sorted(others))


def only_apply_holds_replicas(obj: Object, manager: str) -> bool:
    """Return whether nothing but the plain apply of `manager` owns `spec.replicas`.

    Then an apply that leaves them out would make the server fall back to its default of one replica.
    """
    holders = [_applied_by(one, manager) for one in _entries(obj) if "f:replicas" in _spec_fields(one)]
    return bool(holders) and all(holders)


def latest_writer(obj: Object, manager: str) -> str:
    """Return the other manager that changed the main resource last, `somebody` if none is on record."""
    others = [
        one for one in _entries(obj) if one.get("manager") != manager and one.get("subresource") in {None, "", "scale"}
    ]
    newest = max(others, key=lambda one: str(one.get("time") or ""), default={})
    return str(newest.get("manager") or "somebody")


def _entries(obj: Object) -> list[dict[str, Any]]:
    return obj["metadata"].get("managedFields") or []


def _applied_by(one: dict[str, Any], manager: str) -> bool:
    return one.get("manager") == manager and one.get("operation") == _APPLY and not one.get("subresource")


def _spec_fields(one: dict[str, Any]) -> dict[str, Any]:
    return (one.get("fieldsV1") or {}).get("f:spec") or {}
