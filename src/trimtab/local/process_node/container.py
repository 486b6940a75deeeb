"""One container over its restarts: start, probes, end, back-off, again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from trimtab.kube import KubeError
from trimtab.local.process_node import probes, restarts
from trimtab.local.process_node.entrypoint import NotAllowed
from trimtab.local.process_node.environment import ConfigError
from trimtab.local.process_node.logs import LogFile, last_lines
from trimtab.local.process_node.prober import Prober, Target
from trimtab.local.process_node.processes import Exit, Process
from trimtab.local.process_node.restarts import BackOff
from trimtab.local.process_node.spec import Container, Probe
from trimtab.local.process_node.status import ContainerView, Running, Terminated, Waiting

_RETRY_SECONDS: Final = 5.0
_START_ERROR_CODE: Final = 128
_MESSAGE_LINES: Final = 80
_MESSAGE_BYTES: Final = 2048


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container needs from its pod and node.

    Attributes:
        pod_key: `namespace/name`, for messages.
        restart_policy: the pod's.
        grace_seconds: the pod's.
        back_off: the node's restart delays.
        prober: tries probes and hooks.
        target: what they are tried on, at this moment.
        launch: starts the process, with its output going to a log.
        reap: kills what the container's process left behind.
        log_path: where the log of the n-th start is.
        now: the clock, Unix seconds.
        record: takes (`Normal` or `Warning`, reason, message).
        changed: is called after each change of the view.
    """

    pod_key: str
    restart_policy: str
    grace_seconds: float
    back_off: BackOff
    prober: Prober
    target: Callable[[], Target]
    launch: Callable[[Container, LogFile], Awaitable[Process]]
    reap: Callable[[], Awaitable[int]]
    log_path: Callable[[str, int], Path]
    now: Callable[[], float]
    record: Callable[[str, str, str], None]
    changed: Callable[[], None]


class ContainerRunner:
    """Runs one container; `view` is what it does at any moment.

    Args:
        view: the container as it was last known; one that ended is started again if its policy says so.
        around: its pod and node.
        init: whether it is an init container.
    """

    def __init__(self, view: ContainerView, around: Surroundings, *, init: bool) -> None:
        self.view = view
        self.log: LogFile | None = None
        self._around = around
        self._init = init
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._restart_asked = False

    @property
    def spec(self) -> Container:
        """Return the container with the resources that it was given."""
        return self.view.spec

    @property
    def running(self) -> bool:
        """Return whether its process runs."""
        return self._process is not None

    async def run(self) -> None:
        """Run the container until it has ended for good or is stopped."""
        crashes = 0
        if isinstance(self.view.state, Terminated):
            if not self._runs_again(self.view.state):
                return
            self._prepare_restart(self.view.state)
        while not self._stopping.is_set():
            ended = await self._run_once()
            if ended is None or self._stopping.is_set() or not self._runs_again(ended):
                return
            crashes = 0 if self._restart_asked else self._around.back_off.crashes(crashes, _ran_seconds(ended))
            self._restart_asked = False
            await self._wait_out(ended, self._around.back_off.delay_seconds(crashes))
            if not self._stopping.is_set():
                self._prepare_restart(ended)

    async def stop(self, grace_seconds: float) -> None:
        """Stop for good: the hook, TERM, KILL after the grace period. A second, shorter call overtakes the first."""
        self._stopping.set()
        await self._end_process(grace_seconds)

    async def restart(self, reason: str, grace_seconds: float | None = None) -> None:
        """End the process, so that its policy decides whether it runs again."""
        self._around.record("Normal", "Killing", f"Container {self.spec.name} {reason}")
        await self._end_process(self._around.grace_seconds if grace_seconds is None else grace_seconds)

    async def resize(self, spec: Container, *, restart: bool) -> None:
        """Take over the container's new resources, restarting it if its resize policy demands that."""
        self._set(spec=spec)
        if restart:
            self._restart_asked = True
            await self.restart("is restarted by its resize policy")

    # One run

    async def _run_once(self) -> Terminated | None:
        """Run the process once and return how it ended; None if it was stopped before it started."""
        try:
            self.log = self._open_log()
        except OSError as error:
            return self._start_failed(error)
        with closing(self.log):
            started = await self._start(self.log)
            if not isinstance(started, Process):
                return started
            return await self._attend(started)

    async def _attend(self, process: Process) -> Terminated:
        """Probe the process until it ends."""
        self._process = process
        started_at = self._around.now()
        self._set(
            state=Running(started_at),
            container_id=f"process://{process.pid}",
            started=self.spec.startup is None,
            ready=self.spec.startup is None and self.spec.readiness is None,
        )
        self._around.record("Normal", "Started", f"Container {self.spec.name} started, process {process.pid}")
        watching = asyncio.create_task(self._watch(process))
        end = await process.wait()
        self._process = None
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await self._around.reap()
        return self._record_end(end, started_at)

    def _open_log(self) -> LogFile:
        """Open the log of this start; the one before the previous is dropped."""
        path = self._around.log_path(self.spec.name, self.view.restarts)
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{self.view.restarts - 2}.*"):
            old.unlink()
        return LogFile(path, lambda: int(self._around.now() * 1e9))

    async def _start(self, log: LogFile) -> Process | Terminated | None:
        """Start the process; wait while its configuration is incomplete."""
        while not self._stopping.is_set():
            try:
                return await self._around.launch(self.spec, log)
            except (ConfigError, KubeError) as error:
                self._set(state=Waiting("CreateContainerConfigError", str(error)))
                self._around.record("Warning", "Failed", f"Container {self.spec.name}: {error}")
                await self._stopping_within(_RETRY_SECONDS)
            except (OSError, NotAllowed) as error:
                log.write("stderr", f"process node: {error}\n".encode())
                return self._start_failed(error)
        return None

    def _start_failed(self, error: Exception) -> Terminated:
        now = self._around.now()
        ended = Terminated(_START_ERROR_CODE, now, now, "StartError", str(error))
        self._set(state=ended)
        self._around.record("Warning", "Failed", f"Container {self.spec.name} did not start: {error}")
        return ended

    def _record_end(self, end: Exit, started_at: float) -> Terminated:
        message = ""
        if end.code and self.spec.log_as_message:
            path = self._around.log_path(self.spec.name, self.view.restarts)
            message = last_lines(path, _MESSAGE_LINES, _MESSAGE_BYTES)
        ended = Terminated(
            exit_code=end.code,
            started_at=started_at,
            finished_at=self._around.now(),
            reason="Error" if end.code else "Completed",
            message=message,
            signal=end.signal,
        )
        # An init container that succeeded is ready for good.
        self._set(state=ended, started=False, ready=self._init and not self.spec.sidecar and end.code == 0)
        return ended

    async def _end_process(self, grace_seconds: float) -> None:
        """End the process that runs, if one does, within the grace period."""
        process = self._process
        if process is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        if self.spec.pre_stop is not None and grace_seconds > 0:
            outcome = await self._around.prober.attempt(self.spec.pre_stop, self._around.target(), grace_seconds)
            if not outcome.succeeded:
                self._around.record("Warning", "FailedPreStopHook", outcome.message)
        await process.stop(max(0.0, deadline - loop.time()))

    # Restarts

    def _runs_again(self, ended: Terminated) -> bool:
        if self._restart_asked:
            return True
        return restarts.restarts(self._around.restart_policy, self.spec, ended.exit_code, init=self._init)

    async def _wait_out(self, ended: Terminated, delay_seconds: float) -> None:
        if not delay_seconds:
            return
        words = f"back-off {delay_seconds:g}s restarting failed container={self.spec.name} pod={self._around.pod_key}"
        self._set(state=Waiting("CrashLoopBackOff", words), last=ended)
        self._around.record("Warning", "BackOff", words.capitalize())
        await self._stopping_within(delay_seconds)
        if self._stopping.is_set():
            self._set(state=ended)

    def _prepare_restart(self, ended: Terminated) -> None:
        self._set(state=Waiting(), last=ended, restarts=self.view.restarts + 1)

    async def _stopping_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # Probes

    async def _watch(self, process: Process) -> None:
        """Run the hook and the probes of one process until it ends or one of them ends it."""
        started_at = asyncio.get_running_loop().time()
        if self.spec.post_start is not None and not await self._post_start():
            process.terminate()
            return
        if self.spec.startup is not None:
            await self._probe(self.spec.startup, "Startup", started_at, self._startup_result)
            if not self.view.started:
                return
        async with asyncio.TaskGroup() as tasks:
            if self.spec.readiness is not None:
                tasks.create_task(self._probe(self.spec.readiness, "Readiness", started_at, self._readiness_result))
            if self.spec.liveness is not None:
                tasks.create_task(self._probe(self.spec.liveness, "Liveness", started_at, self._liveness_result))

    async def _post_start(self) -> bool:
        assert self.spec.post_start is not None
        outcome = await self._around.prober.attempt(
            self.spec.post_start, self._around.target(), self._around.grace_seconds
        )
        if not outcome.succeeded:
            self._around.record("Warning", "FailedPostStartHook", outcome.message)
        return outcome.succeeded

    async def _probe(
        self,
        probe: Probe,
        kind: str,
        started_at: float,
        result: Callable[[Probe, probes.Verdict], Awaitable[bool]],
    ) -> None:
        """Try a probe again and again; end when `result` says that it has done its work."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, started_at + probe.initial_delay_seconds - loop.time()))
        verdict = probes.Verdict(good=kind == "Liveness")
        while True:
            tried_at = loop.time()
            outcome = await self._around.prober.attempt(probe.action, self._around.target(), probe.timeout_seconds)
            verdict = probes.observe(probe, verdict, succeeded=outcome.succeeded)
            if probes.gave_up(probe, verdict):
                self._around.record("Warning", "Unhealthy", f"{kind} probe failed: {outcome.message}")
            if await result(probe, verdict):
                return
            await asyncio.sleep(max(0.0, tried_at + probe.period_seconds - loop.time()))

    async def _startup_result(self, probe: Probe, verdict: probes.Verdict) -> bool:
        if verdict.good:
            self._set(started=True, ready=self.spec.readiness is None)
            return True
        return await self._liveness_result(probe, verdict, "Startup")

    async def _readiness_result(self, probe: Probe, verdict: probes.Verdict) -> bool:
        del probe
        if verdict.good is not self.view.ready:
            self._set(ready=verdict.good)
        return False

    async def _liveness_result(self, probe: Probe, verdict: probes.Verdict, kind: str = "Liveness") -> bool:
        if not probes.gave_up(probe, verdict):
            return False
        # The process's end cancels this task, so the stop must not be part of it.
        ending = asyncio.create_task(
            self.restart(f"failed {kind.lower()} probe, will be restarted", probe.grace_seconds)
        )
        await asyncio.shield(ending)
        return True

    def _set(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)
        self._around.changed()


def _ran_seconds(ended: Terminated) -> float:
    return ended.finished_at - ended.started_at
