"""What requests like this one did lately, from "exactly this long a prompt" up to "anything of this application".

Applications fill templates, so a prompt's length often says which template it is, and the template says how long the
answer will be. Which lengths belong together differs between services and changes with every release; a model that
learned "1,300 tokens in, 140 out" by heart is wrong elsewhere. The ladder therefore keeps running averages of the
logarithm of answers at several widths of prompt length, and a trained model only learns how to weigh its rungs.
"""

from dataclasses import dataclass
from math import floor, log, nan, sqrt

from trimtab.decide.queueing.bounded import Bounded
from trimtab.decide.queueing.lengths import Features, Outcome

RESOLUTIONS: tuple[float | None, ...] = (None, 40.0, 10.0, 3.0, 0.0)
"""Rungs, finest first: exactly equal prompts, then buckets per factor e of prompt length, then all of them."""

COLUMNS = tuple(f"rung{rung}_{what}" for rung in range(len(RESOLUTIONS)) for what in ("level", "spread", "count"))
"""What `Ladder.look` returns, in order; levels are relative to `View.base`."""

_LEAST = 3  # answers before a rung is taken for the base
_MOST_COUNTED = 50.0
_FASTEST, _SLOWEST = 0.1, 0.01
_DEFAULT_LEVEL = log(256.0)
_PER_WORLD = 32_768  # entries of all rungs together


@dataclass(slots=True)
class _Entry:
    """Moving averages of the logarithm of answers; a fresh average weighs its first answers equally."""

    level: float = 0.0
    variance: float = 0.0
    count: int = 0

    def add(self, value: float, slowest: float) -> None:
        self.count += 1
        weight = max(slowest, 1.0 / self.count)
        step = value - self.level
        self.level += weight * step
        self.variance += weight * ((1.0 - weight) * step * step - self.variance)


@dataclass(frozen=True, slots=True)
class View:
    """What the ladder knows about one request.

    Attributes:
        base: logarithm of the length to expect: the level of the finest rung with enough answers.
        columns: see `COLUMNS`; NaN where a rung has no answer yet.
    """

    base: float
    columns: tuple[float, ...]


class Ladder:
    """The running averages, advanced in place by their one owner; memory is bounded.

    Args:
        start: logarithm of the length to expect before anything has ended.
    """

    __slots__ = ("_entries", "_everything", "_start")

    def __init__(self, start: float = _DEFAULT_LEVEL) -> None:
        self._start = start
        self._entries: Bounded[tuple[str, str, int, int], _Entry] = Bounded(_PER_WORLD, _Entry)
        self._everything = _Entry()

    def look(self, request: Features) -> View:
        """Return what requests like this one did."""
        entries = [self._entries.get(key) for key in _keys(request)]
        base = self._base(entries)
        columns: list[float] = []
        for entry in entries:
            if entry is None:
                columns += (nan, nan, 0.0)
            else:
                count = min(_MOST_COUNTED, float(entry.count))
                columns += (entry.level - base, sqrt(entry.variance), count)
        return View(base, tuple(columns))

    def add(self, request: Features, outcome: Outcome) -> None:
        """Count an answer whose true length is known; any other changes nothing."""
        if not outcome.exact or outcome.tokens < 1:
            return
        value = log(outcome.tokens)
        for key, resolution in zip(_keys(request), RESOLUTIONS, strict=True):
            self._entries.touch(key).add(value, _SLOWEST if resolution == 0.0 else _FASTEST)
        self._everything.add(value, _SLOWEST)

    def _base(self, entries: list[_Entry | None]) -> float:
        for entry in entries:
            if entry is not None and entry.count >= _LEAST:
                return entry.level
        widest = entries[-1] or self._everything
        return widest.level if widest.count else self._start


def _keys(request: Features) -> list[tuple[str, str, int, int]]:
    size = max(1, request.input_tokens)
    keys = []
    for rung, resolution in enumerate(RESOLUTIONS):
        bucket = size if resolution is None else floor(log(size) * resolution)
        keys.append((request.model, request.tenant, rung, bucket))
    return keys
