"""What load is put on an engine: lengths, numbers of clients and rounds, fitted into the time there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np

from trimtab.sim.profiling.target import Ask

IDLE_ANSWER: Final = 16
WINDOW: Final = 32  # iterations that a burst decodes together
SHORT: Final = 128
ENOUGH_REQUESTS: Final = 500
_SHORTEST: Final = 32
_SLACK: Final = 0.92  # of the longest context: prompts come out a little longer or shorter than asked
_LONGEST: Final = 8192
_SMALLEST_BUDGET: Final = 512  # prompt tokens an iteration, of any engine with chunked prefill
_BURST_TOKENS: Final = 32_768
_LONG_BURST: Final = 2048
_LEVELS: Final = (8, 32, 64, 128, 256, 512)
_BACKGROUND_PROMPT: Final = 64
_BACKGROUND: Final = 4
_ITERATIONS_BETWEEN: Final = 8  # from one intruder to the next, its own answer included


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine can take, and how much of it is asked for.

    Attributes:
        max_model_len: Most tokens of prompt and answer together.
        kv_tokens: Tokens that its KV cache holds; None if it does not tell.
        concurrency: Requests under way at most.
        seconds: How long everything may take.
    """

    max_model_len: int
    kv_tokens: int | None
    concurrency: int
    seconds: float

    @property
    def room(self) -> int:
        """Tokens of prompt and answer together that are asked for at most."""
        return int(self.max_model_len * _SLACK)

    def prompt_lengths(self) -> list[int]:
        """Prompt lengths of idle requests: doubling from 32, and what is the longest possible."""
        longest = min(_LONGEST, self.room - 2 * IDLE_ANSWER)
        lengths = [_SHORTEST << power for power in range(20) if _SHORTEST << power <= longest]
        if not lengths or longest > lengths[-1] * 1.2:
            lengths.append(longest)
        return [length for length in lengths if length <= longest]

    def levels(self) -> list[int]:
        """Numbers of requests at once, from 8 on."""
        return [level for level in _LEVELS if level < self.concurrency] + [self.concurrency]

    def burst(self, clients: int, prompt: int) -> list[Ask] | None:
        """Equal requests that all decode at once for a while; None where they would not fit."""
        prompt = min(prompt, self.room // 2)
        answer = WINDOW + ceil(clients * prompt / _SMALLEST_BUDGET)
        if prompt + answer > self.room:
            return None
        if self.kv_tokens is not None and clients * (prompt + answer) > 0.9 * self.kv_tokens:
            return None
        return [Ask(prompt, answer)] * clients

    def bursts(self, clients: int) -> list[list[Ask]]:
        """Bursts of so many clients with little and with much context."""
        long = max(SHORT, min(_LONG_BURST, _BURST_TOKENS // clients))
        prompts = sorted({min(SHORT, self.room // 4), long})
        return [asks for prompt in prompts if (asks := self.burst(clients, prompt)) is not None]

    def interruption(self, sequences: int, lengths: Sequence[int]) -> tuple[list[Ask], int]:
        """Answers that go on while prompts come one after the other: what is asked, and how many others decode.

        The client that sends the prompts first sends a short request, so that the first prompt finds the others
        decoding.
        """
        others = max(1, min(_BACKGROUND, sequences - 1))
        iterations = sum(ceil(length / _SMALLEST_BUDGET) + _ITERATIONS_BETWEEN for length in lengths)
        answer = min(_ITERATIONS_BETWEEN + iterations, self.room - _BACKGROUND_PROMPT)
        background = Ask(_BACKGROUND_PROMPT, answer)
        intruders = [Ask(length, 2) for length in lengths]
        return [background] * others + [Ask(_SHORTEST, _ITERATIONS_BETWEEN), *intruders], others

    def mixture(self, rng: np.random.Generator, count: int, scale: float) -> list[Ask]:
        """Requests of mixed lengths, each log-uniform; `scale` shortens them all."""
        prompts = _log_uniform(rng, count, _SHORTEST, max(_SHORTEST + 1, scale * min(2048, self.room / 2)))
        answers = _log_uniform(rng, count, 8, max(9.0, scale * min(256, self.room / 4)))
        return [Ask(int(prompt), int(answer)) for prompt, answer in zip(prompts, answers, strict=True)]


def _log_uniform(rng: np.random.Generator, count: int, low: float, high: float) -> list[float]:
    return [float(value) for value in np.exp(rng.uniform(np.log(low), np.log(high), count))]
