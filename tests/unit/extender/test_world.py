import pytest
from structlog.testing import capture_logs

from tests.support.objects import MINIMAL
from tests.support.power import charged
from tests.support.world import (
    START,
    TurnedClock,
    a_world,
    added,
    deleted,
    domain_object,
    modified,
    node_object,
    pod_object,
    see_pod,
)
from trimtab.api import declared, keys
from trimtab.kube import Event, EventType
from trimtab.kube.resources import NODES, PODS, POWER_DOMAINS, SERVING_POOLS
from trimtab.obs.metrics import ExtenderMetrics
from trimtab_extender.world import WATCHED, World


def test_nothing_is_relied_on_before_every_watch_has_listed() -> None:
    world = World(TurnedClock(), ExtenderMetrics(), 30.0)
    for resource in WATCHED:
        assert world.doubt == "syncing"
        world.take(resource, Event(EventType.SYNCED, {}))
    assert world.doubt == ""
    world.take(PODS, Event(EventType.SYNCED, {}))  # a list after a gap in the watch
    assert world.doubt == ""


def test_a_bound_pod_is_charged_and_an_ended_one_is_not() -> None:
    world = a_world()
    see_pod(world, pod_object("p", node="row-1-n0"))
    assert charged(world.ledger)["row-1"] == 400
    see_pod(world, pod_object("p", node="row-1-n0") | {"status": {"phase": "Succeeded"}})
    assert charged(world.ledger)["row-1"] == 0


def test_a_deleted_pod_is_uncharged() -> None:
    world = a_world()
    see_pod(world, pod_object("p", node="row-1-n0"))
    world.take(PODS, deleted(pod_object("p")))
    assert charged(world.ledger)["row-1"] == 0


def test_pods_that_have_nothing_to_do_with_power_leave_no_trace() -> None:
    world = a_world()
    see_pod(world, pod_object("web", watts=None, resource="", node="row-1-n0"))
    assert world.ledger.charged_pods == 0


@pytest.mark.parametrize(
    "pod",
    [
        pod_object("accelerator", watts=None, node="row-1-n0"),
        pod_object("pool", watts=None, resource="", pool="chat", node="row-1-n0"),
        pod_object("watts", watts="7", resource="", node="row-1-n0"),
        pod_object("claims", watts=None, resource="", node="row-1-n0", resourceClaims=[{"name": "gpu"}]),
    ],
    ids=lambda pod: pod["metadata"]["name"],
)
def test_pods_that_draw_something_or_may_are_known(pod: dict[str, object]) -> None:
    world = a_world()
    see_pod(world, pod)
    assert world.ledger.charged_pods == 1


def test_a_pool_says_what_its_pods_draw_and_its_deletion_unsays_it() -> None:
    world = a_world()
    profile = {"accelerator": "nvidia-h100", "watts": {"idle": 0, "busy": 300}}
    models = [{"name": "llama", "variants": [{"name": "v", "profiles": [profile]}]}]
    pool = {
        "metadata": {"name": "chat", "namespace": "ai", "uid": "u", "generation": 1},
        "spec": MINIMAL["ServingPool"] | {"models": models},
    }
    see_pod(world, pod_object("p", watts=None, pool="chat", node="row-1-n0"))
    world.take(SERVING_POOLS, added(pool))
    assert charged(world.ledger)["row-1"] == 300
    world.take(SERVING_POOLS, deleted(pool))
    assert charged(world.ledger)["row-1"] == 0


def test_a_node_that_goes_takes_its_charges_along() -> None:
    world = a_world()
    see_pod(world, pod_object("p", node="row-1-n0"))
    world.take(NODES, deleted(node_object("row-1-n0", "row-1")))
    assert charged(world.ledger)["row-1"] == 0


def test_a_domain_that_goes_stops_being_reported() -> None:
    metrics = ExtenderMetrics()
    world = a_world(metrics=metrics)
    metrics.domain("row-1", {"charged": 5})
    world.take(POWER_DOMAINS, deleted(domain_object("row-1", 1000)))
    world.ledger.settle(START)
    assert "row-1" not in charged(world.ledger)
    assert (
        metrics.registry.get_sample_value("trimtab_extender_domain_watts", {"domain": "row-1", "kind": "charged"})
        is None
    )


def test_a_status_update_of_a_domain_is_not_parsed_again() -> None:
    world = a_world()
    world.take(POWER_DOMAINS, modified(domain_object("row-1", 77, generation=1)))
    world.ledger.settle(START)
    book = world.ledger.book("row-1")
    assert book is not None
    assert book.usable == 1000
    world.take(POWER_DOMAINS, modified(domain_object("row-1", 77, generation=2)))
    world.ledger.settle(START)
    assert book.usable == 77


def test_a_domain_that_cannot_be_read_leaves_what_was_known_of_it() -> None:
    world = a_world()
    with capture_logs() as logs:
        world.take(POWER_DOMAINS, modified(domain_object("row-1", -5, generation=2)))
    world.ledger.settle(START)
    book = world.ledger.book("row-1")
    assert book is not None
    assert book.usable == 1000
    (line,) = logs
    assert line["log_level"] == "error"
    assert line["object"] == "PowerDomain//row-1"
    assert line["field"] == "spec.limits.powerWatts"


def test_watts_that_cannot_be_read_are_said_once() -> None:
    world = a_world()
    with capture_logs() as logs:
        for name in ("p", "p", "q"):
            see_pod(world, pod_object(name, watts="lots", node="row-1-n0"))
    (line,) = logs
    assert line["annotation"] == keys.WATTS
    assert line["value"] == "lots"
    assert world.ledger.undeclared == 2


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (pod_object("p", node="row-1-n0"), "missed"),
        (pod_object("p", node="row-1-n0", resource=""), "not_sent"),
        (pod_object("p", node="row-1-n0", resource="", resourceClaims=[{"name": "gpu"}]), "claims"),
    ],
)
def test_pods_that_never_passed_are_counted_by_reason(pod: dict[str, object], reason: str) -> None:
    metrics = ExtenderMetrics()
    world = a_world(metrics=metrics)
    world.active_since = START
    see_pod(world, pod)
    see_pod(world, pod)
    assert metrics.registry.get_sample_value("trimtab_extender_bypassed_pods_total", {"reason": reason}) == 1
    assert world.bypasses == {reason: 1}


def test_pods_from_before_our_time_are_charged_but_not_counted() -> None:
    world = a_world()
    world.active_since = START + 10
    see_pod(world, pod_object("p", node="row-1-n0", created=START))
    assert charged(world.ledger)["row-1"] == 400
    assert not world.bypasses


def test_a_standby_counts_nobody() -> None:
    world = a_world()
    see_pod(world, pod_object("p", node="row-1-n0"))
    assert not world.bypasses


def hold(world: World, name: str) -> None:
    world.ledger.hold(declared.pod_facts(pod_object(name)), {"row-1": 400}, world._clock.now())


def test_a_quiet_cluster_is_no_suspect_and_a_pod_that_is_long_on_its_way_is() -> None:
    clock = TurnedClock()
    world = a_world(clock)
    clock.at += 1000
    assert world.suspect(5.0) is None
    hold(world, "p")
    clock.at += 4.9
    assert world.suspect(5.0) is None
    clock.at += 0.1
    assert world.suspect(5.0) == ("ai", "p")


def test_any_news_of_pods_clears_the_suspicion() -> None:
    clock = TurnedClock()
    world = a_world(clock)
    hold(world, "p")
    clock.at += 4.0
    see_pod(world, pod_object("other"))
    clock.at += 4.0
    assert world.suspect(5.0) is None


def test_a_watch_that_missed_something_twice_is_doubted_until_it_speaks() -> None:
    world = a_world()
    world.confirm(missed=True)
    assert world.doubt == ""
    world.confirm(missed=True)
    assert world.doubt == "stale"
    see_pod(world, pod_object("other"))
    assert world.doubt == ""


def test_one_miss_is_forgiven_when_the_next_question_finds_nothing_amiss() -> None:
    world = a_world()
    for missed in (True, False, True):
        world.confirm(missed=missed)
    assert world.doubt == ""


def test_complaints_are_bounded() -> None:
    world = a_world()
    with capture_logs() as logs:
        for index in range(1500):
            world.complain(str(index), "odd")
    assert len(logs) == 1500
    assert len(world._complained) <= 1000
