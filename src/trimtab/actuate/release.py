"""Giving back what an object holds, by whoever is there to do it: no running operator is needed."""

from collections.abc import Mapping
from typing import Any

from trimtab.actuate.scaling import read_scale
from trimtab.api import keys
from trimtab.kube import Kube, NotFound, Object, Resource
from trimtab.kube.resources import DEPLOYMENTS, STATEFUL_SETS
from trimtab.model.knob import REPLICAS

_KNOWN: Mapping[str, Resource] = {resource.kind: resource for resource in (DEPLOYMENTS, STATEFUL_SETS)}


def is_held(obj: Object) -> bool:
    """Return whether an object holds a knob of a foreign object, or its finalizer is still there."""
    status = obj.get("status") or {}
    return bool(status.get("heldKnobs")) or keys.FINALIZER in (obj["metadata"].get("finalizers") or ())


async def give_back(kube: Kube, resource: Resource, obj: Object) -> list[str]:
    """Restore what the object's deletion policy says, note it, take the finalizer off; returns what was done.

    Every step can be repeated, so an interrupted release is simply run again.

    Raises:
        KubeError: the server could not be asked, or refused.
    """
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    held = (obj.get("status") or {}).get("heldKnobs") or ()
    done = [await _give_one_back(kube, obj, one) for one in held]
    await kube.merge_patch(resource, metadata["name"], {"status": {"heldKnobs": []}}, namespace, "status")
    fresh = (await kube.get(resource, metadata["name"], namespace))["metadata"]
    left = [one for one in fresh.get("finalizers") or () if one != keys.FINALIZER]
    patch = {"metadata": {"resourceVersion": fresh["resourceVersion"], "finalizers": left}}
    await kube.merge_patch(resource, metadata["name"], patch, namespace)
    return done


async def _give_one_back(kube: Kube, obj: Object, held: dict[str, Any]) -> str:
    kind, namespace, name = held["target"].split("/", 2)
    what = f"{held['target']}: {held['knob']}"
    before = held.get("before")
    if obj["spec"].get("deletionPolicy") != "Restore" or before is None or held["knob"] != REPLICAS:
        return f"{what} stays as it is; before it was held: {before or 'absent'}"
    if kind not in _KNOWN:
        return f"{what} stays as it is: only the operator can restore a {kind}; before it was held: {before}"
    try:
        scale = await read_scale(kube, _KNOWN[kind], namespace, name)
    except NotFound:
        return f"{what}: the target is gone"
    operations: list[Object] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": scale.resource_version},
        {"op": "add", "path": "/spec/replicas", "value": int(before)},
    ]
    await kube.json_patch(_KNOWN[kind], name, operations, namespace, "scale")
    return f"{what} set back from {scale.desired} to {before}"
