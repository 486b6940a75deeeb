"""What became of every request of a run, in columns: a million requests fit into 100 MB."""

from array import array
from enum import IntEnum
from math import nan

import numpy as np
from numpy.typing import NDArray

from trimtab.sim.serving import Sequence

NOBODY = -1


class Fate(IntEnum):
    """How a request ended."""

    OPEN = 0  # it had not ended when the run did
    FINISHED = 1
    REFUSED = 2  # by the queue
    TOO_LONG = 3  # the engine cannot hold its tokens
    LEFT = 4  # its client went away


class Ledger:
    """Requests by number, counted from 0 in the order of their arrival.

    Attributes:
        servers: Names of the servers, which `server` counts; `NOBODY` is -1.
        arrived_at: When it came, in simulated seconds, as all times; NaN for never.
        dispatched_at: When the queue sent it to a server.
        admitted_at: When it entered the server's batch.
        first_token_at: When its first token was there.
        ended_at: When it ended, however it did.
        produced: Tokens of its answer.
        cached_tokens: Prompt tokens that the server found in its prefix cache.
        preemptions: How often it lost its KV blocks.
        fate: How it ended, a `Fate`.
    """

    __slots__ = (
        "admitted_at", "arrived_at", "cached_tokens", "dispatched_at", "ended_at", "fate", "first_token_at",
        "output_tokens", "preemptions", "produced", "prompt_tokens", "server", "servers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.servers: list[str] = []
        self.arrived_at = array("d")
        self.dispatched_at = array("d")
        self.admitted_at = array("d")
        self.first_token_at = array("d")
        self.ended_at = array("d")
        self.prompt_tokens = array("i")
        self.output_tokens = array("i")
        self.produced = array("i")
        self.cached_tokens = array("i")
        self.preemptions = array("i")
        self.server = array("i")
        self.fate = array("b")

    def __len__(self) -> int:
        """Return the number of requests that have arrived."""
        return len(self.fate)

    def arrive(self, at: float, prompt_tokens: int, output_tokens: int) -> int:
        """Open an entry; returns its number."""
        self.arrived_at.append(at)
        self.dispatched_at.append(nan)
        self.admitted_at.append(nan)
        self.first_token_at.append(nan)
        self.ended_at.append(nan)
        self.prompt_tokens.append(prompt_tokens)
        self.output_tokens.append(output_tokens)
        self.produced.append(0)
        self.cached_tokens.append(0)
        self.preemptions.append(0)
        self.server.append(NOBODY)
        self.fate.append(Fate.OPEN)
        return len(self.fate) - 1

    def dispatch(self, number: int, server: int, at: float) -> None:
        """Note which server a request went to."""
        self.server[number] = server
        self.dispatched_at[number] = at

    def end(self, number: int, fate: Fate, at: float, sequence: Sequence | None = None) -> None:
        """Close an entry, with what its engine says about it.

        Raises:
            AssertionError: It was closed before: a request ends exactly once.
        """
        assert self.fate[number] == Fate.OPEN, f"request {number} ends a second time"
        self.fate[number] = fate
        self.ended_at[number] = at
        if sequence is None:
            return
        self.admitted_at[number] = nan if sequence.admitted_at is None else sequence.admitted_at
        self.first_token_at[number] = nan if sequence.first_token_at is None else sequence.first_token_at
        self.produced[number] = sequence.produced
        self.cached_tokens[number] = sequence.cached_tokens
        self.preemptions[number] = sequence.preemptions

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a copy of a column, by the name of its attribute, for arithmetic."""
        return np.array(getattr(self, name), dtype=np.float64)

    def ttft(self) -> NDArray[np.float64]:
        """Return each request's time to first token, waiting included; NaN without one."""
        return self.column("first_token_at") - self.column("arrived_at")

    def latency(self) -> NDArray[np.float64]:
        """Return each finished request's time from arrival to the last token; NaN for others."""
        seconds = self.column("ended_at") - self.column("arrived_at")
        return np.where(self.column("fate") == Fate.FINISHED, seconds, nan)

    def time_per_token(self) -> NDArray[np.float64]:
        """Return each finished request's time between tokens, (end - first token) / (tokens - 1); NaN for others."""
        gaps = self.column("produced") - 1
        seconds = self.column("ended_at") - self.column("first_token_at")
        counts = (self.column("fate") == Fate.FINISHED) & (gaps > 0)
        values: NDArray[np.float64] = np.divide(seconds, gaps, out=np.full(len(self), nan), where=counts)
        return values
