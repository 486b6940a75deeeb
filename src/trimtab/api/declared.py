"""What people declared about power, turned from wire objects into the values that placement decides on."""

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.api import keys
from trimtab.api.power_domain import PowerDomain
from trimtab.api.serving_pool import ServingPool
from trimtab.model.power import Demand, Derate, Domain, PodFacts

_SENT_FOR = frozenset((*keys.ACCELERATOR_RESOURCES, keys.PLACEMENT_RESOURCE))
_MOST_WATTS = 1_000_000
_MOST_DIGITS = 10
_ENDED = ("Succeeded", "Failed")


def domain(power_domain: PowerDomain) -> Domain:
    """Return the limits of a PowerDomain. Only mode `Enforce` turns pods away."""
    spec = power_domain.spec
    created = power_domain.metadata.creation_timestamp
    derate = spec.derate
    cut = (
        Derate(derate.power_percent, derate.until.timestamp() if derate.until else None)
        if derate is not None and derate.power_percent is not None
        else None
    )
    return Domain(
        name=power_domain.metadata.name,
        level=spec.type,
        nodes=spec.nodes,
        parent=spec.parent or "",
        limit_watts=spec.limits.power_watts,
        margin_percent=spec.margin_percent,
        derate=cut,
        enforced=spec.mode == "Enforce",
        created=created.timestamp() if created else 0.0,
    )


def demand(pool: ServingPool) -> Demand:
    """Return what one replica of a pool draws when busy: the highest of its models and variants.

    Any variant may be the one that a replica runs next, so the highest counts. On an accelerator for which there is no
    profile, the highest of all profiles counts.
    """
    highest: dict[str, int] = {}
    for accelerator, watts in _profiles(pool):
        highest[accelerator] = max(watts, highest.get(accelerator, 0))
    return Demand(highest, max(highest.values(), default=None))


def _profiles(pool: ServingPool) -> Iterator[tuple[str, int]]:
    for model in pool.spec.models:
        for variant in model.variants:
            for profile in variant.profiles:
                if profile.watts is not None:
                    yield profile.accelerator, profile.watts.busy


def pod_facts(pod: Mapping[str, Any]) -> PodFacts:
    """Return what placement knows of a Pod as the API server or the scheduler sends it."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    namespace = metadata.get("namespace", "")
    pool = (metadata.get("labels") or {}).get(keys.POOL)
    return PodFacts(
        uid=metadata.get("uid", ""),
        namespace=namespace,
        name=metadata.get("name", ""),
        watts=watts((metadata.get("annotations") or {}).get(keys.WATTS)),
        pool=(namespace, pool) if pool else None,
        node=spec.get("nodeName") or "",
        nominated=(pod.get("status") or {}).get("nominatedNodeName") or "",
    )


def watts(text: str | None) -> int | None:
    """Return the watts that an annotation declares: a whole number, 0 to 1000000; anything else declares nothing."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS:
        return None
    value = int(text)
    return value if value <= _MOST_WATTS else None


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Say whether a Pod has run to its end and draws nothing any more."""
    return (pod.get("status") or {}).get("phase") in _ENDED


def is_sent(pod: Mapping[str, Any]) -> bool:
    """Say whether the scheduler asks the extender about a Pod, with the shipped scheduler configuration."""
    spec = pod.get("spec") or {}
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return any(not _SENT_FOR.isdisjoint(_resources(container)) for container in containers)


def _resources(container: Mapping[str, Any]) -> set[str]:
    resources = container.get("resources") or {}
    return {*(resources.get("requests") or ()), *(resources.get("limits") or ())}


def has_claims(pod: Mapping[str, Any]) -> bool:
    """Say whether a Pod asks for devices by resource claims, of which the extender sees nothing else."""
    return bool((pod.get("spec") or {}).get("resourceClaims"))
