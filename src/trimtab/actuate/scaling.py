"""Replicas through `/scale`: of anything that has it, and only while it is what was decided on."""

from dataclasses import dataclass

from trimtab.kube import BadRequest, Conflict, Forbidden, Invalid, Kube, NotFound, Object, Resource
from trimtab.model.decision import Action, Applied, Outcome
from trimtab.ports import Clock


@dataclass(frozen=True, slots=True)
class Scaled:
    """What a `/scale` says, with the resource version of the object behind it."""

    desired: int
    current: int
    selector: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class ScaleActuator:
    """Writes the replicas of one workload; implements the `Actuator` port.

    Attributes:
        kube: the connection.
        clock: to void actions whose time ran out.
        resource: the workload's type.
        namespace: the workload's namespace.
        name: the workload's name.
    """

    kube: Kube
    clock: Clock
    resource: Resource
    namespace: str
    name: str

    async def apply(self, action: Action) -> Applied:
        """Write `action.value`, unless the object has moved on or the action's time ran out.

        Raises:
            KubeError: the server could not be asked; refusals are outcomes, not errors.
        """
        if self.clock.now() > action.valid_until:
            return Applied(action, Outcome.STALE, "its time ran out")
        operations: list[Object] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": action.decided_on},
            {"op": "add", "path": "/spec/replicas", "value": action.value},
        ]
        try:
            scale = await self.kube.json_patch(self.resource, self.name, operations, self.namespace, "scale")
        except (Conflict, NotFound) as error:
            return Applied(action, Outcome.STALE, error.message)
        except Invalid as error:
            # A failed `test` is answered without causes; a value that is not allowed names its field.
            return Applied(action, Outcome.REFUSED if error.causes else Outcome.STALE, error.message)
        except (Forbidden, BadRequest) as error:
            return Applied(action, Outcome.REFUSED, error.message)
        return Applied(action, Outcome.APPLIED, resource_version=scale["metadata"]["resourceVersion"])


async def read_scale(kube: Kube, resource: Resource, namespace: str, name: str) -> Scaled:
    """Return what the `/scale` of a workload says.

    Raises:
        NotFound: no such workload, or it has no `/scale`.
        Forbidden: our role does not allow it.
    """
    scale = await kube.get(resource, name, namespace, "scale")
    status = scale.get("status") or {}
    return Scaled(
        desired=int((scale.get("spec") or {}).get("replicas") or 0),
        current=int(status.get("replicas") or 0),
        selector=str(status.get("selector") or ""),
        resource_version=scale["metadata"]["resourceVersion"],
    )


async def hold_scale(kube: Kube, resource: Resource, namespace: str, name: str, replicas: int) -> Object:
    """Own the replicas of an object of ours through `/scale`, so that its own apply can leave them out."""
    scale = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas},
    }
    return await kube.apply(resource, scale, force=True, subresource="scale")


async def find_resource(kube: Kube, api_version: str, kind: str) -> Resource | None:
    """Return where a kind lives, None if the server does not serve it or it has no `/scale`.

    Raises:
        KubeError: the server could not be asked.
    """
    group, _, version = api_version.rpartition("/")
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        served = (await kube.request("GET", path))["resources"]
    except NotFound:
        return None
    names = {one["name"] for one in served}
    for one in served:
        if one["kind"] == kind and "/" not in one["name"] and f"{one['name']}/scale" in names:
            return Resource(group, version, one["name"], kind, one["namespaced"])
    return None
