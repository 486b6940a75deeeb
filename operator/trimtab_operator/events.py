"""Kubernetes Events for the owners of objects: on transitions, each at most once in two minutes, never in the way."""

import asyncio
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Final

import structlog

from trimtab.kube import Kube, KubeError, Object
from trimtab.kube.resources import EVENTS, SERVING_POOLS
from trimtab.model.reason import Reason
from trimtab.model.ref import Ref
from trimtab.obs.clock import to_time
from trimtab.obs.metrics import OperatorMetrics
from trimtab.obs.wording import say
from trimtab.ports import Clock

_log = structlog.get_logger(__name__)

_REPEAT_SECONDS: Final = 120.0
_MESSAGE_LENGTH: Final = 1000
_FORGET_AT_ONCE: Final = 8  # more than are added, so that the memory of them shrinks again
_QUEUED: Final = 1000
_SAY_SECONDS: Final = 60.0
_COMPONENT: Final = "trimtab-operator"


@dataclass(slots=True)
class _Losses:
    """Events that did not arrive: said in the log now and then with their number, not one by one."""

    what: str
    count: int = 0
    said_at: float = float("-inf")

    def add(self, at: float, event: Object, error: str) -> None:
        self.count += 1
        if at - self.said_at >= _SAY_SECONDS:
            _log.warning(self.what, count=self.count, reason=event["reason"], error=error)
            self.count, self.said_at = 0, at


@dataclass(slots=True)
class Events:
    """Posts Events from a bounded queue, one after the other; what does not fit is dropped, counted and logged."""

    kube: Kube
    clock: Clock
    metrics: OperatorMetrics
    _queue: "asyncio.Queue[Object]" = field(default_factory=lambda: asyncio.Queue(_QUEUED))
    _posted: dict[str, float] = field(default_factory=dict)
    _dropped: _Losses = field(default_factory=lambda: _Losses("events dropped"))
    _failed: _Losses = field(default_factory=lambda: _Losses("events not posted"))

    def post(self, ref: Ref, uid: str, reason: Reason, *, warning: bool = False) -> None:
        """Queue an Event about an object of kind ServingPool, unless the same was posted within two minutes."""
        at = self.clock.now()
        message = say(reason)[:_MESSAGE_LENGTH]
        name = sha256(f"{uid}/{reason.code}/{message}".encode()).hexdigest()[:16]
        self._forget(at)
        if at - self._posted.get(name, float("-inf")) < _REPEAT_SECONDS:
            self.metrics.event("repeated")
            return
        self._posted.pop(name, None)  # to the end: the order is that of time
        event = _event(ref, uid, reason, message, at, name, "Warning" if warning else "Normal")
        try:
            self._queue.put_nowait(event)
            self._posted[name] = at
        except asyncio.QueueFull:
            self.metrics.event("dropped")
            self._dropped.add(at, event, f"{_QUEUED} wait to be posted")

    def _forget(self, at: float) -> None:
        """Forget what may be posted again; the oldest come first."""
        for name, then in list(islice(self._posted.items(), _FORGET_AT_ONCE)):
            if at - then < _REPEAT_SECONDS:
                return
            del self._posted[name]

    async def run(self) -> None:
        """Post what is queued, for ever."""
        while True:
            event = await self._queue.get()
            try:
                await self.kube.create(EVENTS, event)
                self.metrics.event("posted")
            except KubeError as error:
                self.metrics.event("failed")
                self._failed.add(self.clock.now(), event, error.message)


def _event(ref: Ref, uid: str, reason: Reason, message: str, at: float, name: str, severity: str) -> Object:
    namespace = ref.namespace or "default"
    when = to_time(at)
    return {
        "metadata": {"name": f"{ref.name[:200]}.{name}{int(at * 1000):x}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": SERVING_POOLS.api_version,
            "kind": ref.kind,
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": uid,
        },
        "reason": reason.code.value,
        "message": message,
        "type": severity,
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": _COMPONENT,
    }
