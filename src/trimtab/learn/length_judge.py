"""Weights beside simpler predictors, on requests that they were not trained on, and what must be said about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.decide.queueing.length_boosted import Boosted, Encoder
from trimtab.decide.queueing.length_history import TenantHistory
from trimtab.decide.queueing.lengths import Constant, Guarded, LengthPredictor, Prediction
from trimtab.learn.length_parts import parts_of
from trimtab.learn.length_replay import foresee
from trimtab.learn.length_scores import Scores, score
from trimtab.learn.lengths import Source, typical_tokens
from trimtab.model.problem import Problem

LEAST_JUDGED = 100
"""Requests of known length below which figures say nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One predictor on one source.

    Attributes:
        source: the source's name.
        predictor: the predictor's version.
        scores: how it did.
        fallbacks: share of predictions that its fallback made; 0 for those that have none.
        notes: what must be known to read the figures, one sentence each.
    """

    source: str
    predictor: str
    scores: Scores
    fallbacks: float
    notes: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "source": self.source,
            "predictor": self.predictor,
            **self.scores.fields(),
            "fallback_share": round(self.fallbacks, 4),
            "notes": list(self.notes),
        }


def judge_all(
    sources: Sequence[Source], weights: Mapping[str, Any], encoder: Encoder | None, *, whole: bool
) -> tuple[list[Judgement], list[dict[str, str]]]:
    """Judge a constant, the history of tenants and the weights on every source.

    Args:
        sources: each with a history of its own.
        weights: as `train` left them.
        encoder: what they need for prompts.
        whole: judge by all requests rather than by the last 20 %.

    Returns:
        The judgements, and for each source that could not be judged its name and the reason.

    Raises:
        Problem: the weights are damaged or need an encoder.
    """
    trained = _trained_on(weights)
    judgements: list[Judgement] = []
    skipped: list[dict[str, str]] = []
    for source in sources:
        part = range(len(source.examples)) if whole else parts_of(source.examples).judge
        known = sum(source.examples[index].outcome.exact for index in part)
        if known < LEAST_JUDGED:
            reason = f"{known} requests of known length to judge by, of at least {LEAST_JUDGED}"
            skipped.append({"source": source.name, "reason": reason})
            continue
        notes = _notes(source, trained, whole=whole)
        makers = _predictors(source, weights, encoder, whole=whole)
        judgements += [_judge(source, make, part, notes) for make in makers]
    return judgements, skipped


def _predictors(
    source: Source, weights: Mapping[str, Any], encoder: Encoder | None, *, whole: bool
) -> list[Callable[[], LengthPredictor]]:
    parts = parts_of(source.examples)
    earlier = () if whole else (*parts.train, *parts.calibrate)
    typical = Constant(Prediction(*typical_tokens(source.examples, earlier)))

    def trained() -> LengthPredictor:
        try:
            return Guarded(Boosted(weights, encoder), TenantHistory())
        except (ValueError, LookupError, TypeError) as error:
            fix = "train weights with `trimtab predictor train`, and name their --encoder where they have one"
            raise Problem(f"weights: {error}", fix=fix) from error

    return [lambda: typical, TenantHistory, trained]


def _judge(
    source: Source, make: Callable[[], LengthPredictor], part: Sequence[int], notes: tuple[str, ...]
) -> Judgement:
    predictor = make()
    scores = score(source.examples, foresee(predictor, source.examples), part)
    fallbacks = predictor.fallbacks if isinstance(predictor, Guarded) else 0
    return Judgement(source.name, predictor.version, scores, fallbacks / max(1, len(source.examples)), notes)


def _trained_on(weights: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(source.get("digest")) for source in weights.get("provenance", ()))


def _notes(source: Source, trained: frozenset[str], *, whole: bool) -> tuple[str, ...]:
    notes = []
    if source.digest in trained:
        seen = (
            "the figures include requests that the weights were trained on" if whole else "trained on its earlier 80 %"
        )
        notes.append(f"{source.name}: {seen}")
    else:
        notes.append(f"{source.name}: not trained on it")
    if "drawn" in source.about:
        notes.append(f"{source.name}: drawn ({source.about['drawn']}); only who sends says something about a length")
    if "pace" in source.about:
        notes.append(f"{source.name}: ends are not recorded; taken as arrival + {source.about['pace']} of the answer")
    return tuple(notes)
