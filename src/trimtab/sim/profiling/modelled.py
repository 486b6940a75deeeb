"""The serving physics as a target: what an engine with given costs would have shown to the same clients."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trimtab.sim.iteration import EngineConfig, Iteration
from trimtab.sim.lockstep import Sequence as Served
from trimtab.sim.profile import FrontEnd, IterationCost
from trimtab.sim.profiling.target import Ask, Seen
from trimtab.sim.serving import ServingEngine, Work


@dataclass(frozen=True, slots=True)
class Speed:
    """All that takes time.

    Attributes:
        front_end: What a request takes beside its iterations: HTTP, tokenizing, network.
        cost: What iterations take.
    """

    front_end: FrontEnd
    cost: IterationCost


def steady() -> float:
    """Let everything take exactly what it should."""
    return 1.0


@dataclass(slots=True)
class ModelledTarget:
    """An engine of the serving physics, on a clock of its own.

    Attributes:
        config: Its limits.
        speed: What takes how long.
        jitter: A factor on the time of each iteration and of each passage through the front end.
        now: Its clock, in seconds.
    """

    config: EngineConfig
    speed: Speed
    jitter: Callable[[], float] = steady
    now: float = 0.0

    def clock(self) -> float:
        """See `Target`."""
        return self.now

    async def serve(self, asks: Sequence[Ask], clients: int, seconds: float) -> list[Seen]:
        """See `Target`."""
        return self.play(asks, clients, seconds)

    def play(self, asks: Sequence[Ask], clients: int, seconds: float) -> list[Seen]:
        """Do the same without an event loop."""
        run = _Run(self, deque(asks), self.now + seconds)
        for _ in range(clients):
            run.send(self.now)
        self.now = run.to_the_end(self.now)
        return [run.seen(served) for served in run.sent]


@dataclass(slots=True)
class _Sent:
    """A request under way: its sequence once the front end has passed it on, and when its tokens came."""

    ask: Ask
    sent_at: float
    sequence: Served | None = None
    pieces: list[float] = field(default_factory=list)


class _Run:
    """One stretch of load on one engine that has nothing else to do."""

    def __init__(self, target: ModelledTarget, asks: deque[Ask], deadline: float) -> None:
        self.sent: list[_Sent] = []
        self._target = target
        self._asks = asks
        self._deadline = deadline
        self._engine = ServingEngine(target.config, target.speed.cost)
        self._arrivals: list[tuple[float, int, _Sent]] = []
        self._owners: dict[Served, _Sent] = {}

    def send(self, now: float) -> None:
        """Let a client send its next request, if there is one and time for it."""
        if not self._asks or (now >= self._deadline and self.sent):
            return
        sent = _Sent(self._asks.popleft(), now)
        self.sent.append(sent)
        front = self._target.speed.front_end.seconds(sent.ask.prompt_tokens) * self._target.jitter()
        heapq.heappush(self._arrivals, (now + front, len(self.sent), sent))

    def to_the_end(self, now: float) -> float:
        """Serve until everything is answered; returns when that was."""
        while self._arrivals or self._engine.num_running or self._engine.num_waiting:
            self._take_arrivals(now)
            iteration = self._engine.next_iteration(now)
            if iteration is None:
                now = self._arrivals[0][0]
                continue
            now = iteration.start + (iteration.end - iteration.start) * self._target.jitter()
            self._hand_out(iteration, now)
        return now

    def _take_arrivals(self, now: float) -> None:
        while self._arrivals and self._arrivals[0][0] <= now:
            arrived_at, _, sent = heapq.heappop(self._arrivals)
            sent.sequence = self._engine.add(Work(sent.ask.prompt_tokens, sent.ask.output_tokens), arrived_at)
            self._owners[sent.sequence] = sent

    def _hand_out(self, iteration: Iteration, now: float) -> None:
        for sequence in self._engine.complete(iteration):
            owner = self._owners[sequence]
            owner.pieces.append(now)
            if len(owner.pieces) == owner.ask.output_tokens:
                self.send(now)

    def seen(self, sent: _Sent) -> Seen:
        """What a client saw of a request that is answered."""
        return Seen(sent.ask.prompt_tokens, sent.ask.output_tokens, sent.sent_at, tuple(sent.pieces))
