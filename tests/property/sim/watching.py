"""Simulations that are looked at after every event: time goes on, and what is handed to them holds."""

from collections.abc import Callable, Iterable
from math import isnan

from tests.property.sim.test_skipping import check_books
from trimtab.sim.engine import Action, Simulation
from trimtab.sim.ledger import Fate, Ledger
from trimtab.sim.lockstep import Sequence
from trimtab.sim.server import Server

Check = Callable[[], None]


class Watched(Simulation):
    """Runs checks after each event."""

    def __init__(self) -> None:
        super().__init__()
        self.checks: list[Check] = []
        self.last = 0.0

    def at(self, time: float, action: Action) -> int:
        def watched() -> None:
            assert self.now >= self.last, "time never goes back"
            self.last = self.now
            action()
            assert self.now == self.last, "nothing but the calendar moves the time"
            for check in self.checks:
                check()

        return super().at(time, watched)


class Tokens:
    """No token is produced twice: what a request has produced never shrinks, and never passes what is asked for."""

    def __init__(self) -> None:
        self._produced: dict[Sequence, int] = {}

    def check(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            before = self._produced.get(sequence, 0)
            assert before <= sequence.produced <= sequence.work.output_tokens
            assert sequence.computed <= sequence.known_tokens
            self._produced[sequence] = sequence.produced


def check_servers(servers: Iterable[Server], now: float) -> None:
    """Each engine's books balance: blocks, batch and queue, and the time that it has computed."""
    for server in servers:
        check_books(server.engine)
        assert 0 <= server.engine.cache.used <= server.engine.cache.capacity
        assert server.engine.num_running <= server.engine.config.max_num_seqs
        assert server.engine.busy_seconds <= now + 1e-9


def check_ends(ledger: Ledger, fates: set[Fate]) -> None:
    """Every request has ended, with its whole answer or none of the time, and its times are in order."""
    for number in range(len(ledger)):
        fate = Fate(ledger.fate[number])
        assert fate in fates, (number, fate)
        assert ledger.arrived_at[number] <= ledger.ended_at[number]
        if fate is Fate.FINISHED:
            assert ledger.produced[number] == ledger.output_tokens[number]
            times = (
                ledger.arrived_at[number],
                ledger.dispatched_at[number],
                ledger.first_token_at[number],
                ledger.ended_at[number],
            )
            assert not any(map(isnan, times))
            assert ledger.first_token_at[number] >= ledger.arrived_at[number]
            assert ledger.ended_at[number] >= max(ledger.first_token_at[number], ledger.dispatched_at[number])
        elif fate in {Fate.REFUSED, Fate.TOO_LONG}:
            assert ledger.produced[number] == 0
        else:
            assert 0 <= ledger.produced[number] < ledger.output_tokens[number]
