"""Clients that hold conversations: who says what when, and what the prefix cache finds of it."""

from collections.abc import Iterable, Sequence

import pytest

from trimtab.sim.clients import ClosedLoop, Turn, take_turns
from trimtab.sim.engine import Simulation
from trimtab.sim.ledger import Fate
from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import EngineConfig
from trimtab.sim.world import PoolWorld, ServerKind

TICK = IterationCost(1.0, 0.0, 0.0, 0.0, 0.0)
CONFIG = EngineConfig(kv_blocks=1000, block_size=16, max_num_seqs=8, max_num_batched_tokens=4096)


class Echo:
    """Answers every turn after `seconds`, or at once, and writes down when it was asked."""

    def __init__(self, simulation: Simulation, scripts: Iterable[Iterable[Turn]], seconds: float = 1.0) -> None:
        self.asked: list[tuple[float, int]] = []
        self.open = self.most_open = 0
        self._simulation = simulation
        self._seconds = seconds
        self.loop = ClosedLoop(simulation, scripts, self._send)

    def _send(self, turn: Turn) -> int:
        self.asked.append((self._simulation.now, turn.conversation))
        number = len(self.asked)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        if self._seconds:
            self._simulation.after(self._seconds, lambda: self._answer(number))
        else:
            self._answer(number)
        return number

    def _answer(self, number: int) -> None:
        self.open -= 1
        self.loop.ended(number)


def conversation(number: int, turns: int, think: float = 0.5) -> list[Turn]:
    return [Turn(number, 100 * (n + 1), 50, think) for n in range(turns)]


def play(scripts: Iterable[Iterable[Turn]], seconds: float = 1.0) -> Echo:
    simulation = Simulation()
    echo = Echo(simulation, scripts, seconds)
    echo.loop.start()
    simulation.run()
    return echo


def test_the_next_turn_comes_when_the_answer_has_and_the_client_has_thought() -> None:
    assert play([conversation(7, 3)]).asked == [(0.5, 7), (2.0, 7), (3.5, 7)]


def test_refusals_at_once_do_not_stop_a_client() -> None:
    assert play([conversation(7, 3)], seconds=0.0).asked == [(0.5, 7), (1.0, 7), (1.5, 7)]


def test_clients_share_conversations_and_bound_what_is_open() -> None:
    echo = play(take_turns([conversation(number, 1 + number % 3) for number in range(10)], clients=3))
    assert sorted(number for _, number in echo.asked) == sorted(n for n in range(10) for _ in range(1 + n % 3))
    assert echo.most_open == 3
    first_said = [number for at, number in echo.asked if at == 0.5]
    assert first_said == [0, 1, 2], "each begins with a conversation of its own"


def test_without_clients_nobody_speaks() -> None:
    with pytest.raises(ValueError, match="clients must be at least 1"):
        take_turns([], clients=0)


def test_a_turn_shares_its_prefix_with_the_one_before_and_nothing_with_others() -> None:
    first, second = Turn(3, 100, 60), Turn(3, 200, 10)
    known, prompt = first.work(16).block_hashes, second.blocks(200, 16)
    assert len(known) == 160 // 16
    assert prompt[: len(known)] == known
    assert not set(Turn(4, 100, 60).work(16).block_hashes) & set(known)


def test_all_conversations_share_their_common_tokens() -> None:
    ours, theirs = (Turn(number, 100, 10, common_tokens=40).blocks(100, 16) for number in (3, 4))
    assert ours[:2] == theirs[:2], "two blocks are full of common tokens"
    assert not set(ours[2:]) & set(theirs[2:])


def in_a_pool(scripts: Sequence[Sequence[Turn]]) -> PoolWorld:
    simulation = Simulation()
    loops: list[ClosedLoop] = []

    def listener(number: int, fate: Fate) -> None:
        loops[0].ended(number, fate)

    pool = PoolWorld(simulation, listener=listener)
    loop = ClosedLoop(simulation, scripts, lambda turn: pool.submit(turn.request(simulation.now)))
    loops.append(loop)
    pool.add_server("only", ServerKind(CONFIG, TICK))
    loop.start()
    simulation.run()
    return pool


def test_conversations_run_on_a_pool_of_engines() -> None:
    turns = [Turn(0, 600, 5, 1.0), Turn(0, 1300, 5, 1.0)]
    ledger = in_a_pool([turns]).ledger
    assert list(ledger.arrived_at) == [1.0, 1.0 + 5 + 1.0]
    assert list(ledger.cached_tokens) == [0, 592], "what the first turn left, in whole blocks of both sizes"


def test_too_long_a_turn_is_refused_and_the_client_goes_on() -> None:
    ledger = in_a_pool([[Turn(0, 50_000, 5, 1.0), Turn(1, 10, 5, 1.0)]]).ledger
    assert list(ledger.arrived_at) == [1.0, 2.0]
