"""One pool's queue: bounds on who may wait, the order of service, and the least loaded engine."""

from collections.abc import Iterable
from dataclasses import dataclass

from trimtab.decide.queueing import fcfs
from trimtab.decide.queueing.fleet import Endpoint, Fleet
from trimtab.decide.queueing.line import Line, Order
from trimtab.decide.queueing.pace import Pace
from trimtab.decide.queueing.request import Request
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much waiting a pool allows.

    Attributes:
        max_requests: requests that may wait at once.
        max_waiting_seconds: how long one request may wait.
        max_seconds_without_endpoint: how long it may wait while no engine is ready at all.
    """

    max_requests: int = 5000
    max_waiting_seconds: float = 600.0
    max_seconds_without_endpoint: float = 10.0


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A request goes to an engine, which carries it from this moment on."""

    request: Request
    endpoint: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request is sent away."""

    request: Request
    reason: Reason
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens at one moment; a request that is in neither part goes on waiting."""

    dispatches: tuple[Dispatch, ...] = ()
    refusals: tuple[Refusal, ...] = ()


NOTHING = Decision()


class PoolQueue:
    """The state of one pool's queue, and what happens to it at each event.

    Every request that `arrive` was given ends exactly once: by a refusal, by `withdraw`, or by a dispatch followed by
    `finish` or `hand_back`. Methods that take `at` return what is to be done at that moment; `at` never goes back.

    Args:
        subject: the pool, for reasons.
        bounds: how much waiting it allows; may be replaced at any time.
        order: the rank of a request; first come, first served by default.
    """

    __slots__ = ("_line", "_pace", "_without_endpoint_since", "bounds", "fleet", "subject")

    def __init__(self, subject: Ref, bounds: Bounds, order: Order = fcfs.order) -> None:
        self.subject = subject
        self.bounds = bounds
        self.fleet = Fleet()
        self._line = Line(order)
        self._pace = Pace()
        self._without_endpoint_since: float | None = None

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    @property
    def service_seconds(self) -> float | None:
        """The moving average of the time that an engine spends on one request; None before the first one ended."""
        return self._pace.service_seconds

    def arrive(self, request: Request, at: float) -> Decision:
        """Let a request in, or refuse it because the line is full."""
        endpoint = self.fleet.least_loaded()
        if endpoint is not None and not self._line:  # the common case, without a detour through the line
            self.fleet.take(endpoint)
            return Decision((Dispatch(request, endpoint),))
        if endpoint is None and len(self._line) >= self.bounds.max_requests:
            return Decision(refusals=(self._refuse(request, ReasonCode.QUEUE_FULL, at),))
        self._line.push(request)
        return self.step(at)

    def withdraw(self, key: int) -> bool:
        """Take a waiting request out, e.g. because its client is gone; false when it does not wait."""
        return self._line.remove(key) is not None

    def finish(self, endpoint: str, at: float, served_seconds: float | None = None) -> Decision:
        """Free the place of a request that ended.

        Args:
            endpoint: the engine that carried it.
            at: when it ended.
            served_seconds: how long it took, when it ran to its end; absent when it was cut short.
        """
        self.fleet.give_back(endpoint)
        if served_seconds is not None:
            self._pace = self._pace.after(served_seconds)
        return self.step(at)

    def hand_back(self, request: Request, endpoint: str, at: float) -> Decision:
        """Put a dispatched request that its engine never saw back in its old place."""
        self.fleet.give_back(endpoint)
        self._line.push(request)
        return self.step(at)

    def set_endpoints(self, endpoints: Iterable[Endpoint], at: float) -> Decision:
        """Replace the pool's engines; the loads of those that stay are kept."""
        self.fleet.replace(endpoints)
        return self.step(at)

    def update_endpoint(self, endpoint: Endpoint, at: float) -> Decision:
        """Change one engine's readiness or capacity."""
        self.fleet.update(endpoint)
        return self.step(at)

    def step(self, at: float) -> Decision:
        """Decide everything that is due: dispatches in order while an engine has room, then overdue refusals."""
        self._note_endpoints(at)
        if not self._line:
            return NOTHING
        dispatches = self._dispatch()
        refusals = self._refuse_overdue(at)
        return Decision(dispatches, refusals) if dispatches or refusals else NOTHING

    def next_due(self) -> float | None:
        """Return when `step` must be called at the latest although nothing else happened; None: never."""
        oldest = self._line.oldest()
        return self._due(oldest)[0] if oldest else None

    def _note_endpoints(self, at: float) -> None:
        if self.fleet.ready_capacity:
            self._without_endpoint_since = None
        elif self._without_endpoint_since is None:
            self._without_endpoint_since = at

    def _dispatch(self) -> tuple[Dispatch, ...]:
        dispatches = []
        while self._line and (endpoint := self.fleet.least_loaded()) is not None:
            self.fleet.take(endpoint)
            dispatches.append(Dispatch(self._line.pop(), endpoint))
        return tuple(dispatches)

    def _refuse_overdue(self, at: float) -> tuple[Refusal, ...]:
        refusals = []
        while (oldest := self._line.oldest()) is not None:
            due, code = self._due(oldest)
            if at < due:
                break
            self._line.remove(oldest.key)
            refusals.append(self._refuse(oldest, code, at))
        return tuple(refusals)

    def _due(self, request: Request) -> tuple[float, ReasonCode]:
        """When a waiting request is refused, and why. Grows with the arrival, so the oldest is always due first."""
        due = request.arrived_at + self.bounds.max_waiting_seconds
        if self._without_endpoint_since is not None:
            waits_since = max(request.arrived_at, self._without_endpoint_since)
            starved = waits_since + self.bounds.max_seconds_without_endpoint
            if starved < due:
                return starved, ReasonCode.NO_READY_ENDPOINT
        return due, ReasonCode.QUEUE_TIMEOUT

    def _refuse(self, request: Request, code: ReasonCode, at: float) -> Refusal:
        waiting, capacity = len(self._line), self.fleet.ready_capacity
        numbers = (
            ("waiting", float(waiting)),
            ("waited_seconds", at - request.arrived_at),
            ("max_requests", float(self.bounds.max_requests)),
            ("max_waiting_seconds", self.bounds.max_waiting_seconds),
            ("ready_capacity", float(capacity)),
        )
        reason = Reason(code, self.subject, numbers)
        return Refusal(request, reason, self._pace.retry_after_seconds(waiting, capacity))
