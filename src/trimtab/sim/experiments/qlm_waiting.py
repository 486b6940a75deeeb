"""How well the wait in a queue is foreseen from the number of requests ahead.

A part of the experiment `qlm`: an engine with 32 slots, all taken, and a request at some place of its queue. The
estimates know the distribution of output lengths but no single one.
"""

from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.decide.queueing.waiting_time import LengthStats, Wait, starts_behind_few, wait_in_queue
from trimtab.sim.experiment import Metric, Part, Plot, Row, Setting
from trimtab.sim.slots import ANSWER_SHARES, ANSWER_TOKENS
from trimtab.sim.streams import stream

SLOTS, STEP_SECONDS = 32, 0.03
RATE, KNOWN = "by the rate", "by slots, their rests known"

_REQUESTS = 100  # whose waits one seed measures
_P99 = 2.3263

LENGTHS = LengthStats(mean=179.1, deviation=145.3, skewness=0.56)

Floats = NDArray[np.float64]


def lengths(numbers: np.random.Generator, *shape: int) -> Floats:
    """Draw output lengths, in tokens."""
    drawn: Floats = np.interp(numbers.random(shape), ANSWER_SHARES, ANSWER_TOKENS)
    return drawn


def run(seed: int, setting: Setting, data: Path | None) -> list[Row]:  # noqa: ARG001 - needs no data
    """Measure the waits of requests at one place of the queue, and what each estimate said of them."""
    position, fresh = int(setting.values["position"] or 0), bool(setting.values["fresh"])
    numbers = stream(seed, setting.name, "lengths")
    rests = [_rests(numbers, fresh=fresh) for _ in range(_REQUESTS)]
    waits = np.array([_wait(rest, lengths(numbers, position)) for rest in rests])
    return [_row(policy, estimates, waits) for policy, estimates in _estimates(position, rests)]


def _wait(rests: Floats, ahead: Floats) -> float:
    return starts_behind_few(rests.tolist(), ahead.tolist(), STEP_SECONDS)[-1]


def _rests(numbers: np.random.Generator, *, fresh: bool) -> Floats:
    """What is left of each running request.

    In the steady state a request that is found running is longer than most, by the time that it takes. With `fresh` the
    requests that run are like all others, as in the specification's table.
    """
    found = lengths(numbers, SLOTS)
    if not fresh:
        candidates = lengths(numbers, 100 * SLOTS)
        found = numbers.choice(candidates, SLOTS, p=candidates / candidates.sum())
    return numbers.random(SLOTS) * found


def _estimates(position: int, rests: list[Floats]) -> Iterator[tuple[str, list[Wait]]]:
    yield RATE, [wait_in_queue(position, LENGTHS, STEP_SECONDS, SLOTS)] * len(rests)
    yield KNOWN, [wait_in_queue(position, LENGTHS, STEP_SECONDS, SLOTS, rest.tolist()) for rest in rests]


def _row(policy: str, estimates: list[Wait], waits: Floats) -> Row:
    means = np.array([wait.mean for wait in estimates])
    bounds = np.array([wait.bound(_P99) for wait in estimates])
    errors = means - waits
    return {
        "policy": policy,
        "estimated": float(means.mean()),
        "waited": float(waits.mean()),
        "error": 100 * float(errors.mean() / waits.mean()),
        "typical": 100 * sqrt(float((errors**2).mean())) / float(waits.mean()),
        "covered": 100 * float((waits <= bounds).mean()),
    }


def _setting(position: int, *, fresh: bool) -> Setting:
    state = "requests just begun" if fresh else "steady state"
    return Setting(f"place {position}, {state}", {"position": position, "fresh": fresh, "state": state})


STEADY = tuple(_setting(position, fresh=False) for position in (4, 16, 64, 256, 1024))
FRESH = tuple(_setting(position, fresh=True) for position in (4, 16, 64, 256, 1024))

_PUBLISHED = ((0.66, 0.14), (2.65, 1.09), (10.6, 8.8), (42.4, 40.4), (169.7, 167.7))
"""Estimated and simulated waits in the specification's table, from lengths that are 1 % shorter."""

PART = Part(
    name="waiting",
    title="How well the wait is foreseen from who is ahead",
    about=(
        "An engine of 32 slots, all taken, yields a token per slot each 30 ms. A request waits at some place of its "
        "queue. The estimate by the rate is its place times the mean output length over tokens per second; it knows no "
        "single length. The error is that of the mean, the typical error that of a single wait, both relative to the "
        "mean wait; covered is the share of waits below the 99 % bound. Look at how the typical error shrinks with the "
        "place. The specification's table has the estimate far too high for the first places; that holds where the "
        "running requests are as short as all others. In the steady state those found running are the longer ones, and "
        "the estimate has no such bias. Rests that are known one by one help at the first few places only; behind "
        "them, short requests that come and go free a slot before the average one would."
    ),
    settings=STEADY + FRESH,
    run=run,
    metrics=(
        Metric("estimated", "estimated wait", "s"),
        Metric("waited", "simulated wait", "s"),
        Metric("error", "error of the mean", "%"),
        Metric("typical", "typical error of one wait", "%"),
        Metric("covered", "below the 99 % bound", "%", better="higher"),
    ),
    seeds=20,
    plots=(Plot("position", "typical", "place in the queue", "typical error", logarithmic=True, panel="state"),),
    expected={
        (setting.name, RATE, metric): figure
        for setting, figures in zip(FRESH, _PUBLISHED, strict=True)
        for metric, figure in zip(("estimated", "waited"), figures, strict=True)
    },
    seconds_per_run=0.1,
)
