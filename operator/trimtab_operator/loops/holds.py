"""Holding a knob of a foreign object: noted in the status and guarded by a finalizer before the first write."""

from dataclasses import dataclass, replace

import structlog

from trimtab.actuate.scaling import ScaleActuator
from trimtab.api import keys
from trimtab.kube import Conflict, NotFound, Resource
from trimtab.kube.resources import SERVING_POOLS
from trimtab.model.decision import Action, Applied, Outcome, Precedence
from trimtab.model.pool import Deletion, Hold, PoolSeen, PoolSpec
from trimtab.model.reason import Reason, ReasonCode
from trimtab.obs.wording import say
from trimtab_operator.records import Key, PoolRecord
from trimtab_operator.runtime import Runtime

_log = structlog.get_logger(__name__)

_RESTORE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Holds:
    """Takes and gives back the replicas of foreign workloads."""

    runtime: Runtime

    async def guard(self, key: Key) -> None:
        """Put the finalizer on a pool, so that it cannot go before its hold is given back."""
        await self._edit_finalizers(key, present=True)

    async def unguard(self, key: Key) -> None:
        """Take the finalizer off a pool."""
        await self._edit_finalizers(key, present=False)

    async def give_back(
        self, record: PoolRecord, spec: PoolSpec, seen: PoolSeen, resource: Resource | None
    ) -> Reason | None:
        """End the hold: restore the earlier value if the pool says so and nobody else took the knob since.

        Returns what is in the way of restoring, and then holds on; None when the hold has ended.

        Raises:
            Conflict: the workload changed meanwhile; to be tried again.
            KubeError: the server could not be asked.
        """
        hold = record.state.hold
        if hold is None:
            return None
        if (
            spec.deletion is Deletion.RESTORE
            and seen.fault is not None
            and seen.fault.code is ReasonCode.TARGET_FORBIDDEN
        ):
            return _refusal(spec, hold, say(seen.fault))
        if self._may_restore(spec, seen, hold) and resource is not None:
            applied = await self._restore(spec, seen, hold, resource)
            if applied.outcome is not Outcome.APPLIED:
                return _refusal(spec, hold, applied.detail)
            code = ReasonCode.RESTORED
        else:
            code = ReasonCode.KEPT
        value = seen.workload.desired if seen.workload else 0
        words = (("target", f"{spec.target.kind} {spec.target.name}"), ("knob", hold.knob.field))
        reason = Reason(code, spec.ref, (("was", hold.was), ("value", value)), words)
        self.runtime.events.post(spec.ref, record.asked.uid, reason)
        _log.info("knob given back", pool=f"{spec.ref.namespace}/{spec.ref.name}", reason=code.value, was=hold.was)
        record.state = replace(record.state, hold=None, contested_by=())
        return None

    def _may_restore(self, spec: PoolSpec, seen: PoolSeen, hold: Hold) -> bool:
        return (
            spec.deletion is Deletion.RESTORE
            and seen.workload is not None
            and seen.workload.desired != hold.was
            and not seen.scaler
            and not seen.workload.writers
        )

    async def _restore(self, spec: PoolSpec, seen: PoolSeen, hold: Hold, resource: Resource) -> Applied:
        assert seen.workload is not None
        runtime = self.runtime
        action = Action(
            knob=hold.knob,
            was=seen.workload.desired,
            value=hold.was,
            precedence=Precedence.SLO,
            policy=spec.deletion,
            reason=Reason(ReasonCode.RESTORED, spec.ref),
            decided_on=seen.workload.resource_version,
            valid_until=runtime.clock.now() + _RESTORE_SECONDS,
        )
        actuator = ScaleActuator(runtime.kube, runtime.clock, resource, spec.ref.namespace, spec.target.name)
        runtime.metrics.wrote(f"{resource.plural}/scale", "patch")
        applied = await actuator.apply(action)
        if applied.outcome is Outcome.STALE:
            raise Conflict(409, "Conflict", applied.detail)
        return applied

    async def _edit_finalizers(self, key: Key, *, present: bool) -> None:
        namespace, name = key
        kube = self.runtime.kube
        try:
            metadata = (await kube.get(SERVING_POOLS, name, namespace))["metadata"]
            before = metadata.get("finalizers") or []
            after = [one for one in before if one != keys.FINALIZER] + ([keys.FINALIZER] if present else [])
            if sorted(before) != sorted(after):
                patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": after}}
                self.runtime.metrics.wrote(SERVING_POOLS.plural, "patch")
                await kube.merge_patch(SERVING_POOLS, name, patch, namespace)
        except NotFound:
            return


def _refusal(spec: PoolSpec, hold: Hold, detail: str) -> Reason:
    words = (
        ("target", f"{spec.target.kind} {spec.target.name}"),
        ("knob", hold.knob.field),
        ("detail", detail),
        ("object", f"spool/{spec.ref.name} -n {spec.ref.namespace}"),
    )
    return Reason(ReasonCode.RESTORE_REFUSED, spec.ref, (("was", hold.was),), words)
