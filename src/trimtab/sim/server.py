"""One engine as events of a simulation: it makes large steps, and something that happens cuts them short."""

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.sim.engine import Simulation
from trimtab.sim.serving import Sequence, ServingEngine, Step, Work

Ended = Callable[["Server", Sequence], None]
"""Who is told of a sequence that has its whole answer."""


class Server:
    """An engine that serves by itself as simulated time passes.

    Args:
        simulation: Where it lives.
        name: Unique among the servers of its world.
        engine: Its physics, which nobody else may advance.
        ended: Called for each sequence that has finished, in the order of the batch. It may submit and cancel.
    """

    __slots__ = ("_ended", "_ending", "_event", "_starting", "_step", "engine", "name", "simulation")

    def __init__(self, simulation: Simulation, name: str, engine: ServingEngine, ended: Ended) -> None:
        self.simulation = simulation
        self.name = name
        self.engine = engine
        self._ended = ended
        self._step: Step | None = None
        self._event = 0  # the end of the step
        self._starting = False
        self._ending = False

    def submit(self, work: Work) -> Sequence:
        """Hand over a request, which the engine sees at its next iteration.

        Raises:
            ValueError: This engine can never serve it.
        """
        now = self.simulation.now
        if self._step is not None and not self.engine.goes_on(self._step, work, now):
            self._interrupt(self._step)
        sequence = self.engine.add(work, now)
        self._wake()
        return sequence

    def cancel(self, sequence: Sequence) -> bool:
        """End a sequence early; False if it had ended before."""
        self.settle()
        return self.engine.abort(sequence)

    def settle(self) -> None:
        """Account for everything up to now, so that the engine can be looked at."""
        if self._step is not None:
            self._interrupt(self._step)

    def pause(self) -> None:
        """Start no further iteration; the one under way is completed."""
        self.settle()
        self.engine.paused = True

    def resume(self) -> None:
        """Go on."""
        self.engine.paused = False
        self._wake()

    def swap(self, engine: ServingEngine, seconds: float) -> list[Sequence]:
        """Change to another engine, i.e. another model, which takes `seconds`; returns what the old one did not finish.

        What is returned has been aborted; the caller decides where it goes. The iteration under way is lost.
        """
        self.settle()
        unfinished = [*self.engine.running, *self.engine.waiting]
        for sequence in unfinished:
            self.engine.abort(sequence)
        if self._step is not None:
            self.simulation.cancel(self._event)
        self._step = None
        self.engine = engine
        engine.paused = True
        self.simulation.after(seconds, _Swapped(self, engine))
        return unfinished

    def _wake(self) -> None:
        """Begin after everything else that happens now, so that what comes together is served together."""
        if self._step is None and not self._starting and not self._ending:
            self._starting = True
            self.simulation.at(self.simulation.now, self._start)

    def _start(self) -> None:
        self._starting = False
        if self._step is None:
            self._enter(self.engine.next_step(self.simulation.now))

    def _interrupt(self, step: Step) -> None:
        rest = self.engine.interrupt(step, self.simulation.now)
        if rest is not step:
            self.simulation.cancel(self._event)
            self._enter(rest)

    def _enter(self, step: Step | None) -> None:
        self._step = step
        if step is not None:
            # An interruption in the very moment of a boundary may find it past, by a rounding error.
            self._event = self.simulation.at(max(step.end, self.simulation.now), _StepEnds(self, step))

    def end(self, step: Step) -> None:
        """Account for a step that is over, and begin the next one."""
        self._step = None
        self._ending = True
        for sequence in self.engine.finish(step):
            self._ended(self, sequence)
        self._ending = False
        if self._step is None:
            self._enter(self.engine.next_step(self.simulation.now))


@dataclass(frozen=True, slots=True)
class _StepEnds:
    """A server's step is over."""

    server: Server
    step: Step

    def __call__(self) -> None:
        self.server.end(self.step)


@dataclass(frozen=True, slots=True)
class _Swapped:
    """A server's new engine is ready, if it has not been swapped again."""

    server: Server
    engine: ServingEngine

    def __call__(self) -> None:
        if self.server.engine is self.engine:
            self.server.resume()
