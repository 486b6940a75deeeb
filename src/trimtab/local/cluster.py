"""A Kubernetes control plane of local processes on loopback: brought up, looked at, repaired, taken down.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok are set up by kwokctl's binary runtime;
Prometheus and the process node are added here. Everything of a cluster is in one folder, and every process carries
the folder's path in its environment (`trimtab.local.owned`), so `down` finds all of it in any state.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from trimtab.kube import Kube, KubeError, NotFound, Resource
from trimtab.kube.resources import NODES, SERVICE_ACCOUNTS
from trimtab.local import components, config, fakes, owned, paths, ports, record
from trimtab.local.components import Component
from trimtab.local.locks import deleted_afterwards, locked
from trimtab.local.programs import Programs
from trimtab.local.progress import Progress, Silent
from trimtab.local.record import Options, Record
from trimtab.local.store import full_disk_explained
from trimtab.model.problem import Problem

__all__ = ["DEFAULT_NAME", "PROCESS_NODE", "Health", "LocalCluster", "Options", "Status"]

DEFAULT_NAME: Final = "trimtab"
PROCESS_NODE: Final = "process-0"
FORWARDS: Final = {"extender": "trimtab-system/trimtab-extender", "gateway": "trimtab-system/trimtab-gateway"}

_PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kwokctl", "kubectl")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Health:
    """One line of a cluster's status.

    Attributes:
        component: Its name.
        pid: Its process, None when it does not run.
        address: Where it listens, empty when it does not.
        problem: What is wrong, empty when it is well.
        fix: What to do about it.
    """

    component: str
    pid: int | None
    address: str = ""
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What a cluster is made of and how it is.

    Attributes:
        components: One entry each.
        nodes_ready: How many nodes are Ready; None when the API server cannot be asked.
        nodes: How many there are.
    """

    components: tuple[Health, ...]
    nodes_ready: int | None = None
    nodes: int = 0

    @property
    def well(self) -> bool:
        """Whether every component is well."""
        return bool(self.components) and not any(health.problem for health in self.components)


class LocalCluster:
    """A local cluster by name. Creating the object touches nothing.

    The methods block; from asyncio call them through `asyncio.to_thread`.

    Args:
        name: A DNS label of at most 32 characters.
        home: Where clusters keep their state; by default `paths.home()`.
        programs: Where programs come from; by default as the environment asks.
        progress: Who is told about slow work.

    Raises:
        Problem: The name is no DNS label.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        *,
        home: Path | None = None,
        programs: Programs | None = None,
        progress: Progress | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise Problem(f"--name: {name!r} is not a name for a cluster", fix="use up to 32 of a-z, 0-9 and -")
        self.name = name
        self._home = (home or paths.home()).resolve()
        self.root = self._home / "clusters" / name
        self._progress = progress or Silent()
        self._programs = programs

    @classmethod
    def names(cls, home: Path | None = None) -> list[str]:
        """Names of the clusters that have state, running or not."""
        folder = (home or paths.home()) / "clusters"
        return sorted(entry.name for entry in folder.glob("*/") if _NAME.fullmatch(entry.name))

    @property
    def exists(self) -> bool:
        """Whether there is anything of this cluster: state or processes."""
        return self.root.exists() or bool(owned.processes(self.root))

    @property
    def kubeconfig(self) -> Path:
        """Administrator's access to the API server."""
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """Every API request, one JSON object a line (metadata level); older half in `audit-*.log` beside it."""
        return self._kwok / "logs" / "audit.log"

    @property
    def ports(self) -> dict[str, int]:
        """The cluster's ports on 127.0.0.1 by the names in `record.PORTS`.

        Raises:
            Problem: The cluster is not up.
        """
        return self._record().ports

    def program(self, name: str) -> Path:
        """One of the programs that clusters use, `kubectl` and `helm` included."""
        return self._sources().path(name)

    def up(self, options: Options | None = None) -> None:
        """Bring the cluster up; returns when it is ready for use. A cluster that is up and well is left as it is.

        What is left of an earlier one that is not well is removed first. When anything goes wrong, or on Ctrl-C,
        everything is taken down again.

        Raises:
            Problem: A program, a port or disk space is missing, or a component does not come up.
        """
        options = options or Options()
        with self._alone():
            if self.exists:
                if self._is_up_with(options):
                    return
                self._erase()
            try:
                with full_disk_explained(self._home, "TRIMTAB_HOME"):
                    self._bring_up(options)
            except BaseException:
                self._erase()
                raise

    def down(self) -> bool:
        """Stop every process of the cluster and delete its state, whatever state it is in.

        Returns:
            Whether there was anything to take down.
        """
        with self._alone():
            existed = self.exists
            self._erase()
        return existed

    def restart(self, component: str = "") -> None:
        """Restart one component, or all of them, keeping every object; returns when the cluster is well.

        Whatever else has ended is started again too: one ailment often has others for its cause.

        Raises:
            Problem: There is no such component, or the cluster is not well afterwards.
        """
        with self._alone():
            chosen = [item for item in self.components() if component in {"", item.name}]
            if not chosen:
                names = ", ".join(item.name for item in self.components())
                raise Problem(f"cluster {self.name} has no component {component!r}", fix=f"choose from {names}")
            for item in reversed(chosen):
                owned.stop(self.root, grace_seconds=5, which=item.runs_as)
            for item in self.components():
                if not any(map(item.runs_as, owned.processes(self.root))):
                    item.start(self.root)
                    self._wait_until_well([item])
            self._wait_until_well(self.components())

    def status(self) -> Status:
        """Look at every component and say what is wrong with it."""
        running = owned.processes(self.root)
        with ThreadPoolExecutor() as pool:
            health = tuple(pool.map(lambda component: self._health(component, running), self.components()))
        if any(item.problem for item in health if item.component in {"etcd", "kube-apiserver"}):
            return Status(health)  # asking would only take long
        try:
            ready = asyncio.run(self._ready_nodes())
        except KubeError:
            return Status(health)
        return Status(health, sum(ready), len(ready))

    def components(self) -> list[Component]:
        """The cluster's components in the order they start in.

        Raises:
            Problem: The cluster is not up.
        """
        chosen = self._record()
        found = components.from_kwokctl(self._kwok)
        if not found:
            raise Problem(f"cluster {self.name} never came up completely", fix=self._command("up"))
        if chosen.options.prometheus:
            found.append(self._prometheus(chosen))
        if chosen.options.process_node:
            found.append(self._process_node(chosen))
        return found

    @property
    def _kwok(self) -> Path:
        """Where kwokctl keeps this cluster."""
        return self.root / "kwok" / "clusters" / self.name

    def _command(self, verb: str, *arguments: str) -> str:
        """The command line that does something with this cluster."""
        name = [] if self.name == DEFAULT_NAME else ["--name", self.name]
        return " ".join(["trimtab", "cluster", verb, *arguments, *name])

    def _sources(self) -> Programs:
        if self._programs is None:
            self._programs = Programs.standard(self._progress)
        return self._programs

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other launchers away from this cluster; leaves no lock file behind."""
        lock = self.root.with_name(f"{self.name}.lock")
        busy = f"waiting for pid {{}}, which works on cluster {self.name}"
        with locked(lock, lambda pid: self._progress.say(busy.format(pid))):
            try:
                with deleted_afterwards(lock):
                    yield
            finally:
                _delete_empty(lock.parent, self._home)

    def _record(self) -> Record:
        try:
            return record.read(self.root)
        except FileNotFoundError as error:
            raise Problem(f"there is no cluster {self.name}", fix=self._command("up")) from error
        except record.Damaged as damaged:
            raise Problem(f"{damaged} is damaged", fix=self._command("down")) from damaged

    def _is_up_with(self, options: Options) -> bool:
        """Whether the cluster is up and well.

        Raises:
            Problem: It is, but with other options.
        """
        try:
            before, status = self._record().options, self.status()
        except Problem as problem:
            self._progress.say(f"{problem.what}: starting afresh")
            return False
        if not status.well:
            wrong = ", ".join(f"{health.component} {health.problem}" for health in status.components if health.problem)
            self._progress.say(f"an earlier cluster {self.name} is not well ({wrong}): starting afresh")
            return False
        if before != options:
            fix = f"`{self._command('down')}` first, or give the new one another --name"
            raise Problem(f"cluster {self.name} is already up with {before}", fix=fix)
        self._progress.say(f"cluster {self.name} is already up")
        return True

    def _erase(self) -> None:
        """Stop all processes and delete all files."""
        self._stop_processes()
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            raise Problem(f"{self.root} cannot be deleted", fix=f"delete it by hand: rm -rf {self.root}")

    def _stop_processes(self) -> None:
        # The process node first and alone: it stops its pods, and needs the API server for it.
        owned.stop(self.root, grace_seconds=10, which=lambda process: process.role == "process-node")
        owned.stop(self.root, grace_seconds=0.2)  # the rest has nothing to save: its state is deleted next

    def _bring_up(self, options: Options) -> None:
        wanted = [*_PROGRAMS, *(["prometheus"] if options.prometheus else [])]
        _demand_plain(self.root, "TRIMTAB_HOME")
        programs = self._sources().ensure(wanted)
        _demand_plain(programs["kwokctl"], "TRIMTAB_CACHE or TRIMTAB_ASSETS")
        self.root.mkdir(mode=0o700, parents=True)  # an administrator's key is in it
        self._write_configuration(record.write(self.root, options, programs, self.kubeconfig), programs)
        self._step("control plane", lambda: self._create_control_plane(programs["kwokctl"]))
        for component in self.components()[len(components.from_kwokctl(self._kwok)) :]:
            component.start(self.root)
        self._step(f"{options.nodes} fake nodes", lambda: asyncio.run(self._populate(options)))
        self._step("all components", lambda: self._wait_until_well(self.components()))
        self._demand_loopback()

    def _step(self, what: str, do: Callable[[], None]) -> None:
        started = time.monotonic()
        do()
        self._progress.say(f"{what}: ready after {time.monotonic() - started:.1f} s")

    def _write_configuration(self, chosen: Record, programs: Mapping[str, Path]) -> None:
        (self.root / "scheduler.yaml").write_text(config.scheduler(chosen.ports["extender"]))
        (self.root / "audit-policy.yaml").write_text(config.AUDIT_POLICY)
        limits = chosen.options.disable_qps_limits
        text = config.kwokctl(chosen.ports, programs, self.root, disable_qps_limits=limits)
        (self.root / "kwokctl.yaml").write_text(text)
        prometheus = config.prometheus(chosen.ports, self.kubeconfig, self._kwok / "pki")
        (self.root / "prometheus.yaml").write_text(prometheus)

    def _create_control_plane(self, kwokctl: Path) -> None:
        files = ["--config", str(self.root / "kwokctl.yaml"), "--kubeconfig", str(self.kubeconfig)]
        command = [str(kwokctl), "create", "cluster", "--name", self.name, "--runtime", "binary", *files]
        # A home of its own: kwokctl reads ~/.kwok/kwok.yaml, and writes a cache below ~/.kube.
        folder = str(self.root / "kwok")
        environment = {"KWOK_WORKDIR": folder, "HOME": folder, owned.MARK: str(self.root)}
        log = self.root / "kwokctl.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C comes to us, and we take everything down
            )
        try:
            self._watch(process)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            fix = f"`{self._command('up')}` again"
            raise Problem(f"kwokctl could not set up the control plane: {_last(log)}", fix=fix)
        self._wait_until_well(components.from_kwokctl(self._kwok))

    def _watch(self, kwokctl: "subprocess.Popen[bytes]") -> None:
        """Wait for kwokctl, which itself waits for minutes for a component that has ended.

        Raises:
            Problem: A component that it started has ended, or it takes too long.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not _ended(kwokctl, within_seconds=0.2):
            started = {file.stem for file in (self._kwok / "pids").glob("*.pid")}
            running = owned.processes(self.root)
            for component in components.from_kwokctl(self._kwok):
                if component.name in started and not any(map(component.runs_as, running)):
                    raise self._did_not_come_up(component)
            if time.monotonic() > deadline:
                raise Problem(f"kwokctl is not done after {_READY_SECONDS:g} s", fix=f"`{self._command('up')}` again")

    def _wait_until_well(self, wanted: list[Component]) -> None:
        """Wait until components answer that they are well; a dead one ends the wait at once.

        Raises:
            Problem: One ended, or is not well in time; the message has the end of its log.
        """
        deadline = time.monotonic() + _READY_SECONDS
        left = list(wanted)
        while True:
            running = owned.processes(self.root)
            dead = [item for item in left if not any(map(item.runs_as, running))]
            left = [item for item in left if item in dead or item.ailment()]
            if not left:
                return
            if dead or time.monotonic() > deadline:
                raise self._did_not_come_up([*dead, *left][0])
            time.sleep(_POLL_SECONDS)

    def _did_not_come_up(self, component: Component) -> Problem:
        said = "\n  ".join(component.last_lines(5)) or "it logged nothing"
        why = component.ailment() or "ended"
        fix = f"`{self._command('down')}`, then `{self._command('up')}`"
        return Problem(f"{component.name} {why}. The end of its log:\n  {said}", fix=fix)

    async def _populate(self, options: Options) -> None:
        """Create the fake nodes, and wait for what pods need.

        Raises:
            Problem: It does not come in time, or the process node ended.
        """
        async with Kube.connect(self.kubeconfig, field_manager="trimtab-cluster", timeout_seconds=30) as kube:
            await fakes.create(kube, list(fakes.nodes(options.nodes, options.accelerators, now=_now())))
            # Set up by controllers a moment later; pods created before it are refused.
            await self._until_there(kube, SERVICE_ACCOUNTS, "default", "default")
            if options.process_node:
                await self._until_there(kube, NODES, PROCESS_NODE, None)

    async def _until_there(self, kube: Kube, resource: Resource, name: str, namespace: str | None) -> None:
        """Wait until an object exists and, if it is a node, is Ready."""
        deadline, wanted = time.monotonic() + _READY_SECONDS, self.components()
        while not await _is_there(kube, resource, name, namespace):
            running = owned.processes(self.root)
            for component in wanted:
                if not any(map(component.runs_as, running)):
                    raise self._did_not_come_up(component)
            if time.monotonic() > deadline:
                fix = "see whether the machine is overloaded, then " + self._command("up")
                raise Problem(f"{resource.kind} {name} is not there after {_READY_SECONDS:g} s", fix=fix)
            await asyncio.sleep(_POLL_SECONDS)

    def _demand_loopback(self) -> None:
        """Make sure that no component can be reached from another machine.

        Raises:
            Problem: One can.
        """
        found = ports.listeners(process.pid for process in owned.processes(self.root))
        open_ones = sorted({f"{item.address}:{item.port}" for item in found if not ports.is_loopback(item.address)})
        if open_ones:
            what = f"a component listens on {', '.join(open_ones)}, which other machines reach"
            raise Problem(what, fix="report this as a defect of Trimtab; nothing is left running")

    def _health(self, component: Component, running: list[owned.Process]) -> Health:
        process = next(filter(component.runs_as, running), None)
        if process is None:
            fix = self._command("restart", component.name)
            return Health(component.name, None, problem="does not run", fix=fix)
        found = ports.listeners([process.pid])
        address = ", ".join(sorted({f"{item.address}:{item.port}" for item in found}))
        ailment = component.ailment()
        fix = f"`{self._command('logs', component.name)}`, then `{self._command('restart', component.name)}`"
        return Health(component.name, process.pid, address, ailment, fix if ailment else "")

    async def _ready_nodes(self) -> list[bool]:
        async with Kube.connect(self.kubeconfig, timeout_seconds=5) as kube:
            return [_is_ready(node) for node in (await kube.list(NODES)).items]

    def _prometheus(self, chosen: Record) -> Component:
        address = f"127.0.0.1:{chosen.ports['prometheus']}"
        argv = (
            chosen.programs["prometheus"],
            f"--config.file={self.root / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.root / 'prometheus'}",
            "--storage.tsdb.retention.size=1GB",
            f"--web.listen-address={address}",
        )
        return Component("prometheus", argv, self._kwok / "logs" / "prometheus.log", f"http://{address}/-/ready")

    def _process_node(self, chosen: Record) -> Component:
        forwards = [f"--forward={service}=127.0.0.1:{chosen.ports[port]}" for port, service in FORWARDS.items()]
        argv = (
            sys.executable,
            *("-m", "trimtab.cli", "process-node"),
            f"--kubeconfig={self.kubeconfig}",
            f"--node-name={PROCESS_NODE}",
            f"--state-dir={self.root / 'process-node'}",
            f"--kubelet-port={chosen.ports['process_node']}",
            *forwards,
        )
        return Component("process-node", argv, self._kwok / "logs" / "process-node.log")


def _ended(process: "subprocess.Popen[bytes]", *, within_seconds: float) -> bool:
    try:
        process.wait(within_seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _demand_plain(path: Path, setting: str) -> None:
    """Refuse paths that kwokctl, which takes them for parts of an address, would put elsewhere.

    Raises:
        Problem: The path has a space or something else that addresses write as %XX.
    """
    if quote(str(path), safe="/$&+:=@~") != str(path):
        fix = f"name a folder of plain letters, digits, - and _: {setting}=FOLDER"
        raise Problem(f"{str(path)!r} has characters that kwokctl cannot deal with", fix=fix)


def _delete_empty(*folders: Path) -> None:
    """Delete these folders as far as they are empty, innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


async def _is_there(kube: Kube, resource: Resource, name: str, namespace: str | None) -> bool:
    try:
        found = await kube.get(resource, name, namespace=namespace)
    except NotFound:
        return False
    return resource is not NODES or _is_ready(found)


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
