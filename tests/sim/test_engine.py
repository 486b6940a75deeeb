"""The lab's core: order of events, cancelling, processes that sleep, and streams that nobody can shift."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.sim.engine import SimulatedClock, Simulation
from trimtab.sim.streams import stream


@dataclass(frozen=True)
class Note:
    """An event that writes its name and the time into a list."""

    simulation: Simulation
    log: list[tuple[float, str]]
    name: str

    def __call__(self) -> None:
        self.log.append((self.simulation.now, self.name))


@given(st.lists(st.integers(0, 5)))
def test_events_happen_in_order_of_time_and_then_of_scheduling(times: list[int]) -> None:
    simulation = Simulation()
    log: list[tuple[float, str]] = []
    for index, time in enumerate(times):
        simulation.at(time, Note(simulation, log, f"{index:04}"))
    simulation.run()
    assert log == sorted((float(time), f"{index:04}") for index, time in enumerate(times))
    assert simulation.events == len(times)
    assert simulation.pending == 0


def test_an_event_may_schedule_others_for_the_same_moment() -> None:
    simulation = Simulation()
    log: list[tuple[float, str]] = []
    simulation.at(1.0, lambda: simulation.at(1.0, Note(simulation, log, "later")) and None)
    simulation.at(1.0, Note(simulation, log, "sooner"))
    simulation.run()
    assert log == [(1.0, "sooner"), (1.0, "later")]


@pytest.mark.parametrize("time", [0.5, float("nan")])
def test_time_never_goes_back(time: float) -> None:
    simulation = Simulation()
    simulation.at(1.0, lambda: None)
    simulation.run()
    with pytest.raises(ValueError, match=r"cannot happen at .*: it is 1\.0 already"):
        simulation.at(time, lambda: None)


def test_a_run_stops_where_it_is_told_to_and_goes_on_from_there() -> None:
    simulation = Simulation()
    log: list[tuple[float, str]] = []
    for time in (1.0, 2.0, 3.0):
        simulation.at(time, Note(simulation, log, "x"))
    simulation.run(until=2.0)
    assert (len(log), simulation.now, simulation.pending) == (2, 2.0, 1)
    simulation.run(until=2.5)
    assert simulation.now == 2.5
    simulation.run()
    assert (len(log), simulation.now) == (3, 3.0)


def test_a_cancelled_event_does_not_happen_and_does_not_move_time() -> None:
    simulation = Simulation()
    log: list[tuple[float, str]] = []
    simulation.at(1.0, Note(simulation, log, "stays"))
    gone = simulation.at(9.0, Note(simulation, log, "goes"))
    simulation.cancel(gone)
    assert simulation.pending == 1
    simulation.run()
    assert (log, simulation.now) == ([(1.0, "stays")], 1.0)


def test_any_number_of_simulations_share_nothing() -> None:
    logs: list[list[tuple[float, str]]] = [[], []]
    runs = [Simulation(), Simulation()]
    for simulation, log in zip(runs, logs, strict=True):
        for time in (1.0, 2.0):
            simulation.at(time, Note(simulation, log, "x"))
    for until in (1.0, 2.0):
        for simulation in runs:
            simulation.run(until)
    assert logs[0] == logs[1] == [(1.0, "x"), (2.0, "x")]


class TestProcesses:
    def test_sleep_takes_simulated_time(self) -> None:
        simulation = Simulation()
        clock = SimulatedClock(simulation)
        woken: list[float] = []

        async def process(period: float) -> None:
            for _ in range(3):
                await clock.sleep(period)
                woken.append(clock.now())

        simulation.spawn(process(2.0))
        simulation.spawn(process(3.0))
        simulation.run()
        assert woken == [2.0, 3.0, 4.0, 6.0, 6.0, 9.0]

    def test_sleeping_for_less_than_nothing_goes_on_at_once(self) -> None:
        simulation = Simulation()
        clock = SimulatedClock(simulation)

        async def process() -> None:
            await clock.sleep(-1)

        simulation.spawn(process())
        simulation.run()
        assert simulation.now == 0.0

    def test_what_only_an_event_loop_can_wake_is_an_error(self) -> None:
        simulation = Simulation()

        async def process() -> None:
            await asyncio.sleep(0)

        simulation.spawn(process())
        with pytest.raises(TypeError, match="only the simulation's clock can wake it"):
            simulation.run()

    def test_an_error_of_a_process_is_an_error_of_the_run(self) -> None:
        simulation = Simulation()

        async def process() -> None:
            raise RuntimeError("broken")

        simulation.spawn(process())
        with pytest.raises(RuntimeError, match="broken"):
            simulation.run()


class TestStreams:
    def test_the_same_name_gives_the_same_numbers(self) -> None:
        assert stream(1, "a", "b").random(5).tolist() == stream(1, "a", "b").random(5).tolist()
        assert Simulation(1).stream("a", "b").random() == stream(1, "a", "b").random()

    @pytest.mark.parametrize("other", [(2, "a", "b"), (1, "b", "b"), (1, "a", "c"), (1, "a,b", ""), (1, "", "ab")])
    def test_another_name_gives_others(self, other: tuple[int, str, str]) -> None:
        assert stream(1, "a", "b").random() != stream(*other).random()

    def test_they_are_those_of_every_process(self) -> None:
        code = "from trimtab.sim.streams import stream; print(stream(7, 'client/1', 'think time').random())"
        seen = {
            subprocess.run(
                [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
            ).stdout
            for seed in ("1", "2")
        }
        assert seen == {f"{stream(7, 'client/1', 'think time').random()}\n"}
