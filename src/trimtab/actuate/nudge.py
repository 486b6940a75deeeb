"""Carries the extender's wish to wake rejected pods to a node.

The scheduler tries rejected pods again on any change of the cluster, and a changed annotation of one node is the
cheapest. The extender may not write nodes, so it writes its wish on a Lease, and this carries it out.
"""

from typing import Any

import structlog

from trimtab.api import keys
from trimtab.kube import EventType, Kube, KubeError, NotFound, list_then_watch
from trimtab.kube.resources import LEASES, NODES

_log = structlog.get_logger(__name__)


async def carry_nudges(kube: Kube, namespace: str) -> None:
    """Patch the node that the extender names, once for each new epoch; runs for ever.

    A wish that is already on the node is not carried out again, so a restart nudges nobody.

    Args:
        kube: a connection that may watch Leases in `namespace` and patch nodes.
        namespace: where the extender writes its Lease.

    Raises:
        Forbidden: the role does not allow to watch the Lease.
    """
    field = f"metadata.name={keys.PLACEMENT_LEASE}"
    async for event in list_then_watch(kube, LEASES, namespace, field_selector=field):
        if event.type in (EventType.ADDED, EventType.MODIFIED):
            await _carry(kube, event.object["metadata"].get("annotations") or {})


async def _carry(kube: Kube, wish: dict[str, Any]) -> None:
    node, epoch = wish.get(keys.PLACEMENT_NODE), wish.get(keys.PLACEMENT_EPOCH)
    if not node or not epoch:
        return
    try:
        present = (await kube.get(NODES, node))["metadata"].get("annotations") or {}
        if present.get(keys.PLACEMENT_EPOCH) != epoch:
            await kube.merge_patch(NODES, node, {"metadata": {"annotations": {keys.PLACEMENT_EPOCH: epoch}}})
            _log.info("node nudged", node=node, epoch=epoch)
    except NotFound:
        _log.info("node to nudge is gone", node=node, epoch=epoch)
    except KubeError as error:  # the extender asks again for pods that are still waiting
        _log.warning("node not nudged", node=node, epoch=epoch, problem=error.message)
