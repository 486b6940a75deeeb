"""One pool, pass by pass, against an API server that answers as the test wants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support.api_server import api_server
from tests.support.clocks import FakeClock
from tests.support.operators import a_deployment, a_pool, target
from trimtab.api import keys
from trimtab.kube import Conflict, Kube, NotFound, Object
from trimtab.kube.resources import DEPLOYMENTS, POWER_DOMAINS
from trimtab.model.pool import PoolSeen
from trimtab.model.reason import Reason, ReasonCode
from trimtab.obs.metrics import OperatorMetrics
from trimtab_operator.events import Events
from trimtab_operator.handlers.kinds import take_placeholder, take_pool
from trimtab_operator.loops.placeholders import PlaceholderReconciler
from trimtab_operator.loops.pools import PoolReconciler
from trimtab_operator.parse import parse_owned
from trimtab_operator.pulse import Pulse
from trimtab_operator.runtime import MANAGER, Runtime
from trimtab_operator.settings import OperatorSettings

KEY = ("ai", "chat")


@dataclass
class World:
    """A pool and its target; writes are remembered, in order, and the next `/scale` answers can be scripted."""

    pool: Object
    scale_answers: list[tuple[int, str]] = field(default_factory=list)
    writes: list[tuple[str, Any]] = field(default_factory=list)
    status_refusal: int = 0
    version: int = 100

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "GET" and "fieldSelector" in request.query:
            return web.json_response({"items": [self.pool] if self.pool else [], "metadata": {"resourceVersion": "1"}})
        if request.method == "GET":
            return web.json_response(self.pool, status=200 if self.pool else 404)
        place = request.path.rpartition("/")[2]
        body = orjson.loads(await request.read())
        if place != "events":
            self.writes.append((place, body))
        if place == "status" and self.status_refusal:
            return web.json_response({"message": "status refused"}, status=self.status_refusal)
        if place == "scale" and self.scale_answers:
            status, message = self.scale_answers.pop(0)
            return web.json_response({"message": message}, status=status)
        self.version += 1
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}})

    def written(self, place: str) -> list[Any]:
        return [body for where, body in self.writes if where == place]


def stored(**spec: Any) -> Object:
    pool = a_pool("chat", "ai", targetRef=target("web"), **spec)
    pool["metadata"] |= {"uid": "u-1", "generation": 1, "resourceVersion": "1"}
    return pool


@asynccontextmanager
async def operating(world: World, folder: Path) -> AsyncIterator[tuple[Runtime, PoolReconciler]]:
    clock, metrics = FakeClock(), OperatorMetrics()
    async with api_server(world.handle, folder) as kubeconfig, Kube.connect(kubeconfig) as kube:
        runtime = Runtime(OperatorSettings(), kube, clock, metrics, Events(kube, clock, metrics), Pulse(30))
        take_pool(runtime.store, "ADDED", world.pool)
        see(runtime, 1, 5)
        yield runtime, PoolReconciler.of(runtime)


def see(runtime: Runtime, replicas: int, version: int, *managers: str) -> None:
    """Have the target seen with that many replicas, owned by those managers."""
    obj = a_deployment("web", "ai", replicas)
    entries = [
        {"manager": manager, "operation": "Update", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for manager in managers
    ]
    obj["metadata"] |= {"uid": "d-1", "resourceVersion": str(version), "managedFields": entries}
    runtime.store.put_owned(DEPLOYMENTS, ("ai", "web"), parse_owned(DEPLOYMENTS, obj, MANAGER))


def _queued(events: Events) -> list[Object]:
    return [events._queue.get_nowait() for _ in range(events._queue.qsize())]


def change(runtime: Runtime, world: World, **metadata: Any) -> None:
    world.pool = world.pool | {"metadata": world.pool["metadata"] | metadata}
    take_pool(runtime.store, "MODIFIED", world.pool)


async def test_the_value_before_the_hold_and_the_finalizer_are_there_before_the_first_write(tmp_path: Path) -> None:
    world = World(stored(mode="Enforce", replicas=3))
    async with operating(world, tmp_path) as (_, reconciler):
        await reconciler.reconcile(KEY)
    places = [place for place, _ in world.writes]
    assert places == ["status", "chat", "scale", "status"]
    assert world.written("status")[0]["status"]["heldKnobs"][0]["before"] == "1"
    assert world.written("chat")[0]["metadata"]["finalizers"] == [keys.FINALIZER]


async def test_a_stale_action_is_dropped_and_an_approval_survives_it(tmp_path: Path) -> None:
    world = World(stored(mode="Propose", replicas=3), scale_answers=[(409, "the object has been modified")])
    async with operating(world, tmp_path) as (runtime, reconciler):
        await reconciler.reconcile(KEY)
        (proposal,) = runtime.store.pools[KEY].state.proposals
        change(runtime, world, annotations={keys.APPROVE: proposal.id})
        await reconciler.reconcile(KEY)
        assert runtime.store.pools[KEY].state.proposals == (proposal,)
        see(runtime, 1, 6)
        await reconciler.reconcile(KEY)
    tried = [operations[0]["value"] for operations in world.written("scale")]
    assert tried == ["5", "6"]
    outcomes = [one["outcome"] for one in world.written("status")[-1]["status"]["recentDecisions"]]
    assert outcomes == ["Applied", "Proposed"]


async def test_nothing_is_decided_on_a_sight_older_than_our_own_write(tmp_path: Path) -> None:
    world = World(stored(mode="Enforce", replicas=3))
    async with operating(world, tmp_path) as (runtime, reconciler):
        await reconciler.reconcile(KEY)
        before = len(world.writes)
        await reconciler.reconcile(KEY)  # the watch still shows one replica
        assert len(world.writes) == before
        see(runtime, 3, world.version, MANAGER)
        await reconciler.reconcile(KEY)
    assert len(world.written("scale")) == 1


async def test_a_refusal_is_shown_in_the_servers_words_and_not_repeated(tmp_path: Path) -> None:
    world = World(stored(mode="Enforce", replicas=3), scale_answers=[(403, "exceeded quota")] * 3)
    async with operating(world, tmp_path) as (_, reconciler):
        for _ in range(3):
            await reconciler.reconcile(KEY)
    (decision,) = world.written("status")[-1]["status"]["recentDecisions"]
    assert decision["outcome"] == "Refused"
    assert "exceeded quota" in decision["message"]


async def test_an_unchanged_pool_is_not_written_again(tmp_path: Path) -> None:
    world = World(stored(replicas=1))
    async with operating(world, tmp_path) as (_, reconciler):
        for _ in range(3):
            await reconciler.reconcile(KEY)
    assert [place for place, _ in world.writes] == ["status"]


async def test_a_hold_is_given_back_before_the_finalizer_goes(tmp_path: Path) -> None:
    world = World(stored(mode="Enforce", replicas=3, deletionPolicy="Restore"))
    async with operating(world, tmp_path) as (runtime, reconciler):
        await reconciler.reconcile(KEY)
        see(runtime, 3, world.version, MANAGER)
        await reconciler.reconcile(KEY)
        world.writes.clear()
        change(runtime, world, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[keys.FINALIZER, "other"])
        await reconciler.reconcile(KEY)
    assert [place for place, _ in world.writes] == ["scale", "chat"]
    assert world.written("scale")[0][1]["value"] == 1
    assert world.written("chat")[0]["metadata"]["finalizers"] == ["other"]


async def test_a_restore_never_overrules_whoever_took_the_knob(tmp_path: Path) -> None:
    world = World(stored(mode="Enforce", replicas=3, deletionPolicy="Restore"))
    async with operating(world, tmp_path) as (runtime, reconciler):
        await reconciler.reconcile(KEY)
        see(runtime, 9, world.version, "kubectl")
        await reconciler.reconcile(KEY)
        world.writes.clear()
        change(runtime, world, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[keys.FINALIZER])
        await reconciler.reconcile(KEY)
    assert [place for place, _ in world.writes] == ["chat"]


@pytest.mark.parametrize("uids", [[], ["u-2"], ["u-1"]], ids=["gone", "another", "there"])
async def test_a_placeholder_is_forgotten_only_if_it_is_gone(tmp_path: Path, uids: list[str]) -> None:
    async def handle(request: web.Request) -> web.Response:
        if request.method == "PATCH":
            return web.json_response({"message": "refused"}, status=404)
        if request.query.get("fieldSelector") != "metadata.name=row-1":  # the role grants no get on these kinds
            return web.json_response({"message": "forbidden"}, status=403)
        items = [{"metadata": {"name": "row-1", "uid": uid}} for uid in uids]
        return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})

    clock, metrics = FakeClock(), OperatorMetrics()
    async with api_server(handle, tmp_path) as kubeconfig, Kube.connect(kubeconfig) as kube:
        runtime = Runtime(OperatorSettings(), kube, clock, metrics, Events(kube, clock, metrics), Pulse(30))
        domain = {"metadata": {"name": "row-1", "uid": "u-1", "generation": 1}}
        take_placeholder(runtime.store, POWER_DOMAINS, "ADDED", domain)
        with pytest.raises(NotFound) if uids == ["u-1"] else nullcontext():
            await PlaceholderReconciler(runtime, POWER_DOMAINS).reconcile(("", "row-1"))
        assert bool(runtime.store.placeholders) == (uids == ["u-1"])


@pytest.mark.parametrize("leaving", [True, False], ids=["deleted", "released"])
async def test_a_refused_restore_is_shown_told_and_tried_again(tmp_path: Path, *, leaving: bool) -> None:
    world = World(stored(mode="Enforce", replicas=3, deletionPolicy="Restore"))
    async with operating(world, tmp_path) as (runtime, reconciler):
        await reconciler.reconcile(KEY)
        see(runtime, 3, world.version, MANAGER)
        await reconciler.reconcile(KEY)
        world.writes.clear()
        world.scale_answers = [(403, "role lacks scale")]
        leave = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {"annotations": {keys.RELEASE: "me"}}
        change(runtime, world, finalizers=[keys.FINALIZER], **leave)
        await reconciler.reconcile(KEY)
        assert [place for place, _ in world.writes] == ["scale", "status"]
        ready = world.written("status")[0]["status"]["conditions"][0]
        assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "RestoreRefused")
        for text in ("role lacks scale", "Deployment web", "back to 1", "kubectl trimtab release spool/chat -n ai"):
            assert text in ready["message"]
        (event,) = [one for one in _queued(runtime.events) if one["reason"] == "RestoreRefused"]
        assert event["type"] == "Warning"
        await runtime.clock.sleep(60)
        assert runtime.store.agenda.take(runtime.clock.now()) == ("servingpools", *KEY)
        await reconciler.reconcile(KEY)
    assert world.written("scale")[-1][1]["value"] == 1
    assert world.written("chat")[-1]["metadata"]["finalizers"] == []


async def test_a_target_that_may_not_be_read_is_not_taken_as_one_to_keep(tmp_path: Path) -> None:
    world = World(stored(mode="Enforce", replicas=3, deletionPolicy="Restore"))
    async with operating(world, tmp_path) as (runtime, reconciler):
        await reconciler.reconcile(KEY)
        record = runtime.store.pools[KEY]
        spec = record.asked.spec
        assert spec is not None
        fault = Reason(ReasonCode.TARGET_FORBIDDEN, spec.ref, words=(("target", "Deployment web"),))
        refusal = await reconciler.holds.give_back(record, spec, PoolSeen(at=1_000.0, fault=fault), None)
        assert refusal is not None
        assert refusal.code is ReasonCode.RESTORE_REFUSED
        assert record.state.hold is not None


async def test_a_pool_whose_name_another_one_has_now_is_forgotten(tmp_path: Path) -> None:
    world = World(stored(replicas=1), status_refusal=409)
    async with operating(world, tmp_path) as (runtime, reconciler):
        world.pool = world.pool | {"metadata": world.pool["metadata"] | {"uid": "u-2"}}
        await reconciler.reconcile(KEY)
        assert KEY not in runtime.store.pools


async def test_a_pool_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    world = World(stored(replicas=1), status_refusal=404)
    async with operating(world, tmp_path) as (runtime, reconciler):
        world.pool = {}
        await reconciler.reconcile(KEY)
        assert KEY not in runtime.store.pools


@pytest.mark.parametrize("status", [404, 409])
async def test_a_pool_whose_status_is_refused_while_it_exists_is_tried_again(tmp_path: Path, status: int) -> None:
    world = World(stored(replicas=1), status_refusal=status)
    async with operating(world, tmp_path) as (runtime, reconciler):
        with pytest.raises((NotFound, Conflict)):
            await reconciler.reconcile(KEY)
        assert KEY in runtime.store.pools
        world.status_refusal = 0
        await reconciler.reconcile(KEY)
    assert len(world.written("status")) == 2


@pytest.mark.parametrize("gone", [True, False])
async def test_a_pool_whose_objects_find_no_namespace_is_forgotten_only_if_it_is_gone(
    tmp_path: Path, *, gone: bool
) -> None:
    pool = a_pool("chat", "ai", replicas=1)
    pool["metadata"] |= {"uid": "u-1", "generation": 1, "resourceVersion": "1"}

    async def handle(request: web.Request) -> web.Response:
        if request.method == "PATCH":
            return web.json_response({"message": 'namespaces "ai" not found'}, status=404)
        return web.json_response({"items": [] if gone else [pool], "metadata": {"resourceVersion": "1"}})

    clock, metrics = FakeClock(), OperatorMetrics()
    async with api_server(handle, tmp_path) as kubeconfig, Kube.connect(kubeconfig) as kube:
        runtime = Runtime(OperatorSettings(), kube, clock, metrics, Events(kube, clock, metrics), Pulse(30))
        take_pool(runtime.store, "ADDED", pool)
        with nullcontext() if gone else pytest.raises(NotFound):
            await PoolReconciler.of(runtime).reconcile(KEY)
        assert (KEY in runtime.store.pools) == (not gone)
