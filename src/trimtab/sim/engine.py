"""The lab's clock and calendar: events in order of time, and of scheduling where times are equal.

Nothing here, or in what is built on it, reads a wall clock or shares state, so that any number of simulations can run
in one process, and the same seed gives the same run.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Any

import numpy as np

from trimtab.sim.streams import stream

Action = Callable[[], None]
"""What an event does; it reads the time from its simulation. Frozen dataclasses with `__call__` are easy to debug."""


class Simulation:
    """One run of one world.

    Args:
        seed: Of every random stream of this run.

    Attributes:
        now: The simulated time, in seconds.
        events: How many events have happened.
    """

    __slots__ = ("_calendar", "_cancelled", "_scheduled", "events", "now", "seed")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        self._calendar: list[tuple[float, int, Action]] = []
        self._cancelled: set[int] = set()
        self._scheduled = 0

    @property
    def pending(self) -> int:
        """Events that are still to happen."""
        return len(self._calendar) - len(self._cancelled)

    def at(self, time: float, action: Action) -> int:
        """Let `action` happen at `time`, after everything that was scheduled for the same time before.

        Returns:
            The number of the event, with which it can be cancelled.

        Raises:
            ValueError: `time` is in the past, or not a number.
        """
        if not time >= self.now:
            raise ValueError(f"an event cannot happen at {time!r}: it is {self.now!r} already")
        self._scheduled += 1
        heappush(self._calendar, (time, self._scheduled, action))
        return self._scheduled

    def after(self, seconds: float, action: Action) -> int:
        """Let `action` happen in `seconds`; returns the event's number."""
        return self.at(self.now + seconds, action)

    def cancel(self, event: int) -> None:
        """Let an event that is still to happen not happen."""
        self._cancelled.add(event)

    def run(self, until: float = inf) -> None:
        """Let everything happen that is due by `until`; the time is then `until`, or that of the last event of all."""
        calendar, cancelled = self._calendar, self._cancelled
        while calendar and calendar[0][0] <= until:
            time, number, action = heappop(calendar)
            if number in cancelled:
                cancelled.remove(number)
                continue
            self.now = time
            self.events += 1
            action()
        if until < inf:
            self.now = max(self.now, until)

    def stream(self, entity: str, purpose: str) -> np.random.Generator:
        """Return a random stream of its own for one purpose of one entity, the same in every run with this seed."""
        return stream(self.seed, entity, purpose)

    def spawn(self, process: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine from now on; it may await nothing but `SimulatedClock.sleep`, and ports of the simulation."""
        self.at(self.now, _Resume(self, process))


class SimulatedClock:
    """The `Clock` port of a simulation."""

    __slots__ = ("_simulation",)

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def now(self) -> float:
        """Return the simulated time in seconds."""
        return self._simulation.now

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of simulated time."""
        await _Wait(seconds)


@dataclass(frozen=True, slots=True)
class _Wait(Awaitable[None]):
    seconds: float

    def __await__(self) -> Generator["_Wait", None, None]:
        yield self


@dataclass(frozen=True, slots=True)
class _Resume:
    """A process goes on until it waits again or ends."""

    simulation: Simulation
    process: Coroutine[Any, Any, None]

    def __call__(self) -> None:
        try:
            wait = self.process.send(None)
        except StopIteration:
            return
        if not isinstance(wait, _Wait):
            self.process.close()
            raise TypeError(f"a process of a simulation waited for {wait!r}; only the simulation's clock can wake it")
        self.simulation.after(max(wait.seconds, 0.0), self)
