"""Replays a closed-loop run: its clients, their conversations and pauses are the recorded ones, the answers are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from trimtab.sim.calibration.source import Latency
from trimtab.sim.calibration.sweeps import Asked
from trimtab.sim.clients import ClosedLoop, Turn
from trimtab.sim.engine import Simulation
from trimtab.sim.front_end import Reception
from trimtab.sim.profile import FrontEnd, IterationCost
from trimtab.sim.server import Server
from trimtab.sim.serving import EngineConfig, ServingEngine
from trimtab.sim.serving import Sequence as Served

_COMMON_TOKENS = 32  # the chat template begins every prompt with the same words


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay.

    Attributes:
        latencies: In the order of the requests.
        preemptions: Times that a sequence lost its KV blocks.
        found: Share of the prompt tokens that the prefix cache or the host had.
        found_on_host: The part of it that came from the host.
    """

    latencies: tuple[Latency, ...]
    preemptions: int
    found: float
    found_on_host: float


def replay(requests: Sequence[Asked], config: EngineConfig, cost: IterationCost, front_end: FrontEnd) -> Replayed:
    """Let the clients of a run ask an engine what they asked the real one, each when it was answered and has paused."""
    scripts = _scripts(requests)
    world = _OneServer([[turn for _, turn in script] for script in scripts], config, cost, front_end)
    world.simulation.run()
    latencies: list[Latency | None] = [None] * len(requests)
    for script, mine in zip(scripts, world.by_client(), strict=True):
        for (place, _), latency in zip(script, mine, strict=True):
            latencies[place] = latency
    engine = world.server.engine
    asked = max(engine.prefix_queries, 1)
    return Replayed(
        latencies=tuple(latency for latency in latencies if latency is not None),
        preemptions=engine.preemptions,
        found=engine.prefix_hits / asked,
        found_on_host=engine.host_hits / asked,
    )


def _scripts(requests: Sequence[Asked]) -> list[list[tuple[int, Turn]]]:
    """For each client its turns, with their places among all requests; it thinks as long as it did."""
    scripts: dict[int, list[tuple[int, Turn]]] = {}
    free_at: dict[int, float] = {}
    for place, asked in enumerate(requests):
        thinks = max(asked.at - free_at.get(asked.client, 0.0), 0.0)
        turn = Turn(asked.conversation, asked.prompt_tokens, asked.latency.output_tokens, thinks, _COMMON_TOKENS)
        scripts.setdefault(asked.client, []).append((place, turn))
        free_at[asked.client] = asked.answered_at
    return [scripts[client] for client in sorted(scripts)]


class _OneServer:
    """Clients, the front end of one server, and its engine."""

    def __init__(
        self, scripts: Sequence[Sequence[Turn]], config: EngineConfig, cost: IterationCost, front_end: FrontEnd
    ) -> None:
        self.simulation = Simulation()
        self.server = Server(self.simulation, "server", ServingEngine(config, cost), self._ended)
        self._clients = ClosedLoop(self.simulation, scripts, self._send)
        self._reception = Reception(front_end)
        self._sent_at: list[float] = []
        self._served: list[Served | None] = []
        self._numbers: dict[Served, int] = {}
        self._clients.start()

    def by_client(self) -> list[list[Latency]]:
        """What each client's requests took, in their order."""
        found: list[list[Latency]] = [[] for _ in range(self._clients.clients)]
        for number, at in enumerate(self._sent_at):
            served = self._served[number]
            assert served is not None
            assert served.first_token_at is not None
            assert served.last_token_at is not None
            latency = Latency(served.first_token_at - at, served.last_token_at - at, served.produced)
            found[self._clients.sent[number][0]].append(latency)
        return found

    def _send(self, turn: Turn) -> int:
        number, now = len(self._sent_at), self.simulation.now
        self._sent_at.append(now)
        self._served.append(None)
        passes_at = self._reception.passes_at(now, turn.prompt_tokens)
        self.simulation.at(passes_at, partial(self._submit, number, turn))
        return number

    def _submit(self, number: int, turn: Turn) -> None:
        served = self.server.submit(turn.work(self.server.engine.config.block_size))
        self._served[number] = served
        self._numbers[served] = number

    def _ended(self, server: Server, served: Served) -> None:
        del server
        self._clients.ended(self._numbers[served])
