"""What the rows of a part say: means and differences with intervals, and the verdict on each claim."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import isfinite, nan

import numpy as np
from numpy.typing import NDArray

from trimtab.sim.experiment import Cell, Claim, Metric, Part, Row, Setting
from trimtab.sim.statistics import (
    CONFIDENCE,
    NOTHING,
    Estimate,
    holm,
    mean_interval,
    paired_difference,
    paired_p,
    paired_ratio,
)
from trimtab.sim.sweep import Outcome


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a part, with the setting and seed that it belongs to."""

    place: int
    seed: int
    row: Row

    @property
    def policy(self) -> str:
        """The policy that did it."""
        return str(self.row["policy"])


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one policy under one setting.

    Attributes:
        value: Its mean over seeds.
        difference: To the baseline, within seeds; a part of it (0.1 is 10 %) where the metric is relative. None for the
            baseline itself and for parts without.
        expected: The figure that the specification gives, if it does.
        gain: 1 where the difference's interval says better, -1 for worse, 0 where it does not say.
    """

    setting: Setting
    policy: str
    metric: Metric
    value: Estimate
    difference: Estimate | None
    expected: float | None

    @property
    def gain(self) -> int:
        """Which way the difference points, where its interval excludes none."""
        if self.difference is None or not self.difference.excludes(0.0):
            return 0
        return 1 if (self.difference.mean > 0) == (self.metric.better == "higher") else -1


class Verdict(StrEnum):
    """What the seeds say of a claim."""

    HOLDS = "holds"
    NOT_SHOWN = "not shown"
    REFUTED = "refuted"


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim under one setting.

    Attributes:
        gain: By how much the policy is better (positive) than what it is held against; relative where the metric is.
        p: After Holm's correction over all findings of the part.
    """

    claim: Claim
    setting: Setting
    metric: Metric
    gain: Estimate
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class Table:
    """A part that was run.

    Attributes:
        records: Ordered by setting, seed, and the place of the policy in what the part returned.
        seeds: How many were asked for.
        lines: By setting, policy and metric, in the part's order.
        complete: Whether every seed of every setting is there.
    """

    part: Part
    seeds: int
    records: tuple[Record, ...]
    policies: tuple[str, ...]
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    complete: bool

    def line(self, setting: str, policy: str, metric: str) -> Line | None:
        """Return one line, or None where there is none."""
        return self._by_name.get((setting, policy, metric))

    @cached_property
    def _by_name(self) -> Mapping[tuple[str, str, str], Line]:
        return {(line.setting.name, line.policy, line.metric.name): line for line in self.lines}

    def verdict(self, claim: Claim) -> Verdict:
        """Return what is to be said of a claim over all its settings: the worst of them."""
        seen = [finding.verdict for finding in self.findings if finding.claim is claim]
        for verdict in (Verdict.REFUTED, Verdict.NOT_SHOWN):
            if verdict in seen or not seen:
                return verdict
        return Verdict.HOLDS


def tabulate(part: Part, seeds: int, outcomes: Iterable[Outcome]) -> Table:
    """Order what came in, in whatever order it did, and summarize it.

    Raises:
        ValueError: A row lacks a column that the part promises.
    """
    ordered = sorted(outcomes, key=lambda outcome: (outcome.task.place, outcome.task.seed))
    records = tuple(
        Record(outcome.task.place, outcome.task.seed, _checked(part, row))
        for outcome in ordered
        for row in outcome.rows
    )
    policies = tuple(dict.fromkeys(record.policy for record in records))
    values = _Values(part, seeds, records)
    lines = tuple(
        _line(part, values, place, policy, metric)
        for place in range(len(part.settings))
        for policy in policies
        for metric in part.metrics
        if values.has(place, policy)
    )
    complete = len(ordered) == seeds * len(part.settings)
    return Table(part, seeds, records, policies, lines, _findings(part, values), complete)


def _checked(part: Part, row: Row) -> Row:
    wanted = ("policy", *(metric.name for metric in part.metrics))
    missing = [name for name in wanted if name not in row]
    if missing:
        raise ValueError(f"part {part.name}: a row of {row.get('policy')!r} lacks {', '.join(missing)}")
    return row


class _Values:
    """The metrics of a part as arrays with one place per seed; NaN where a seed has none."""

    def __init__(self, part: Part, seeds: int, records: Sequence[Record]) -> None:
        self._seeds = seeds
        self._arrays: dict[tuple[int, str, str], NDArray[np.float64]] = {}
        self._present = {(record.place, record.policy) for record in records}
        for record in records:
            for metric in part.metrics:
                key = (record.place, record.policy, metric.name)
                array = self._arrays.setdefault(key, np.full(seeds, nan))
                array[record.seed] = _number(record.row[metric.name])

    def has(self, place: int, policy: str) -> bool:
        return (place, policy) in self._present

    def get(self, place: int, policy: str, metric: str) -> NDArray[np.float64]:
        return self._arrays.get((place, policy, metric), np.full(self._seeds, nan))


def _number(cell: Cell) -> float:
    return nan if cell is None or isinstance(cell, str) else float(cell)


def _line(part: Part, values: _Values, place: int, policy: str, metric: Metric) -> Line:
    setting = part.settings[place]
    own = values.get(place, policy, metric.name)
    difference = None
    if part.baseline is not None and policy != part.baseline and values.has(place, part.baseline):
        difference = _difference(metric, own, values.get(place, part.baseline, metric.name))
    expected = (part.expected or {}).get((setting.name, policy, metric.name))
    return Line(setting, policy, metric, mean_interval(own), difference, expected)


def _difference(metric: Metric, own: NDArray[np.float64], base: NDArray[np.float64]) -> Estimate:
    return paired_ratio(own, base) if metric.relative else paired_difference(own, base)


def _findings(part: Part, values: _Values) -> tuple[Finding, ...]:
    metrics = {metric.name: metric for metric in part.metrics}
    pairs = [
        (claim, place)
        for claim in part.claims
        for place, setting in enumerate(part.settings)
        if not claim.settings or setting.name in claim.settings
    ]
    tests = [_test(claim, metrics[claim.metric], values, place) for claim, place in pairs]
    adjusted = holm([p for _, _, p in tests])
    return tuple(
        Finding(claim, part.settings[place], metrics[claim.metric], gain, p, _verdict(margin, p))
        for (claim, place), (gain, margin, _), p in zip(pairs, tests, adjusted, strict=True)
    )


def _test(claim: Claim, metric: Metric, values: _Values, place: int) -> tuple[Estimate, float, float]:
    """Return the gain, by how much it exceeds what is claimed (the margin is allowed for), and the p value of that."""
    own, other = values.get(place, claim.policy, metric.name), values.get(place, claim.against, metric.name)
    sign = 1.0 if metric.better == "higher" else -1.0
    gain = _difference(metric, own, other)
    gain = gain if sign > 0 else Estimate(gain.n, -gain.mean, -gain.high, -gain.low)
    bar = other * (1 - sign * claim.margin) if metric.relative else other - sign * claim.margin
    if not gain.n:
        return NOTHING, nan, nan
    beyond = sign * paired_difference(own, bar).mean
    return gain, beyond, paired_p(own, bar)


def _verdict(beyond: float, p: float) -> Verdict:
    if not isfinite(p) or p >= 1 - CONFIDENCE:
        return Verdict.NOT_SHOWN
    return Verdict.HOLDS if beyond > 0 else Verdict.REFUTED
