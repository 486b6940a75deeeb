"""Whether the cluster's definitions of our kinds are the ones this operator was built with."""

import structlog

from trimtab.api import keys
from trimtab.api.schema_hashes import SCHEMA_HASHES
from trimtab.kube import Kube, KubeError, NotFound
from trimtab.kube.resources import CRDS, TRIMTAB_KINDS
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.obs.wording import say
from trimtab_operator.runtime import Runtime

_log = structlog.get_logger(__name__)

_PERIOD_SECONDS = 5.0


async def mismatch(kube: Kube) -> Reason | None:
    """Return the first definition that is missing or not ours, None when all match.

    Raises:
        KubeError: the server could not be asked.
    """
    for resource in TRIMTAB_KINDS:
        name = f"{resource.plural}.{resource.group}"
        try:
            found = await kube.get(CRDS, name)
        except NotFound:
            found = {"metadata": {}}
        shown = (found["metadata"].get("annotations") or {}).get(keys.SCHEMA_HASH)
        if shown != SCHEMA_HASHES.get(resource.kind):
            return Reason(ReasonCode.SCHEMA_MISMATCH, Ref(CRDS.kind, "", name), words=(("crd", f"{CRDS.kind} {name}"),))
    return None


async def refuse_old_schema(runtime: Runtime) -> None:
    """Refuse to act while the definitions do not match; says so once, and goes on by itself once they do.

    Definitions are looked at when a process begins to lead, not later: during an upgrade they are replaced first, and
    the leader of the old version carries on until it is replaced itself.
    """
    runtime.refusal.reason = await mismatch(runtime.kube)
    if runtime.refusal.reason is not None:
        _log.error("refusing to act on another schema", fix=say(runtime.refusal.reason))


async def await_schema(runtime: Runtime) -> None:
    """Return once the definitions match; objects are marked so that each is looked at again."""
    while runtime.refusal.reason is not None:
        await runtime.clock.sleep(_PERIOD_SECONDS)
        try:
            runtime.refusal.reason = await mismatch(runtime.kube)
        except KubeError as error:
            _log.warning("schema not looked at", error=error.message, retry_seconds=_PERIOD_SECONDS)
    _log.info("schema matches")
    for key in runtime.store.pools:
        runtime.store.mark(key)
    for subject in runtime.store.placeholders:
        runtime.store.agenda.add(subject)
