"""One pod over its life: real processes, and an API server that does as the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.process_node import a_container, a_pod_object
from tests.support.until import until
from trimtab.kube import Conflict, Kube, KubeError, NotFound, Unavailable
from trimtab.kube.resources import Resource
from trimtab.local.process_node import pod as pod_module
from trimtab.local.process_node import processes
from trimtab.local.process_node.addresses import Network
from trimtab.local.process_node.capacity import Ledger
from trimtab.local.process_node.entrypoint import AllowList
from trimtab.local.process_node.events import Occurrence, Recorder
from trimtab.local.process_node.identity import Cluster
from trimtab.local.process_node.pod import Host, PodWorker
from trimtab.local.process_node.prober import Prober
from trimtab.local.process_node.restarts import BackOff
from trimtab.local.process_node.spec import SERVICE_ACCOUNT_PATH, parse_pod


class Server(Kube):
    """Holds ConfigMaps, issues tokens, takes statuses and deletions; fails as long as `failure` says."""

    def __init__(self) -> None:
        self.config_maps: dict[str, dict[str, str]] = {}
        self.statuses: list[dict[str, Any]] = []
        self.deleted: list[str | None] = []
        self.tokens = 0
        self.failure: KubeError | None = None

    async def get(self, resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> Any:
        if name not in self.config_maps:
            raise NotFound(404, "NotFound", f"{name} not found")
        return {"data": self.config_maps[name]}

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        self.tokens += 1
        return {"status": {"token": f"token-{self.tokens}"}}

    async def apply(self, resource: Resource, obj: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        self.statuses.append(obj["status"])
        return obj

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str = "Background",
        grace_seconds: int | None = None,
        uid: str | None = None,
    ) -> None:
        if self.failure is not None:
            raise self.failure
        assert grace_seconds == 0
        self.deleted.append(uid)


class Notes(Recorder):
    """Keeps occurrences instead of writing them."""

    def __init__(self) -> None:
        self.taken: list[Occurrence] = []

    def record(self, occurrence: Occurrence) -> None:
        self.taken.append(occurrence)


@dataclass
class Stage:
    """A node for one pod."""

    host: Host
    server: Server
    notes: Notes
    clock: list[float]

    @asynccontextmanager
    async def running(self, script: str = "exec sleep 1000", **spec: Any) -> AsyncIterator[PodWorker]:
        """Run a pod until the block ends, and see that nothing of it is left."""
        main = a_container(command=["sh", "-c", script]) | spec.pop("container", {})
        status = spec.pop("status", {})
        obj = a_pod_object(containers=[main], **spec) | {"status": status}
        worker = PodWorker(parse_pod(obj), self.host)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            self.server.failure = None
            worker.leave(1.0)
            await asyncio.wait_for(task, 20)
            assert processes.marked(processes.Mark(self.host.state_dir)) == []
            assert not worker.root.exists()

    async def reached(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first written status, from now on, that is as wanted."""

        async def look() -> dict[str, Any] | None:
            last = self.server.statuses[-1] if self.server.statuses else None
            return last if last is not None and true(last) else None

        return await until(look)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(pod_module, "_REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(pod_module, "_RETRY_SECONDS", 0.05)
    server, notes, prober, clock = Server(), Notes(), Prober.create(), [1_800_000_000.0]
    host = Host(
        kube=server,
        cluster=Cluster({"server": "https://127.0.0.1:6443"}),
        node_name="process-0",
        node_ip="127.20.0.1",
        state_dir=tmp_path,
        allowed=AllowList({"sh": "/bin/sh"}),
        back_off=BackOff(0.05, 60.0),
        prober=prober,
        recorder=notes,
        addresses=Network(20).pods(),
        ledger=Ledger({"cpu": "4", "pods": "9"}),
        service_variables=lambda namespace: {"NAMESPACE_SEEN": namespace},
        changed=lambda: None,
        freed=lambda: None,
        now=lambda: clock[0],
    )
    yield Stage(host, server, notes, clock)
    await prober.close()


def is_ready(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])


async def holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


async def test_a_pod_runs_is_ready_and_is_deleted_by_its_uid(stage: Stage) -> None:
    async with stage.running() as worker:
        status = await stage.reached(is_ready)
        assert status["podIP"] == "127.20.1.0"
        assert worker.backend() is not None

    assert stage.server.deleted == ["uid-web"]
    assert stage.server.statuses[-1]["phase"] == "Failed"


async def test_the_node_gives_paths_addresses_and_services(stage: Stage) -> None:
    names = "$POD_IP $HOSTNAME $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT $NAMESPACE_SEEN $PYTHONUNBUFFERED"
    async with stage.running(f'echo "{names}"; cd "$HOME" && exec sleep 1000') as worker:
        await stage.reached(is_ready)
        log = worker.log_path("main", 0)
        await until(lambda: _ends_with(log, "127.20.1.0 web 127.0.0.1:6443 shop 1\n"))


async def _ends_with(path: Path, text: str) -> bool:
    return path.read_text().endswith(text)


async def test_services_are_not_named_to_a_pod_that_does_not_want_them(stage: Stage) -> None:
    async with stage.running("echo seen=$NAMESPACE_SEEN; exec sleep 1000", enableServiceLinks=False) as worker:
        await stage.reached(is_ready)
        await until(lambda: _ends_with(worker.log_path("main", 0), "seen=\n"))


async def test_a_changed_config_map_reaches_a_running_pod(stage: Stage) -> None:
    stage.server.config_maps["page"] = {"a": "1", "b": "2"}
    async with stage.running(volumes=[{"name": "page", "configMap": {"name": "page"}}]) as worker:
        await stage.reached(is_ready)
        stage.server.config_maps["page"] = {"a": "3"}

        await until(lambda: holds(worker.root / "volumes/page/a", "3"))
        assert not (worker.root / "volumes/page/b").exists()


async def test_a_config_map_that_goes_away_leaves_the_files_and_says_so(stage: Stage) -> None:
    stage.server.config_maps["page"] = {"a": "1"}
    async with stage.running(volumes=[{"name": "page", "configMap": {"name": "page"}}]) as worker:
        await stage.reached(is_ready)
        stage.server.config_maps.clear()

        await until(lambda: _noted(stage, "FailedMount"))
        assert (worker.root / "volumes/page/a").read_text() == "1"


async def _noted(stage: Stage, reason: str) -> bool:
    return any(occurrence.reason == reason for occurrence in stage.notes.taken)


async def test_a_token_is_renewed_after_most_of_its_life(stage: Stage) -> None:
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}}
    mount = {"volumeMounts": [{"name": "account", "mountPath": SERVICE_ACCOUNT_PATH}]}
    volumes = [{"name": "account", "projected": {"sources": [source]}}]
    async with stage.running(container=mount, volumes=volumes) as worker:
        await stage.reached(is_ready)
        token = worker.root / "volumes/account/token"
        assert token.read_text() == "token-1"
        assert str(token) in (worker.root / "kubeconfig").read_text()

        stage.clock[0] += 799
        await worker._write_volumes()
        assert token.read_text() == "token-1"

        stage.clock[0] += 2
        await until(lambda: holds(token, "token-2"))


async def test_a_status_that_could_not_be_written_is_written_later(stage: Stage) -> None:
    stage.server.failure = Unavailable(0, "Timeout", "no answer")
    async with stage.running() as worker:
        await until(lambda: _running(worker))
        assert stage.server.statuses == []
        stage.server.failure = None

        await stage.reached(is_ready)


async def _running(worker: PodWorker) -> bool:
    runner = worker.runner("main")
    return runner is not None and runner.running


async def test_a_deletion_waits_for_an_api_server_that_is_away(stage: Stage) -> None:
    async with stage.running() as worker:
        await stage.reached(is_ready)
        stage.server.failure = Unavailable(0, "Timeout", "no answer")
        worker.leave(1.0)
        await until(lambda: _none_left(stage))
        assert stage.server.deleted == []

    assert stage.server.deleted == ["uid-web"]


async def _none_left(stage: Stage) -> bool:
    return not processes.marked(processes.Mark(stage.host.state_dir))


async def test_the_object_of_another_pod_of_that_name_is_left_alone(stage: Stage) -> None:
    async with stage.running() as worker:
        await stage.reached(is_ready)
        stage.server.failure = Conflict(409, "Conflict", "the uid is another")
        assert await worker._remove_object()

    assert stage.server.deleted == ["uid-web"]


async def test_a_pod_whose_node_stops_keeps_its_object(stage: Stage) -> None:
    async with stage.running() as worker:
        await stage.reached(is_ready)
        written = len(stage.server.statuses)
        worker.abandon(1.0)

    assert stage.server.deleted == []
    assert len(stage.server.statuses) == written


async def test_a_pod_that_takes_too_long_has_failed_and_holds_nothing_any_more(stage: Stage) -> None:
    async with stage.running(activeDeadlineSeconds=1, container=_asking("4")):
        status = await stage.reached(lambda status: status["phase"] == "Failed")

        assert status["reason"] == "DeadlineExceeded"
        assert await _none_left(stage)
        assert stage.host.ledger.admit("other", {}) is None


def _asking(cpu: str) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}}}


async def test_a_pod_that_does_not_fit_has_failed_and_runs_nothing(stage: Stage) -> None:
    async with stage.running(container=_asking("5")):
        status = await stage.reached(lambda status: status["phase"] == "Failed")

        assert (status["reason"], status["message"]) == (
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu",
        )
        assert await _none_left(stage)


async def test_a_readiness_gate_of_another_controller_opens_the_pod(stage: Stage) -> None:
    gates = [{"conditionType": "trimtab.dev/warm"}]
    async with stage.running(readinessGates=gates) as worker:
        await stage.reached(lambda status: any(c["reason"] == "ReadinessGatesNotReady" for c in _with_reason(status)))
        opened = {"conditions": [{"type": "trimtab.dev/warm", "status": "True"}]}
        worker.update(replace(worker.pod, status=opened))

        await stage.reached(is_ready)


def _with_reason(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [condition for condition in status["conditions"] if "reason" in condition]


def _before(**resources: Any) -> dict[str, Any]:
    """The status of a pod that ran for ten minutes under a node that has died."""
    running = {"running": {"startedAt": "2027-01-15T07:50:00Z"}}
    main = {"name": "main", "state": running, "restartCount": 1, "resources": resources}
    return {"startTime": "2027-01-15T07:50:00Z", "podIP": "127.20.7.7", "containerStatuses": [main]}


async def test_a_pod_of_a_dead_node_goes_on_with_its_address_start_and_count(stage: Stage) -> None:
    async with stage.running(status=_before()):
        status = await stage.reached(is_ready)

    assert (status["podIP"], status["startTime"]) == ("127.20.7.7", "2027-01-15T07:50:00Z")
    assert status["containerStatuses"][0]["restartCount"] == 2


async def test_the_time_under_a_dead_node_counts_against_the_deadline(stage: Stage) -> None:
    async with stage.running(status=_before(), activeDeadlineSeconds=600):
        status = await stage.reached(lambda status: status["phase"] == "Failed")

    assert status["reason"] == "DeadlineExceeded"


async def test_a_resize_that_waited_when_the_node_died_waits_again(stage: Stage) -> None:
    stage.host.ledger.admit("other", {"cpu": Decimal(3)})
    async with stage.running(status=_before(requests={"cpu": "1"}), container=_asking("2")):
        status = await stage.reached(is_ready)

    assert [c["reason"] for c in status["conditions"] if c["type"] == "PodResizePending"] == ["Deferred"]
    assert status["containerStatuses"][0]["resources"] == {"requests": {"cpu": "1"}}


async def test_a_defect_of_ours_fails_the_pod_and_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict[str, str]:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(pod_module.environment, "variables", broken)
    async with stage.running():
        status = await stage.reached(lambda status: status["phase"] == "Failed")

    assert status["reason"] == "ProcessNodeError"
    assert "nobody thought of this" in status["message"]
