"""Service levels: what a request asks for, and whether it got it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """A service level and the part of the requests that ask for it.

    Attributes:
        name: a lower-case DNS label; sent to the gateway with each request.
        ttft_seconds: the longest time from the scheduled arrival to the first content; None: any.
        tpot_seconds: the longest mean time between output tokens; None: any.
        completion_seconds: the longest time from the scheduled arrival to the end; None: any.
        share: how much of the requests, relative to the other levels' shares.
    """

    name: str
    ttft_seconds: float | None = None
    tpot_seconds: float | None = None
    completion_seconds: float | None = None
    share: float = 1.0

    def met(self, ttft_seconds: float, tpot_seconds: float, completion_seconds: float) -> bool:
        """Say whether a completed request met every target of the level."""
        measured = (ttft_seconds, tpot_seconds, completion_seconds)
        targets = (self.ttft_seconds, self.tpot_seconds, self.completion_seconds)
        return all(target is None or value <= target for value, target in zip(measured, targets, strict=True))

    @property
    def described(self) -> str:
        """Return the targets in a few words, e.g. `TTFT <= 2 s, TPOT <= 60 ms`."""
        targets = (("TTFT", self.ttft_seconds), ("TPOT", self.tpot_seconds), ("done", self.completion_seconds))
        return ", ".join(f"{what} ≤ {short_duration(target)}" for what, target in targets if target is not None)


DEFAULT_LEVELS = (ServiceLevel("interactive", ttft_seconds=2.0, tpot_seconds=0.06),)
"""What is judged when nobody says otherwise: a chat that starts within 2 s and reads smoothly."""


def parse_duration(text: str) -> float:
    """Return the seconds in `250ms`, `2s`, `10m`, `1h` or a sum such as `1h30m`.

    Raises:
        ValueError: it is none of these.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write 250ms, 2s, 10m, 1h or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def short_duration(seconds: float) -> str:
    """Write seconds as people do: `60 ms`, `2 s`, `10 min`, `1 h`."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size and (seconds % size == 0 or unit == "s"):
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1e3:g} ms"


def parse_level(text: str) -> ServiceLevel:
    """Read `NAME:ttft=2s,tpot=60ms[,completion=1h][:SHARE]`.

    Raises:
        ValueError: the text is not of that form; the message says which part.
    """
    name, _, rest = text.partition(":")
    targets, _, share = rest.partition(":")
    if not _NAME.fullmatch(name):
        raise ValueError(f"level {text!r}: the name {name!r} is not a lower-case DNS label")
    known = {"ttft": "ttft_seconds", "tpot": "tpot_seconds", "completion": "completion_seconds"}
    parsed: dict[str, float] = {}
    for target in targets.split(","):
        key, _, value = target.partition("=")
        if key not in known or known[key] in parsed:
            raise ValueError(f"level {name}: {target!r} is not one of ttft=, tpot=, completion= (each at most once)")
        parsed[known[key]] = parse_duration(value)
        if not parsed[known[key]]:
            raise ValueError(f"level {name}: {target!r} cannot be met; write a time above zero")
    return ServiceLevel(name, share=_share(name, share or "1"), **parsed)


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < float("inf"):
        raise ValueError(f"level {name}: the share {text!r} is not a number above 0")
    return share


def assign(levels: Sequence[ServiceLevel], count: int, seed: int) -> list[ServiceLevel]:
    """Draw a level for each of `count` requests by the levels' shares; the n-th does not depend on `count`."""
    total = sum(level.share for level in levels)
    bounds = list(accumulate(level.share / total for level in levels))[:-1]
    places = np.searchsorted(bounds, np.random.default_rng([seed, 1]).random(count), side="right")
    return [levels[place] for place in places]
