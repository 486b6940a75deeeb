"""The loop: what it does with objects whose reconciliation is slow, fails, or is a defect."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import cast

from tests.support.clocks import FakeClock
from tests.support.until import until
from trimtab.kube import Conflict, Kube, Unavailable
from trimtab.obs.metrics import OperatorMetrics
from trimtab_operator.events import Events
from trimtab_operator.loops.reconcile import ReconcileLoop
from trimtab_operator.pulse import Pulse
from trimtab_operator.records import Key
from trimtab_operator.runtime import Runtime
from trimtab_operator.settings import OperatorSettings

Work = Callable[[Key], Awaitable[None]]


def a_runtime(**settings: object) -> Runtime:
    clock, metrics = FakeClock(), OperatorMetrics()
    kube = cast("Kube", None)  # the loop itself never talks to the API server
    given = OperatorSettings.model_validate(settings)
    return Runtime(given, kube, clock, metrics, Events(kube, clock, metrics), Pulse(30))


@asynccontextmanager
async def looping(runtime: Runtime, work: Work) -> AsyncIterator[None]:
    task = asyncio.create_task(ReconcileLoop(runtime, {"things": work}).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def mark(runtime: Runtime, name: str) -> None:
    runtime.store.agenda.add(("things", "ai", name))


def counted(runtime: Runtime, name: str, **labels: str) -> float:
    return runtime.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_objects_are_worked_on_together_but_none_twice_at_once() -> None:
    runtime = a_runtime(concurrency=2)
    running: list[str] = []
    most: dict[str, int] = {}
    together = 0

    async def work(key: Key) -> None:
        nonlocal together
        running.append(key[1])
        together = max(together, len(running))
        most[key[1]] = max(most.get(key[1], 0), running.count(key[1]))
        for _ in range(5):
            await asyncio.sleep(0)
            mark(runtime, "a") if len(most) < 3 else None
        running.remove(key[1])

    async with looping(runtime, work):
        for name in "abc":
            mark(runtime, name)
        await until(lambda: _true(len(most) == 3 and not running and not len(runtime.store.agenda)))
    assert together == 2
    assert set(most.values()) == {1}


async def test_a_mark_during_work_is_not_lost() -> None:
    runtime = a_runtime()
    runs = 0
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: Key) -> None:
        nonlocal runs
        runs += 1
        begun.set()
        await go_on.wait()

    async with looping(runtime, work):
        mark(runtime, "a")
        await begun.wait()
        mark(runtime, "a")
        mark(runtime, "a")
        await until(lambda: _true(len(runtime.store.agenda) == 0))
        go_on.set()
        await until(lambda: _true(runs == 2))


async def test_the_backlog_is_what_waits_and_what_is_worked_on() -> None:
    runtime = a_runtime(concurrency=2)
    go_on = asyncio.Event()

    async def work(_: Key) -> None:
        await go_on.wait()

    def backlog() -> float:
        return counted(runtime, "trimtab_operator_dirty_objects")

    async with looping(runtime, work):
        for number in range(10):
            mark(runtime, str(number))
        await until(lambda: _true(backlog() >= 9))  # the third has been taken and waits for a slot
        go_on.set()
        await until(lambda: _true(backlog() == 0))


async def test_a_refusal_delays_its_object_longer_each_time() -> None:
    runtime = a_runtime()
    times: list[float] = []

    async def work(_: Key) -> None:
        times.append(runtime.clock.now())
        raise Conflict(409, "Conflict", "the object has changed")

    async with looping(runtime, work):
        mark(runtime, "a")
        await until(lambda: _true(len(times) == 1))
        for count in (2, 3, 4):
            await runtime.clock.sleep(60)
            await until(lambda count=count: _true(len(times) == count))
    assert counted(runtime, "trimtab_operator_api_errors_total", reason="Conflict") == 4


async def test_the_delay_grows_and_is_bounded() -> None:
    runtime = a_runtime()
    loop = ReconcileLoop(runtime, {})
    delays = [loop._delay(("things", "ai", "a")) for _ in range(12)]
    assert delays[:4] == [0.25, 0.5, 1.0, 2.0]
    assert delays[-1] == 60.0


async def test_a_server_that_does_not_answer_is_asked_again_until_it_does() -> None:
    runtime = a_runtime()
    answers = 0

    async def work(_: Key) -> None:
        nonlocal answers
        answers += 1
        if answers < 5:
            raise Unavailable(0, "Timeout", "no answer")

    async with looping(runtime, work):
        mark(runtime, "a")
        await until(lambda: _true(answers == 5))
    assert runtime.clock.now() < 1_010  # seconds, not the longest back-off


async def test_a_500_about_one_object_does_not_slow_down_the_others() -> None:
    runtime = a_runtime(concurrency=1)
    done: list[str] = []

    async def work(key: Key) -> None:
        if key[1] == "bad":
            raise Unavailable(500, "InternalError", "cannot convert")
        done.append(key[1])

    async with looping(runtime, work):
        for name in ("bad", "good"):
            mark(runtime, name)
        await until(lambda: _true(done == ["good"]))
    assert runtime.clock.now() == 1_000


async def test_a_defect_in_one_object_is_counted_and_the_others_go_on() -> None:
    runtime = a_runtime()
    done: list[str] = []

    async def work(key: Key) -> None:
        if key[1] == "bad":
            raise ZeroDivisionError
        done.append(key[1])

    async with looping(runtime, work):
        for name in ("bad", "good"):
            mark(runtime, name)
        await until(lambda: _true(done == ["good"]))
    assert counted(runtime, "trimtab_operator_defects_total", place="reconcile") == 1
    assert counted(runtime, "trimtab_operator_reconciles_total", kind="things", result="defect") == 1


async def test_what_has_begun_is_finished_when_the_loop_ends() -> None:
    runtime = a_runtime()
    finished = False
    begun = asyncio.Event()

    async def work(_: Key) -> None:
        nonlocal finished
        begun.set()
        for _ in range(20):
            await asyncio.sleep(0)
        finished = True

    async with looping(runtime, work):
        mark(runtime, "a")
        await begun.wait()
    assert finished


async def test_a_turning_loop_keeps_the_process_live() -> None:
    runtime = a_runtime()
    time = 0.0
    runtime = replace(runtime, pulse=Pulse(30, monotonic=lambda: time))
    time = 100.0
    assert runtime.pulse.livez()[0] == 503

    async def work(_: Key) -> None:
        await asyncio.sleep(0)

    async with looping(runtime, work):
        await until(lambda: _true(runtime.pulse.livez()[0] == 200))


async def test_a_pass_that_never_ends_takes_the_process_down_although_the_loop_turns() -> None:
    runtime = a_runtime()
    time = 0.0
    runtime = replace(runtime, pulse=Pulse(30, monotonic=lambda: time))
    begun = asyncio.Event()
    turns = 0

    async def work(key: Key) -> None:
        nonlocal turns
        if key[1] == "hangs":
            begun.set()
            await asyncio.Event().wait()
        turns += 1

    async with looping(runtime, work):
        mark(runtime, "hangs")
        await begun.wait()
        time = 29.0
        mark(runtime, "a")
        await until(lambda: _true(turns == 1))
        time = 40.0
        assert runtime.pulse.livez()[0] == 200
        await runtime.clock.sleep(31)
        time = 80.0
        mark(runtime, "b")
        await until(lambda: _true(turns == 2 and not len(runtime.store.agenda)))
        assert runtime.pulse.livez()[0] == 503


async def _true(value: bool) -> bool:
    return value
