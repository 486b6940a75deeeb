"""Events about pods and the node, written in the background and never twice in two minutes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from trimtab.kube import Kube, KubeError
from trimtab.kube.resources import EVENTS
from trimtab.local.process_node.spec import Pod
from trimtab.local.process_node.status import timestamp

_log = structlog.get_logger(__name__)

SAME_SECONDS: Final = 120.0
_BACKLOG: Final = 1000
_LONGEST_MESSAGE: Final = 1024
COMPONENT: Final = "trimtab-process-node"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """What happened to a pod. The type is `Normal` or `Warning`; the part is a field path, e.g. of a container."""

    pod: Pod
    type: str
    reason: str
    message: str
    part: str = ""


class Recorder:
    """Takes occurrences and writes them as Events.

    Args:
        kube: the API server.
        node_name: who reports.
        now: the clock, Unix seconds.
    """

    def __init__(self, kube: Kube, node_name: str, now: Callable[[], float]) -> None:
        self._kube = kube
        self._node_name = node_name
        self._now = now
        self._queue: asyncio.Queue[Occurrence] = asyncio.Queue(_BACKLOG)
        self._seen: dict[tuple[str, str, str, str], float] = {}
        self._count = 0

    def record(self, occurrence: Occurrence) -> None:
        """Take an occurrence. A repeated one is left out, and so is one that finds the backlog full."""
        key = (occurrence.pod.uid, occurrence.part, occurrence.reason, occurrence.message)
        now = self._now()
        if now - self._seen.get(key, -SAME_SECONDS) < SAME_SECONDS or self._queue.full():
            return
        if len(self._seen) > _BACKLOG:
            self._seen = {key: at for key, at in self._seen.items() if now - at < SAME_SECONDS}
        self._seen[key] = now
        self._queue.put_nowait(occurrence)

    async def run(self) -> None:
        """Write Events for ever. One that the server refuses is logged and lost: Events are best effort."""
        while True:
            occurrence = await self._queue.get()
            try:
                await self._kube.create(EVENTS, self._event(occurrence))
            except KubeError as error:
                _log.info("event not written", pod=occurrence.pod.key, reason=occurrence.reason, error=str(error))

    def _event(self, occurrence: Occurrence) -> dict[str, Any]:
        now, pod = self._now(), occurrence.pod
        self._count += 1
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
        return {
            "metadata": {"namespace": pod.namespace, "name": f"{pod.name[:200]}.{int(now * 1e6):x}{self._count:04x}"},
            "involvedObject": involved | ({"fieldPath": occurrence.part} if occurrence.part else {}),
            "type": occurrence.type,
            "reason": occurrence.reason,
            "message": occurrence.message[:_LONGEST_MESSAGE],
            "source": {"component": COMPONENT, "host": self._node_name},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node_name,
            "firstTimestamp": timestamp(now),
            "lastTimestamp": timestamp(now),
            "count": 1,
        }
