"""How many objects there are and how pools fare, counted now and then for the metrics."""

from collections import Counter
from typing import Final

from trimtab.kube.resources import SERVING_POOLS, TRIMTAB_KINDS
from trimtab.model.reason import ReasonCode
from trimtab.model.verdict import ConditionType
from trimtab_operator.records import StatusMemory
from trimtab_operator.runtime import Runtime

_PERIOD_SECONDS: Final = 10.0
_REASONS: Final = frozenset(code.value for code in ReasonCode)
_OTHER: Final = "Other"  # what another version wrote: label values stay few


def take_census(runtime: Runtime) -> None:
    """Count everything in the store once."""
    store = runtime.store
    counts = Counter(plural for plural, _, _ in store.placeholders)
    counts[SERVING_POOLS.plural] = len(store.pools)
    for resource in TRIMTAB_KINDS:
        runtime.metrics.known(resource.kind, counts[resource.plural])
    runtime.metrics.pools(Counter(_reason(record.status) for record in store.pools.values()))


async def keep_census(runtime: Runtime) -> None:
    """Count again and again, for ever."""
    while True:
        take_census(runtime)
        await runtime.clock.sleep(_PERIOD_SECONDS)


def _reason(status: StatusMemory) -> str:
    _, _, reason = status.since.get(ConditionType.READY, ("", "", ""))
    return reason if not reason or reason in _REASONS else _OTHER
