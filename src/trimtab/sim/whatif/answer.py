"""What the runs answer: replicas, cost and knee of each policy, and how sure that is, in numbers and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np

from trimtab.sim.findings import Table
from trimtab.sim.report.numerals import plain, short
from trimtab.sim.statistics import Estimate, paired_difference, range_of_draws
from trimtab.sim.whatif.draw import BLOCK_SECONDS, stated_errors
from trimtab.sim.whatif.run import GROUPED, WARM_UP
from trimtab.sim.whatif.study import (
    LIKELY,
    SURE,
    Confirmed,
    Question,
    Study,
    chances_of,
    least_enough,
    settings_of,
    values_by_seed,
)

_HOURS = 24.0


@dataclass(frozen=True, slots=True)
class Range:
    """A number over the draws: its mean, and the ends between which a further draw lies with 95 % (see statistics)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """What one policy needs and gives.

    Attributes:
        sure: Least replicas that met the objective in 95 % of the draws, and of fresh ones; None: no number that was
            tried.
        likely: Least replicas that met it in half of them.
        confirmed: How `sure` did on the fresh draws.
        chance: Part of the draws in which the pool's own replicas met the objective.
        attainment: With the pool's own replicas at the load that is asked about, in percent, by level.
        knee: Requests per second up to which the pool's own replicas meet the objective.
        knee_gain: The knee less that of the first policy, within draws, with its 95 % interval; None for the first.
        gpu_hours: Per day, with `sure` replicas.
        price: Per day, with `sure` replicas; NaN without a price.
    """

    policy: str
    sure: int | None
    likely: int | None
    confirmed: Confirmed | None
    chance: float
    attainment: Mapping[str, Range]
    knee: Range
    knee_gain: Estimate | None
    gpu_hours: float
    price: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that is said about a pool."""

    study: Study
    policies: tuple[PolicyAnswer, ...]
    sentences: tuple[str, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]


def answer(study: Study, gpu_hour_price: float | None) -> Answer:
    """Read the tables of a study.

    Args:
        study: What was run.
        gpu_hour_price: What one GPU costs in an hour, in any currency.
    """
    first = _knees(study, study.question.policies[0])
    policies = tuple(_policy(study, name, first, gpu_hour_price) for name in study.question.policies)
    return Answer(study, policies, _sentences(study, policies), _assumptions(study), _warnings(study))


def _policy(study: Study, name: str, first: Mapping[int, float], price: float | None) -> PolicyAnswer:
    case = study.question.case
    chances = chances_of(study.replicas, name)
    confirmed = study.confirmed[name]
    sure = confirmed.replicas if confirmed else None
    knees = _knees(study, name)
    gain = None
    if name != study.question.policies[0]:
        seeds = sorted(knees)
        gain = paired_difference([knees[seed] for seed in seeds], [first[seed] for seed in seeds])
    hours = _HOURS * case.gpus * sure if sure else nan
    return PolicyAnswer(
        policy=name,
        sure=sure,
        likely=least_enough(chances, LIKELY),
        confirmed=confirmed,
        chance=chances.get(case.replicas, nan),
        attainment={level.name: _attained(study, name, f"attainment {level.name}") for level in case.levels},
        knee=range_over(list(knees.values())),
        knee_gain=gain,
        gpu_hours=hours,
        price=hours * price if price is not None else nan,
    )


def _attained(study: Study, policy: str, metric: str) -> Range:
    own = study.question.case.replicas
    values = values_by_seed(study.replicas, policy, metric)
    for place, (count, _) in enumerate(settings_of(study.replicas, "replicas")):
        if int(count) == own and place in values:
            return range_over(list(values[place].values()))
    return Range(nan, nan, nan)


def _knees(study: Study, policy: str) -> dict[int, float]:
    """Return by seed the requests per second at which a policy stops meeting the objective, between two loads."""
    spare = values_by_seed(study.loads, policy, "spare")
    rates = [rate for rate, _ in settings_of(study.loads, "requests_per_second")]
    seeds = sorted({seed for values in spare.values() for seed in values})
    return {seed: _crossing(rates, [spare[place].get(seed, nan) for place in range(len(rates))]) for seed in seeds}


def _crossing(rates: Sequence[float], spare: Sequence[float]) -> float:
    """Return where a line through the points first falls below 0: 0 if from the start, the last point if nowhere."""
    if spare[0] < 0:
        return 0.0
    for place in range(1, len(rates)):
        if spare[place] < 0:
            part = spare[place - 1] / (spare[place - 1] - spare[place])
            return rates[place - 1] + part * (rates[place] - rates[place - 1])
    return rates[-1]


def range_over(values: Sequence[float]) -> Range:
    """Summarize a number that every draw has."""
    return Range(float(np.mean(values)), *range_of_draws(values))


def _sentences(study: Study, policies: Sequence[PolicyAnswer]) -> tuple[str, ...]:
    said = [
        _replicas_sentence(study, policies[0]),
        _own_sentence(study, policies[0]),
        _knee_sentence(study, policies[0]),
    ]
    if len(policies) > 1:
        said.append(_comparison(policies))
    return tuple(said)


def _replicas_sentence(study: Study, own: PolicyAnswer) -> str:
    rate, case = short(study.rate), study.question.case
    if own.sure is None or own.confirmed is None:
        return (
            f"No number of replicas that was tried meets the objective at {rate} requests/s under {own.policy} in "
            f"{SURE:.0%} of the draws: even a replica with little to do is too slow for some target. "
            "Relax the target, or choose a faster engine."
        )
    low, high = own.confirmed.share.low, own.confirmed.share.high
    text = (
        f"{_count(own.sure)} enough for {rate} requests/s under {own.policy}: on fresh draws the objective was met in "
        f"{own.confirmed.met} of {own.confirmed.share.n} (95 % interval of that share: {low:.0%} to {high:.0%})."
    )
    if own.likely is not None and own.likely < own.sure:
        text += f" {_count(own.likely)} more likely enough than not, but not safe."
    gpus = own.sure * case.gpus
    return f"{text} That is {gpus} GPU{'s' if gpus > 1 else ''}, {short(own.gpu_hours)} GPU-hours a day."


def _count(replicas: int) -> str:
    return f"{replicas} replicas are" if replicas > 1 else "1 replica is"


def _own_sentence(study: Study, own: PolicyAnswer) -> str:
    case = study.question.case
    draws = round(own.chance * study.question.seeds)
    parts = [
        f"{level.name} {plain(reached.mean, 1)} % [{plain(reached.low, 1)}, {plain(reached.high, 1)}]"
        for level in case.levels
        if isfinite((reached := own.attainment[level.name]).mean)
    ]
    replicas = f"{case.replicas} replica{'s' if case.replicas > 1 else ''}"
    return (
        f"With {replicas} the objective was met in {draws} of {study.question.seeds} draws; attainment "
        f"[95 % range of draws]: {', '.join(parts)}."
    )


def _knee_sentence(study: Study, own: PolicyAnswer) -> str:
    case = study.question.case
    replicas = f"{case.replicas} replica{'s' if case.replicas > 1 else ''}"
    if not own.knee.high:
        return f"With {replicas} the objective was met at no load that was tried, the lowest included."
    room = own.knee.mean / study.rate
    verdict = f"{short(room, 2)} times the load asked about" if room >= 1 else "below the load asked about"
    return (
        f"{replicas} hold{'' if case.replicas > 1 else 's'} the objective up to {short(own.knee.mean)} requests/s "
        f"[{short(own.knee.low)}, {short(own.knee.high)}] under {own.policy}: {verdict}."
    )


def _comparison(policies: Sequence[PolicyAnswer]) -> str:
    own = policies[0]
    said = []
    for other in policies[1:]:
        gain = other.knee_gain
        if gain is None or not gain.excludes(0.0):
            said.append(f"{other.policy} cannot be told apart from {own.policy} at the knee")
            continue
        word = "more" if gain.mean > 0 else "fewer"
        low, high = sorted((abs(gain.low), abs(gain.high)))
        interval = f"95 % interval {short(low, 2)} to {short(high, 2)}"
        said.append(f"{other.policy} holds {short(abs(gain.mean), 2)} requests/s {word} ({interval})")
    fewer = [other.policy for other in policies[1:] if other.sure and own.sure and other.sure < own.sure]
    saved = f"{' and '.join(fewer)} need fewer replicas" if fewer else "no other policy saves a replica at this load"
    return f"Policies: {'; '.join(said)}; {saved}."


def _assumptions(study: Study) -> tuple[str, ...]:
    question, case = study.question, study.question.case
    iteration, front = stated_errors(case.profile)
    replicas_seconds, loads_seconds = study.seconds
    shares = ", ".join(f"{level.name} {level.share:.0%} ({level.described})" for level in case.levels)
    return (
        (
            f"Each draw takes stretches of {BLOCK_SECONDS:g} s of the trace {question.trace} in random order, so that "
            "bursts and lengths vary as the recording does. It says nothing of days unlike the recording."
        ),
        (
            f"Each draw makes the engine faster or slower by a random factor, median error {iteration:.0%} for "
            f"iterations and {front:.0%} for the front end: what the profile states, else what is assumed."
        ),
        (
            f"Requests arrive for {replicas_seconds:g} s (replicas) and {loads_seconds:g} s (loads); the first "
            f"{WARM_UP:.0%} are not judged. What waits longer than {case.bounds.max_waiting_seconds:g} s is refused; "
            "refused requests count as missed. Above the knee the numbers depend on how long the overload lasts."
        ),
        f"Requests by level: {shares}.",
        (
            f"A replica gets at most {case.capacity} requests at once from the gateway; the engine batches up to "
            f"{case.config.max_num_seqs}, {case.config.max_num_batched_tokens} tokens an iteration."
        ),
        *_predictions(study),
        *_groups(study),
    )


def _predictions(study: Study) -> tuple[str, ...]:
    seen = study.foresight
    if seen is None:
        return ()
    text = (
        f"SSJF uses the shipped length predictor (Kendall's tau {seen.tau:.2f} on requests new to it). "
        f"The drift guard trusted it for {seen.trusted:.0%} of requests; others count as of typical length."
    )
    if seen.substituted:
        text += " Requests that it was trained on got later predictions, of answers about as long."
    return (text,)


def _groups(study: Study) -> tuple[str, ...]:
    if GROUPED not in study.question.policies:
        return ()
    return (
        (
            "QLM plans groups of requests. Who waited longer than the pool allows counts as refused, but was served. "
            "It knows deadlines of first tokens, not of whole answers where a level has both."
        ),
    )


def _warnings(study: Study) -> tuple[str, ...]:
    case = study.question.case
    left_out = f"{study.too_long:.1%} of the trace's requests are longer than the engine's {case.longest} tokens"
    long = (f"{left_out}; they are left out",) if study.too_long else ()
    return (*case.warnings, *long)


def answer_values(found: Answer) -> dict[str, Any]:
    """Return the answer for JSON."""
    study, case = found.study, found.study.question.case
    return {
        "pool": case.name,
        "model": case.model,
        "profile": case.profile_name,
        "trace": study.question.trace,
        "requests_per_second": study.rate,
        "draws": study.question.seeds,
        "replicas": case.replicas,
        "gpus_per_replica": case.gpus,
        "answer": found.sentences,
        "policies": [_policy_values(policy) for policy in found.policies],
        "warnings": found.warnings,
        "assumptions": found.assumptions,
        "by_replicas": _rows(study.question, study.replicas, "replicas"),
        "by_load": _rows(study.question, study.loads, "requests_per_second"),
    }


def _policy_values(policy: PolicyAnswer) -> dict[str, Any]:
    return {
        "policy": policy.policy,
        "replicas_sure": policy.sure,
        "replicas_likely": policy.likely,
        "confirmed": policy.confirmed
        and {
            "draws": policy.confirmed.share.n,
            "met": policy.confirmed.met,
            "share_low": policy.confirmed.share.low,
            "share_high": policy.confirmed.share.high,
        },
        "chance_with_own_replicas": policy.chance,
        "attainment": {name: range_values(reached) for name, reached in policy.attainment.items()},
        "knee_requests_per_second": range_values(policy.knee),
        "knee_gain": policy.knee_gain
        and {"mean": policy.knee_gain.mean, "low": policy.knee_gain.low, "high": policy.knee_gain.high},
        "gpu_hours_per_day": policy.gpu_hours,
        "price_per_day": policy.price,
    }


def range_values(found: Range) -> dict[str, float]:
    """Return a range for JSON."""
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _rows(question: Question, table: Table, column: str) -> list[dict[str, Any]]:
    rows = []
    for place, (value, _) in enumerate(settings_of(table, column)):
        for policy in table.policies:
            row: dict[str, Any] = {column: value, "policy": policy}
            for metric in ("attainment", *(f"attainment {level.name}" for level in question.case.levels), "goodput"):
                row[metric] = range_values(range_over(list(values_by_seed(table, policy, metric)[place].values())))
            met = values_by_seed(table, policy, "objective met")[place]
            rows.append({**row, "objective_met_in": float(np.mean(list(met.values())))})
    return rows
