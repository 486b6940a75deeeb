"""The process node as a whole: claims its network, registers, and keeps a worker for each pod bound to it."""

import asyncio
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from trimtab.api import keys
from trimtab.kube import EventType, Kube, list_then_watch
from trimtab.kube.client import Object
from trimtab.kube.resources import PODS, SERVICES
from trimtab.local import locks
from trimtab.local.process_node import identity, processes, volumes
from trimtab.local.process_node.addresses import Network, claim
from trimtab.local.process_node.capacity import Ledger
from trimtab.local.process_node.entrypoint import OWN_PROGRAMS, AllowList
from trimtab.local.process_node.events import COMPONENT, Recorder
from trimtab.local.process_node.forward import Forward, ServiceTable
from trimtab.local.process_node.kubelet_api import FoundLog, KubeletApi
from trimtab.local.process_node.node import NodeFacts, NodeKeeper
from trimtab.local.process_node.pod import Host, PodWorker
from trimtab.local.process_node.prober import Prober
from trimtab.local.process_node.restarts import BackOff
from trimtab.local.process_node.services import Backend, parse_service
from trimtab.local.process_node.spec import parse_pod
from trimtab.model.problem import Problem

_log = structlog.get_logger(__name__)

DEFAULT_CAPACITY: Final = {
    "cpu": "64",
    "memory": "512Gi",
    "ephemeral-storage": "100Gi",
    "pods": "500",
    keys.GPU_RESOURCE: "64",
}
DEFAULT_LABELS: Final = {
    keys.ACCELERATOR: "nvidia-h100",
    keys.SITE: "site-a",
    keys.AISLE: "aisle-process",
    keys.ROW: "row-process",
    keys.RACK: "row-process-rack-1",
}
_NETWORK_FILE: Final = "network"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a process node is set up.

    Attributes:
        kubeconfig: access to the API server.
        state_dir: logs, volumes and credentials of its pods; nobody else's.
        node_name: name of its Node object.
        forwards: fixed addresses of Services.
        capacity: what pods may request in total.
        labels: labels of the Node.
        programs: further programs that pods may run: names found beside this Python or on PATH, or paths.
        back_off: restart delays.
        kubelet_port: where logs are served, at the node's own address.
        stop_grace_seconds: from TERM to KILL for every process when the node stops.
    """

    kubeconfig: Path
    state_dir: Path
    node_name: str
    forwards: tuple[Forward, ...] = ()
    capacity: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_CAPACITY))
    labels: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_LABELS))
    programs: tuple[str, ...] = ()
    back_off: BackOff = field(default_factory=BackOff)
    kubelet_port: int = 10250
    stop_grace_seconds: float = 5.0


def find_programs(extra: tuple[str, ...]) -> AllowList:
    """Return the paths of our own entry points, beside this Python, and of further programs.

    Raises:
        Problem: a further program does not exist.
    """
    beside = str(Path(sys.executable).parent)
    found = {name: path for name in OWN_PROGRAMS if (path := shutil.which(name, path=beside))}
    for program in extra:
        path = shutil.which(program, path=beside) or shutil.which(program)
        if path is None:
            raise Problem(f"--allow {program}: no such program", fix="name a program on PATH, or give its path")
        found[Path(program).name] = str(Path(path).absolute())
    return AllowList(found)


@dataclass(frozen=True, slots=True)
class Premises:
    """What an agent finds at its start: the API server, programs, and the network that it has claimed."""

    kube: Kube
    cluster: identity.Cluster
    allowed: AllowList
    network: Network
    listener: socket.socket


class Agent:
    """A running process node.

    Args:
        settings: how it is set up.
        premises: what it has found and claimed.
        prober: tries probes.
    """

    def __init__(self, settings: Settings, premises: Premises, prober: Prober) -> None:
        self._settings = settings
        self._premises = premises
        self._workers: dict[str, PodWorker] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._services_known = asyncio.Event()
        self._recorder = Recorder(premises.kube, settings.node_name, time.time)
        self._services = ServiceTable(settings.forwards, premises.network.services(), self._backends)
        self._host = Host(
            kube=premises.kube,
            cluster=premises.cluster,
            node_name=settings.node_name,
            node_ip=premises.network.node,
            state_dir=settings.state_dir,
            allowed=premises.allowed,
            back_off=settings.back_off,
            prober=prober,
            recorder=self._recorder,
            addresses=premises.network.pods(),
            ledger=Ledger(dict(settings.capacity)),
            service_variables=self._services.variables,
            changed=self._services.changed,
            freed=self._freed,
            now=time.time,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Run the node until `stopping` is set; afterwards no process of it is left."""
        settings, network = self._settings, self._premises.network
        port = self._premises.listener.getsockname()[1]
        facts = NodeFacts(settings.node_name, network.node, port, settings.capacity, settings.labels)
        keeper = NodeKeeper(self._premises.kube, facts, time.time)
        api = KubeletApi(self._find_log, time.time)
        await api.start(self._premises.listener, network.node)
        try:
            await self._serve(keeper, stopping)
        finally:
            await self._stop_pods()
            await keeper.stop()
            await self._services.close()
            await api.stop()
            self._clean_up()

    async def _serve(self, keeper: NodeKeeper, stopping: asyncio.Event) -> None:
        """Run everything until the node is told to stop or a part of it fails."""
        parts = [
            self._keep(keeper),
            self._watch_pods(),
            self._watch_services(),
            self._services.run(),
            self._recorder.run(),
        ]
        tasks = {asyncio.create_task(part) for part in parts}
        tasks.add(asyncio.create_task(_until_set(stopping)))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks - done:
            task.cancel()
        await asyncio.gather(*tasks - done, return_exceptions=True)
        for task in done:
            task.result()

    async def _keep(self, keeper: NodeKeeper) -> None:
        await keeper.register()
        _log.info("process node ready", node=self._settings.node_name, address=self._host.node_ip)
        await keeper.run()

    # Pods

    async def _watch_pods(self) -> None:
        await self._services_known.wait()  # a process gets its variables once, when it starts
        selector = f"spec.nodeName={self._settings.node_name}"
        async for event in list_then_watch(self._premises.kube, PODS, field_selector=selector):
            match event.type:
                case EventType.SYNCED:
                    self._drop_unknown_folders()
                case EventType.DELETED:
                    self._vanished(event.object)
                case _:
                    self._seen(event.object)

    def _seen(self, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(parse_pod(obj))
        elif uid not in self._running and (obj.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}:
            self._take(obj)

    def _take(self, obj: Object) -> None:
        """Start a worker for a pod that is new to us."""
        pod = parse_pod(obj)
        worker = PodWorker(pod, self._host)
        self._workers[pod.uid] = worker
        self._running[pod.uid] = asyncio.create_task(self._work(worker))
        if pod.deletion_grace_seconds is not None:
            worker.leave(pod.deletion_grace_seconds)

    async def _work(self, worker: PodWorker) -> None:
        uid = worker.pod.uid
        try:
            await worker.run()
        except Exception:  # noqa: BLE001 the edge of one pod: its failure must not end the others
            _log.exception("pod worker failed", pod=worker.pod.key)
        finally:
            self._workers.pop(uid, None)
            self._running.pop(uid, None)
            self._services.changed()

    def _vanished(self, obj: Object) -> None:
        worker = self._workers.get(obj["metadata"]["uid"])
        if worker is not None:
            worker.vanished()

    async def _stop_pods(self) -> None:
        """End every process. The pods' objects stay: the next node runs them again."""
        for worker in tuple(self._workers.values()):
            worker.abandon(self._settings.stop_grace_seconds)
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await processes.reap(processes.Mark(self._settings.state_dir))

    def _drop_unknown_folders(self) -> None:
        pods = self._settings.state_dir / "pods"
        for folder in pods.iterdir() if pods.exists() else ():
            if folder.name not in self._workers:
                volumes.remove(folder)

    def _clean_up(self) -> None:
        """Remove what a stopped node has no use for; its network number stays, so that pods keep their addresses."""
        volumes.remove(self._settings.state_dir / "pods")

    # Services

    async def _watch_services(self) -> None:
        async for event in list_then_watch(self._premises.kube, SERVICES):
            if event.type is EventType.SYNCED:
                self._services_known.set()
                continue
            metadata = event.object["metadata"]
            service = None if event.type is EventType.DELETED else parse_service(event.object)
            if service is None:
                self._services.drop(f"{metadata['namespace']}/{metadata['name']}")
            else:
                self._services.put(service)

    def _backends(self) -> list[Backend]:
        found = (worker.backend() for worker in self._workers.values())
        return [backend for backend in found if backend is not None]

    def _freed(self) -> None:
        for worker in tuple(self._workers.values()):
            worker.resources_freed()

    # Logs

    def _find_log(self, namespace: str, pod: str, container: str, *, previous: bool) -> FoundLog:
        worker = next((w for w in self._workers.values() if (w.pod.namespace, w.pod.name) == (namespace, pod)), None)
        if worker is None:
            raise LookupError(f"pod {namespace}/{pod} is not on this node")
        runner = worker.runner(container)
        if runner is None:
            raise LookupError(f"pod {namespace}/{pod} has no container {container}")
        path = worker.log_path(container, runner.view.restarts - previous)
        if not path.exists():
            which = "previous terminated container" if previous else "log of container"
            raise LookupError(f"{which} {container!r} in pod {pod!r} not found")
        return FoundLog(path, None if previous else runner.log)


async def serve(settings: Settings) -> None:
    """Run a process node until SIGTERM or SIGINT.

    Raises:
        Problem: it cannot start; the text says why and what to do.
        KubeError: its credentials do not allow what it does.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    cluster, allowed = identity.read_cluster(settings.kubeconfig), find_programs(settings.programs)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locks.locked(settings.state_dir / "lock", _refuse_second):
        await _reap_predecessor(settings.state_dir)
        network, listener = _claim_network(settings)
        async with Kube.connect(settings.kubeconfig, field_manager=COMPONENT, connections=64) as kube:
            prober = Prober.create()
            try:
                await Agent(settings, Premises(kube, cluster, allowed, network, listener), prober).run(stopping)
            finally:
                await prober.close()


def _refuse_second(pid: str) -> None:
    """Refuse to start beside a living node, whose processes would be taken for those of a dead one."""
    raise Problem(f"process {pid} already serves a node from this state directory", fix="pass another --state-dir")


async def _reap_predecessor(state_dir: Path) -> None:
    left = await processes.reap(processes.Mark(state_dir))
    if left:
        _log.warning("killed what a dead process node left", processes=left)


async def _until_set(event: asyncio.Event) -> None:
    await event.wait()


def _claim_network(settings: Settings) -> tuple[Network, socket.socket]:
    """Claim the network that this node had before, or another one, and remember it."""
    file = settings.state_dir / _NETWORK_FILE
    try:
        before = int(file.read_text())
    except (OSError, ValueError):
        before = None
    network, listener = claim(str(settings.state_dir), settings.kubelet_port, before)
    file.write_text(str(network.second))
    return network, listener
