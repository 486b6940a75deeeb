"""Writing statuses: one patch per changed object, with Events and a log line for what changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from trimtab.kube import Conflict, NotFound, Resource
from trimtab.model.reason import ReasonCode
from trimtab.model.ref import Ref
from trimtab.model.verdict import ConditionType, Truth, Verdict
from trimtab.obs.wording import say
from trimtab_operator.loops.owned import confirm
from trimtab_operator.records import StatusMemory
from trimtab_operator.runtime import Runtime
from trimtab_operator.status import Status, due, remember

_log = structlog.get_logger(__name__)

# The truth of each condition that its object's owner should hear about.
_BAD: Final = {
    ConditionType.READY: Truth.FALSE,
    ConditionType.CAPACITY_AVAILABLE: Truth.FALSE,
    ConditionType.KNOB_CONTESTED: Truth.TRUE,
}
_QUIET: Final = {ReasonCode.REPLICAS_NOT_READY.value}  # every rollout passes through it


@dataclass(frozen=True, slots=True)
class Statuses:
    """Shows on each object what holds of it."""

    runtime: Runtime

    async def write(
        self, resource: Resource, ref: Ref, uid: str, memory: StatusMemory, status: Status, verdicts: Iterable[Verdict]
    ) -> float | None:
        """Patch the status if it is due; returns when to look again, None for no need.

        Raises:
            PoolGone: the object is not there any more, or another one has its name.
            KubeError: the server could not be asked, or refuses the status of an object that is there.
        """
        at = self.runtime.clock.now()
        when = due(memory, status, at, self.runtime.settings.status_interval_seconds)
        if when is None or when > at:
            return when
        body = {"metadata": {"uid": uid}, "status": status}
        self.runtime.metrics.wrote(f"{resource.plural}/status", "patch")
        try:
            await self.runtime.kube.merge_patch(resource, ref.name, body, ref.namespace or None, "status")
        except (NotFound, Conflict):  # also while a definition is replaced, or by a webhook
            await confirm(self.runtime.kube, resource, ref.name, ref.namespace or None, uid)
            raise
        self._tell(ref, uid, memory, verdicts)
        remember(memory, status, at)
        return None

    def _tell(self, ref: Ref, uid: str, memory: StatusMemory, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            status, _, reason = memory.since.get(verdict.type, ("", "", ""))
            now = (verdict.truth.value, verdict.reason.code.value)
            if verdict.type not in _BAD or (status, reason) == now:
                continue
            was_bad = status == _BAD[verdict.type] and reason not in _QUIET
            is_bad = verdict.truth is _BAD[verdict.type] and now[1] not in _QUIET
            if is_bad or was_bad:
                self.runtime.events.post(ref, uid, verdict.reason, warning=is_bad)
            if is_bad or was_bad or (verdict.type is ConditionType.READY and status != now[0]):
                self._log(ref, verdict, is_bad=is_bad)

    def _log(self, ref: Ref, verdict: Verdict, *, is_bad: bool) -> None:
        log = _log.warning if is_bad else _log.info
        log(
            "condition changed",
            object=str(ref),
            condition=verdict.type.value,
            status=verdict.truth.value,
            reason=verdict.reason.code.value,
            text=say(verdict.reason),
        )
