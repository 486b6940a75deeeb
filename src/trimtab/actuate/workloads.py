"""Owned objects by server-side apply: written when they differ from what was applied, with the other writer named."""

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.actuate.ownership import latest_writer
from trimtab.kube import BadRequest, Conflict, Kube, Object, Resource, Unavailable

_BAD_PATCH = "failed to create typed patch object"


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to one apply.

    Attributes:
        object: as the server stores it.
        managers: who had changed our fields, as the server named them; empty when nobody did.
    """

    object: Object
    managers: tuple[str, ...] = ()


async def apply_owned(kube: Kube, resource: Resource, desired: Object, count: Callable[[], None]) -> Written:
    """Apply an object that is ours, taking back fields that others changed.

    The first try does not force, so that the server names the managers of every field it would take back.

    Args:
        kube: the connection.
        resource: the object's type.
        desired: the object.
        count: called once per request.

    Raises:
        Invalid: the object breaks its schema or a rule; nothing is changed.
        BadRequest: it has unknown fields; nothing is changed.
        Forbidden: a role, quota or admission policy refuses it.
    """
    count()
    try:
        return Written(await kube.apply(resource, desired))
    except Conflict as conflict:
        if not conflict.managers:
            raise
        count()
        return Written(await kube.apply(resource, desired, force=True), conflict.managers)
    except Unavailable as error:
        if _BAD_PATCH not in error.message:
            raise
        # A field that the schema does not know is the caller's mistake, but the server answers 500.
        raise BadRequest(400, "BadRequest", error.message) from error


def blame(written: Written, manager: str) -> str:
    """Return who changed an object that drifted: the conflicting managers, else whoever wrote it last."""
    return ", ".join(written.managers) or latest_writer(written.object, manager)
