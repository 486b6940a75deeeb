"""One pool at work, with a clock of the test's own and exchanges that only take notes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.property.test_gateway_framing import Wire
from trimtab.api.openai import Asked, ErrorCode
from trimtab.decide.queueing import Bounds, Request
from trimtab.model.reason import ReasonCode
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.dispatcher import Dispatcher, Engine
from trimtab_gateway.engine import EngineConnection
from trimtab_gateway.journal import Journal
from trimtab_gateway.limits import Limits
from trimtab_gateway.outcome import Outcome
from trimtab_gateway.pools import BEST_EFFORT, EngineAddress, PoolConfig


class Noted:
    """An exchange as the dispatcher sees it."""

    def __init__(self, key: int, at: float) -> None:
        self.request = Request(key, at, "llama")
        self.level = BEST_EFFORT
        self.asked = Asked("llama", stream=False)
        self.request_id = b"id"
        self.attempts = 1
        self.engine: Engine | None = None
        self.dispatched_at: float | None = None
        self.refusal: tuple[ErrorCode, ReasonCode] | None = None

    def dispatched(self, engine: Engine, at: float) -> None:
        self.engine, self.dispatched_at = engine, at

    def refused(self, refusal: Any, code: ErrorCode) -> None:
        self.refusal = (code, refusal.reason.code)


class Bench:
    def __init__(self, *names: str, concurrency: int = 4, **bounds: Any) -> None:
        self.at = 100.0
        self.keys = 0
        engines = tuple(EngineAddress(name, "127.0.0.1", 1, concurrency) for name in names)
        self.config = PoolConfig("chat", ("llama",), bounds=Bounds(**bounds), engines=engines)
        self.journal = Journal(10)
        self.woken = 0
        limits = Limits(engine_idle_seconds=4.0)
        self.pool = Dispatcher(self.config, limits, GatewayMetrics(), self.journal, self.now, self.wake)

    def now(self) -> float:
        return self.at

    def wake(self, _pool: Dispatcher) -> None:
        self.woken += 1

    def submit(self) -> Noted:
        self.keys += 1
        exchange = Noted(self.keys, self.at)
        self.pool.submit(exchange, self.at)  # type: ignore[arg-type]
        return exchange

    def end(self, exchange: Noted, outcome: Outcome | ErrorCode = Outcome.OK) -> None:
        self.pool.ended(exchange, outcome, self.at, None, reason=None)  # type: ignore[arg-type]

    def engine(self, name: str = "a") -> Engine:
        return self.pool.engines[name]


def test_an_engine_that_failed_proves_itself_with_one_request() -> None:
    bench = Bench("a")
    bench.pool.report(bench.engine(), failed=True, unreachable=True)
    waiting = [bench.submit() for _ in range(3)]
    assert [exchange.engine for exchange in waiting] == [None] * 3
    bench.at += 1.0
    bench.pool.tick(bench.at)
    assert [exchange.engine is not None for exchange in waiting] == [True, False, False]
    bench.pool.report(bench.engine(), failed=False)
    assert all(exchange.engine is bench.engine() for exchange in waiting)


def test_a_failed_trial_sends_it_away_for_longer() -> None:
    bench = Bench("a", max_seconds_without_endpoint=100.0)
    bench.pool.report(bench.engine(), failed=True, unreachable=True)
    bench.at += 1.0
    bench.pool.tick(bench.at)
    trial = bench.submit()
    bench.pool.report(bench.engine(), failed=True)
    bench.end(trial, ErrorCode.UPSTREAM_FAILED)
    after = bench.submit()
    bench.at += 1.9
    bench.pool.tick(bench.at)
    assert after.engine is None
    bench.at += 0.2
    bench.pool.tick(bench.at)
    assert after.engine is bench.engine()


def test_only_requests_that_were_served_set_the_pace() -> None:
    bench = Bench("a")
    served, failed = bench.submit(), bench.submit()
    bench.at += 7.0
    bench.end(failed, ErrorCode.UPSTREAM_FAILED)
    assert bench.pool.queue.service_seconds is None
    bench.end(served)
    assert bench.pool.queue.service_seconds == 7.0


def test_new_bounds_hold_at_once() -> None:
    bench = Bench("a", concurrency=1)
    bench.submit()
    waiting = bench.submit()
    bench.pool.configure(replace(bench.config, bounds=Bounds(max_requests=1, max_waiting_seconds=5.0)))
    assert bench.submit().refusal == (ErrorCode.RATE_LIMITED, ReasonCode.QUEUE_FULL)
    bench.at += 5.0
    bench.pool.tick(bench.at)
    assert waiting.refusal == (ErrorCode.QUEUE_TIMEOUT, ReasonCode.QUEUE_TIMEOUT)


def test_a_pool_without_engines_says_so_in_time() -> None:
    bench = Bench(max_seconds_without_endpoint=3.0)
    exchange = bench.submit()
    bench.at += 2.9
    bench.pool.tick(bench.at)
    assert exchange.refusal is None
    bench.at += 0.1
    bench.pool.tick(bench.at)
    assert exchange.refusal == (ErrorCode.NO_CAPACITY, ReasonCode.NO_READY_ENDPOINT)


def test_an_engine_that_stays_keeps_its_health_and_its_connections() -> None:
    bench = Bench("a", "b")
    before = bench.engine()
    bench.pool.report(before, failed=True, unreachable=True)
    more = EngineAddress("a", "127.0.0.1", 1, concurrency=9)
    bench.pool.configure(replace(bench.config, engines=(more,)))
    assert bench.engine() is before
    assert (before.health.on_trial, before.address.concurrency, list(bench.pool.engines)) == (True, 9, ["a"])


@pytest.mark.parametrize("address", [("127.0.0.2", 1), ("127.0.0.1", 2)])
def test_an_engine_at_another_address_is_another_engine(address: tuple[str, int]) -> None:
    bench = Bench("a")
    before = bench.engine()
    bench.pool.report(before, failed=True, unreachable=True)
    bench.pool.configure(replace(bench.config, engines=(EngineAddress("a", *address, 4),)))
    assert bench.engine() is not before
    assert bench.submit().engine is bench.engine()


def test_connections_that_nobody_used_are_closed_in_time() -> None:
    bench = Bench("a")
    connection, wire = EngineConnection(bench.engine().link), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    bench.engine().link.put_back(connection, reusable=True)
    bench.at += 3.9
    bench.pool.tick(bench.at)
    assert not wire.closing
    bench.at += 0.2
    bench.pool.tick(bench.at)
    assert wire.closing


def test_a_request_that_waits_can_be_taken_back() -> None:
    bench = Bench("a", concurrency=1)
    first, second, third = bench.submit(), bench.submit(), bench.submit()
    bench.pool.withdraw(second)  # type: ignore[arg-type]
    bench.end(first)
    assert (second.engine, third.engine) == (None, bench.engine())


def test_the_journal_knows_how_long_each_part_took() -> None:
    bench = Bench("a", concurrency=1)
    first, second = bench.submit(), bench.submit()
    bench.at += 2.0
    bench.end(first)
    bench.at += 3.0
    bench.end(second, Outcome.CANCELLED)
    record = bench.journal.latest(1)[0]
    assert (record.queued_seconds, record.total_seconds, record.outcome, record.engine) == (2.0, 5.0, "cancelled", "a")


def test_a_pool_sleeps_when_nothing_is_due_and_wakes_for_a_request() -> None:
    bench = Bench("a")
    assert not bench.pool.tick(bench.at)
    exchange = bench.submit()
    assert bench.woken
    assert bench.pool.tick(bench.at)
    bench.end(exchange)
    assert not bench.pool.tick(bench.at)


def test_a_pool_stays_awake_while_an_engine_is_on_trial() -> None:
    bench = Bench("a")
    bench.pool.report(bench.engine(), failed=True, unreachable=True)
    assert bench.pool.tick(bench.at)
    bench.pool.report(bench.engine(), failed=False)
    assert not bench.pool.tick(bench.at)
