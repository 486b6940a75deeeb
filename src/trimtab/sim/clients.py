"""Closed-loop load: clients that hold conversations, each sending its next turn when the last one was answered.

A turn's prompt is everything said before and something new, so that the prefix cache finds what it still holds of the
turns before it. Who a block belongs to follows from the conversation alone: equal conversations have equal blocks.
As many requests are open at once as there are clients, at most.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from trimtab.sim.engine import Simulation
from trimtab.sim.kv_cache import BlockKey
from trimtab.sim.serving import Work
from trimtab.workload.request import BLOCK_TOKENS, TraceRequest

_CONVERSATION = 1 << 24  # blocks of one conversation


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a conversation.

    Attributes:
        conversation: Its number, not negative.
        prompt_tokens: Everything said so far, the new words included.
        output_tokens: The answer's.
        think_seconds: From the answer before it (of this client; from the start, for a client's first) to this request.
        common_tokens: Leading tokens that the prompts of all conversations share, such as those of a system prompt.
    """

    conversation: int
    prompt_tokens: int
    output_tokens: int
    think_seconds: float = 0.0
    common_tokens: int = 0

    def blocks(self, tokens: int, size: int) -> tuple[BlockKey, ...]:
        """Identities of the full blocks of `size` tokens among the first `tokens` of prompt and answer."""
        common = min(self.common_tokens, tokens) // size
        own = (self.conversation + 1) * _CONVERSATION
        return (*range(common), *range(own + common, own + tokens // size))

    def work(self, block_size: int) -> Work:
        """What an engine with such blocks is asked to do; the next turn can find the answer's blocks too."""
        known = self.prompt_tokens + self.output_tokens
        return Work(self.prompt_tokens, self.output_tokens, block_hashes=self.blocks(known, block_size))

    def request(self, at_seconds: float) -> TraceRequest:
        """The turn as a request of a trace, for `PoolWorld.submit`."""
        whole = -(-self.prompt_tokens // BLOCK_TOKENS) * BLOCK_TOKENS
        return TraceRequest(at_seconds, self.prompt_tokens, self.output_tokens, self.blocks(whole, BLOCK_TOKENS))


def take_turns(conversations: Iterable[Sequence[Turn]], clients: int) -> list[Iterator[Turn]]:
    """Scripts of clients that share a list of conversations: whoever is through with one takes the next.

    Raises:
        ValueError: There is no client.
    """
    if clients < 1:
        raise ValueError(f"clients must be at least 1, got {clients}")
    shared = iter(conversations)
    return [chain.from_iterable(shared) for _ in range(clients)]


class ClosedLoop:
    """Clients, each with its script of turns.

    Args:
        simulation: Where they live.
        scripts: For each client its turns, taken one by one.
        send: Sends a turn now; returns the number by which `ended` will tell of its end.

    Attributes:
        sent: By number, who sent which turn.
    """

    def __init__(self, simulation: Simulation, scripts: Iterable[Iterable[Turn]], send: Callable[[Turn], int]) -> None:
        self.sent: dict[int, tuple[int, Turn]] = {}
        self._ended_at_once: set[int] = set()
        self._simulation = simulation
        self._scripts = [iter(script) for script in scripts]
        self._send = send

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._scripts)

    def start(self) -> None:
        """Let every client begin."""
        for client in range(self.clients):
            self._go_on(client)

    def ended(self, number: int, fate: object = None) -> None:
        """A request has ended, however it did: its client goes on. Fits as the listener of a `PoolWorld`."""
        del fate
        if number in self.sent:
            self._go_on(self.sent[number][0])
        else:
            self._ended_at_once.add(number)  # refused, say: nobody has been told its number yet

    def _go_on(self, client: int) -> None:
        turn = next(self._scripts[client], None)
        if turn is not None:
            self._simulation.after(turn.think_seconds, partial(self._say, client, turn))

    def _say(self, client: int, turn: Turn) -> None:
        number = self._send(turn)
        self.sent[number] = client, turn
        if number in self._ended_at_once:
            self._ended_at_once.remove(number)
            self._go_on(client)
