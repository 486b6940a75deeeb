"""Replays a recorded run through the serving physics: what each of its requests would take.

Requests arrive at their recorded times, after their stage has begun. Two kinds do not, because their client waited:
those of a synchronous stage, and those of a throughput or concurrent stage that take the place of one that ended. They
arrive as long after that end as was recorded. A stage begins at its recorded time, or when the one before it has ended
in the replay, if that is later: a load generator waits for its requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from trimtab.sim.calibration.recorded import Recorded, RecordedRun, Setup
from trimtab.sim.calibration.source import Latency
from trimtab.sim.calibration.stages import PROMPTLY, Stage
from trimtab.sim.engine import Simulation
from trimtab.sim.front_end import Reception
from trimtab.sim.profile import FrontEnd, IterationCost
from trimtab.sim.server import Server
from trimtab.sim.serving import EngineConfig, ServingEngine, Step, Work
from trimtab.sim.serving import Sequence as Served

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Engine:
    """What a run is replayed on."""

    config: EngineConfig
    cost: IterationCost
    front_end: FrontEnd


@dataclass(frozen=True, slots=True)
class Link:
    """A request that waited for another one: which, by its number, and for how long after its end."""

    number: int
    seconds: float


class WatchedEngine(ServingEngine):
    """Keeps what its steps were made of.

    Attributes:
        starts: When each step began.
        ends: When it ended.
        shapes: Its iterations, the prompt tokens and decoding sequences of each, and their tokens of context and pairs
            of attention, all iterations together.
    """

    def __init__(self, config: EngineConfig, cost: IterationCost) -> None:
        super().__init__(config, cost)
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.shapes: list[tuple[float, float, float, float, float]] = []

    def next_step(self, now: float) -> Step | None:
        """Like that of its base."""
        decodes, context = self._lockstep.size, self._lockstep.context
        step = super().next_step(now)
        if step is not None:
            self._keep(step, step.iterations, step.end, decodes, context)
        return step

    def interrupt(self, step: Step, now: float) -> Step:
        """Like that of its base."""
        if step.iteration is not None:
            return step
        completed = step.completed_by(now)
        decodes, context = self._lockstep.size, self._lockstep.context
        del self.starts[-1], self.ends[-1], self.shapes[-1]
        if completed:
            self._keep(step, completed, step.end_of(completed), decodes, context)
        rest = super().interrupt(step, now)
        self._keep(rest, 1, rest.end, 0, 0)
        return rest

    def _keep(self, step: Step, iterations: int, end: float, decodes: int, context: int) -> None:
        """Note a step; what decodes and reads how much is asked only where it makes several iterations at once."""
        self.starts.append(step.start)
        self.ends.append(end)
        shape: tuple[float, float, float, float, float]
        if (made := step.iteration) is not None:
            shape = (1, made.prefill_tokens, made.decodes, made.context_tokens, made.attention_pairs)
        else:
            read = iterations * context + decodes * iterations * (iterations - 1) / 2
            shape = (iterations, 0, decodes, read, 0.0)
        self.shapes.append(shape)


def replay(run: RecordedRun, stages: Sequence[Stage], engine: Engine) -> list[Latency]:
    """Return what each request would take, in the order of `run.requests`."""
    simulation = Simulation()
    server = ServingEngine(engine.config, engine.cost)
    return _Replay(simulation, run, stages, server, engine.front_end).latencies()


@dataclass(frozen=True, slots=True)
class Watched:
    """A replay, step by step.

    Attributes:
        shapes: One row for each step; see `WatchedEngine`.
        admitted: For each request of the run, the step that first served it.
        first: The one that gave its first token.
        last: The one that gave its last.
        arrivals: When each arrived in the replay, in seconds after the run's very first request.
        latencies: What each request took.
    """

    shapes: Array
    admitted: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    arrivals: list[float]
    latencies: list[Latency]


def watch(run: RecordedRun, stages: Sequence[Stage], engine: Engine) -> Watched:
    """Replay a run and say which steps each request lived through."""
    watched = WatchedEngine(engine.config, engine.cost)
    replayed = _Replay(Simulation(), run, stages, watched, engine.front_end)
    latencies = replayed.latencies()
    served = replayed.served[1:]
    return Watched(
        shapes=np.array(watched.shapes),
        admitted=np.searchsorted(watched.starts, [s.admitted_at or 0.0 for s in served]),
        first=np.searchsorted(watched.ends, [s.first_token_at or 0.0 for s in served]),
        last=np.searchsorted(watched.ends, [s.last_token_at or 0.0 for s in served]),
        arrivals=replayed.arrived[1:],
        latencies=latencies,
    )


def links(requests: Sequence[Recorded], stage: Stage) -> dict[int, Link]:
    """Which requests of a stage waited for the end of which other one."""
    if stage.chained:
        following = range(stage.start + 1, stage.stop)
        return {n: Link(n - 1, max(requests[n].arrived_at - requests[n - 1].finished_at, 0.0)) for n in following}
    if not stage.waits:
        return {}
    ends = sorted((requests[n].finished_at, n) for n in range(stage.start, stage.stop))
    found: dict[int, Link] = {}
    for number in range(stage.start, stage.stop):
        arrived = requests[number].arrived_at
        while ends and ends[0][0] < arrived - PROMPTLY:
            ends.pop(0)
        if ends and ends[0][0] <= arrived:
            ended, other = ends.pop(0)
            found[number] = Link(other, arrived - ended)
    return found


class _Replay:
    """A run as events."""

    def __init__(
        self,
        simulation: Simulation,
        run: RecordedRun,
        stages: Sequence[Stage],
        engine: ServingEngine,
        front_end: FrontEnd,
    ) -> None:
        self._simulation = simulation
        self._requests = (run.first, *run.requests)  # numbered from 0, the stages' numbers are one less
        self._setup = run.setup
        self._reception = Reception(front_end)
        self._server = Server(simulation, run.id, engine, self._ended)
        self._stages = [Stage("cold", 0, 1), *(Stage(s.name, s.start + 1, s.stop + 1, s.waits) for s in stages)]
        self._followers: dict[int, list[tuple[int, float]]] = {}
        self._open = 0  # requests of the stage that have not ended
        self._numbers: dict[Served, int] = {}
        self.arrived: list[float] = [0.0] * len(self._requests)
        self.served: list[Served] = []

    def latencies(self) -> list[Latency]:
        """Run everything; what all but the first request took."""
        found: list[Served | None] = [None] * len(self._requests)
        self._simulation.at(0.0, partial(self._begin, 0))
        self._simulation.run()
        for sequence, number in self._numbers.items():
            found[number] = sequence
        self.served = [sequence for sequence in found if sequence is not None]
        assert len(self.served) == len(self._requests), "every request is served"
        return [self._latency(number, s) for number, s in enumerate(self.served)][1:]

    def _latency(self, number: int, sequence: Served) -> Latency:
        assert sequence.first_token_at is not None
        assert sequence.last_token_at is not None
        arrived = self.arrived[number]
        return Latency(sequence.first_token_at - arrived, sequence.last_token_at - arrived, sequence.produced)

    def _begin(self, index: int) -> None:
        """Begin a stage, and plan its requests."""
        if index == len(self._stages):
            return
        stage, requests = self._stages[index], self._requests
        waits = links(requests, stage)
        self._open = stage.stop - stage.start
        self._at_end = partial(self._begin_in_time, index + 1)
        self._followers = {}
        for number in range(stage.start, stage.stop):
            if (link := waits.get(number)) is not None:
                self._followers.setdefault(link.number, []).append((number, link.seconds))
            else:
                late = requests[number].arrived_at - requests[stage.start].arrived_at
                self._simulation.after(late, partial(self._arrive, number))

    def _begin_in_time(self, index: int) -> None:
        if index < len(self._stages):
            at = self._requests[self._stages[index].start].arrived_at - self._requests[0].arrived_at
            self._simulation.at(max(at, self._simulation.now), partial(self._begin, index))

    def _arrive(self, number: int) -> None:
        now = self.arrived[number] = self._simulation.now
        passes_at = self._reception.passes_at(now, self._requests[number].prompt_tokens)
        self._simulation.at(passes_at, partial(self._submit, number))

    def _submit(self, number: int) -> None:
        self._numbers[self._server.submit(work_of(self._requests[number], self._setup))] = number

    def _ended(self, server: Server, sequence: Served) -> None:
        del server
        number = self._numbers[sequence]
        for follower, seconds in self._followers.get(number, ()):
            self._simulation.after(seconds, partial(self._arrive, follower))
        self._open -= 1
        if not self._open:
            self._at_end()


def work_of(request: Recorded, setup: Setup) -> Work:
    """What the engine was asked: of the prompt's blocks those of the shared prefix are known to the prefix cache."""
    shared = min(setup.prefix_tokens, request.prompt_tokens) // setup.block_size
    return Work(request.prompt_tokens, request.output_tokens, block_hashes=tuple(range(shared)))
