"""Kinds that nothing reconciles yet: accepted, validated, and shown as what they are."""

from dataclasses import dataclass

from trimtab.decide.verdicts import judge_placeholder
from trimtab.kube import Resource
from trimtab.model.ref import Ref
from trimtab.model.verdict import ConditionType, Truth, Verdict
from trimtab_operator.loops.owned import PoolGone
from trimtab_operator.loops.statuses import Statuses
from trimtab_operator.records import Key
from trimtab_operator.runtime import Runtime
from trimtab_operator.status import Status, conditions


@dataclass(frozen=True, slots=True)
class PlaceholderReconciler:
    """Shows the objects of one kind as not yet implemented."""

    runtime: Runtime
    resource: Resource

    async def reconcile(self, key: Key) -> None:
        """Show one object.

        Raises:
            KubeError: the server could not be asked.
        """
        record = self.runtime.store.placeholders.get((self.resource.plural, *key))
        if record is None:
            return
        ref = Ref(self.resource.kind, *key)
        refusal = self.runtime.refusal.reason
        verdicts = judge_placeholder(ref) if refusal is None else (Verdict(ConditionType.READY, Truth.FALSE, refusal),)
        status: Status = {
            "conditions": conditions(verdicts, record.generation, self.runtime.clock.now(), record.status)
        }
        if refusal is None:
            status["observedGeneration"] = record.generation
        try:
            await Statuses(self.runtime).write(self.resource, ref, record.uid, record.status, status, verdicts)
        except PoolGone:
            self.runtime.store.placeholders.pop((self.resource.plural, *key), None)
