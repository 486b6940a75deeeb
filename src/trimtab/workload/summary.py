"""What a replay amounts to: outcomes, latencies, goodput and attainment, by service level."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trimtab.workload.answer import Outcome
from trimtab.workload.histogram import LogHistogram
from trimtab.workload.level import ServiceLevel
from trimtab.workload.record import RequestRecord
from trimtab.workload.request import percentile

_LAG_SHARE_OF_TARGET = 0.1
_LAG_BOUND_SECONDS = 0.05
_TOKEN_SLACK = 0.05
_SHOWN_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """How values are spread.

    Attributes:
        count: how many there are.
        mean: NaN where there are none, like the rest.
        p50: nearest-rank percentiles.
        p90: see p50.
        p99: see p50.
        largest: the largest.
    """

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    largest: float


@dataclass(frozen=True, slots=True)
class LevelSummary:
    """How one service level fared.

    Attributes:
        level: its targets.
        offered: requests that asked for it and were started.
        met: those that ended well within every target; all others were missed, unfinished and refused ones included.
        goodput: met requests per reported second.
        outcomes: how many ended how.
        ttft: seconds from the scheduled time to the first content, of all that had content.
        tpot: mean seconds between output tokens of each request that ended well.
        completion: seconds from the scheduled time to the end, of all that ended well.
    """

    level: ServiceLevel
    offered: int
    met: int
    goodput: float
    outcomes: dict[Outcome, int]
    ttft: Spread
    tpot: Spread
    completion: Spread

    @property
    def attainment(self) -> float:
        """Return met / offered; NaN where nothing was offered."""
        return self.met / self.offered if self.offered else math.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """How a replay went.

    Attributes:
        offered_seconds: reported seconds during which requests were offered.
        total: all levels taken together.
        levels: each level, in the order given.
        output_tokens_per_second: tokens of all requests that ended well, per reported second.
        good_tokens_per_second: those of requests that met their level.
        lag: reported seconds between the time the trace wanted a request sent and the client's doing so.
        gap_p50: median time between two pieces of an answer, in reported seconds.
        gap_p99: 99th percentile of the same.
        cached_fraction: the part of prompt tokens that the server took from its prefix cache; NaN if it counted none.
        errors: the most frequent errors, each with how often it came.
        warnings: what makes the figures less than they seem, one sentence each.
    """

    offered_seconds: float
    total: LevelSummary
    levels: tuple[LevelSummary, ...]
    output_tokens_per_second: float
    good_tokens_per_second: float
    lag: Spread
    gap_p50: float
    gap_p99: float
    cached_fraction: float
    errors: tuple[tuple[str, int], ...]
    warnings: tuple[str, ...]


def spread(values: Iterable[float | None]) -> Spread:
    """Describe the values that are there."""
    ordered = sorted(value for value in values if value is not None)
    if not ordered:
        return Spread(0, *[math.nan] * 5)
    p50, p90, p99 = (percentile(ordered, percent) for percent in (50, 90, 99))
    return Spread(len(ordered), sum(ordered) / len(ordered), p50, p90, p99, ordered[-1])


def summarize(
    records: Sequence[RequestRecord], levels: Sequence[ServiceLevel], *, offered_seconds: float, gaps: LogHistogram
) -> Summary:
    """Sum up a replay.

    Args:
        records: every request that was started.
        levels: the levels that the replay had, also those that no request drew.
        offered_seconds: reported seconds during which requests were offered.
        gaps: times between pieces of answers.
    """
    total = _level_summary(ServiceLevel("all"), records, offered_seconds)
    by_level = tuple(
        _level_summary(level, [record for record in records if record.level == level], offered_seconds)
        for level in levels
    )
    lag = spread(record.lag_seconds for record in records)
    prompt_tokens = sum(record.prompt_tokens for record in records)
    return Summary(
        offered_seconds=offered_seconds,
        total=total,
        levels=by_level,
        output_tokens_per_second=_rate(_output(records, Outcome.OK), offered_seconds),
        good_tokens_per_second=_rate(sum(record.output_tokens for record in records if record.met), offered_seconds),
        lag=lag,
        gap_p50=gaps.percentile(50),
        gap_p99=gaps.percentile(99),
        cached_fraction=sum(record.cached_tokens for record in records) / prompt_tokens if prompt_tokens else math.nan,
        errors=_frequent_errors(records),
        warnings=tuple(_warnings(records, levels, lag)),
    )


def _level_summary(level: ServiceLevel, records: Sequence[RequestRecord], offered_seconds: float) -> LevelSummary:
    met = sum(record.met for record in records)
    well = [record for record in records if record.outcome is Outcome.OK]
    counts = Counter(record.outcome for record in records)
    return LevelSummary(
        level=level,
        offered=len(records),
        met=met,
        goodput=_rate(met, offered_seconds),
        outcomes={outcome: counts[outcome] for outcome in Outcome if counts[outcome]},
        ttft=spread(record.ttft_seconds for record in records),
        tpot=spread(record.tpot_seconds for record in well),
        completion=spread(record.completion_seconds for record in well),
    )


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else math.nan


def _output(records: Iterable[RequestRecord], outcome: Outcome) -> int:
    return sum(record.output_tokens for record in records if record.outcome is outcome)


def _frequent_errors(records: Iterable[RequestRecord]) -> tuple[tuple[str, int], ...]:
    counts = Counter(f"{record.outcome}: {record.error}" for record in records if record.error)
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN_ERRORS])


def _warnings(records: Sequence[RequestRecord], levels: Sequence[ServiceLevel], lag: Spread) -> Iterable[str]:
    targets = [level.ttft_seconds for level in levels if level.ttft_seconds]
    bound = _LAG_SHARE_OF_TARGET * min(targets) if targets else _LAG_BOUND_SECONDS
    if lag.p99 > bound:
        yield (
            f"the client was overloaded: it sent 1 % of the requests {lag.p99:.3g} s late or more (bound {bound:.3g} s)"
            "; lower --speed or give it a core of its own"
        )
    counted = [record for record in records if record.prompt_tokens]
    wanted = sum(record.input_tokens for record in counted)
    ratio = sum(record.prompt_tokens for record in counted) / wanted if wanted else 1.0
    if abs(ratio - 1) > _TOKEN_SLACK:
        yield f"the server counted {ratio:.2f} x the prompt tokens of the trace: its tokens are not words"
    well = [record for record in records if record.outcome is Outcome.OK]
    other = sum(record.output_tokens != record.wanted_tokens for record in well)
    if other > _TOKEN_SLACK * len(well):
        yield f"{other} of {len(well)} answers have another length than the trace: min_tokens was ignored"
