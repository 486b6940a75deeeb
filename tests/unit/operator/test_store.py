from typing import Any

import pytest

from tests.support.operators import a_pool, target
from trimtab.kube import Object
from trimtab.kube.resources import DEPLOYMENTS, POWER_DOMAINS, SERVING_POOLS
from trimtab.model.pool import Pods
from trimtab.model.ref import Ref
from trimtab_operator.handlers.kinds import take_placeholder, take_pool
from trimtab_operator.parse import parse_owned, parse_pool
from trimtab_operator.records import PodSeen
from trimtab_operator.store import Agenda, Store

KEY = ("ai", "chat")
SUBJECT = (SERVING_POOLS.plural, *KEY)
NOW = 1000.0


def stored(name: str = "chat", uid: str = "u-1", created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Object:
    """A pool as the API server returns it."""
    pool = a_pool(name, "ai", **spec)
    pool["metadata"] |= {"uid": uid, "generation": 1, "resourceVersion": "1", "creationTimestamp": created}
    return pool


def a_store(*pools: Object) -> Store:
    store = Store()
    for pool in pools:
        take_pool(store, "ADDED", pool)
    drain(store)
    return store


def drain(store: Store, now: float = NOW) -> list[tuple[str, str, str]]:
    found = []
    while (subject := store.agenda.take(now)) is not None:
        found.append(subject)
    return found


def a_deployment(version: int, *, ready: int = 0, owner: str = "u-1", name: str = "chat") -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": "ai",
            "uid": "d-1",
            "resourceVersion": str(version),
            "generation": 1,
            "ownerReferences": [{"kind": "ServingPool", "name": name, "uid": owner, "controller": True}],
        },
        "spec": {"replicas": 1},
        "status": {"readyReplicas": ready, "observedGeneration": 1},
    }


def see(store: Store, deployment: Object) -> None:
    key = (deployment["metadata"]["namespace"], deployment["metadata"]["name"])
    store.put_owned(DEPLOYMENTS, key, parse_owned(DEPLOYMENTS, deployment, "trimtab-operator"))


class TestAgenda:
    def test_each_subject_waits_once_in_order(self) -> None:
        agenda = Agenda()
        for subject in (("a", "", "1"), ("a", "", "2"), ("a", "", "1")):
            agenda.add(subject)
        assert [agenda.take(0), agenda.take(0), agenda.take(0)] == [("a", "", "1"), ("a", "", "2"), None]

    def test_what_is_planned_comes_when_it_is_due(self) -> None:
        agenda = Agenda()
        agenda.add_later(SUBJECT, 10)
        assert agenda.take(9.9) is None
        assert agenda.take(10) == SUBJECT
        assert agenda.take(99) is None

    def test_the_earlier_of_two_plans_counts(self) -> None:
        agenda = Agenda()
        agenda.add_later(SUBJECT, 20)
        agenda.add_later(SUBJECT, 10)
        agenda.add_later(SUBJECT, 30)
        assert agenda.take(10) == SUBJECT
        assert agenda.take(99) is None

    async def test_waiting_ends_when_something_is_added(self) -> None:
        agenda = Agenda()
        agenda.add(SUBJECT)
        await agenda.wait(60)
        assert agenda.take(0) == SUBJECT


def test_a_new_pool_is_dirty_and_its_own_status_writes_are_not_news() -> None:
    store = Store()
    pool = stored()
    take_pool(store, "ADDED", pool)
    assert drain(store) == [SUBJECT]
    take_pool(store, "MODIFIED", pool | {"status": {"readyReplicas": 1}})
    assert drain(store) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"generation": 2},
        {"annotations": {"trimtab.dev/approve": "abc"}},
        {"annotations": {"trimtab.dev/resume": "replicas"}},
        {"annotations": {"trimtab.dev/release": ""}},
        {"finalizers": ["trimtab.dev/release"]},
        {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        {"uid": "u-2"},
    ],
)
def test_whatever_can_change_a_decision_is_news(metadata: Object) -> None:
    store = a_store(stored())
    changed = stored()
    changed["metadata"] |= metadata
    take_pool(store, "MODIFIED", changed)
    assert drain(store) == [SUBJECT]


def test_a_new_identity_starts_a_new_record() -> None:
    store = a_store(stored())
    first = store.pools[KEY]
    take_pool(store, "ADDED", stored(uid="u-2"))
    assert store.pools[KEY] is not first


def test_the_end_of_an_earlier_namesake_does_not_drop_the_pool() -> None:
    store = a_store(stored(uid="u-2"))
    take_pool(store, "DELETED", stored(uid="u-1"))
    assert KEY in store.pools
    take_pool(store, "DELETED", stored(uid="u-2"))
    assert KEY not in store.pools


def test_a_spec_that_cannot_be_read_is_a_fault_that_names_the_field() -> None:
    bad = stored()
    del bad["spec"]["models"]
    asked = parse_pool(bad)
    assert asked.spec is None
    assert asked.fault is not None
    assert "models" in dict(asked.fault.words)["detail"]


def test_the_younger_claimant_sees_the_holder_until_the_holder_goes() -> None:
    old = stored("old", "u-1", targetRef=target("web"))
    young = stored("young", "u-2", "2026-01-02T00:00:00Z", targetRef=target("web"))
    store = a_store(young, old)
    specs = {name: store.pools["ai", name].asked.spec for name in ("old", "young")}
    assert specs["old"] is not None
    assert specs["young"] is not None
    assert store.holder_of(specs["old"]) is None
    assert store.holder_of(specs["young"]) == Ref("ServingPool", "ai", "old")
    take_pool(store, "DELETED", old)
    assert drain(store) == [(SERVING_POOLS.plural, "ai", "young")]
    assert store.holder_of(specs["young"]) is None


def test_a_pool_that_is_being_deleted_holds_nothing() -> None:
    old = stored("old", "u-1", targetRef=target("web"))
    young = stored("young", "u-2", "2026-01-02T00:00:00Z", targetRef=target("web"))
    store = a_store(old, young)
    old["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z"
    take_pool(store, "MODIFIED", old)
    spec = store.pools["ai", "young"].asked.spec
    assert spec is not None
    assert store.holder_of(spec) is None


def test_an_owned_object_marks_its_pool_only_when_it_means_something_new() -> None:
    store = a_store(stored())
    see(store, a_deployment(5))
    assert drain(store) == [SUBJECT]
    see(store, a_deployment(6))
    assert drain(store) == []
    see(store, a_deployment(7, ready=1))
    assert drain(store) == [SUBJECT]


def test_an_older_sight_of_an_object_is_ignored() -> None:
    store = a_store(stored())
    see(store, a_deployment(7, ready=1))
    see(store, a_deployment(6, ready=0))
    seen = store.owned_by(DEPLOYMENTS, KEY)
    assert seen is not None
    assert seen.workload is not None
    assert seen.workload.ready == 1


def test_a_target_marks_the_pools_that_claim_it() -> None:
    store = a_store(stored(targetRef=target("web")))
    see(store, a_deployment(5, name="web"))
    assert drain(store) == [SUBJECT]
    store.drop_owned(DEPLOYMENTS, ("ai", "web"))
    assert drain(store) == [SUBJECT]


def test_pods_are_counted_by_pool() -> None:
    store = a_store(stored())
    store.put_pod(("ai", "p1"), PodSeen("chat", ready=True, unschedulable="", leaving=False))
    store.put_pod(("ai", "p2"), PodSeen("chat", ready=False, unschedulable="no GPUs", leaving=False))
    store.put_pod(("ai", "p3"), PodSeen("chat", ready=True, unschedulable="", leaving=True))
    store.put_pod(("ai", "p4"), PodSeen("other", ready=True, unschedulable="", leaving=False))
    assert store.pods_of(KEY) == Pods(2, 1, 1, "no GPUs")
    assert drain(store) == [SUBJECT]
    store.drop_pod(("ai", "p2"))
    assert store.pods_of(KEY) == Pods(1, 1)


def test_an_autoscaler_is_found_by_what_it_scales() -> None:
    store = a_store(stored())
    claim = ("ai", "apps", "Deployment", "chat")
    store.put_scaler(("ai", "h"), (claim, "HorizontalPodAutoscaler h"))
    assert store.scaler_of(claim) == "HorizontalPodAutoscaler h"
    assert drain(store) == [SUBJECT]
    store.drop_scaler(("ai", "h"))
    assert store.scaler_of(claim) == ""


def test_a_placeholder_is_looked_at_once_for_each_generation() -> None:
    store = Store()
    domain = {"metadata": {"name": "row", "uid": "u", "generation": 1}}
    subject = (POWER_DOMAINS.plural, "", "row")
    take_placeholder(store, POWER_DOMAINS, "ADDED", domain)
    take_placeholder(store, POWER_DOMAINS, "MODIFIED", domain | {"status": {}})
    assert drain(store) == [subject]
    take_placeholder(store, POWER_DOMAINS, "DELETED", domain)
    assert store.placeholders == {}


def test_an_answer_that_the_watch_has_overtaken_changes_nothing() -> None:
    store = a_store(stored())
    answer = parse_owned(DEPLOYMENTS, a_deployment(10), "trimtab-operator")
    see(store, a_deployment(12, ready=1))
    store.put_own_write(DEPLOYMENTS, KEY, answer)
    seen = store.owned_by(DEPLOYMENTS, KEY)
    assert seen is not None
    assert seen.version == 12
    assert seen.workload is not None
    assert seen.workload.ready == 1


def test_an_answer_about_an_object_made_anew_replaces_the_old_one() -> None:
    store = a_store(stored())
    see(store, a_deployment(12, ready=1))
    anew = a_deployment(10)
    anew["metadata"]["uid"] = "d-2"
    store.put_own_write(DEPLOYMENTS, KEY, parse_owned(DEPLOYMENTS, anew, "trimtab-operator"))
    seen = store.owned_by(DEPLOYMENTS, KEY)
    assert seen is not None
    assert seen.uid == "d-2"
