"""One pod over its life: admission, preparation, its containers, its end."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from trimtab.kube import Conflict, Kube, KubeError, NotFound
from trimtab.kube.resources import PODS
from trimtab.local.process_node import environment, identity, mounts, processes, volumes
from trimtab.local.process_node.addresses import Pool
from trimtab.local.process_node.capacity import Ledger
from trimtab.local.process_node.container import ContainerRunner, Surroundings
from trimtab.local.process_node.entrypoint import AllowList, NotAllowed, command_line, refuse
from trimtab.local.process_node.environment import ConfigError, Facts
from trimtab.local.process_node.events import Occurrence, Recorder
from trimtab.local.process_node.logs import LogFile
from trimtab.local.process_node.prober import Outcome, Prober, Target
from trimtab.local.process_node.resize import Judged, ResizeVerdict, must_restart, pod_requests, with_allocated
from trimtab.local.process_node.restarts import BackOff
from trimtab.local.process_node.services import Backend
from trimtab.local.process_node.spec import SERVICE_ACCOUNT_PATH, Container, Pod, TokenFile
from trimtab.local.process_node.status import (
    ContainerView,
    PodView,
    Refusal,
    Waiting,
    init_done,
    is_ready,
    phase,
    pod_status,
    recover,
    started_at,
)

_log = structlog.get_logger(__name__)

_GATHER_SECONDS: Final = 0.02  # changes this close together become one write
_RETRY_SECONDS: Final = 2.0
_REFRESH_SECONDS: Final = 60.0
_TOKEN_LIFE_USED: Final = 0.8  # renew a token after this part of its life, as the kubelet does
_VANISHED_GRACE_SECONDS: Final = 1.0
_LONGEST_OUTPUT: Final = 10 * 1024


@dataclass(frozen=True, slots=True)
class Host:
    """What all pods of a node share.

    Attributes:
        kube: the API server.
        cluster: how pods reach it.
        node_name: the node.
        node_ip: its address.
        state_dir: where everything of the node is kept.
        allowed: programs that pods may run.
        back_off: restart delays.
        prober: tries probes.
        recorder: writes Events.
        addresses: lends pod addresses.
        ledger: what the node has given to whom.
        service_variables: variables of a namespace's Services.
        changed: is called when a pod's address, labels or readiness changed.
        freed: is called when resources of the node became free.
        now: the clock, Unix seconds.
    """

    kube: Kube
    cluster: identity.Cluster
    node_name: str
    node_ip: str
    state_dir: Path
    allowed: AllowList
    back_off: BackOff
    prober: Prober
    recorder: Recorder
    addresses: Pool
    ledger: Ledger
    service_variables: Callable[[str], Mapping[str, str]]
    changed: Callable[[], None]
    freed: Callable[[], None]
    now: Callable[[], float]


class PodWorker:
    """Runs one pod until it is deleted.

    Args:
        pod: the pod as the API server has it.
        host: the node.
    """

    def __init__(self, pod: Pod, host: Host) -> None:
        now = host.now()
        self.pod = pod
        self.root = host.state_dir / "pods" / pod.uid
        self._host = host
        self._ip = ""
        self._started_at = started_at(pod.status, now)
        self._prepared = False
        self._resize: Judged | None = None
        self._refusal: Refusal | None = None
        self._left = asyncio.Event()
        self._grace_seconds = pod.grace_seconds
        self._in_api = True  # whether the object is still ours to write and delete
        self._dirty = asyncio.Event()
        self._moved = asyncio.Event()
        self._written: dict[str, Any] = {"conditions": pod.status.get("conditions") or ()}
        self._shown: Backend | None = None
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}
        self._environments: dict[str, dict[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        found = pod.status.get("containerStatuses") or ()
        # Init containers run again after a restart of the node: their volumes may be gone.
        self._inits = [self._runner(ContainerView(spec), init=True) for spec in pod.inits]
        self._mains = [self._runner(recover(spec, found, now), init=False) for spec in pod.containers]

    # What others ask

    @property
    def view(self) -> PodView:
        """Return the pod at this moment."""
        return PodView(
            host_ip=self._host.node_ip,
            ip=self._ip,
            started_at=self._started_at,
            inits=tuple(runner.view for runner in self._inits),
            containers=tuple(runner.view for runner in self._mains),
            prepared=self._prepared,
            resize=self._resize,
            refusal=self._refusal,
            leaving=self._left.is_set(),
        )

    def backend(self) -> Backend | None:
        """Return what Services see of the pod; None while it has no address."""
        if not self._ip:
            return None
        ready = is_ready(self.pod, self.view) and not self._left.is_set()
        pod = self.pod
        return Backend(pod.namespace, pod.name, self._ip, ready, pod.labels, pod.containers)

    def runner(self, container: str) -> ContainerRunner | None:
        """Return the runner of a container."""
        return next((r for r in (*self._inits, *self._mains) if r.spec.name == container), None)

    def log_path(self, container: str, start: int) -> Path:
        """Return where the log of a container's n-th start is."""
        return self.root / "logs" / container / f"{start}.log"

    # What others tell

    def update(self, pod: Pod) -> None:
        """Take over a new version of the object."""
        self.pod = pod
        if pod.deletion_grace_seconds is not None:
            self.leave(pod.deletion_grace_seconds)
        else:
            self.reconsider()
        self._changed()

    def leave(self, grace_seconds: float) -> None:
        """End the pod within a grace period; a later call can only shorten it."""
        if self._left.is_set():
            if grace_seconds < self._grace_seconds:
                self._grace_seconds = grace_seconds
                self._spawn(self._stop_containers())
            return
        self._grace_seconds = grace_seconds
        self._left.set()
        self._changed()

    def abandon(self, grace_seconds: float) -> None:
        """End the pod's processes and leave its object alone: it is gone, or the node stops."""
        self._in_api = False
        self.leave(grace_seconds)

    def vanished(self) -> None:
        """The object is gone, by force or because we deleted it."""
        self.abandon(_VANISHED_GRACE_SECONDS)

    def resources_freed(self) -> None:
        """Try a deferred resize again."""
        if self._resize is not None and self._resize.verdict is ResizeVerdict.DEFERRED:
            self.reconsider()
            self._changed()

    def reconsider(self) -> None:
        """Judge anew whether the resources that the pod asks for can be given."""
        changed = [
            (runner, spec)
            for runner in (*self._inits, *self._mains)
            for spec in self.pod.all_containers
            if spec.name == runner.spec.name and _resources(spec) != _resources(runner.spec)
        ]
        if not changed:
            self._resize = None
            return
        self._resize = self._host.ledger.resize(self.pod.uid, pod_requests(self.pod))
        if self._resize.verdict is ResizeVerdict.ACCEPTED:
            self._resize = None
            for runner, spec in changed:
                self._spawn(runner.resize(spec, restart=must_restart(runner.spec, spec)))
            self._host.freed()

    # Its life

    async def run(self) -> None:
        """Run the pod until it is deleted, and clean up after it."""
        background = [asyncio.create_task(self._publish_changes()), asyncio.create_task(self._refresh())]
        living = asyncio.create_task(self._live())
        try:
            await self._live_or_leave(living)
            await self._left.wait()
            await self._stop_containers()
            if self._prepared:
                await asyncio.wait({living})
        finally:
            await _cancel(living, *background)
            await self._clean_up()

    async def _live_or_leave(self, living: asyncio.Task[None]) -> None:
        """Return when the pod has ended by itself, when its time is over, or when it is being deleted."""
        leaving = asyncio.create_task(self._left.wait())
        limit = self._seconds_left()
        done, _ = await asyncio.wait({living, leaving}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(leaving)
        if not done:
            await self._fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        elif living.done() and (defect := living.exception()):
            _log.error("pod worker failed", pod=self.pod.key, exc_info=defect)
            await self._fail("ProcessNodeError", f"The process node failed, see its log: {defect!r}")
        if phase(self.pod, self.view) in {"Succeeded", "Failed"}:
            self._release()
        self._changed()

    def _seconds_left(self) -> float | None:
        """Return how long the pod may still run; None is for ever."""
        limit = self.pod.active_deadline_seconds
        return None if limit is None else max(0.0, self._started_at + limit - self._host.now())

    async def _fail(self, reason: str, message: str) -> None:
        """Let the pod as a whole fail, and end its processes."""
        self._refusal = Refusal(reason, message)
        self._record("Warning", reason, message)
        await self._stop_containers()

    async def _live(self) -> None:
        if not self._admitted():
            return
        self._ip = self._host.addresses.take(self.pod.uid, self.pod.status.get("podIP", ""))
        self._changed()
        await self._prepare()
        if not await self._run_inits():
            return
        await asyncio.gather(*(runner.run() for runner in self._mains))
        if not self._left.is_set():
            await self._stop([runner for runner in reversed(self._inits) if runner.spec.sidecar])

    def _admitted(self) -> bool:
        """Return whether the pod may run here; if not, its status and an Event say why."""
        why = refuse(self.pod, self._host.allowed)
        if why is not None:
            # Waiting, not Failed: a controller would replace a failed pod at once, and again, and again.
            for runner in (*self._inits, *self._mains):
                runner.view = replace(runner.view, state=Waiting("CommandNotAllowed", why))
            self._record("Warning", "CommandNotAllowed", why)
            self._changed()
            return False
        given = {runner.spec.name: runner.spec for runner in self._mains}
        lacking = self._host.ledger.admit(self.pod.uid, pod_requests(with_allocated(self.pod, given)))
        if lacking is not None:
            self._refusal = Refusal(f"OutOf{lacking}", f"Pod was rejected: Node didn't have enough resource: {lacking}")
            self._record("Warning", self._refusal.reason, self._refusal.message)
            return False
        if self.pod.unhonored:
            fields = ", ".join(self.pod.unhonored)
            self._record("Warning", "FieldsNotHonored", f"A process node cannot honor: {fields}")
        self.reconsider()
        return True

    async def _prepare(self) -> None:
        """Write the volumes, trying until every source is there."""
        while True:
            try:
                await self._write_volumes()
            except (ConfigError, KubeError, OSError) as error:
                self._record("Warning", "FailedMount", str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._prepared = True
                self._changed()
                return

    async def _run_inits(self) -> bool:
        """Run the init containers in order; return whether the main ones may start."""
        for runner in self._inits:
            running = self._spawn(runner.run())
            while not (init_done(runner.view) or running.done()):
                self._moved.clear()
                await self._moved.wait()
            if self._left.is_set() or not init_done(runner.view):
                return False
        return True

    async def _stop_containers(self) -> None:
        """Stop the main containers together, then the init ones from last to first."""
        grace = self._grace_seconds
        deadline = asyncio.get_running_loop().time() + grace
        for runner in self._mains:
            if runner.running:
                self._record("Normal", "Killing", f"Stopping container {runner.spec.name}")
        await asyncio.gather(*(runner.stop(grace) for runner in self._mains))
        await self._stop(list(reversed(self._inits)), deadline)

    async def _stop(self, runners: list[ContainerRunner], deadline: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        for runner in runners:
            await runner.stop(self._grace_seconds if deadline is None else max(0.0, deadline - loop.time()))

    async def _clean_up(self) -> None:
        await processes.reap(self._mark())
        await _cancel(*self._tasks)
        self._release()
        if self._left.is_set() and self._in_api:
            await self._delete()
        volumes.remove(self.root)

    def _release(self) -> None:
        """Give back the pod's address and resources."""
        self._host.addresses.release(self.pod.uid)
        if self._host.ledger.release(self.pod.uid):
            self._host.freed()
        self._host.changed()

    # Volumes and processes

    async def _refresh(self) -> None:
        """Renew volumes and tokens from time to time, so that changes reach the pod."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            if self._prepared:
                try:
                    await self._write_volumes()
                except (ConfigError, KubeError, OSError) as error:
                    self._record("Warning", "FailedMount", str(error))

    async def _write_volumes(self) -> None:
        stored = await volumes.fetch(self._host.kube, self.pod.namespace, environment.sources((), (), self.pod.volumes))
        for volume in self.pod.volumes:
            directory = self._volumes / volume.name
            if not volume.sources:
                directory.mkdir(parents=True, exist_ok=True)
                continue
            tokens = {
                source.path: await self._token(volume.name, source)
                for source in volume.sources
                if isinstance(source, TokenFile)
            }
            files = volumes.volume_files(self.pod, volume, stored, self._facts, tokens)
            volumes.write(directory, files)
        (self.root / "home").mkdir(parents=True, exist_ok=True)

    async def _token(self, volume: str, source: TokenFile) -> str:
        token, renew_at = self._tokens.get((volume, source.path), ("", 0.0))
        now = self._host.now()
        if now >= renew_at:
            token = await identity.issue_token(self._host.kube, self.pod, source)
            self._tokens[volume, source.path] = (token, now + _TOKEN_LIFE_USED * source.expiration_seconds)
        return token

    async def _launch(self, container: Container, log: LogFile) -> processes.Process:
        """Start a container's process."""
        sources = environment.sources(container.env, container.env_from, ())
        stored = await volumes.fetch(self._host.kube, self.pod.namespace, sources)
        given = self._given(container)
        env = environment.variables(self.pod, container, self._facts, volumes.as_text(stored), given)
        by_path = self._by_path(container)
        words = [mounts.rewrite(environment.expand(word, env), by_path) for word in command_line(container)]
        env = {name: mounts.rewrite(value, by_path) for name, value in env.items()}
        env |= self._mark(container.name).variables()
        self._environments[container.name] = env
        program, *args = self._host.allowed.resolve(tuple(words))
        runner = self.runner(container.name)
        if runner is not None:
            runner.view = replace(runner.view, program=program)
        return processes.spawn([program, *args], env, self.root, log.write)

    def _given(self, container: Container) -> dict[str, str]:
        """Return the variables of the node itself: paths, addresses, identity, Services."""
        host, port = self._host.cluster.address
        given = {
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.defpath)),
            "HOME": str(self.root / "home"),
            "HOSTNAME": self.pod.name,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "POD_IP": self._ip,
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": str(port),
        }
        if self.pod.service_links:
            given |= self._host.service_variables(self.pod.namespace)
        return given | mounts.variables(container, self._volumes) | self._credentials(container)

    def _credentials(self, container: Container) -> dict[str, str]:
        """Write a kubeconfig for a container with a service account mount, and name it."""
        mount = next((mount for mount in container.mounts if mount.path == SERVICE_ACCOUNT_PATH), None)
        if mount is None:
            return {}
        path = self.root / "kubeconfig"
        token = self._volumes / mount.volume / "token"
        path.write_text(identity.pod_kubeconfig(self._host.cluster, self.pod.namespace, token))
        return {"KUBECONFIG": str(path)}

    async def _run_command(self, container: str, command: tuple[str, ...]) -> Outcome:
        """Run a probe's or hook's command in a container's environment."""
        output = bytearray()

        def take(stream: str, data: bytes) -> None:
            del stream
            output.extend(data[: _LONGEST_OUTPUT - len(output)])

        env = self._environments.get(container, {})
        by_path = self._by_path(next(c for c in self.pod.all_containers if c.name == container))
        try:
            argv = self._host.allowed.resolve(tuple(mounts.rewrite(word, by_path) for word in command))
        except NotAllowed as error:
            return Outcome(succeeded=False, message=str(error))
        process = processes.spawn(argv, env, self.root, take)
        try:
            end = await process.wait()
        finally:
            process.kill()
        text = output.decode(errors="replace").strip()
        return Outcome(succeeded=end.code == 0, message="" if end.code == 0 else f"exit code {end.code}: {text}")

    def _mark(self, container: str = "") -> processes.Mark:
        return processes.Mark(self._host.state_dir, self.pod.uid, container)

    @property
    def _volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def _facts(self) -> Facts:
        return Facts(self._ip, self._host.node_ip, self._host.ledger.written)

    def _by_path(self, container: Container) -> dict[str, str]:
        state_dir = str(self._host.state_dir)
        return mounts.directories(container, self._volumes) | {state_dir: state_dir}

    def _runner(self, view: ContainerView, *, init: bool) -> ContainerRunner:
        name = view.spec.name

        async def run_command(command: tuple[str, ...]) -> Outcome:
            return await self._run_command(name, command)

        around = Surroundings(
            pod_key=self.pod.key,
            restart_policy=self.pod.restart_policy,
            grace_seconds=self.pod.grace_seconds,
            back_off=self._host.back_off,
            prober=self._host.prober,
            target=lambda: Target(self._ip, view.spec, run_command),
            launch=self._launch,
            reap=lambda: processes.reap(self._mark(name)),
            log_path=self.log_path,
            now=self._host.now,
            record=lambda type_, reason, message: self._record(type_, reason, message, name),
            changed=self._changed,
        )
        return ContainerRunner(view, around, init=init)

    # What the API server is told

    def _changed(self) -> None:
        self._dirty.set()
        self._moved.set()
        shown = self.backend()
        if shown != self._shown:
            self._shown = shown
            self._host.changed()

    def _record(self, type_: str, reason: str, message: str, container: str = "") -> None:
        part = f"spec.containers{{{container}}}" if container else ""
        self._host.recorder.record(Occurrence(self.pod, type_, reason, message, part))

    async def _publish_changes(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._dirty.clear()
            if not await self._publish():
                await asyncio.sleep(_RETRY_SECONDS)
                self._dirty.set()

    async def _publish(self) -> bool:
        """Write the status if it changed; return False if it must be tried again."""
        status = pod_status(self.pod, self.view, self._written["conditions"], self._host.now())
        if status == self._written or not self._in_api:
            return True
        metadata = {"namespace": self.pod.namespace, "name": self.pod.name, "uid": self.pod.uid}
        try:
            await self._host.kube.apply(
                PODS, {"metadata": metadata, "status": status}, force=True, subresource="status"
            )
        except (NotFound, Conflict):
            return True  # gone, or another pod of that name: the watch will say so
        except KubeError as error:
            _log.warning("pod status not written", pod=self.pod.key, error=str(error))
            return False
        self._written = status
        return True

    async def _delete(self) -> None:
        """Write the last status and remove the object, trying until the API server has done it."""
        while True:
            if await self._publish() and await self._remove_object():
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _remove_object(self) -> bool:
        """Remove the object; return False if it must be tried again."""
        try:
            await self._host.kube.delete(PODS, self.pod.name, self.pod.namespace, grace_seconds=0, uid=self.pod.uid)
        except Conflict:
            return True  # another pod has taken the name
        except KubeError as error:
            _log.warning("pod not deleted", pod=self.pod.key, error=str(error))
            return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._moved.set())
        return task


def _resources(spec: Container) -> tuple[Mapping[str, str], Mapping[str, str]]:
    return spec.requests, spec.limits


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
