"""Machines that several models share, behind the production queue for them, as events of a simulation."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trimtab.decide.queueing.instance import Instance, Speed
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import Level, ModelsQueue
from trimtab.decide.queueing.orders import Evict, Orders, Start, Swap
from trimtab.decide.queueing.policy import Policy
from trimtab.decide.queueing.request import Request
from trimtab.sim.engine import Simulation
from trimtab.sim.front_end import NO_FRONT_END, Reception
from trimtab.sim.ledger import Fate, Ledger
from trimtab.sim.profile import FrontEnd, IterationCost, Profile
from trimtab.sim.server import Server
from trimtab.sim.serving import EngineConfig, Sequence, ServingEngine, Work

KV_LIMIT = 0.9
"""Above this share of its KV cache a machine gets no more requests [qlm.md §3.6]."""
TYPICAL_PROMPT = 256
"""Tokens of the prompt by which the cost of a prompt's token is estimated."""


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A model on a kind of machine: limits and speed of its engine, and how long it takes to make it resident.

    Attributes:
        front_end: What a request takes before the engine sees it.
    """

    config: EngineConfig
    cost: IterationCost
    swap_seconds: float
    front_end: FrontEnd = NO_FRONT_END

    @classmethod
    def of(cls, profile: Profile, *, swap_seconds: float, config: EngineConfig | None = None) -> "ModelKind":
        """Everything that a profile says of a model on a machine; `config` where its limits are others."""
        limits = EngineConfig.of(profile) if config is None else config
        return cls(limits, profile.iteration, swap_seconds, profile.front_end)

    def speed(self, slots: int, context_tokens: float) -> Speed:
        """How fast a batch of so many requests decodes, each of which reads so many tokens of context."""
        context = round(slots * context_tokens)
        step = self.cost.seconds(prefill_tokens=0, decodes=slots, context_tokens=context, attention_pairs=0.0)
        mixed = self.cost.seconds(
            prefill_tokens=TYPICAL_PROMPT, decodes=slots, context_tokens=context, attention_pairs=TYPICAL_PROMPT**2 / 2
        )
        return Speed(slots / step, (mixed - step) / TYPICAL_PROMPT, step)


@dataclass(frozen=True, slots=True)
class MachineKind:
    """A kind of machine: how many requests it carries at once, and what it can hold, by model.

    Attributes:
        context_tokens: What a typical request has in the KV cache, for the estimate of the machine's speed.
        believed: How many times as fast as it is the queue takes the machine to be.
    """

    slots: int
    models: Mapping[str, ModelKind]
    context_tokens: float = 500.0
    believed: float = 1.0

    def instance(self, name: str, resident: str | None) -> Instance:
        """A machine of this kind, as the queue sees it."""
        speeds = {
            model: kind.speed(self.slots, self.context_tokens).times(self.believed)
            for model, kind in self.models.items()
        }
        swaps = {model: kind.swap_seconds for model, kind in self.models.items()}
        return Instance(name, self.slots, speeds, swaps, resident)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of a workload with several models and service levels.

    Attributes:
        predicted_tokens: How long its answer is predicted to be; None without a prediction.
    """

    at_seconds: float
    model: str
    level: str
    input_tokens: int
    output_tokens: int
    predicted_tokens: float | None = None


@dataclass(slots=True)
class _Progress:
    """What became of a request before its present stay in a machine.

    Attributes:
        coming: What the engine will be asked, while the front end has it.
    """

    arrival: Arrival
    produced: int = 0
    first_token_at: float | None = None
    sequence: Sequence | None = None
    coming: Work | None = None


class ModelsWorld:
    """Requests, the queue of several models, and the machines.

    Args:
        simulation: Where it lives.
        policy: How the queue is planned.
        levels: The service levels by name.
        machines: For each machine its kind and the model that it holds at first, by name.
        lengths: What the queue knows of answer lengths.

    Attributes:
        queue: The production queue; requests are known to it by their number in the ledger.
        ledger: What became of each request.
        swaps: How many model swaps have begun.
        swap_seconds: How long machines have been swapping, together.
        evictions: How many requests have been stopped.
    """

    def __init__(
        self,
        simulation: Simulation,
        policy: Policy,
        levels: Mapping[str, Level],
        machines: Mapping[str, tuple[MachineKind, str | None]],
        lengths: MeanLengths,
    ) -> None:
        self.simulation = simulation
        instances = [kind.instance(name, resident) for name, (kind, resident) in machines.items()]
        self.queue = ModelsQueue(policy, levels, instances, lengths)
        self.ledger = Ledger()
        self.swaps = 0
        self.swap_seconds = 0.0
        self.evictions = 0
        self._kinds = {name: kind for name, (kind, _) in machines.items()}
        self._servers = {name: self._server(name, resident) for name, (_, resident) in machines.items()}
        self._receptions = {
            name: Reception(self._kind(name, resident).front_end) for name, (_, resident) in machines.items()
        }
        self._indexes = {name: number for number, name in enumerate(machines)}
        self._busy = dict.fromkeys(machines, 0.0)  # of engines that have been swapped out
        self._full = dict.fromkeys(machines, False)
        self._requests: dict[int, _Progress] = {}
        self._numbers: dict[Sequence, int] = {}
        self._orders: deque[Orders] = deque()  # the first is being carried out
        self._look: tuple[float, int] | None = None
        self.ledger.servers.extend(machines)

    def feed(self, arrivals: Iterable[Arrival]) -> None:
        """Let requests arrive at their times."""
        for arrival in arrivals:
            self.simulation.at(arrival.at_seconds, _Arrives(self, arrival))

    def submit(self, arrival: Arrival) -> int:
        """Let a request arrive now, whatever its recorded time is; returns its number."""
        now = self.simulation.now
        number = self.ledger.arrive(now, arrival.input_tokens, arrival.output_tokens)
        self._requests[number] = _Progress(arrival)
        request = Request(
            number, now, arrival.model, arrival.level, arrival.predicted_tokens, input_tokens=arrival.input_tokens
        )
        self._carry_out(self.queue.arrive(request, now))
        return number

    def look(self) -> None:
        """Let the queue do what is due without an event."""
        self._look = None
        self._carry_out(self.queue.step(self.simulation.now))

    def swapped(self, name: str) -> None:
        """Tell the queue that a machine has its new model."""
        self._carry_out(self.queue.swapped(name, self.simulation.now))

    def note_open(self) -> None:
        """Note the first tokens of requests that have not ended, when the run has."""
        for server in self._servers.values():
            server.settle()
            for sequence in server.engine.running:
                progress = self._requests[self._numbers[sequence]]
                first = progress.first_token_at or sequence.first_token_at
                if first is not None:
                    self.ledger.first_token_at[self._numbers[sequence]] = first
        for number, progress in self._requests.items():
            if progress.first_token_at is not None:
                self.ledger.first_token_at[number] = progress.first_token_at

    def busy_seconds(self, name: str) -> float:
        """How long a machine has been computing."""
        return self._busy[name] + self._servers[name].engine.busy_seconds

    def engines(self) -> list[ServingEngine]:
        """Return what the machines hold, in the order of the machines."""
        return [server.engine for server in self._servers.values()]

    def _kind(self, name: str, resident: str | None) -> ModelKind:
        models = self._kinds[name].models
        return models[resident if resident is not None else min(models)]

    def _server(self, name: str, resident: str | None) -> Server:
        kind = self._kind(name, resident)
        return Server(self.simulation, name, ServingEngine(kind.config, kind.cost), self._finished)

    def _carry_out(self, orders: Orders) -> None:
        """Carry orders out, and then those that the queue gives in answer, which count on these having been."""
        self._orders.append(orders)
        if len(self._orders) > 1:
            return
        while self._orders:
            self._obey(self._orders[0])
            self._orders.popleft()
        self._plan_look()

    def _obey(self, orders: Orders) -> None:
        if self.queue.fault is not None:  # what is measured would be another policy
            raise RuntimeError(orders.reason) from self.queue.fault
        for eviction in orders.evictions:
            self._evict(eviction)
        for swap in orders.swaps:
            self._swap(swap)
        for start in orders.starts:
            self._start(start)

    def _start(self, start: Start) -> None:
        number, server = start.request.key, self._servers[start.endpoint]
        progress = self._requests[number]
        assert progress.produced == start.produced, "the queue knows how far a request is"
        arrival = progress.arrival
        self.ledger.dispatch(number, self._indexes[server.name], self.simulation.now)
        work = Work(arrival.input_tokens + progress.produced, arrival.output_tokens - progress.produced)
        if work.prompt_tokens + work.output_tokens > server.engine.token_capacity:
            self._end(number, Fate.TOO_LONG, None)
            return
        progress.coming = work
        passes_at = self._receptions[server.name].passes_at(self.simulation.now, work.prompt_tokens)
        if passes_at > self.simulation.now:
            self.simulation.at(passes_at, _PassesFrontEnd(self, number, server, work))
        else:
            self.hand_over(number, server, work)

    def hand_over(self, number: int, server: Server, work: Work) -> None:
        """Let an engine see what its front end has had, unless it was evicted meanwhile."""
        progress = self._requests.get(number)
        if progress is None or progress.coming is not work:
            return
        progress.coming = None
        progress.sequence = server.submit(work)
        self._numbers[progress.sequence] = number
        self._report(server)

    def _evict(self, eviction: Evict) -> None:
        progress = self._requests[eviction.key]
        sequence = progress.sequence
        if sequence is None:
            assert progress.coming is not None, "only what a machine has is evicted"
            progress.coming = None
            self.evictions += 1
            self._carry_out(self.queue.evicted(eviction.key, self.simulation.now, progress.produced))
            return
        if not self._servers[eviction.endpoint].cancel(sequence):
            return  # it ended in this moment, which the queue is told next
        progress.sequence = None
        del self._numbers[sequence]
        self.evictions += 1
        self._add_up(eviction.key, sequence)
        self._carry_out(self.queue.evicted(eviction.key, self.simulation.now, progress.produced))

    def _swap(self, swap: Swap) -> None:
        server, kind = self._servers[swap.endpoint], self._kinds[swap.endpoint].models[swap.model]
        self.swaps += 1
        self.swap_seconds += kind.swap_seconds
        server.settle()
        self._busy[server.name] += server.engine.busy_seconds
        unfinished = server.swap(ServingEngine(kind.config, kind.cost), kind.swap_seconds)
        assert not unfinished, "a machine that swaps carries nothing"
        self._receptions[server.name] = Reception(kind.front_end)
        self.simulation.after(kind.swap_seconds, _Swapped(self, server.name))

    def _finished(self, server: Server, sequence: Sequence) -> None:
        number = self._numbers.pop(sequence)
        self._report(server)
        self._end(number, Fate.FINISHED, sequence)

    def _add_up(self, number: int, sequence: Sequence) -> None:
        progress = self._requests[number]
        progress.produced += sequence.produced
        if progress.first_token_at is None:
            progress.first_token_at = sequence.first_token_at

    def _end(self, number: int, fate: Fate, sequence: Sequence | None) -> None:
        now = self.simulation.now
        self.ledger.end(number, fate, now, sequence)
        if sequence is not None:
            self._add_up(number, sequence)
            progress = self._requests[number]
            self.ledger.produced[number] = progress.produced
            self.ledger.first_token_at[number] = progress.first_token_at or 0.0
        progress = self._requests.pop(number)
        tokens = progress.produced if fate is Fate.FINISHED else None
        self._carry_out(self.queue.finish(number, now, tokens))

    def _report(self, server: Server) -> None:
        """Tell the queue when a machine's KV cache passes its limit."""
        full = server.engine.cache.usage >= KV_LIMIT
        if full != self._full[server.name]:
            self._full[server.name] = full
            self._carry_out(self.queue.report(server.name, full=full, at=self.simulation.now))

    def _plan_look(self) -> None:
        """See to it that the queue is looked at when something is due, and not without a reason."""
        due = self.queue.next_due()
        if self._look is not None and self._look[0] != due:
            self.simulation.cancel(self._look[1])
            self._look = None
        if self._look is None and due is not None:
            self._look = due, self.simulation.at(max(due, self.simulation.now), self.look)


@dataclass(frozen=True, slots=True)
class _Arrives:
    """A request arrives."""

    world: ModelsWorld
    arrival: Arrival

    def __call__(self) -> None:
        self.world.submit(self.arrival)


@dataclass(frozen=True, slots=True)
class _PassesFrontEnd:
    """A request leaves its machine's front end for the engine."""

    world: ModelsWorld
    number: int
    server: Server
    work: Work

    def __call__(self) -> None:
        self.world.hand_over(self.number, self.server, self.work)


@dataclass(frozen=True, slots=True)
class _Swapped:
    """A machine has another model."""

    world: ModelsWorld
    name: str

    def __call__(self) -> None:
        self.world.swapped(self.name)
