"""One pool at work: carries out what its queue decides, and tells the queue what happened."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from trimtab.api.openai import ErrorCode
from trimtab.decide.queueing import Decision, Endpoint, PoolQueue
from trimtab.decide.queueing.health import GOOD, Health, HealthPolicy, after_failure
from trimtab.model.reason import Reason, ReasonCode
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.engine import EngineLink
from trimtab_gateway.journal import Journal, Record
from trimtab_gateway.limits import Limits
from trimtab_gateway.outcome import Outcome
from trimtab_gateway.pools import EngineAddress, Level, PoolConfig

if TYPE_CHECKING:
    from prometheus_client import Counter

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


class LevelMetrics:
    """The metrics of one service level, looked up once."""

    __slots__ = ("gap_seconds", "met", "missed", "ttft_seconds")

    def __init__(self, metrics: GatewayMetrics, pool: str, level: str) -> None:
        self.ttft_seconds = metrics.ttft_seconds.labels(pool, level)
        self.gap_seconds = metrics.gap_seconds.labels(pool, level)
        self.met = metrics.objective.labels(pool, level, "true")
        self.missed = metrics.objective.labels(pool, level, "false")


class Dispatcher:
    """The shell around one `PoolQueue`."""

    def __init__(
        self,
        config: PoolConfig,
        limits: Limits,
        metrics: GatewayMetrics,
        journal: Journal,
        now: Callable[[], float],
        health_policy: HealthPolicy = _HEALTH_POLICY,
    ) -> None:
        self.config = config
        self.engines: dict[str, Engine] = {}
        self.queue = PoolQueue(config.subject, config.bounds)
        self._limits = limits
        self._metrics = metrics
        self._journal = journal
        self._now = now
        self._health_policy = health_policy
        self._waiting: dict[int, Exchange] = {}
        self._levels: dict[str, LevelMetrics] = {}
        self._outcomes: dict[tuple[str, Outcome | ErrorCode], Counter] = {}
        self._queue_seconds = metrics.queue_seconds.labels(config.name)
        self._response_seconds = metrics.response_seconds.labels(config.name)
        fleet = self.queue.fleet
        metrics.watch_pool(
            config.name,
            in_flight=lambda: fleet.total_in_flight,
            waiting=lambda: self.queue.waiting,
            capacity=lambda: fleet.ready_capacity,
        )
        self.configure(config)

    def configure(self, config: PoolConfig) -> None:
        """Take over a changed configuration; requests that wait or run are not disturbed."""
        self.config = config
        self.queue.bounds = config.bounds
        wanted = {address.name: address for address in config.engines}
        for name in self.engines.keys() - wanted.keys():
            self.engines.pop(name).link.close()
            self._metrics.forget_endpoint(config.name, name)
        for name, address in wanted.items():
            self._place(name, address)
        at = self._now()
        self._act(self.queue.set_endpoints([engine.endpoint(at) for engine in self.engines.values()], at), at)
        for engine in self.engines.values():
            self._show(engine, at)

    def submit(self, exchange: "Exchange", at: float) -> None:
        """Queue a request."""
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
        metrics = self._level(level)
        metrics.ttft_seconds.observe(seconds)
        if level.ttft_seconds is not None:
            (metrics.met if seconds <= level.ttft_seconds else metrics.missed).inc()

    def saw_gap(self, level: Level, seconds: float) -> None:
        """Count the time between two arrivals of content."""
        self._level(level).gap_seconds.observe(seconds)

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
        self._count(level, outcome)
        if outcome is Outcome.OK:
            self._response_seconds.observe(total)
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

    def tick(self, at: float) -> None:
        """Do what time alone makes due."""
        for engine in self.engines.values():
            engine.link.close_idle(older_than=at - self._limits.engine_idle_seconds)
            if engine.health.on_trial:
                self._refresh(engine, at)
        due = self.queue.next_due()
        if due is not None and due <= at:
            self._act(self.queue.step(at), at)

    @property
    def has_requests(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self._waiting) or self.queue.fleet.total_in_flight > 0

    def close(self) -> None:
        """Stop reporting the pool and keep no connection."""
        for engine in self.engines.values():
            engine.link.close()
            self._metrics.forget_endpoint(self.config.name, engine.name)
        self._metrics.forget_pool(self.config.name)

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
            self._queue_seconds.observe(at - dispatch.request.arrived_at)
            exchange.dispatched(self.engines[dispatch.endpoint], at)
        for refusal in decision.refusals:
            exchange = self._waiting.pop(refusal.request.key)
            exchange.refused(refusal, _CODES[refusal.reason.code])

    def _set_health(self, engine: Engine, health: Health) -> None:
        at = self._now()
        if health.ejections > engine.health.ejections:
            self._metrics.ejections.labels(self.config.name).inc()
            _log.warning(
                "engine ejected", pool=self.config.name, engine=engine.name, seconds=round(health.ejected_until - at, 3)
            )
        engine.health = health
        if self.engines.get(engine.name) is engine:
            self._refresh(engine, at)

    def _refresh(self, engine: Engine, at: float) -> None:
        """Tell the queue what a change of health, or the end of an ejection, means."""
        self._show(engine, at)
        self._act(self.queue.update_endpoint(engine.endpoint(at), at), at)

    def _show(self, engine: Engine, at: float) -> None:
        self._metrics.endpoint_up.labels(self.config.name, engine.name).set(engine.endpoint(at).ready)

    def _judge_unserved(
        self, exchange: "Exchange", outcome: Outcome | ErrorCode, seconds: float, ttft_seconds: float | None
    ) -> None:
        """Count a stream without a first token against its objective, unless its client left before it was due."""
        objective = exchange.level.ttft_seconds
        if objective is None or ttft_seconds is not None or not exchange.asked.stream:
            return
        if outcome is Outcome.CLIENT_ERROR or (outcome is Outcome.CANCELLED and seconds <= objective):
            return
        self._level(exchange.level).missed.inc()

    def _count(self, level: Level, outcome: Outcome | ErrorCode) -> None:
        counter = self._outcomes.get((level.name, outcome))
        if counter is None:
            counter = self._metrics.requests.labels(self.config.name, level.name, outcome.value)
            self._outcomes[level.name, outcome] = counter
        counter.inc()

    def _level(self, level: Level) -> LevelMetrics:
        found = self._levels.get(level.name)
        if found is None:
            found = self._levels[level.name] = LevelMetrics(self._metrics, self.config.name, level.name)
        return found
