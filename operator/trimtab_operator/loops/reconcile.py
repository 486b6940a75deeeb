"""The one loop that decides: it takes dirty objects from the agenda and has each brought to what is asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from trimtab.kube import KubeError, Unavailable
from trimtab_operator.records import Key
from trimtab_operator.runtime import Runtime
from trimtab_operator.store import Subject

_log = structlog.get_logger(__name__)

Reconcile = Callable[[Key], Awaitable[None]]

_INTERNAL_ERROR: Final = 500  # about one object, unlike no answer at all
_TICK_SECONDS: Final = 0.5
_FIRST_DELAY_SECONDS: Final = 0.25
_LONGEST_DELAY_SECONDS: Final = 60.0
_LONGEST_OUTAGE_DELAY_SECONDS: Final = 2.0


@dataclass(slots=True)
class ReconcileLoop:
    """Looks at dirty objects, several at a time but never the same one twice at once.

    An error of one object delays that object; an API server that does not answer delays all of them, so that a
    restart of it costs seconds and not the longest back-off. While one pass takes longer than any should, the process
    does not count as live: its object would wait for ever.

    Attributes:
        runtime: the process.
        reconcilers: for each kind, by its plural, what brings one object to what is asked for.
    """

    runtime: Runtime
    reconcilers: Mapping[str, Reconcile]
    _busy: dict[Subject, float] = field(default_factory=dict)  # since when
    _again: set[Subject] = field(default_factory=set)
    _failures: dict[Subject, int] = field(default_factory=dict)
    _outages: int = 0
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def run(self) -> None:
        """Reconcile for ever; when cancelled, what has begun is finished first."""
        slots = asyncio.Semaphore(self.runtime.settings.concurrency)
        try:
            while True:
                await self._next(slots)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2.0)

    async def _next(self, slots: asyncio.Semaphore) -> None:
        runtime = self.runtime
        self._beat()
        runtime.metrics.waiting(len(runtime.store.agenda) + len(self._busy))
        subject = runtime.store.agenda.take(runtime.clock.now())
        if subject is None:
            await runtime.store.agenda.wait(_TICK_SECONDS)
        elif subject in self._busy:
            self._again.add(subject)
        else:
            await slots.acquire()
            self._busy[subject] = runtime.clock.now()
            task = asyncio.create_task(self._work(subject, slots), name=f"reconcile {'/'.join(subject)}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _beat(self) -> None:
        oldest = next(iter(self._busy.values()), None)  # in the order in which they began
        runtime = self.runtime
        if oldest is None or runtime.clock.now() - oldest <= runtime.settings.stale_seconds:
            runtime.pulse.beat()

    async def _work(self, subject: Subject, slots: asyncio.Semaphore) -> None:
        plural, namespace, name = subject
        clock = self.runtime.clock
        began = clock.now()
        result = "done"
        try:
            await self.reconcilers[plural]((namespace, name))
            self._recovered(subject)
        except KubeError as error:
            result = "retry"
            if isinstance(error, Unavailable) and error.status != _INTERNAL_ERROR:
                await self._outage(subject, error)
            else:
                self._retry(subject, error)
        except Exception:  # noqa: BLE001 - the edge of one object's work: the others go on
            result = "defect"
            self.runtime.metrics.defect("reconcile")
            _log.exception("reconcile failed", kind=plural, namespace=namespace, name=name)
            self._delay(subject)
        finally:
            self.runtime.metrics.reconciled(plural, result, clock.now() - began)
            self._busy.pop(subject, None)
            slots.release()
            if subject in self._again:
                self._again.discard(subject)
                self.runtime.store.agenda.add(subject)

    def _recovered(self, subject: Subject) -> None:
        self._failures.pop(subject, None)
        if self._outages:
            _log.info("the API server answers again", failed_calls=self._outages)
            self._outages = 0

    async def _outage(self, subject: Subject, error: Unavailable) -> None:
        """Keep the slot for a moment, which slows everything down, and have the object looked at right after."""
        self.runtime.metrics.failed(error.reason or "Unavailable")
        if not self._outages:
            _log.warning("the API server does not answer", error=error.message)
        self._outages += 1
        await self.runtime.clock.sleep(min(_FIRST_DELAY_SECONDS * self._outages, _LONGEST_OUTAGE_DELAY_SECONDS))
        self.runtime.store.agenda.add(subject)

    def _retry(self, subject: Subject, error: KubeError) -> None:
        self.runtime.metrics.failed(error.reason or str(error.status))
        seconds = self._delay(subject, error.retry_after_seconds)
        plural, namespace, name = subject
        _log.warning(
            "reconcile retried", kind=plural, namespace=namespace, name=name, error=error.message, retry_seconds=seconds
        )

    def _delay(self, subject: Subject, at_least: float = 0.0) -> float:
        failures = self._failures.get(subject, 0)
        self._failures[subject] = failures + 1
        seconds: float = max(at_least, min(_FIRST_DELAY_SECONDS * 2.0**failures, _LONGEST_DELAY_SECONDS))
        self.runtime.store.agenda.add_later(subject, self.runtime.clock.now() + seconds)
        return seconds
