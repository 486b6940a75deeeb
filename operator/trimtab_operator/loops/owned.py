"""Keeping the objects that a pool owns: written when they differ from what is wanted, and not otherwise."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import orjson
import structlog

from trimtab.actuate.manifests import OWNED, Blueprint
from trimtab.actuate.scaling import hold_scale
from trimtab.actuate.workloads import apply_owned, blame
from trimtab.kube import BadRequest, Forbidden, Invalid, Kube, KubeError, NotFound, Object, Resource
from trimtab.kube.resources import DEPLOYMENTS, SERVING_POOLS
from trimtab.model.pool import PoolSpec
from trimtab.model.reason import Reason, ReasonCode
from trimtab_operator.parse import parse_owned
from trimtab_operator.records import Applied, Key, Owned, PoolRecord
from trimtab_operator.runtime import MANAGER, Runtime

_log = structlog.get_logger(__name__)


class PoolGone(Exception):
    """The pool whose objects were to be written exists no longer."""


async def confirm(kube: Kube, resource: Resource, name: str, namespace: str | None, uid: str) -> Object:
    """Return the metadata of an object, as the server has it now; needs the right to list, not to get.

    Raises:
        PoolGone: the object is not there any more, or another one has its name.
        KubeError: the server could not be asked.
    """
    for found in (await kube.list(resource, namespace, field_selector=f"metadata.name={name}")).items:
        metadata: Object = found["metadata"]
        if metadata["uid"] == uid:
            return metadata
    raise PoolGone


@dataclass(frozen=True, slots=True)
class OwnedObjects:
    """Brings the Deployment, Service and PodDisruptionBudget of pools to what is wanted."""

    runtime: Runtime

    async def keep(
        self, key: Key, record: PoolRecord, spec: PoolSpec, blueprint: Blueprint, replicas: int | None
    ) -> Reason | None:
        """Write what differs; returns what is in the way, None when everything is as wanted.

        Args:
            key: the pool.
            record: what is remembered of it.
            spec: what it asks for.
            blueprint: how to write its objects.
            replicas: goes into the Deployment; None leaves them to whoever sets them through `/scale`.

        Raises:
            PoolGone: an object vanished because its pool did.
            KubeError: the server could not be asked.
        """
        taken = self._taken(key, record, spec)
        if taken is not None:
            return taken
        await self._hand_over_replicas(key, replicas)
        self._plan(record, blueprint, replicas)
        for resource in OWNED:
            try:
                await self._keep_one(resource, key, record, spec, partial(blueprint.build, resource, replicas))
            except (Invalid, BadRequest, Forbidden) as error:
                return _refusal(resource, spec, error)
            except NotFound:  # the namespace is gone, and the pool with it
                await self._check_pool(key, record)
                raise
        return None

    def _taken(self, key: Key, record: PoolRecord, spec: PoolSpec) -> Reason | None:
        """Return the reason if an object of the pool's name belongs to somebody else."""
        for resource in OWNED:
            seen = self.runtime.store.owned_by(resource, key)
            if seen is not None and seen.owner[2] != record.asked.uid:
                words = (("target", f"{resource.kind} {key[1]}"), ("owner", _owner_text(seen)))
                return Reason(ReasonCode.NAME_TAKEN, spec.ref, words=words)
        return None

    async def _hand_over_replicas(self, key: Key, replicas: int | None) -> None:
        """Own the replicas through `/scale` before an apply leaves them out, which would reset them to one."""
        seen = self.runtime.store.owned_by(DEPLOYMENTS, key)
        if replicas is None and seen is not None and seen.replicas_alone and seen.workload is not None:
            self.runtime.metrics.wrote("deployments/scale", "apply")
            await hold_scale(self.runtime.kube, DEPLOYMENTS, *key, seen.workload.desired)

    def _plan(self, record: PoolRecord, blueprint: Blueprint, replicas: int | None) -> None:
        built = (record.asked.generation, replicas)
        if record.built != built:
            record.wanted = {resource.kind: _hash(blueprint.build(resource, replicas)) for resource in OWNED}
            record.built = built

    async def _keep_one(
        self, resource: Resource, key: Key, record: PoolRecord, spec: PoolSpec, build: Callable[[], dict[str, object]]
    ) -> None:
        seen = self.runtime.store.owned_by(resource, key)
        applied = record.applied.get(resource.kind)
        wanted = record.wanted[resource.kind]
        if _is_as_applied(seen, applied) and applied is not None and applied.wanted == wanted:
            return
        vanished = applied is not None and (seen is None or seen.uid != applied.uid)
        if vanished:
            await self._check_pool(key, record)
        count = partial(self.runtime.metrics.wrote, resource.plural, "apply")
        written = await apply_owned(self.runtime.kube, resource, build(), count)
        now = parse_owned(resource, written.object, MANAGER)
        self.runtime.store.put_own_write(resource, key, now)
        record.applied[resource.kind] = Applied(wanted, now.uid, now.fingerprint, now.version)
        if vanished:
            self._repaired(resource, record, spec, ReasonCode.OBJECT_RECREATED)
        elif written.managers or (applied is not None and applied.wanted == wanted and not _same(applied, seen)):
            self._repaired(resource, record, spec, ReasonCode.DRIFT_REPAIRED, blame(written, MANAGER))

    async def _check_pool(self, key: Key, record: PoolRecord) -> None:
        """Make sure that the pool still exists: its objects also vanish when it was deleted behind our back."""
        namespace, name = key
        if "deletionTimestamp" in await confirm(self.runtime.kube, SERVING_POOLS, name, namespace, record.asked.uid):
            raise PoolGone

    def _repaired(
        self, resource: Resource, record: PoolRecord, spec: PoolSpec, code: ReasonCode, managers: str = ""
    ) -> None:
        target = f"{resource.kind} {spec.ref.name}"
        words = (("target", target), ("managers", managers)) if managers else (("target", target),)
        self.runtime.metrics.repaired(resource.kind)
        self.runtime.events.post(spec.ref, record.asked.uid, Reason(code, spec.ref, words=words), warning=True)
        _log.warning(
            "owned object repaired",
            pool=f"{spec.ref.namespace}/{spec.ref.name}",
            object=target,
            reason=code.value,
            managers=managers,
        )


def _is_as_applied(seen: Owned | None, applied: Applied | None) -> bool:
    """Return whether the object is what our last apply left; an older sight of it says nothing."""
    if seen is None or applied is None or seen.uid != applied.uid:
        return False
    return seen.version <= applied.version or seen.fingerprint == applied.fingerprint


def _same(applied: Applied, seen: Owned | None) -> bool:
    return seen is None or _is_as_applied(seen, applied)


def _hash(obj: dict[str, object]) -> str:
    return blake2b(orjson.dumps(obj, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def _owner_text(seen: Owned) -> str:
    kind, name, _ = seen.owner
    if kind == SERVING_POOLS.kind:
        return f"an earlier {kind} {name}, which is being deleted"
    return f"{kind} {name}" if kind else "somebody else"


def _refusal(resource: Resource, spec: PoolSpec, error: KubeError) -> Reason:
    if resource is DEPLOYMENTS and not isinstance(error, Forbidden):
        return Reason(ReasonCode.TEMPLATE_INVALID, spec.ref, words=(("detail", error.message),))
    words = (("target", f"{resource.kind} {spec.ref.name}"), ("detail", error.message))
    return Reason(ReasonCode.APPLY_REFUSED, spec.ref, words=words)
