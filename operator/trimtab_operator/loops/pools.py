"""Serving pools: look, decide, keep what is owned, turn what is not, show what holds."""

from dataclasses import dataclass, replace

import structlog

from trimtab.actuate.dry_run import DryRun
from trimtab.actuate.scaling import ScaleActuator, read_scale
from trimtab.api import keys
from trimtab.decide.pools import PoolConfig, begin_hold, carrier, confirm_hold, rule, start_replicas, step
from trimtab.decide.verdicts import judge_pool
from trimtab.kube import Forbidden, NotFound, Resource
from trimtab.kube.resources import DEPLOYMENTS, SERVING_POOLS, STATEFUL_SETS
from trimtab.model.decision import Action, Applied, Mode, Outcome, Precedence
from trimtab.model.knob import REPLICAS
from trimtab.model.pool import Carrier, PoolSeen, PoolSpec, PoolState, Proposal, Workload
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.model.verdict import ConditionType, Truth, Verdict
from trimtab.obs import journal
from trimtab.obs.wording import say
from trimtab_operator.loops.holds import Holds
from trimtab_operator.loops.owned import OwnedObjects, PoolGone
from trimtab_operator.loops.statuses import Statuses
from trimtab_operator.records import Key, PoolRecord
from trimtab_operator.runtime import Runtime
from trimtab_operator.status import Status, conditions, pool_status, predicted
from trimtab_operator.watches import Targets

_log = structlog.get_logger(__name__)

# A refusal may have causes outside the spec, e.g. a quota or a role: it is tried again.
_FIRST_FAULT_SECONDS = 1.0
_LONGEST_FAULT_SECONDS = 60.0
_STALE_SECONDS = 0.25  # the sight on which an action was stale is replaced within that
_OWN_WRITE_SECONDS = 2.0  # how long our own write may take to come back through the watch


@dataclass(frozen=True, slots=True)
class PoolReconciler:
    """Brings one pool after another to what it asks for."""

    runtime: Runtime
    owned: OwnedObjects
    targets: Targets
    holds: Holds
    statuses: Statuses
    config: PoolConfig

    @classmethod
    def of(cls, runtime: Runtime) -> "PoolReconciler":
        """Return a reconciler with all its parts."""
        config = PoolConfig(proposal_seconds=runtime.settings.proposal_seconds)
        return cls(runtime, OwnedObjects(runtime), Targets(runtime), Holds(runtime), Statuses(runtime), config)

    async def reconcile(self, key: Key) -> None:
        """Look at one pool and do what is to be done.

        Raises:
            KubeError: the server could not be asked, or the world moved; to be tried again.
        """
        record = self.runtime.store.pools.get(key)
        if record is None:
            return
        spec = record.asked.spec
        refusal = self.runtime.refusal.reason
        try:
            if record.asked.deleting:
                await self._let_go(key, record, spec)
            elif spec is None or refusal is not None:
                await self._show_unable(key, record, refusal or record.asked.fault)
            else:
                await self._pursue(key, record, spec)
        except PoolGone:
            self.runtime.store.drop_pool(key)
            _log.info("pool is gone", pool="/".join(key))

    # Look

    async def _look(self, key: Key, record: PoolRecord, spec: PoolSpec) -> tuple[PoolSeen, Resource | None]:
        store = self.runtime.store
        resource, fault = await self._resource(spec)
        workload = None
        if resource is not None:
            workload, fault = await self._workload(spec, resource)
        seen = PoolSeen(
            at=self.runtime.clock.now(),
            workload=workload,
            scaler=store.scaler_of(spec.claim),
            holder=store.holder_of(spec),
            fault=fault,
            pods=store.pods_of(key) if spec.owned else None,
            approvals=record.asked.approvals,
            resumed=record.asked.resume == REPLICAS,
            released=record.asked.released,
        )
        return seen, resource

    async def _resource(self, spec: PoolSpec) -> tuple[Resource | None, Reason | None]:
        if spec.owned:
            return DEPLOYMENTS, None
        resource = await self.targets.resource(spec.target)
        return resource, None if resource else _about_target(spec, ReasonCode.TARGET_NOT_SCALABLE)

    async def _workload(self, spec: PoolSpec, resource: Resource) -> tuple[Workload | None, Reason | None]:
        seen = self.runtime.store.owned_by(resource, (spec.ref.namespace, spec.target.name))
        if resource in {DEPLOYMENTS, STATEFUL_SETS}:
            missing = None if seen or spec.owned else _about_target(spec, ReasonCode.TARGET_NOT_FOUND)
            return (seen.workload if seen else None), missing
        try:
            scale = await read_scale(self.runtime.kube, resource, spec.ref.namespace, spec.target.name)
        except NotFound:
            return None, _about_target(spec, ReasonCode.TARGET_NOT_FOUND)
        except Forbidden:
            return None, _about_target(spec, ReasonCode.TARGET_FORBIDDEN)
        return Workload(
            scale.resource_version, scale.desired, scale.current, scale.current, selector=scale.selector
        ), None

    # Decide and act

    async def _pursue(self, key: Key, record: PoolRecord, spec: PoolSpec) -> None:
        seen, resource = await self._look(key, record, spec)
        if self._awaits_own_write(key, record, seen):
            return
        decision = step(self.config, record.state, spec, seen)
        before, record.state = record.state, decision.state
        fault = seen.fault
        if record.asked.blueprint is not None and seen.holder is None:
            replicas = _replicas_to_apply(spec, seen)
            fault = await self.owned.keep(key, record, spec, record.asked.blueprint, replicas)
        for action in decision.actions:
            if await self._act(key, record, spec, seen, resource, action, fault) is Outcome.STALE:
                record.state = replace(record.state, proposals=before.proposals)  # what was approved stays approved
                self.runtime.store.mark_later(key, seen.at + _STALE_SECONDS)
        if record.asked.released and record.state.hold is not None:
            fault = await self.holds.give_back(record, spec, seen, resource) or fault
        self._note_proposals(record, spec, before, seen.at)
        await self._show(key, record, spec, fault, decision.reasons)
        await self._tidy(key, record)
        if spec.owned and seen.workload is None and fault is None and carrier(spec, seen.scaler) is not Carrier.APPLY:
            self.runtime.store.mark(key)  # the Deployment just made has to hand over its replicas

    def _awaits_own_write(self, key: Key, record: PoolRecord, seen: PoolSeen) -> bool:
        """Return whether our last write to the workload is still to come back: what is seen is older than we are."""
        if not record.await_version or seen.workload is None:
            return False
        if int(seen.workload.resource_version) >= record.await_version or seen.at > record.await_until:
            record.await_version = 0
            return False
        self.runtime.store.mark_later(key, record.await_until)
        return True

    async def _act(
        self,
        key: Key,
        record: PoolRecord,
        spec: PoolSpec,
        seen: PoolSeen,
        resource: Resource | None,
        action: Action,
        fault: Reason | None,
    ) -> Outcome | None:
        """Carry out one action and note it; returns what became of it, None if it was not tried."""
        if carrier(spec, seen.scaler) is Carrier.APPLY:
            applied = Applied(action, Outcome.REFUSED, say(fault)) if fault else Applied(action, Outcome.APPLIED)
        elif fault is not None or resource is None:
            return None
        else:
            applied = await self._turn(key, record, spec, resource, action)
        if applied.outcome is not Outcome.STALE:
            self._note(record, spec, applied, seen.at)
        if applied.outcome is Outcome.APPLIED:
            self.runtime.store.mark_later(key, seen.at + journal.EFFECT_SECONDS + 1)  # was it any use?
        return applied.outcome

    async def _turn(self, key: Key, record: PoolRecord, spec: PoolSpec, resource: Resource, action: Action) -> Applied:
        """Set replicas through `/scale`; a foreign workload is held first, so that nothing is changed unnoted."""
        if not spec.owned:
            if spec.mode is Mode.OBSERVE:
                return await DryRun().apply(action)
            if record.state.hold is None:
                record.state = begin_hold(record.state, action, self.runtime.clock.now())
                await self._show(key, record, spec, None, (action.reason,))
                await self.holds.guard(key)
        runtime = self.runtime
        actuator = ScaleActuator(runtime.kube, runtime.clock, resource, spec.ref.namespace, spec.target.name)
        runtime.metrics.wrote(f"{resource.plural}/scale", "patch")
        applied = await actuator.apply(action)
        if applied.outcome is Outcome.APPLIED:
            record.state = confirm_hold(record.state)
            record.await_version = int(applied.resource_version)
            record.await_until = runtime.clock.now() + _OWN_WRITE_SECONDS
        return applied

    async def _let_go(self, key: Key, record: PoolRecord, spec: PoolSpec | None) -> None:
        """Give back what is held, then let the deletion go on; what is in the way is shown, and tried again."""
        if keys.FINALIZER not in record.asked.finalizers:
            return
        if spec is not None:
            seen, resource = await self._look(key, record, spec)
            refusal = await self.holds.give_back(record, spec, seen, resource)
            if refusal is not None:
                await self._show(key, record, spec, refusal, ())
                return
        await self.holds.unguard(key)

    async def _tidy(self, key: Key, record: PoolRecord) -> None:
        """Take off what has served its purpose: the finalizer without a hold, the request to resume."""
        if record.state.hold is None and keys.FINALIZER in record.asked.finalizers:
            await self.holds.unguard(key)
        if record.asked.resume and not record.state.contested_by:
            patch = {"metadata": {"annotations": {keys.RESUME: None}}}
            self.runtime.metrics.wrote(SERVING_POOLS.plural, "patch")
            await self.runtime.kube.merge_patch(SERVING_POOLS, key[1], patch, key[0])
            record.asked = replace(record.asked, resume="")

    # Note and show

    def _note(self, record: PoolRecord, spec: PoolSpec, applied: Applied, at: float) -> None:
        action, outcome = applied.action, applied.outcome
        entry = journal.entry(action, outcome, at, detail=applied.detail, predicted=predicted(action.value))
        noted = journal.record(record.journal, entry)
        if noted == record.journal:
            return
        record.journal = noted
        self._tell(record, spec, applied)

    def _tell(self, record: PoolRecord, spec: PoolSpec, applied: Applied, proposal: str = "") -> None:
        action, outcome = applied.action, applied.outcome
        code = {
            Outcome.RECORDED: ReasonCode.REPLICAS_WOULD_BE_SET,
            Outcome.PROPOSED: ReasonCode.REPLICAS_PROPOSED,
            Outcome.REFUSED: ReasonCode.REPLICAS_REFUSED,
        }.get(outcome, ReasonCode.REPLICAS_SET)
        words = (
            ("target", f"{spec.target.kind} {spec.target.name}"),
            ("why", say(action.reason)),
            ("detail", applied.detail),
            ("id", proposal),
            ("object", f"spool/{spec.ref.name} -n {spec.ref.namespace}"),
        )
        reason = Reason(code, spec.ref, (("was", action.was or 0), ("value", action.value)), words)
        self.runtime.metrics.decided(action.policy, action.knob.field, outcome.value)
        self.runtime.events.post(spec.ref, record.asked.uid, reason, warning=outcome is Outcome.REFUSED)
        _log.info(
            "decision",
            pool=f"{spec.ref.namespace}/{spec.ref.name}",
            knob=action.knob.field,
            was=action.was,
            value=action.value,
            policy=action.policy,
            reason=action.reason.code.value,
            outcome=outcome.value,
            **({"detail": applied.detail} if applied.detail else {}),
        )

    def _note_proposals(self, record: PoolRecord, spec: PoolSpec, before: PoolState, at: float) -> None:
        """Enter proposals that came and those that nobody approved in time; a renewed one is no news."""
        old = {one.id: one for one in before.proposals}
        lapsed = [one for one in before.proposals if one.expires_at <= at]
        for one in lapsed:
            action = _action_of(one)
            record.journal = journal.record(record.journal, journal.entry(action, Outcome.EXPIRED, at))
            self.runtime.metrics.decided(one.policy, one.knob.field, Outcome.EXPIRED.value)
        renewed = {(one.was, one.value) for one in lapsed}
        for one in record.state.proposals:
            self.runtime.store.mark_later((spec.ref.namespace, spec.ref.name), one.expires_at)
            if one.id in old or (one.was, one.value) in renewed:
                continue
            action = _action_of(one)
            entry = journal.entry(action, Outcome.PROPOSED, at, predicted=predicted(one.value))
            record.journal = journal.record(record.journal, replace(entry, id=one.id))
            self._tell(record, spec, Applied(action, Outcome.PROPOSED), one.id)

    async def _show(
        self, key: Key, record: PoolRecord, spec: PoolSpec, fault: Reason | None, reasons: tuple[Reason, ...]
    ) -> None:
        seen, _ = await self._look(key, record, spec)
        seen = replace(seen, fault=fault)
        self._follow(record, spec, seen)
        verdicts = judge_pool(spec, record.state, seen, reasons[0] if reasons else None)
        memory = record.status
        status = pool_status(spec, record.state, seen, verdicts, record.journal, memory)
        when = await self.statuses.write(SERVING_POOLS, spec.ref, record.asked.uid, memory, status, verdicts)
        record.faults = 0 if fault is None else record.faults + 1
        if fault is not None:
            delay = min(_FIRST_FAULT_SECONDS * 2.0**record.faults, _LONGEST_FAULT_SECONDS)
            when = min(when or float("inf"), seen.at + delay)
        if when is not None:
            self.runtime.store.mark_later(key, when)

    def _follow(self, record: PoolRecord, spec: PoolSpec, seen: PoolSeen) -> None:
        workload = seen.workload
        if workload is None:
            return
        ready = workload.settled and workload.ready == workload.desired
        observed = f"{workload.ready} of {workload.desired} replicas ready"
        record.journal = journal.follow(
            record.journal, spec.knob, str(workload.desired), observed, seen.at, reached=ready
        )

    async def _show_unable(self, key: Key, record: PoolRecord, fault: Reason | None) -> None:
        """Show why the pool cannot be looked after at all; everything else of its status stays as it is."""
        ref = Ref(SERVING_POOLS.kind, *key)
        reason = fault or Reason(ReasonCode.NOT_YET_OBSERVED, ref)
        verdicts = (Verdict(ConditionType.READY, Truth.FALSE, replace(reason, subject=ref)),)
        at = self.runtime.clock.now()
        status: Status = {"conditions": conditions(verdicts, record.asked.generation, at, record.status)}
        if record.asked.fault is not None:  # a spec that cannot be read has been looked at; on an old schema it was not
            status["observedGeneration"] = record.asked.generation
        await self.statuses.write(SERVING_POOLS, ref, record.asked.uid, record.status, status, verdicts)


def _replicas_to_apply(spec: PoolSpec, seen: PoolSeen) -> int | None:
    if carrier(spec, seen.scaler) is Carrier.APPLY:
        ruling = rule(spec)
        return None if ruling is None else ruling.value
    return start_replicas(spec) if seen.workload is None else None


def _about_target(spec: PoolSpec, code: ReasonCode) -> Reason:
    return Reason(code, spec.ref, words=(("target", f"{spec.target.kind} {spec.target.name}"),))


def _action_of(proposal: Proposal) -> Action:
    return Action(
        proposal.knob,
        proposal.was,
        proposal.value,
        Precedence.SLO,
        proposal.policy,
        proposal.reason,
        "",
        proposal.expires_at,
    )
