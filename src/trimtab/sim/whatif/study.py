"""The runs that answer the question: replicas up to what is enough, and loads around the knee of the pool's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isfinite
from pathlib import Path

import numpy as np

from trimtab.model.problem import Problem
from trimtab.sim.experiment import Metric, Part, Row, Setting
from trimtab.sim.findings import Table, tabulate
from trimtab.sim.lab import Watch
from trimtab.sim.statistics import Estimate, share_interval
from trimtab.sim.streams import PILOT
from trimtab.sim.sweep import Outcome, Task, sweep
from trimtab.sim.whatif.case import Case
from trimtab.sim.whatif.draw import draw_requests, draw_speed, recorded
from trimtab.sim.whatif.foresight import Foresight
from trimtab.sim.whatif.run import check_policies, fitting, judge, serve

SURE = 0.95
"""Part of the draws that must meet the objective where a number of replicas is called enough."""

LIKELY = 0.5

_SHORTEST, _LONGEST = 90.0, 900.0  # seconds that requests arrive
_REQUESTS = 1500  # that a run is given about, within these bounds
_MOST_SPARE = 60.0  # replicas are added up to so many times what the load would keep busy
_CURVE = (0.4, 0.6, 0.75, 0.85, 0.93, 1.0, 1.08, 1.2, 1.4, 1.65)  # loads of the curve, relative to the knee
_CURVE_SEEDS = 10
_PILOTS = 3
_BISECTIONS = 6
_MORE = 3  # replicas that are tried beyond those found, at least
_MOST_TOO_LONG = 0.5  # of the requests: what is left would say nothing of the trace
_FARTHEST = 64.0  # from the load that arithmetic expects to fill the pool


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a pool.

    Attributes:
        trace: Name or file of the recorded load.
        data: The folder of data sets.
        load: Times the recorded rate.
        policies: Orders of service; the first one is what others are compared with.
        seeds: Draws.
        seconds: How long requests arrive in each run; None: as long as some 1,500 requests take.
    """

    case: Case
    trace: str
    data: Path | None
    load: float
    policies: tuple[str, ...]
    seeds: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PoolRun:
    """One run for each policy, on the draw of a seed; a setting says how many replicas and how much load."""

    question: Question
    seconds: float

    def __call__(self, seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
        """Return a row for each policy."""
        question, case = self.question, self.question.case
        source = recorded(question.trace, data, predict="SSJF" in question.policies)
        load, replicas = float(setting.values["load"] or 1.0), int(setting.values["replicas"] or 1)
        requests = fitting(case, draw_requests(source, case.levels, seed, load, self.seconds))
        speed = draw_speed(case.profile, seed)
        return [
            {"policy": name, **judge(case, requests, serve(case, name, replicas, requests, speed), self.seconds)}
            for name in question.policies
        ]


@dataclass(frozen=True, slots=True)
class Study:
    """What the runs gave.

    Attributes:
        rate: Requests per second at the load that is asked about.
        replicas: A table over numbers of replicas, at that load; where the least number was looked for.
        confirmed: By policy, the number that was found, on draws that it was not looked for with; None where none was.
        loads: A table over loads, with the pool's own replicas.
        seconds: How long requests arrived in each run of the two tables.
        foresight: What the queue was told of lengths; None where no policy asks.
        too_long: Part of the trace's requests that the engine cannot hold; they are left out.
    """

    question: Question
    rate: float
    replicas: Table
    confirmed: Mapping[str, "Confirmed | None"]
    loads: Table
    seconds: tuple[float, float]
    foresight: Foresight | None
    too_long: float


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A number of replicas on fresh draws.

    Attributes:
        replicas: The number that was found, or more where it did not hold.
        met: Draws in which the objective was met.
        share: The same as a part of all, with its 95 % interval.
    """

    replicas: int
    met: int
    share: Estimate


@dataclass(slots=True)
class _Explorer:
    """Runs settings one by one and remembers them."""

    part: Part
    seeds: Sequence[int]
    data: Path | None
    tell: Callable[[str], None]
    found: dict[float, list[Outcome]] = field(default_factory=dict)

    def outcomes(self, value: float, setting: Setting) -> list[Outcome]:
        if value not in self.found:
            tasks = [Task(self.part.run, 0, setting, seed, self.data) for seed in self.seeds]
            self.found[value] = []
            for outcome in sweep(tasks):
                self.found[value].append(outcome)
                self.tell(outcome.task.described)
        return self.found[value]

    def rows(self, value: float, setting: Setting, policy: str) -> list[Row]:
        ordered = sorted(self.outcomes(value, setting), key=lambda outcome: outcome.task.seed)
        return [row for outcome in ordered for row in outcome.rows if row["policy"] == policy]

    def table(self) -> Table:
        """Return everything that was run, by ascending value."""
        values = sorted(self.found)
        settings = tuple(self.found[value][0].task.setting for value in values)
        moved = [
            replace(outcome, task=replace(outcome.task, place=place))
            for place, value in enumerate(values)
            for outcome in self.found[value]
        ]
        return tabulate(replace(self.part, settings=settings), len(self.seeds), moved)


def study(question: Question, watch: Watch) -> Study:
    """Run what the question needs, on the backend that joblib is configured with.

    Raises:
        Problem: An unknown policy, a trace that cannot be read.
    """
    check_policies(question.policies)
    source = recorded(question.trace, question.data, predict="SSJF" in question.policies)
    trace = source.trace
    long = sum(r.input_tokens + r.output_tokens > question.case.longest for r in trace.requests) / len(trace.requests)
    if long > _MOST_TOO_LONG:
        limit = f"{question.case.longest} tokens of the engine"
        what = f"{long:.0%} of the requests of {question.trace} are longer than the {limit}"
        raise Problem(what, fix="ask with another trace, or with a profile measured at longer contexts")
    rate = question.load * len(trace.requests) / max(trace.duration_seconds, 1e-9)
    full = _full_rate(question.case, [(r.input_tokens, r.output_tokens) for r in trace.requests])
    seconds = question.seconds or _seconds(rate)
    replicas = _replicas(question, seconds, rate / full, watch)
    confirmed = _confirmed(question, seconds, replicas, watch)
    own = full * question.case.replicas / rate  # the load that fills the pool, relative to the one asked about
    own_seconds = question.seconds or _seconds(rate * own)
    loads = _loads(question, own_seconds, own, rate, watch)
    return Study(question, rate, replicas, confirmed, loads, (seconds, own_seconds), source.foresight, long)


def _seconds(rate: float) -> float:
    return float(round(min(_LONGEST, max(_SHORTEST, _REQUESTS / rate))))


def _full_rate(case: Case, tokens: Sequence[tuple[int, int]]) -> float:
    """Estimate the requests per second of a full replica, from the mean request; only a place to begin looking."""
    prompt, answer = np.mean(np.array(tokens), axis=0)
    cost = case.profile.iteration
    context = case.capacity * (prompt + answer / 2)
    sharing = min(case.capacity, (case.config.kv_blocks - 1) * case.config.block_size / (prompt + answer))
    step = cost.seconds(
        prefill_tokens=0, decodes=max(1, int(sharing)), context_tokens=int(context), attention_pairs=0.0
    )
    prefill = cost.seconds(prefill_tokens=int(prompt), decodes=0, context_tokens=0, attention_pairs=0.0) - cost.base
    return float(1.0 / (answer * step / sharing + prefill))


def _replicas(question: Question, seconds: float, needed: float, watch: Watch) -> Table:
    """Try numbers of replicas until the least likely and the least sure one of every policy are bracketed."""
    part = _part("replicas", "Attainment by number of replicas", question, seconds)
    steps = _Steps(watch, "replicas")
    explorer = _Explorer(part, range(question.seeds), question.data, steps)
    most = ceil(needed * _MOST_SPARE) + 1

    def chance(count: int, policy: str) -> float:
        rows = explorer.rows(count, _setting(count, question.load), policy)
        return sum(bool(row["objective met"]) for row in rows) / max(1, len(rows))

    start = max(1, round(needed))
    for policy in question.policies:
        for enough in (SURE, LIKELY):
            _least(start, most, lambda count, p=policy, e=enough: chance(count, p) >= e)  # type: ignore[misc]
    chance(question.case.replicas, question.policies[0])
    steps.done()
    return explorer.table()


def _confirmed(question: Question, seconds: float, table: Table, watch: Watch) -> dict[str, Confirmed | None]:
    """Hold the number found for each policy against draws that it was not chosen by; take more where it fails there."""
    steps = _Steps(watch, "confirmation")
    part = _part("confirmation", "", question, seconds)
    fresh = _Explorer(part, range(question.seeds, 2 * question.seeds), question.data, steps)
    found: dict[str, Confirmed | None] = {}
    for policy in question.policies:
        count = least_enough(chances_of(table, policy), SURE)
        found[policy] = None if count is None else _confirm(question, fresh, policy, count)
    steps.done()
    return found


def _confirm(question: Question, fresh: _Explorer, policy: str, count: int) -> Confirmed | None:
    for replicas in range(count, 2 * count + _MORE):
        rows = fresh.rows(replicas, _setting(replicas, question.load), policy)
        met = sum(bool(row["objective met"]) for row in rows)
        if met >= SURE * len(rows):
            return Confirmed(replicas, met, share_interval(met, len(rows)))
    return None


def chances_of(table: Table, policy: str) -> dict[int, float]:
    """Return the part of the draws in which the objective was met, by number of replicas."""
    met = values_by_seed(table, policy, "objective met")
    counts = [int(count) for count, _ in settings_of(table, "replicas")]
    return {count: float(np.mean(list(met[place].values()))) for place, count in enumerate(counts) if place in met}


def least_enough(chances: Mapping[int, float], enough: float) -> int | None:
    """Return the least number from which on all that were tried were enough."""
    least = None
    for count in sorted(chances, reverse=True):
        if chances[count] < enough:
            break
        least = count
    return least


def _least(start: int, most: int, enough: Callable[[int], bool]) -> int | None:
    """Return the least number for which `enough` holds, which it must for all above; None if not even for `most`."""
    low, high = 0, min(start, most)
    while not enough(high):
        low, high = high, min(2 * high, most)
        if low == most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def _loads(question: Question, seconds: float, fills: float, rate: float, watch: Watch) -> Table:
    """Find the load at which the pool's own order stops meeting the objective, and run loads around it."""
    steps = _Steps(watch, "loads")
    pilot = _Explorer(
        _part("pilot", "", replace(question, policies=question.policies[:1]), seconds),
        range(PILOT, PILOT + _PILOTS), question.data, steps,
    )  # fmt: skip
    knee = fills * _knee(question, pilot, fills)
    part = _part("loads", "Attainment by load", question, seconds)
    explorer = _Explorer(part, range(min(question.seeds, _CURVE_SEEDS)), question.data, steps)
    for factor in _CURVE:
        load = float(f"{knee * factor * question.load:.4g}")
        explorer.outcomes(load, _setting(question.case.replicas, load, rate / question.load))
    steps.done()
    return explorer.table()


def _knee(question: Question, pilot: _Explorer, fills: float) -> float:
    """Return the load up to which pilot draws meet the objective, relative to what fills the pool by arithmetic."""

    def spare(relative: float) -> float:
        load = fills * relative * question.load
        rows = pilot.rows(load, _setting(question.case.replicas, load), question.policies[0])
        return float(np.mean([_number(row["spare"]) for row in rows]))

    low, high = 1.0, 1.0
    while spare(high) >= 0 and high < _FARTHEST:
        low, high = high, 1.5 * high
    while low == high or (spare(low) < 0 and low > 1 / _FARTHEST):
        high, low = low, low / 1.5
    if spare(low) < 0:  # no load is low enough: show the loads that fill the pool
        return 1.0
    for _ in range(_BISECTIONS - 2):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if spare(middle) >= 0 else (low, middle)
    return float(np.sqrt(low * high))


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) and isfinite(cell) else -100.0


@dataclass(slots=True)
class _Steps:
    """Progress whose end is not known beforehand."""

    watch: Watch
    name: str
    taken: int = 0

    def __call__(self, note: str) -> None:
        self.taken += 1
        self.watch.advance(self.name, self.taken, 0, note)

    def done(self) -> None:
        self.watch.advance(self.name, 1, 1)


def _setting(replicas: int, load: float, recorded_rate: float | None = None) -> Setting:
    values: dict[str, float | int] = {"replicas": replicas, "load": load}
    if recorded_rate is None:
        return Setting(f"{replicas} replica{'s' if replicas > 1 else ''}", values)
    rate = float(f"{load * recorded_rate:.3g}")
    return Setting(f"{rate:g} requests/s", {**values, "requests_per_second": rate})


def _part(name: str, title: str, question: Question, seconds: float) -> Part:
    levels = [
        Metric(f"attainment {level.name}", f"Attainment {level.name}", "%", better="higher")
        for level in question.case.levels
    ]
    metrics = (
        *levels,
        Metric("attainment", "Attainment, all", "%", better="higher"),
        Metric("spare", "Above the objective", "%", better="higher"),
        Metric("goodput", "Goodput", "requests/s", better="higher"),
        Metric("ttft p50", "TTFT p50", "s"),
        Metric("ttft p95", "TTFT p95", "s"),
        Metric("tpot p95", "TPOT p95", "ms"),
        Metric("refused", "Refused", "%"),
    )
    baseline = question.policies[0]
    return Part(name, title, "", (), PoolRun(question, seconds), metrics, baseline)


def settings_of(table: Table, column: str) -> Iterator[tuple[float, str]]:
    """Yield the values of a column of a table's settings with the names of the settings."""
    for setting in table.part.settings:
        value = setting.values[column]
        assert isinstance(value, int | float)
        yield float(value), setting.name


def values_by_seed(table: Table, policy: str, metric: str) -> Mapping[int, dict[int, float]]:
    """Return a metric of one policy by place of the setting and seed."""
    found: dict[int, dict[int, float]] = {}
    for record in table.records:
        if record.policy == policy:
            found.setdefault(record.place, {})[record.seed] = _number(record.row[metric])
    return found
