"""From raw objects to records: the only place where the operator reads the shape of Kubernetes objects."""

from typing import Any

from pydantic import ValidationError

from trimtab.actuate.manifests import Blueprint, selector_text
from trimtab.actuate.ownership import fingerprint, only_apply_holds_replicas, replica_writers
from trimtab.api import ServingPool, keys
from trimtab.kube import Object, Resource
from trimtab.kube.resources import DEPLOYMENTS, SERVING_POOLS, STATEFUL_SETS
from trimtab.model.decision import Mode
from trimtab.model.knob import REPLICAS, Bounds, Knob
from trimtab.model.pool import Deletion, Hold, PoolSpec, PoolState, Proposal, Scaling, Target, Workload
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.obs.clock import at_time
from trimtab_operator.records import Asked, Key, Owned, PodSeen

_FAILURE_LENGTH = 1000


def key_of(obj: Object) -> Key:
    """Return namespace and name."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def parse_pool(obj: Object) -> Asked:
    """Return what a ServingPool asks for; a spec that cannot be read is a fault, not an error."""
    metadata = obj["metadata"]
    ref = Ref(SERVING_POOLS.kind, *key_of(obj))
    spec: PoolSpec | None = None
    blueprint: Blueprint | None = None
    fault: Reason | None = None
    try:
        pool = ServingPool.model_validate({key: obj[key] for key in ("apiVersion", "kind", "metadata", "spec")})
        spec, blueprint = _spec(pool, ref, metadata), Blueprint.of(pool)
    except ValidationError as error:
        fault = Reason(ReasonCode.SPEC_INVALID, ref, words=(("detail", _first_error(error)),))
    annotations = metadata.get("annotations") or {}
    return Asked(
        uid=metadata["uid"],
        generation=metadata["generation"],
        spec=spec,
        blueprint=blueprint,
        fault=fault,
        approvals=frozenset(one.strip() for one in annotations.get(keys.APPROVE, "").split(",") if one.strip()),
        resume=annotations.get(keys.RESUME, ""),
        released=keys.RELEASE in annotations,
        finalizers=tuple(metadata.get("finalizers") or ()),
        deleting="deletionTimestamp" in metadata,
    )


def is_news(asked: Asked, obj: Object) -> bool:
    """Return whether an object says anything that `asked` does not: our own status writes say nothing new."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    return (
        asked.uid != metadata["uid"]
        or asked.generation != metadata["generation"]
        or asked.deleting != ("deletionTimestamp" in metadata)
        or asked.finalizers != tuple(metadata.get("finalizers") or ())
        or asked.released != (keys.RELEASE in annotations)
        or asked.resume != annotations.get(keys.RESUME, "")
        or asked.approvals
        != frozenset(one.strip() for one in annotations.get(keys.APPROVE, "").split(",") if one.strip())
    )


def _spec(pool: ServingPool, ref: Ref, metadata: dict[str, Any]) -> PoolSpec:
    spec = pool.spec
    given = spec.target_ref
    target = Target(given.api_version, given.kind, given.name) if given else _own_target(ref)
    return PoolSpec(
        ref=ref,
        uid=metadata["uid"],
        created_at=metadata.get("creationTimestamp") or "",
        generation=metadata["generation"],
        target=target,
        owned=given is None,
        mode=Mode(spec.mode),
        scaling=Scaling(spec.scaling.policy),
        replicas=spec.replicas,
        bounds=Bounds(spec.scaling.min_replicas, spec.scaling.max_replicas),
        deletion=Deletion(spec.deletion_policy),
        service_levels=tuple(level.name for level in spec.service_levels),
    )


def _own_target(ref: Ref) -> Target:
    return Target(DEPLOYMENTS.api_version, DEPLOYMENTS.kind, ref.name)


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def parse_state(obj: Object, knob: Knob) -> PoolState:
    """Return what an earlier process remembered of a pool, from its status."""
    status = obj.get("status") or {}
    contested = any(
        one.get("type") == "KnobContested" and one.get("status") == "True" for one in status.get("conditions") or ()
    )
    held = next((one for one in status.get("heldKnobs") or () if one.get("knob") == REPLICAS), None)
    hold = None
    if held is not None:
        # Whether our value is in it shows when the workload is seen; a contest that was shown goes on.
        hold = Hold(knob, int(held.get("before") or 0), at_time(held["since"]), active=contested)
    proposals = tuple(
        Proposal(
            id=one["id"],
            knob=knob,
            was=int(one["from"]) if one.get("from") else None,
            value=int(one["to"]),
            policy=one["policy"],
            reason=Reason(ReasonCode(one["reason"]), knob.object, (("replicas", int(one["to"])),)),
            proposed_at=at_time(one["time"]),
            expires_at=at_time(one["expires"]),
        )
        for one in status.get("proposals") or ()
        if one.get("knob") == REPLICAS and one.get("to")
    )
    return PoolState(hold, proposals, ("another manager",) if contested else ())


def parse_owned(resource: Resource, obj: Object, manager: str) -> Owned:
    """Return what matters of an object that a pool owns or targets."""
    metadata = obj["metadata"]
    controller: dict[str, Any] = next(
        (one for one in metadata.get("ownerReferences") or () if one.get("controller")), {}
    )
    owner = (controller.get("kind", ""), controller.get("name", ""), controller.get("uid", ""))
    is_ours = owner[0] == SERVING_POOLS.kind
    return Owned(
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=owner,
        fingerprint=fingerprint(obj, manager) if is_ours else "",
        workload=_workload(obj, manager, is_ours=is_ours) if resource in {DEPLOYMENTS, STATEFUL_SETS} else None,
        replicas_alone=is_ours and only_apply_holds_replicas(obj, manager),
    )


def _workload(obj: Object, manager: str, *, is_ours: bool) -> Workload:
    status = obj.get("status") or {}
    ours, writers = replica_writers(obj, manager)
    return Workload(
        resource_version=obj["metadata"]["resourceVersion"],
        desired=int(obj["spec"].get("replicas", 1)),
        current=int(status.get("replicas") or 0),
        ready=int(status.get("readyReplicas") or 0),
        settled=int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0),
        ours=ours,
        writers=writers,
        failure=_failure(status),
        selector=selector_text(obj["metadata"]["name"]) if is_ours else _selector(obj["spec"].get("selector") or {}),
    )


def _failure(status: dict[str, Any]) -> str:
    for one in status.get("conditions") or ():
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            return str(one.get("message") or one.get("reason") or "")[:_FAILURE_LENGTH]
    return ""


def _selector(selector: dict[str, Any]) -> str:
    """Return a label selector as text, as `/scale` shows it."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for one in selector.get("matchExpressions") or ():
        values = ",".join(one.get("values") or ())
        shapes = {
            "In": f"{one['key']} in ({values})",
            "NotIn": f"{one['key']} notin ({values})",
            "Exists": one["key"],
            "DoesNotExist": f"!{one['key']}",
        }
        parts.append(shapes[one["operator"]])
    return ",".join(parts)


def parse_pod(obj: Object) -> PodSeen:
    """Return what matters of a pod of a pool."""
    conditions = {one["type"]: one for one in (obj.get("status") or {}).get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return PodSeen(
        pool=obj["metadata"]["labels"][keys.POOL],
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        unschedulable=str(scheduled.get("message") or "no node fits")[:_FAILURE_LENGTH] if refused else "",
        leaving="deletionTimestamp" in obj["metadata"],
    )


Scaler = tuple[tuple[str, str, str, str], str]  # claim, text


def parse_scaler(obj: Object) -> Scaler:
    """Return which workload a HorizontalPodAutoscaler scales, and how to name the scaler."""
    target = obj["spec"]["scaleTargetRef"]
    group, slash, _ = target.get("apiVersion", "").partition("/")
    namespace, name = key_of(obj)
    claim = (namespace, group if slash else "", target["kind"], target["name"])
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("kind") == "ScaledObject":
            return claim, f"ScaledObject {owner['name']} (KEDA)"
    return claim, f"HorizontalPodAutoscaler {name}"
