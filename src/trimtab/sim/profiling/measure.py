"""The phases of a measurement, one after the other, each for its share of the time that is left."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

import numpy as np

from trimtab.sim.profiling.load import IDLE_ANSWER, SHORT, WINDOW, Limits
from trimtab.sim.profiling.rows import longest_together
from trimtab.sim.profiling.target import Ask, Seen, Target

Progress = Callable[[str, float, float, str], None]
"""Is told the phase, its seconds so far and in all, and what is going on."""

_ENDS: Final = {"idle": 0.22, "together": 0.5, "interrupted": 0.65}  # of all the time; the rest is for saturation
_LEAST_ROUNDS: Final = 2
_MOST_ROUNDS: Final = 16
_PATIENCE: Final = 1.5  # a phase that has not had its rounds may take this many times its share
_TELL_SECONDS: Final = 1.0
_WAVE_SLACK: Final = 0.1
_LUMP: Final = 0.3
_BURST_SHARE: Final = 0.25  # of its phase: a burst that would take longer is left out


@dataclass(slots=True)
class Measurements:
    """What was seen.

    Attributes:
        idle: Requests that were alone.
        bursts: Equal requests that were sent at once.
        interrupted: Requests that went on while prompts came, and those prompts.
    """

    idle: list[Seen] = field(default_factory=list)
    bursts: list[list[Seen]] = field(default_factory=list)
    interrupted: list[tuple[list[Seen], list[Seen]]] = field(default_factory=list)

    @property
    def sequences(self) -> int:
        """The most that decoded at once."""
        return max((longest_together(burst).sequences for burst in self.bursts), default=1)

    @property
    def sequences_bounded(self) -> bool:
        """Whether that is the engine's own limit: most bursts of more had to wait for it, however short they were."""
        most = self.sequences
        larger = [b for b in self.bursts if len(b) > most and b[0].prompt_tokens <= 2 * SHORT]
        return sum(_came_in_waves(burst, most) for burst in larger) > len(larger) / 2


def _came_in_waves(burst: Sequence[Seen], most: int) -> bool:
    """Whether those that did not fit into a batch of `most` began when others had ended.

    Answers that came in one lump, for want of a CPU somewhere, look as if they had begun late, and prove nothing.
    """
    spans = [seen.last_at - seen.first_at for seen in burst]
    if min(spans) < _LUMP * float(np.median(spans)):
        return False
    first_end = min(seen.last_at for seen in burst)
    waited = sum(seen.first_at > first_end for seen in burst)
    return abs(waited - (len(burst) - most)) <= _WAVE_SLACK * len(burst)


class Measuring:
    """Puts load on a target for a given time.

    Args:
        target: What is measured.
        limits: What it can take.
        rng: For orders and lengths.
        progress: Is told how far it is.
    """

    def __init__(self, target: Target, limits: Limits, rng: np.random.Generator, progress: Progress) -> None:
        self.seen = Measurements()
        self._target = target
        self._limits = limits
        self._rng = rng
        self._progress = progress
        self._began_at = target.clock()
        self._phase_began_at = self._began_at
        self._phase_seconds = limits.seconds
        self._round = 0

    @property
    def seconds_left(self) -> float:
        """Until the time is over."""
        return max(0.0, self._began_at + self._limits.seconds - self._target.clock())

    async def before_saturation(self) -> Measurements:
        """Run every phase that is fitted."""
        await self._idle()
        await self._together()
        await self._interrupted()
        return self.seen

    async def saturated(self, asks: Sequence[Ask], clients: int) -> list[Seen]:
        """Let so many clients send until the time is over."""
        seconds = self.seconds_left
        showing = asyncio.create_task(self._show("saturated", seconds, f"{clients} clients"))
        try:
            return await self._target.serve(asks, clients, seconds)
        finally:
            showing.cancel()
            self._progress("saturated", seconds, seconds, "")

    async def _show(self, phase: str, seconds: float, note: str) -> None:
        """Tell of progress until cancelled."""
        began = self._target.clock()
        while True:
            self._progress(phase, min(self._target.clock() - began, 0.99 * seconds), seconds, note)
            await asyncio.sleep(_TELL_SECONDS)

    def _rounds(self, phase: str) -> Iterator[int]:
        """Rounds until the phase's time is over, and at least two unless that takes too long."""
        began = self._target.clock()
        seconds = self._phase_seconds = max(0.0, self._began_at + _ENDS[phase] * self._limits.seconds - began)
        self._phase_began_at = began
        for number in range(_MOST_ROUNDS):
            self._round = number
            if self._is_over():
                break
            self._progress(phase, self._target.clock() - began, seconds, f"round {number + 1}")
            yield number
        self._progress(phase, seconds, seconds, "")

    def _is_over(self) -> bool:
        """Whether nothing more should be begun in this phase."""
        patience = _PATIENCE if self._round < _LEAST_ROUNDS else 1.0
        return self._target.clock() - self._phase_began_at > patience * self._phase_seconds

    async def _idle(self) -> None:
        lengths = self._limits.prompt_lengths()
        for _ in self._rounds("idle"):
            for length in self._rng.permutation(lengths):
                if not (self._is_over() and self.seen.idle):
                    self.seen.idle += await self._target.serve([Ask(int(length), IDLE_ANSWER)], 1, inf)

    async def _together(self) -> None:
        for number in self._rounds("together"):
            levels = self._limits.levels() if number == 0 else self._rng.permutation(self._levels_within())
            for level in levels:
                await self._bursts(int(level))
                if number == 0 and self.seen.sequences_bounded:
                    break

    def _levels_within(self) -> list[int]:
        """All levels, or where the engine has a limit below: around it, and one above, to be sure of it."""
        levels = self._limits.levels()
        if not self.seen.sequences_bounded:
            return levels
        limit = self.seen.sequences
        above = [level for level in levels if level > limit][:1]
        return sorted({2, max(2, limit // 2), limit, *above} | {level for level in levels if level < limit})

    async def _bursts(self, clients: int) -> None:
        for asks in self._limits.bursts(clients):
            too_long = self._expected_seconds(asks) > _BURST_SHARE * self._phase_seconds
            if self._is_over() or (too_long and self.seen.bursts):
                continue
            self.seen.bursts.append(await self._target.serve(asks, clients, inf))

    def _expected_seconds(self, asks: Sequence[Ask]) -> float:
        """A rough guess from the idle requests: prompts one after the other, answers at twice the time."""
        prefill = min(seen.ttft / seen.prompt_tokens for seen in self.seen.idle)
        gap = float(np.median([seen.time_between_tokens or 0.0 for seen in self.seen.idle]))
        return sum(ask.prompt_tokens for ask in asks) * prefill + 2 * gap * asks[0].output_tokens

    async def _interrupted(self) -> None:
        if self.seen.sequences < 2:  # noqa: PLR2004 - one more than the prompt needs another
            return
        lengths = self._limits.prompt_lengths()
        for _ in self._rounds("interrupted"):
            order = [int(length) for length in self._rng.permutation(lengths)]
            asks, others = self._limits.interruption(self.seen.sequences, order)
            seen = await self._target.serve(asks, others + 1, inf)
            background = [each for each in seen if each.output_tokens > WINDOW]
            self.seen.interrupted.append((background, [each for each in seen if each.output_tokens <= 2]))  # noqa: PLR2004
