import asyncio
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.world import START, TurnedClock, a_world, domain_object, modified, pod_object, see_pod
from trimtab.api import declared, keys
from trimtab.decide.placement import admit
from trimtab.decide.wake import Wake
from trimtab.kube import Forbidden, NotFound, Unavailable
from trimtab.kube.resources import POWER_DOMAINS
from trimtab.obs.metrics import ExtenderMetrics
from trimtab_extender import runtime as running
from trimtab_extender.placer import Placer
from trimtab_extender.runtime import Runtime, ask_for_nudge, doubt_silence, report, serve_as_leader, watch
from trimtab_extender.settings import Settings


class FakeKube:
    """Answers `get` with one pod (or an error), and remembers what is applied."""

    def __init__(self, pod: Any = None, refuses: Exception | None = None) -> None:
        self.pod = pod
        self.refuses = refuses
        self.applied: list[dict[str, Any]] = []

    async def get(self, *_: object) -> Any:
        if isinstance(self.pod, Exception):
            raise self.pod
        return self.pod

    async def apply(self, _: object, obj: dict[str, Any], *, force: bool) -> None:
        assert force
        if self.refuses is not None:
            raise self.refuses
        self.applied.append(obj)


def a_runtime(clock: TurnedClock | None = None, **settings: Any) -> Runtime:
    clock = clock or TurnedClock()
    metrics = ExtenderMetrics()
    world = a_world(clock, metrics)
    return Runtime(Settings(**settings), clock, metrics, world, Placer(world, clock, metrics))


def sample(runtime: Runtime, name: str, **labels: str) -> float | None:
    return runtime.metrics.registry.get_sample_value(name, labels)


def test_ready_means_active_current_and_not_leaving() -> None:
    runtime = a_runtime()
    assert runtime.not_ready() == "standby"
    runtime.duty.leading = True
    assert runtime.not_ready() == ""
    runtime.world.confirm(missed=True)
    runtime.world.confirm(missed=True)
    assert runtime.not_ready() == "stale"
    runtime.duty.draining = True
    assert runtime.not_ready() == "draining"


def test_the_gauges_show_the_books() -> None:
    runtime = a_runtime()
    see_pod(runtime.world, pod_object("p", node="row-1-n0"))
    admit(runtime.world.ledger, declared.pod_facts(pod_object("q")), ["row-2-n0"], START)
    report(runtime)
    watts = {
        (domain, kind): sample(runtime, "trimtab_extender_domain_watts", domain=domain, kind=kind)
        for domain in ("row-1", "row-2")
        for kind in ("usable", "charged", "held")
    }
    assert list(watts.values()) == [1000, 400, 0, 500, 0, 400]
    assert sample(runtime, "trimtab_extender_pods", state="charged") == 1
    assert sample(runtime, "trimtab_extender_pods", state="held") == 1
    assert sample(runtime, "trimtab_extender_fresh") == 1


def test_holds_that_ran_out_are_counted() -> None:
    clock = TurnedClock()
    runtime = a_runtime(clock)
    admit(runtime.world.ledger, declared.pod_facts(pod_object("q")), ["row-2-n0"], START)
    clock.at += 31
    report(runtime)
    assert sample(runtime, "trimtab_extender_expired_holds_total") == 1


def test_bypasses_are_logged_together_and_once() -> None:
    runtime = a_runtime()
    runtime.world.active_since = START
    for name in ("p", "q"):
        see_pod(runtime.world, pod_object(name, watts="1", node="row-1-n0"))
    with capture_logs() as logs:
        report(runtime)
        report(runtime)
    (line,) = logs
    assert line["missed"] == 2


def turn_away(runtime: Runtime) -> None:
    pod = declared.pod_facts(pod_object("big", watts="900"))
    admission = admit(runtime.world.ledger, pod, ["row-2-n0"], START)
    runtime.world.waiting.note(pod, admission, partial=False, at=START)


def test_room_that_was_made_is_worth_a_nudge() -> None:
    runtime = a_runtime()
    turn_away(runtime)
    assert report(runtime) is None
    assert sample(runtime, "trimtab_extender_pods", state="waiting") == 1
    runtime.world.take(POWER_DOMAINS, modified(domain_object("row-2", 5000, generation=2)))
    assert report(runtime) == Wake("row-2-n0", 1)


def test_a_snapshot_in_doubt_wakes_nobody() -> None:
    runtime = a_runtime()
    turn_away(runtime)
    runtime.world.take(POWER_DOMAINS, modified(domain_object("row-2", 5000, generation=2)))
    runtime.world.confirm(missed=True)
    runtime.world.confirm(missed=True)
    assert report(runtime) is None


async def test_a_nudge_is_asked_for_with_an_epoch_that_no_earlier_process_used() -> None:
    runtime, kube = a_runtime(namespace="power"), FakeKube()
    for _ in range(2):
        await ask_for_nudge(runtime, kube, Wake("n1", 3))  # type: ignore[arg-type]
    first, second = kube.applied
    assert first["metadata"]["name"] == keys.PLACEMENT_LEASE
    assert first["metadata"]["namespace"] == "power"
    assert first["metadata"]["annotations"] == {keys.PLACEMENT_EPOCH: str(int(START)), keys.PLACEMENT_NODE: "n1"}
    assert second["metadata"]["annotations"][keys.PLACEMENT_EPOCH] == str(int(START) + 1)
    assert sample(runtime, "trimtab_extender_nudges_total", result="asked") == 2


async def test_a_nudge_that_could_not_be_asked_for_is_kept() -> None:
    runtime = a_runtime()
    with capture_logs() as logs:
        await ask_for_nudge(runtime, FakeKube(refuses=Forbidden(403, "Forbidden", "no")), Wake("n1", 3))  # type: ignore[arg-type]
    assert runtime.duty.unsent == Wake("n1", 3)
    assert sample(runtime, "trimtab_extender_nudges_total", result="failed") == 1
    assert logs[0]["log_level"] == "warning"
    await ask_for_nudge(runtime, FakeKube(), Wake("n1", 3))  # type: ignore[arg-type]
    assert runtime.duty.unsent is None


@pytest.mark.parametrize(
    ("answer", "doubt"),
    [
        ({"spec": {"nodeName": "row-1-n0"}}, "stale"),
        ({"spec": {}}, ""),
        (NotFound(404, "NotFound", "gone"), "stale"),
        (Unavailable(0, "Timeout", "silence"), "stale"),
    ],
)
async def test_silence_is_checked_against_the_api_server(answer: Any, doubt: str) -> None:
    clock = TurnedClock()
    runtime, kube = a_runtime(clock), FakeKube(answer)
    await doubt_silence(runtime, kube)  # type: ignore[arg-type]
    assert runtime.world.doubt == ""
    admit(runtime.world.ledger, declared.pod_facts(pod_object("q")), ["row-2-n0"], START)
    for _ in range(2):
        clock.at += 6
        await doubt_silence(runtime, kube)  # type: ignore[arg-type]
    assert runtime.world.doubt == doubt


async def test_without_election_every_replica_is_active() -> None:
    runtime = a_runtime(election=False)
    duty = asyncio.create_task(serve_as_leader(runtime, FakeKube()))  # type: ignore[arg-type]
    await asyncio.sleep(0)  # let it begin
    assert runtime.duty.leading
    assert runtime.world.active_since == START
    duty.cancel()
    with suppress(asyncio.CancelledError):
        await duty
    assert not runtime.duty.leading


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (NotFound(404, "NotFound", "no such resource"), "crds/"),
        (Forbidden(403, "Forbidden", "may not list"), "grant list and watch on powerdomains"),
    ],
)
async def test_a_refused_watch_is_said_counted_and_tried_again(
    error: Exception, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = a_runtime()
    asked = []

    async def refused(*_: object, **__: object) -> Any:
        asked.append(runtime.clock.now())
        if len(asked) > 2:
            raise asyncio.CancelledError
        raise error
        yield

    monkeypatch.setattr(running, "list_then_watch", refused)
    with capture_logs() as logs, suppress(asyncio.CancelledError):
        await watch(runtime, FakeKube(), POWER_DOMAINS)  # type: ignore[arg-type]
    assert asked == [START, START + 5, START + 10]
    assert fix in logs[0]["fix"]
    assert sample(runtime, "trimtab_extender_watch_failures_total", resource="powerdomains") == 2
