"""A pool of engines behind the production queue, as events of a simulation.

The queue, its order and its bounds are the functions that the gateway calls, with simulated times.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

from trimtab.decide.queueing import Bounds, Decision, Dispatch, Endpoint, PoolQueue, Request, fcfs
from trimtab.decide.queueing.line import Order
from trimtab.model.ref import Ref
from trimtab.sim.engine import Simulation
from trimtab.sim.front_end import NO_FRONT_END, Reception
from trimtab.sim.ledger import Fate, Ledger
from trimtab.sim.profile import FrontEnd, IterationCost, Profile
from trimtab.sim.server import Server
from trimtab.sim.serving import EngineConfig, Sequence, ServingEngine, Work
from trimtab.workload.request import BLOCK_TOKENS, TraceRequest

POOL = Ref("ServingPool", "lab", "pool")

Listener = Callable[[int, Fate], None]
"""Who is told of a request's end, by its number; it may submit others."""


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A kind of server: an engine's limits and speed, and how many requests the queue gives it at once.

    Attributes:
        capacity: Requests that one server carries at most; 0: as many as its batch holds.
        start_seconds: How long a new one takes until it serves.
        front_end: What HTTP, tokenizing and handing over take before the engine sees a request.
    """

    config: EngineConfig
    cost: IterationCost
    capacity: int = 0
    start_seconds: float = 0.0
    front_end: FrontEnd = NO_FRONT_END

    @classmethod
    def of(
        cls,
        profile: Profile,
        *,
        config: EngineConfig | None = None,
        capacity: int = 0,
        start_seconds: float = 0.0,
        offloads: bool = False,
    ) -> "ServerKind":
        """Everything that a profile says of a server.

        Args:
            profile: Speeds of the engine and its front end.
            config: The engine's limits where they are not those that the profile was measured with.
            capacity: As the attribute.
            start_seconds: As the attribute.
            offloads: Whether the engine copies its KV cache to host memory, if `config` does not say so.
        """
        limits = EngineConfig.of(profile, offloads=offloads) if config is None else config
        return cls(limits, profile.iteration, capacity, start_seconds, profile.front_end)


@dataclass(slots=True)
class _Open:
    """A request that has been handed to a server."""

    number: int
    server: Server
    sequence: Sequence | None = None  # None while the front end has it


class PoolWorld:
    """Requests, the pool's queue, and its servers.

    Args:
        simulation: Where it lives.
        bounds: How much waiting the queue allows.
        order: The rank of a request; first come, first served by default.
        listener: Who is told of each request's end.

    Attributes:
        queue: The production queue; requests are known to it by their number in the ledger.
        ledger: What became of each request.
        servers: By name, those that drain included.
    """

    def __init__(
        self,
        simulation: Simulation,
        *,
        bounds: Bounds | None = None,
        order: Order = fcfs.order,
        listener: Listener | None = None,
    ) -> None:
        self.simulation = simulation
        self.queue = PoolQueue(POOL, bounds or Bounds(), order)
        self.ledger = Ledger()
        self.servers: dict[str, Server] = {}
        self._receptions: dict[str, Reception] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._indexes: dict[str, int] = {}
        self._listener = listener
        self._requests: dict[int, TraceRequest] = {}  # of those that wait
        self._open: dict[int, _Open] = {}
        self._by_sequence: dict[Sequence, _Open] = {}
        self._look: tuple[float, int] | None = None  # when the queue is looked at next, and the event

    def add_server(self, name: str, kind: ServerKind) -> Server:
        """Add a server, which gets requests once it has started."""
        if name in self.servers:
            raise ValueError(f"there is a server {name!r} already")
        server = Server(self.simulation, name, ServingEngine(kind.config, kind.cost), self._finished)
        self.servers[name] = server
        self._receptions[name] = Reception(kind.front_end)
        self._indexes[name] = len(self.ledger.servers)
        self.ledger.servers.append(name)
        self._endpoints[name] = Endpoint(name, kind.capacity or kind.config.max_num_seqs, ready=False)
        self.simulation.after(kind.start_seconds, _Started(self, name))
        return server

    def add_servers(self, kind: ServerKind, count: int) -> None:
        """Add servers named by their number, ready at once where `start_seconds` is 0."""
        for _ in range(count):
            self.add_server(f"server-{len(self.servers):04}", kind)

    def drain(self, name: str) -> None:
        """Send a server no more requests, and let it go when it has none."""
        self._endpoints.pop(name, None)
        self._carry_out(self.queue.set_endpoints(self._endpoints.values(), self.simulation.now))
        self._forget_if_drained(name)

    def feed(self, requests: Iterable[TraceRequest], predicted_tokens: Iterable[float | None] | None = None) -> None:
        """Let requests arrive at their times, which must not go back; they are taken from the iterable one by one.

        Args:
            requests: In order of time.
            predicted_tokens: How long the answer of each is predicted to be, for orders that use it; as many as there
                are requests.
        """
        predicted = repeat(None) if predicted_tokens is None else predicted_tokens
        _Arrivals(self, zip(requests, predicted, strict=predicted_tokens is not None)).schedule()

    def submit(
        self, request: TraceRequest, *, level: str = "", model: str = "", predicted_tokens: float | None = None
    ) -> int:
        """Let a request arrive now, whatever its recorded time is; returns its number."""
        now = self.simulation.now
        number = self.ledger.arrive(now, request.input_tokens, request.output_tokens)
        self._requests[number] = request
        self._carry_out(self.queue.arrive(Request(number, now, model, level, predicted_tokens), now))
        return number

    def leave(self, number: int) -> bool:
        """Take a request away because its client went; False if it had ended before."""
        if self.queue.withdraw(number):
            del self._requests[number]
            self._end(number, Fate.LEFT)
            return True
        carried = self._open.get(number)
        if carried is None:
            return False
        if carried.sequence is not None:
            carried.server.cancel(carried.sequence)
        self._close(carried, Fate.LEFT)
        return True

    def start(self, name: str) -> None:
        """Let a server that was added get requests."""
        endpoint = self._endpoints.get(name)
        if endpoint is None:  # drained before it had started
            return
        self._endpoints[name] = Endpoint(name, endpoint.capacity)
        self._carry_out(self.queue.set_endpoints(self._endpoints.values(), self.simulation.now))

    def look(self) -> None:
        """Let the queue send away what has waited too long."""
        self._look = None
        self._carry_out(self.queue.step(self.simulation.now))

    @property
    def ready_servers(self) -> int:
        """Servers that get requests."""
        return sum(endpoint.ready for endpoint in self._endpoints.values())

    @property
    def wanted_servers(self) -> int:
        """Servers that get requests or will once they have started."""
        return len(self._endpoints)

    def serving_names(self) -> list[str]:
        """Names of the servers that are not draining, in the order in which they were added."""
        return list(self._endpoints)

    def _carry_out(self, decision: Decision) -> None:
        for dispatch in decision.dispatches:
            self._dispatch(dispatch)
        for refusal in decision.refusals:
            del self._requests[refusal.request.key]
            self._end(refusal.request.key, Fate.REFUSED)
        self._plan_look()

    def _dispatch(self, dispatch: Dispatch) -> None:
        number, server, now = dispatch.request.key, self.servers[dispatch.endpoint], self.simulation.now
        self.ledger.dispatch(number, self._indexes[server.name], now)
        carried = self._open[number] = _Open(number, server)
        work = work_of(self._requests.pop(number), server.engine.config.block_size)
        if work.prompt_tokens + work.output_tokens > server.engine.token_capacity:
            self._close(carried, Fate.TOO_LONG)
        elif (passes_at := self._receptions[server.name].passes_at(now, work.prompt_tokens)) > now:
            self.simulation.at(passes_at, _PassesFrontEnd(self, number, work))
        else:
            self.hand_over(number, work)

    def hand_over(self, number: int, work: Work) -> None:
        """Let an engine see a request that its server carries, unless its client has left."""
        carried = self._open.get(number)
        if carried is not None:
            carried.sequence = carried.server.submit(work)
            self._by_sequence[carried.sequence] = carried

    def _finished(self, server: Server, sequence: Sequence) -> None:
        del server
        self._close(self._by_sequence[sequence], Fate.FINISHED)

    def _close(self, carried: _Open, fate: Fate) -> None:
        del self._open[carried.number]
        if carried.sequence is not None:
            del self._by_sequence[carried.sequence]
        self._end(carried.number, fate, carried.sequence)
        now = self.simulation.now
        served = now - self.ledger.dispatched_at[carried.number] if fate is Fate.FINISHED else None
        self._carry_out(self.queue.finish(carried.server.name, now, served))
        self._forget_if_drained(carried.server.name)

    def _end(self, number: int, fate: Fate, sequence: Sequence | None = None) -> None:
        self.ledger.end(number, fate, self.simulation.now, sequence)
        if self._listener is not None:
            self._listener(number, fate)

    def _forget_if_drained(self, name: str) -> None:
        if name not in self._endpoints and not self.queue.fleet.in_flight(name):
            self.servers.pop(name, None)
            self._receptions.pop(name, None)

    def _plan_look(self) -> None:
        """See to it that the queue is looked at when its oldest request has waited too long, and not without one."""
        due = self.queue.next_due() if self.queue.waiting else None
        if self._look is not None and (due is None or due < self._look[0]):
            self.simulation.cancel(self._look[1])
            self._look = None
        if self._look is None and due is not None:
            due = max(due, self.simulation.now)
            self._look = due, self.simulation.at(due, self.look)


def work_of(request: TraceRequest, block_size: int) -> Work:
    """What an engine with blocks of `block_size` tokens is asked to do by a request of a trace.

    Equal prefix blocks of the trace become equal hashes, for engines whose blocks divide those of the trace.

    Raises:
        ValueError: The trace has prefix blocks, and the engine's blocks do not divide them.
    """
    if not request.blocks:
        return Work(request.input_tokens, request.output_tokens)
    if BLOCK_TOKENS % block_size:
        raise ValueError(f"block_size {block_size} does not divide the trace's prefix blocks of {BLOCK_TOKENS} tokens")
    parts = BLOCK_TOKENS // block_size
    hashes = [block * parts + part for block in request.blocks for part in range(parts)]
    del hashes[request.input_tokens // block_size :]
    return Work(request.input_tokens, request.output_tokens, block_hashes=tuple(hashes))


@dataclass(frozen=True, slots=True)
class _Started:
    """A server has started."""

    world: PoolWorld
    name: str

    def __call__(self) -> None:
        self.world.start(self.name)


@dataclass(frozen=True, slots=True)
class _PassesFrontEnd:
    """A request leaves its server's front end for the engine."""

    world: PoolWorld
    number: int
    work: Work

    def __call__(self) -> None:
        self.world.hand_over(self.number, self.work)


class _Arrivals:
    """The next request of a trace arrives, with all others of the same time."""

    __slots__ = ("_requests", "_upcoming", "_world")

    def __init__(self, world: PoolWorld, requests: Iterator[tuple[TraceRequest, float | None]]) -> None:
        self._world = world
        self._requests = requests
        self._upcoming = next(requests, None)

    def schedule(self) -> None:
        """Wait for the next one."""
        if self._upcoming is not None:
            self._world.simulation.at(self._upcoming[0].at_seconds, self)

    def __call__(self) -> None:
        now = self._world.simulation.now
        while self._upcoming is not None and self._upcoming[0].at_seconds <= now:
            request, predicted_tokens = self._upcoming
            if request.at_seconds < now:
                raise ValueError(f"request {len(self._world.ledger)} arrives before the one before it")
            self._world.submit(request, predicted_tokens=predicted_tokens)
            self._upcoming = next(self._requests, None)
        self.schedule()
