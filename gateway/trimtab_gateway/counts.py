"""What is counted about one pool. A time series appears with its first value and goes with its pool."""

from typing import TYPE_CHECKING

from trimtab.api.openai import ErrorCode
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.outcome import Outcome
from trimtab_gateway.pools import Level

if TYPE_CHECKING:
    from prometheus_client import Counter


class _PoolSeries:
    """The series of a pool that has had a request, looked up once."""

    __slots__ = ("queue_seconds", "response_seconds")

    def __init__(self, metrics: GatewayMetrics, pool: str) -> None:
        self.queue_seconds = metrics.queue_seconds.labels(pool)
        self.response_seconds = metrics.response_seconds.labels(pool)


class _LevelSeries:
    """The series of a service level that has had a stream, looked up once."""

    __slots__ = ("gap_seconds", "met", "missed", "ttft_seconds")

    def __init__(self, metrics: GatewayMetrics, pool: str, level: str) -> None:
        self.ttft_seconds = metrics.ttft_seconds.labels(pool, level)
        self.gap_seconds = metrics.gap_seconds.labels(pool, level)
        self.met = metrics.objective.labels(pool, level, "true")
        self.missed = metrics.objective.labels(pool, level, "false")


class PoolCounts:
    """Counts one pool. After `forget` nothing is counted: requests of a removed pool may end later."""

    __slots__ = ("_gone", "_levels", "_metrics", "_name", "_outcomes", "_pool")

    def __init__(self, metrics: GatewayMetrics, name: str) -> None:
        self._metrics = metrics
        self._name = name
        self._pool: _PoolSeries | None = None
        self._levels: dict[str, _LevelSeries] = {}
        self._outcomes: dict[tuple[str, Outcome | ErrorCode], Counter] = {}
        self._gone = False

    def dispatched(self, waited_seconds: float) -> None:
        """Count a request that an engine has a place for."""
        if not self._gone:
            self._own().queue_seconds.observe(waited_seconds)

    def served(self, seconds: float) -> None:
        """Count a request whose answer was complete."""
        if not self._gone:
            self._own().response_seconds.observe(seconds)

    def ended(self, level: Level, outcome: Outcome | ErrorCode) -> None:
        """Count a request that ended."""
        if self._gone:
            return
        counter = self._outcomes.get((level.name, outcome))
        if counter is None:
            counter = self._metrics.requests.labels(self._name, level.name, outcome.value)
            self._outcomes[level.name, outcome] = counter
        counter.inc()

    def saw_first_token(self, level: Level, seconds: float) -> None:
        """Count the first content of a stream."""
        if self._gone:
            return
        series = self._level(level)
        series.ttft_seconds.observe(seconds)
        if level.ttft_seconds is not None:
            (series.met if seconds <= level.ttft_seconds else series.missed).inc()

    def saw_gap(self, level: Level, seconds: float) -> None:
        """Count the time between two arrivals of content."""
        if not self._gone:
            self._level(level).gap_seconds.observe(seconds)

    def missed(self, level: Level) -> None:
        """Count a stream that did not keep its level's objective."""
        if not self._gone:
            self._level(level).missed.inc()

    def ejected(self) -> None:
        """Count an engine that was taken out of rotation."""
        if not self._gone:
            self._metrics.ejections.labels(self._name).inc()

    def forget(self) -> None:
        """Drop every series of the pool, for good."""
        self._gone = True
        metrics, name = self._metrics, self._name
        metrics.ejections.remove(name)
        if self._pool is not None:
            metrics.queue_seconds.remove(name)
            metrics.response_seconds.remove(name)
        for level, outcome in self._outcomes:
            metrics.requests.remove(name, level, outcome.value)
        for level in self._levels:
            metrics.ttft_seconds.remove(name, level)
            metrics.gap_seconds.remove(name, level)
            metrics.objective.remove(name, level, "true")
            metrics.objective.remove(name, level, "false")

    def _own(self) -> _PoolSeries:
        if self._pool is None:
            self._pool = _PoolSeries(self._metrics, self._name)
        return self._pool

    def _level(self, level: Level) -> _LevelSeries:
        found = self._levels.get(level.name)
        if found is None:
            found = self._levels[level.name] = _LevelSeries(self._metrics, self._name, level.name)
        return found
