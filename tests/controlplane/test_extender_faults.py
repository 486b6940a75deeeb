"""The extender killed, stopped, doubled and starved of its API server: pods go on being placed, and all are charged."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import helm
from tests.support.extender import Extender, Served, charged, known, nudging, prepare, start_extender
from tests.support.kubectl import kubectl
from tests.support.placement import Hall
from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import EventType, Kube, list_then_watch
from trimtab.kube.resources import LEASES, PODS
from trimtab.local import ports
from trimtab.local.cluster import LocalCluster

OPT_IN = {keys.PLACEMENT_RESOURCE: "1"}
SYSTEM = "trimtab-system"


_GAP_SECONDS = 0.3
"""No pod is bound in less where two time-outs of 200 ms have to pass, and most are where none has."""


class Bindings:
    """When each pod of a namespace was seen bound."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self.times: dict[str, float] = {}
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for event in list_then_watch(self._kube, PODS, self._namespace):
            if event.type in (EventType.ADDED, EventType.MODIFIED) and event.object["spec"].get("nodeName"):
                self.times.setdefault(event.object["metadata"]["name"], time.monotonic())

    async def reach(self, count: int, *, seconds: float = 60.0) -> float:
        """Wait until so many pods are bound; return the time of the last of them."""

        async def enough() -> bool:
            return len(self.times) >= count

        await until(enough, seconds=seconds)
        return sorted(self.times.values())[count - 1]

    async def slowed(self) -> float:
        """Wait until what was under way is bound and every pod waits for time-outs; return the time of the last one."""

        async def two_gaps() -> bool:
            last = sorted(self.times.values())[-3:]
            return len(last) == 3 and min(last[1] - last[0], last[2] - last[1]) > _GAP_SECONDS

        await until(two_gaps)
        return max(self.times.values())

    def rate(self, begin: float, end: float) -> float:
        """Pods per second bound between two times."""
        return sum(begin < at <= end for at in self.times.values()) / (end - begin)

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@pytest.fixture
async def extender(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Extender]:
    with start_extender(cluster, tmp_path / "extender.log") as running:
        yield running


@pytest.fixture
async def hall(kube: Kube, namespace: str) -> AsyncIterator[Hall]:
    hall = Hall(kube, namespace)
    yield hall
    await hall.tear_down()


@pytest.fixture
async def bindings(kube: Kube, namespace: str) -> AsyncIterator[Bindings]:
    bindings = Bindings(kube, namespace)
    yield bindings
    await bindings.stop()


async def test_a_killed_extender_stops_nobody_and_its_successor_charges_everybody(
    hall: Hall, bindings: Bindings, extender: Extender, cluster: LocalCluster, tmp_path: Path
) -> None:
    await hall.build("a", count=4)
    await hall.limit("a", 1_000_000)
    await known(extender, hall, a=1_000_000)
    await hall.pods("before", 100, watts=100, requests=OPT_IN)
    begun = await bindings.reach(1)
    before = bindings.rate(begun, await bindings.reach(100))
    creating = asyncio.create_task(hall.pods("during", 200, watts=100, requests=OPT_IN))
    killed = await bindings.reach(150)
    extender.process.process.kill()
    await creating
    during = bindings.rate(killed, await bindings.reach(300))
    with start_extender(cluster, tmp_path / "successor.log") as successor:
        await charged(successor, hall.row("a"), 30_000)
        begun = time.monotonic()
        await hall.pods("after", 100, watts=100, requests=OPT_IN)
        after = bindings.rate(begun, await bindings.reach(400))
        await charged(successor, hall.row("a"), 40_000)
    print(f"\nkilled: pods/s before {before:.0f}, without extender {during:.0f}, with its successor {after:.0f}")
    assert during > 10  # refused connections cost nothing, two time-outs would leave 2.5


async def test_a_stopped_extender_slows_the_scheduler_to_two_time_outs_per_pod(
    hall: Hall, bindings: Bindings, extender: Extender
) -> None:
    await hall.build("a", count=4)
    await hall.limit("a", 1_000_000)
    await known(extender, hall, a=1_000_000)
    await hall.pods("before", 100, watts=100, requests=OPT_IN)
    begun = await bindings.reach(1)
    before = bindings.rate(begun, await bindings.reach(100))
    creating = asyncio.create_task(hall.pods("during", 200, watts=100, requests=OPT_IN))
    await bindings.reach(130)
    extender.process.process.send_signal(signal.SIGSTOP)
    stopped = await bindings.slowed()
    during = bindings.rate(stopped, await bindings.reach(len(bindings.times) + 10))
    extender.process.process.send_signal(signal.SIGCONT)
    await creating
    resumed = time.monotonic()
    after = bindings.rate(resumed, await bindings.reach(300))
    print(f"\nstopped: pods/s before {before:.0f}, while stopped {during:.1f}, after {after:.0f}")
    await charged(extender, hall.row("a"), 30_000)
    assert 1.5 < during < 3.5
    assert after > 3 * during


async def test_one_replica_is_active_and_a_clean_exit_hands_over_at_once(
    hall: Hall, extender: Extender, cluster: LocalCluster, tmp_path: Path, kube: Kube
) -> None:
    del hall
    (standby_port,) = ports.free(1, (cluster.ports["extender"],))
    with ExitStack() as stack:
        standby = stack.enter_context(
            start_extender(cluster, tmp_path / "standby.log", port=standby_port, wait=False, identity="standby")
        )

        async def standing_by() -> bool:
            return standby.readiness() == (503, "standby")

        await until(standing_by)
        assert extender.readiness() == (200, "ok")
        asked = time.monotonic()
        extender.process.process.send_signal(signal.SIGTERM)

        async def taken_over() -> bool:
            return standby.readiness() == (200, "ok")

        await until(taken_over, seconds=20)
        print(f"\nhanded over after {time.monotonic() - asked:.1f} s")
        lease = await kube.get(LEASES, "trimtab-extender", SYSTEM)
        assert lease["spec"]["holderIdentity"] == "standby"
        assert await asyncio.to_thread(extender.process.process.wait, 10) == 0


async def test_while_the_api_server_restarts_answers_come_from_memory(
    hall: Hall, cluster: LocalCluster, tmp_path: Path
) -> None:
    """Without election, which is about how long the API server is away: `test_api_server_away.py` has the doubts."""
    with start_extender(cluster, tmp_path / "extender.log", election=False) as extender:
        await hall.build("a")
        nodes = [f"{hall.row('a')}-{index}" for index in range(2)]
        await hall.limit("a", 1000)
        await known(extender, hall, a=1000)
        await hall.pods("before", watts=700, requests=OPT_IN)
        await charged(extender, hall.row("a"), 700)
        restarting = asyncio.create_task(asyncio.to_thread(cluster.restart, "kube-apiserver"))
        answers = []
        while not (await asyncio.wait({restarting}, timeout=0.1))[0]:
            answers.append(await asyncio.to_thread(extender.passing, hall.pod("large", watts=400), nodes))
        await restarting
        assert answers
        assert not any(answers)
        await hall.limit("a", 2000)
        await known(extender, hall, a=2000)
        await hall.pods("after", watts=700, requests=OPT_IN)
        await charged(extender, hall.row("a"), 1400)
        assert extender.readiness() == (200, "ok")


@pytest.fixture
async def extender_pod(cluster: LocalCluster, kube: Kube) -> AsyncIterator[dict[str, Any]]:
    """The extender of the chart on the process node, Ready, behind the Service that the scheduler's port leads to."""
    await asyncio.to_thread(prepare, cluster)
    listed = {"apiVersion": "v1", "kind": "List", "items": await helm.rendered(cluster, "extender")}
    await kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(listed))

    async def ready() -> dict[str, Any] | None:
        for pod in (await kube.list(PODS, SYSTEM, label_selector="app.kubernetes.io/component=extender")).items:
            conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
            if conditions.get("Ready") == "True":
                return pod
        return None

    yield await until(ready)
    await kubectl(cluster, "delete", "--cascade=foreground", "-f", "-", stdin=json.dumps(listed))
    await kube.delete(LEASES, "trimtab-extender", SYSTEM)  # its role may have gone before it could give the Lease back


async def test_a_stopped_extender_on_the_process_node_is_replaced(
    hall: Hall, bindings: Bindings, extender_pod: dict[str, Any], kube: Kube
) -> None:
    """As the chart installs it: its rights, its probes and its settings."""
    await hall.build("a", count=4)
    await hall.limit("a", 300)
    at_pod = Served(extender_pod["status"]["podIP"])
    await known(at_pod, hall, a=300)
    await hall.pods("before", 5, watts=100, requests=OPT_IN)
    assert (await hall.decided(5))["a"] == 3
    await hall.limit("a", 1_000_000)
    async with nudging(kube):
        await bindings.reach(5)
    creating = asyncio.create_task(hall.pods("during", 300, watts=100, requests=OPT_IN))
    await bindings.reach(30)
    for pid in processes_of(extender_pod):
        os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()

    async def replaced() -> bool:
        pod = await kube.get(PODS, extender_pod["metadata"]["name"], SYSTEM)
        (container,) = pod["status"]["containerStatuses"]
        return bool(container["restartCount"] >= 1 and container["ready"])

    await until(replaced)
    took = time.monotonic() - stopped
    await creating
    await bindings.reach(305)
    await charged(at_pod, hall.row("a"), 30_500)
    print(f"\nstopped on the process node: replaced and ready after {took:.1f} s")
    assert took < 15


def processes_of(pod: dict[str, Any]) -> list[int]:
    """Processes of the machine that were told that they are this pod at its present address."""
    wanted = {f"POD_NAME={pod['metadata']['name']}".encode(), f"POD_IP={pod['status']['podIP']}".encode()}
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
    return found
