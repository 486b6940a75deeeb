"""One pool at work: carries out what its queue decides, and tells the queue what happened."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from trimtab.api.openai import ErrorCode
from trimtab.decide.queueing import Decision, Endpoint, PoolQueue
from trimtab.decide.queueing.health import GOOD, Health, HealthPolicy, after_failure
from trimtab.model.reason import Reason, ReasonCode
from trimtab.obs.metrics import GatewayMetrics
from trimtab.obs.pool_gauges import PoolState
from trimtab_gateway.counts import PoolCounts
from trimtab_gateway.engine import EngineLink
from trimtab_gateway.journal import Journal, Record
from trimtab_gateway.limits import Limits
from trimtab_gateway.outcome import Outcome
from trimtab_gateway.pools import EngineAddress, Level, PoolConfig

if TYPE_CHECKING:
    from trimtab_gateway.exchange import Exchange

_log = structlog.get_logger(__name__)

_HEALTH_POLICY = HealthPolicy()
_CODES = {
    ReasonCode.QUEUE_FULL: ErrorCode.RATE_LIMITED,
    ReasonCode.QUEUE_TIMEOUT: ErrorCode.QUEUE_TIMEOUT,
    ReasonCode.NO_READY_ENDPOINT: ErrorCode.NO_CAPACITY,
}


class Engine:
    """One engine of a pool: its address, its connections and its health."""

    __slots__ = ("address", "health", "link", "unreachable")

    def __init__(self, address: EngineAddress, link: EngineLink) -> None:
        self.address = address
        self.link = link
        self.health: Health = GOOD
        self.unreachable = False
        """Whether its last failure was that nothing answered at its address."""

    @property
    def name(self) -> str:
        """The name of the engine, unique in its pool."""
        return self.address.name

    def endpoint(self, at: float) -> Endpoint:
        """Return the engine as the queue sees it at this moment: one that has failed proves itself with one request."""
        capacity = 1 if self.health.on_trial else self.address.concurrency
        return Endpoint(self.name, capacity, ready=self.address.ready and not self.health.is_ejected(at))


class Dispatcher:
    """The shell around one `PoolQueue`.

    Args:
        config: the pool.
        limits: bounds on connections to engines.
        metrics: what is counted, of all pools.
        journal: the last requests, of all pools.
        now: a clock that never goes back, in seconds.
        wake: is told when `tick` has to be called again, after it returned false or never was.
        health_policy: how much failure of an engine is tolerated.
    """

    def __init__(
        self,
        config: PoolConfig,
        limits: Limits,
        metrics: GatewayMetrics,
        journal: Journal,
        now: Callable[[], float],
        wake: Callable[["Dispatcher"], None] = lambda _: None,
        health_policy: HealthPolicy = _HEALTH_POLICY,
    ) -> None:
        self.config = config
        self.engines: dict[str, Engine] = {}
        self.queue = PoolQueue(config.subject, config.bounds)
        self._limits = limits
        self._journal = journal
        self._now = now
        self._wake = wake
        self._health_policy = health_policy
        self._waiting: dict[int, Exchange] = {}
        self._counts = PoolCounts(metrics, config.name)
        self.configure(config)

    def configure(self, config: PoolConfig) -> None:
        """Take over a changed configuration; requests that wait or run are not disturbed."""
        self.config = config
        self.queue.bounds = config.bounds
        wanted = {address.name: address for address in config.engines}
        for name in self.engines.keys() - wanted.keys():
            self.engines.pop(name).link.close()
        for name, address in wanted.items():
            self._place(name, address)
        at = self._now()
        self._act(self.queue.set_endpoints([engine.endpoint(at) for engine in self.engines.values()], at), at)

    def submit(self, exchange: "Exchange", at: float) -> None:
        """Queue a request."""
        self._wake(self)
        self._waiting[exchange.request.key] = exchange
        self._act(self.queue.arrive(exchange.request, at), at)

    def withdraw(self, exchange: "Exchange") -> None:
        """Take a request that waits out of the queue."""
        self.queue.withdraw(exchange.request.key)
        self._waiting.pop(exchange.request.key, None)

    def hand_back(self, exchange: "Exchange", engine: Engine) -> None:
        """Queue a request again that its engine has not seen."""
        at = self._now()
        self._waiting[exchange.request.key] = exchange
        self._act(self.queue.hand_back(exchange.request, engine.name, at), at)

    def report(self, engine: Engine, *, failed: bool, unreachable: bool = False) -> None:
        """Note how an engine answered."""
        if not failed:
            if engine.health is not GOOD:
                self._set_health(engine, GOOD)
            return
        engine.unreachable = unreachable
        at = self._now()
        self._set_health(engine, after_failure(engine.health, self._health_policy, at, unreachable=unreachable))

    def saw_first_token(self, level: Level, seconds: float) -> None:
        """Count the first content of a stream."""
        self._counts.saw_first_token(level, seconds)

    def saw_gap(self, level: Level, seconds: float) -> None:
        """Count the time between two arrivals of content."""
        self._counts.saw_gap(level, seconds)

    def ended(
        self,
        exchange: "Exchange",
        outcome: Outcome | ErrorCode,
        at: float,
        ttft_seconds: float | None,
        *,
        reason: Reason | None,
    ) -> None:
        """Count a request that ended, and give its place to the next one."""
        request, level, engine = exchange.request, exchange.level, exchange.engine
        dispatched_at = at if exchange.dispatched_at is None else exchange.dispatched_at
        total = at - request.arrived_at
        self._counts.ended(level, outcome)
        if outcome is Outcome.OK:
            self._counts.served(total)
        self._judge_unserved(exchange, outcome, total, ttft_seconds)
        self._journal.add(
            Record(
                request_id=exchange.request_id.decode("ascii"),
                pool=self.config.name,
                model=request.model,
                level=level.name,
                engine=engine.name if engine else "",
                outcome=outcome.value,
                queued_seconds=dispatched_at - request.arrived_at,
                ttft_seconds=ttft_seconds,
                total_seconds=total,
                attempts=exchange.attempts,
                reason=reason,
            )
        )
        if engine is not None:
            served_seconds = at - dispatched_at if outcome is Outcome.OK else None
            self._act(self.queue.finish(engine.name, at, served_seconds), at)

    def tick(self, at: float) -> bool:
        """Do what time alone makes due; false when nothing will be due before the pool wakes somebody again."""
        restless = False
        for engine in self.engines.values():
            engine.link.close_idle(older_than=at - self._limits.engine_idle_seconds)
            if engine.health.on_trial:
                self._refresh(engine, at)
            restless = restless or engine.health.on_trial or engine.link.has_idle
        due = self.queue.next_due()
        if due is not None and due <= at:
            self._act(self.queue.step(at), at)
        return restless or self.has_requests

    @property
    def has_requests(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self._waiting) or self.queue.fleet.total_in_flight > 0

    def state(self) -> PoolState:
        """Return what the pool's gauges show. Any thread may ask."""
        at, fleet = self._now(), self.queue.fleet
        return PoolState(
            name=self.config.name,
            in_flight=fleet.total_in_flight,
            waiting=self.queue.waiting,
            ready_capacity=fleet.ready_capacity,
            endpoints=tuple((engine.name, engine.endpoint(at).ready) for engine in list(self.engines.values())),
        )

    def close(self) -> None:
        """Count nothing more and keep no connection."""
        for engine in self.engines.values():
            engine.link.close()
        self._counts.forget()

    def _place(self, name: str, address: EngineAddress) -> None:
        engine = self.engines.get(name)
        if engine is not None and (engine.address.host, engine.address.port) == (address.host, address.port):
            engine.address = address
            return
        if engine is not None:
            engine.link.close()
        self.engines[name] = Engine(address, EngineLink(address.host, address.port, self._limits, self._now))

    def _act(self, decision: Decision, at: float) -> None:
        for dispatch in decision.dispatches:
            exchange = self._waiting.pop(dispatch.request.key)
            self._counts.dispatched(at - dispatch.request.arrived_at)
            exchange.dispatched(self.engines[dispatch.endpoint], at)
        for refusal in decision.refusals:
            exchange = self._waiting.pop(refusal.request.key)
            exchange.refused(refusal, _CODES[refusal.reason.code])

    def _set_health(self, engine: Engine, health: Health) -> None:
        at = self._now()
        if health.ejections > engine.health.ejections:
            self._counts.ejected()
            _log.warning(
                "engine ejected", pool=self.config.name, engine=engine.name, seconds=round(health.ejected_until - at, 3)
            )
        engine.health = health
        self._wake(self)
        if self.engines.get(engine.name) is engine:
            self._refresh(engine, at)

    def _refresh(self, engine: Engine, at: float) -> None:
        """Tell the queue what a change of health, or the end of an ejection, means."""
        self._act(self.queue.update_endpoint(engine.endpoint(at), at), at)

    def _judge_unserved(
        self, exchange: "Exchange", outcome: Outcome | ErrorCode, seconds: float, ttft_seconds: float | None
    ) -> None:
        """Count a stream without a first token against its objective, unless its client left before it was due."""
        objective = exchange.level.ttft_seconds
        if objective is None or ttft_seconds is not None or not exchange.asked.stream:
            return
        if outcome is Outcome.CLIENT_ERROR or (outcome is Outcome.CANCELLED and seconds <= objective):
            return
        self._counts.missed(exchange.level)
