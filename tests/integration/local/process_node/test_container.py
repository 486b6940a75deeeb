"""One container of real processes over its restarts."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.process_node import container
from tests.support.until import until
from trimtab.local.process_node import processes
from trimtab.local.process_node.container import ContainerRunner, Surroundings
from trimtab.local.process_node.environment import ConfigError
from trimtab.local.process_node.logs import LogFile
from trimtab.local.process_node.prober import Outcome, Prober, Target
from trimtab.local.process_node.processes import Mark, Process
from trimtab.local.process_node.restarts import BackOff
from trimtab.local.process_node.spec import Container
from trimtab.local.process_node.status import ContainerView, Running, State, Terminated, Waiting


class Answers(Prober):
    """A prober whose answers a test decides."""

    def __init__(self) -> None:
        self.good = True
        self.tried: list[object] = []

    async def attempt(self, action: Any, target: Target, timeout_seconds: float) -> Outcome:
        self.tried.append(action)
        await asyncio.sleep(0)
        return Outcome(succeeded=self.good, message="" if self.good else "told so")


@dataclass
class Stage:
    """A container's surroundings, with everything that happened in them."""

    folder: Path
    policy: str = "Always"
    prober: Answers = field(default_factory=Answers)
    events: list[tuple[str, str]] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    broken: Exception | None = None

    def runner(
        self, script: str, *, init: bool = False, view: ContainerView | None = None, **fields: Any
    ) -> ContainerRunner:
        spec = container(command=["sh", "-c", script], **fields)
        around = Surroundings(
            pod_key="shop/web",
            restart_policy=self.policy,
            grace_seconds=5.0,
            back_off=BackOff(0.05, 60.0),
            prober=self.prober,
            target=lambda: Target("127.0.0.1", spec, self._no_command),
            launch=self._launch,
            reap=lambda: processes.reap(Mark(self.folder)),
            log_path=lambda name, start: self.folder / name / f"{start}.log",
            now=lambda: asyncio.get_running_loop().time(),
            record=lambda _, reason, message: self.events.append((reason, message)),
            changed=self._note,
        )
        self.run = ContainerRunner(view or ContainerView(spec), around, init=init)
        return self.run

    def log(self, start: int) -> str:
        text = (self.folder / "main" / f"{start}.log").read_text()
        return "\n".join(line.split(" ", 3)[3] for line in text.splitlines())

    def reasons(self) -> list[str]:
        return [reason for reason, _ in self.events]

    async def _launch(self, spec: Container, log: LogFile) -> Process:
        if self.broken is not None:
            raise self.broken
        env = {"PATH": os.defpath, "HERE": str(self.folder)} | Mark(self.folder, "pod", spec.name).variables()
        return processes.spawn(["/bin/sh", *spec.command[1:]], env, self.folder, log.write)

    async def _no_command(self, command: tuple[str, ...]) -> Outcome:
        raise AssertionError(command)

    def _note(self) -> None:
        if not self.states or self.states[-1] != self.run.view.state:
            self.states.append(self.run.view.state)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def reached(runner: ContainerRunner, true: Callable[[ContainerView], bool]) -> ContainerView:
    async def look() -> bool:
        return true(runner.view)

    await until(look)
    return runner.view


def is_running(view: ContainerView) -> bool:
    return isinstance(view.state, Running)


@pytest.mark.parametrize(("policy", "code"), [("Never", 0), ("Never", 3), ("OnFailure", 0)])
async def test_a_container_that_is_done_is_not_started_again(stage: Stage, policy: str, code: int) -> None:
    stage.policy = policy
    runner = stage.runner(f"echo done; exit {code}")

    await runner.run()

    assert isinstance(runner.view.state, Terminated)
    assert runner.view.state.exit_code == code
    assert runner.view.state.reason == ("Error" if code else "Completed")
    assert (runner.view.restarts, stage.log(0)) == (0, "done")


async def test_a_failing_container_is_tried_again_with_growing_delays_until_it_succeeds(stage: Stage) -> None:
    stage.policy = "OnFailure"
    runner = stage.runner("echo x >> $HERE/tries; test $(wc -l < $HERE/tries) -ge 4")

    await runner.run()

    waits = [
        state.message for state in stage.states if isinstance(state, Waiting) and state.reason == "CrashLoopBackOff"
    ]
    assert [message.split()[1] for message in waits] == ["0.05s", "0.1s"]
    assert runner.view.restarts == 3
    assert runner.view.last is not None
    assert runner.view.last.exit_code == 1
    assert stage.reasons().count("BackOff") == 2


async def test_logs_of_two_starts_are_kept(stage: Stage) -> None:
    stage.policy = "OnFailure"
    runner = stage.runner("echo x >> $HERE/tries; echo $(wc -l < $HERE/tries); test $(wc -l < $HERE/tries) -ge 4")

    await runner.run()

    assert sorted(path.name for path in (stage.folder / "main").iterdir()) == ["2.log", "3.log"]
    assert (stage.log(2), stage.log(3)) == ("3", "4")


async def test_the_end_of_the_log_is_the_message_of_a_failure_if_the_container_asks_for_it(stage: Stage) -> None:
    stage.policy = "Never"
    runner = stage.runner("echo out of luck; exit 1", terminationMessagePolicy="FallbackToLogsOnError")

    await runner.run()

    assert isinstance(runner.view.state, Terminated)
    assert runner.view.state.message == "out of luck\n"


async def test_stopping_runs_the_hook_first_and_is_final(stage: Stage) -> None:
    runner = stage.runner(
        "trap 'exit 0' TERM; while true; do sleep 0.02; done", lifecycle={"preStop": {"sleep": {"seconds": 1}}}
    )
    running = asyncio.create_task(runner.run())
    await reached(runner, is_running)

    await runner.stop(5.0)
    await running

    assert len(stage.prober.tried) == 1
    assert isinstance(runner.view.state, Terminated)
    assert not runner.view.ready
    assert processes.marked(Mark(stage.folder)) == []


async def test_a_shorter_grace_period_overtakes_a_longer_one(stage: Stage) -> None:
    runner = stage.runner("trap '' TERM; while true; do sleep 0.02; done")
    running = asyncio.create_task(runner.run())
    await reached(runner, is_running)
    patient = asyncio.create_task(runner.stop(1000.0))
    await asyncio.sleep(0)

    await asyncio.wait_for(runner.stop(0.1), 10)
    await asyncio.wait_for(asyncio.gather(running, patient), 10)

    assert isinstance(runner.view.state, Terminated)
    assert runner.view.state.signal == 9


async def test_stopping_ends_a_wait_for_the_next_start(stage: Stage) -> None:
    runner = stage.runner("exit 1")
    running = asyncio.create_task(runner.run())
    await reached(runner, lambda view: view.restarts >= 3)

    await runner.stop(1.0)
    await asyncio.wait_for(running, 10)

    assert isinstance(runner.view.state, Terminated)


async def test_readiness_follows_its_probe_both_ways(stage: Stage) -> None:
    probe = {"tcpSocket": {"port": 1}, "periodSeconds": 0.01, "failureThreshold": 2}
    stage.prober.good = False
    runner = stage.runner("exec sleep 1000", readinessProbe=probe)
    running = asyncio.create_task(runner.run())
    await reached(runner, lambda view: is_running(view) and len(stage.prober.tried) > 3)
    assert (runner.view.started, runner.view.ready) == (True, False)

    stage.prober.good = True
    await reached(runner, lambda view: view.ready)
    stage.prober.good = False
    await reached(runner, lambda view: not view.ready)

    assert runner.view.restarts == 0
    assert ("Unhealthy", "Readiness probe failed: told so") in stage.events
    await runner.stop(1.0)
    await running


async def test_a_failed_liveness_probe_restarts_at_once_the_first_time(stage: Stage) -> None:
    probe = {"tcpSocket": {"port": 1}, "periodSeconds": 0.01, "failureThreshold": 3}
    stage.prober.good = False
    runner = stage.runner("exec sleep 1000", livenessProbe=probe)
    running = asyncio.create_task(runner.run())
    await reached(runner, lambda view: view.restarts == 1)
    stage.prober.good = True

    view = await reached(runner, is_running)

    assert view.last is not None
    assert (view.last.exit_code, view.last.signal) == (143, 15)
    assert len(stage.prober.tried) >= 3
    assert ("Killing", "Container main failed liveness probe, will be restarted") in stage.events
    await runner.stop(1.0)
    await running


async def test_nothing_else_is_probed_before_the_startup_probe_succeeds(stage: Stage) -> None:
    startup = {"tcpSocket": {"port": 1}, "periodSeconds": 0.01, "failureThreshold": 1000}
    other = {"tcpSocket": {"port": 2}, "periodSeconds": 0.01, "failureThreshold": 1}
    stage.prober.good = False
    runner = stage.runner("exec sleep 1000", startupProbe=startup, livenessProbe=other, readinessProbe=other)
    running = asyncio.create_task(runner.run())
    await reached(runner, lambda _: len(stage.prober.tried) >= 5)
    assert {action.port for action in stage.prober.tried} == {1}  # type: ignore[attr-defined]
    assert (runner.view.started, runner.view.ready) == (False, False)

    stage.prober.good = True

    await reached(runner, lambda view: view.started and view.ready)
    await runner.stop(1.0)
    await running


async def test_a_container_that_does_not_start_in_time_is_restarted_unprobed_by_the_others(stage: Stage) -> None:
    startup = {"tcpSocket": {"port": 1}, "periodSeconds": 0.01, "failureThreshold": 3}
    other = {"tcpSocket": {"port": 2}, "periodSeconds": 0.01}
    stage.prober.good = False
    runner = stage.runner(
        "trap 'exit 7' TERM; while true; do sleep 0.02; done", startupProbe=startup, livenessProbe=other
    )
    running = asyncio.create_task(runner.run())

    view = await reached(runner, lambda view: view.restarts == 1)

    assert view.last is not None
    assert {action.port for action in stage.prober.tried} == {1}  # type: ignore[attr-defined]
    assert ("Killing", "Container main failed startup probe, will be restarted") in stage.events
    await runner.stop(1.0)
    await running


async def test_a_container_whose_configuration_is_incomplete_waits(stage: Stage) -> None:
    stage.broken = ConfigError("Secret 's' not found")
    runner = stage.runner("exec sleep 1000")
    running = asyncio.create_task(runner.run())

    view = await reached(
        runner, lambda view: view.state == Waiting("CreateContainerConfigError", "Secret 's' not found")
    )

    assert view.restarts == 0
    await runner.stop(1.0)
    await asyncio.wait_for(running, 10)


async def test_a_program_that_cannot_be_started_counts_as_a_failed_run(stage: Stage) -> None:
    stage.policy = "Never"
    stage.broken = FileNotFoundError(2, "No such file", "trimtab")
    runner = stage.runner("")

    await runner.run()

    assert isinstance(runner.view.state, Terminated)
    assert (runner.view.state.exit_code, runner.view.state.reason) == (128, "StartError")
    assert "No such file" in stage.log(0)


async def test_a_container_that_died_with_the_node_is_started_again(stage: Stage) -> None:
    lost = Terminated(137, 0.0, 1.0, "ContainerStatusUnknown")
    spec = container(command=["sh", "-c", "exec sleep 1000"])
    runner = stage.runner("", view=ContainerView(spec, lost, restarts=2))
    running = asyncio.create_task(runner.run())

    view = await reached(runner, is_running)

    assert (view.restarts, view.last) == (3, lost)
    await runner.stop(1.0)
    await running


async def test_a_container_that_was_done_when_the_node_died_stays_done(stage: Stage) -> None:
    stage.policy = "OnFailure"
    done = Terminated(0, 0.0, 1.0)
    runner = stage.runner("", view=ContainerView(container(), done))

    await runner.run()

    assert runner.view.state == done


async def test_a_resize_restarts_the_container_only_if_its_policy_demands_it(stage: Stage) -> None:
    runner = stage.runner("exec sleep 1000")
    running = asyncio.create_task(runner.run())
    before = await reached(runner, is_running)
    larger = container(command=list(before.spec.command), resources={"requests": {"cpu": "2"}})

    await runner.resize(larger, restart=False)
    assert (runner.view.spec, runner.view.container_id) == (larger, before.container_id)
    await runner.resize(larger, restart=True)
    after = await reached(runner, lambda view: view.restarts == 1 and is_running(view))

    assert after.container_id != before.container_id
    await runner.stop(1.0)
    await running


async def test_what_left_the_process_group_ends_with_the_container(stage: Stage) -> None:
    stage.policy = "Never"
    leave = "setsid sh -c 'touch away; exec sleep 1000' & until [ -e away ]; do sleep 0.01; done"
    runner = stage.runner(f"{leave}; exit 0")

    await runner.run()

    assert processes.marked(Mark(stage.folder)) == []
