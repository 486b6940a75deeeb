"""Training of length predictors: gradient boosting with scikit-learn, left behind as plain numbers.

What is learned is the factor between a request's length and what requests like it did lately, from several services at
once; see `trimtab.decide.queueing.length_ladder`. Requests that were cut off are no examples: their true length is not
known. Prompts go through the features and are forgotten; the weights hold numbers only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import ceil, exp, log, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.decide.queueing.length_boosted import FORMAT, HEADS, Boosted, Encoder, columns_of, row_of
from trimtab.decide.queueing.length_ladder import Ladder, View
from trimtab.decide.queueing.length_text import truncate
from trimtab.decide.queueing.length_trees import forest_from
from trimtab.decide.queueing.lengths import Example
from trimtab.learn.length_parts import Parts, parts_of
from trimtab.learn.length_replay import foresee, in_time
from trimtab.learn.length_scores import Scores, score
from trimtab.model.problem import Problem

LEAST_EXAMPLES = 200
"""Requests of known length without which nothing is trained, and half of them without which nothing is calibrated."""

_LEVEL = 0.9
TREES = 80
"""Trees of each head."""

_LEAVES, _RATE, _L2 = 8, 0.08, 1.0
_LEAF_SHARE, _SMALLEST_LEAF, _LARGEST_LEAF = 40, 20, 100
_RIDGE = 10.0
_TEXT_GROUPS = frozenset({"lexical", "embedding"})

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Source:
    """Requests of one service, to train from or to judge by.

    Attributes:
        name: what people call it.
        examples: sorted by arrival.
        about: where they come from and under which licence, for the weights' own record.
    """

    name: str
    examples: Sequence[Example]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A fingerprint of arrivals and token counts, by which weights tell what they have seen; never of text."""
        state = blake2b(digest_size=8)
        for example in self.examples:
            request, outcome = example.request, example.outcome
            state.update(f"{request.arrived_at!r} {request.input_tokens} {outcome.tokens}\n".encode())
        return state.hexdigest()


@dataclass(frozen=True, slots=True)
class _Table:
    """One source as numbers: shape (requests, columns), and the logarithms of base and true length."""

    rows: Floats
    base: Floats
    length: Floats


def train(
    sources: Sequence[Source],
    groups: Sequence[str],
    *,
    name: str,
    encoder: Encoder | None = None,
    trees: int = TREES,
) -> dict[str, Any]:
    """Train on the earliest part of every source, calibrate on the next, judge by the latest.

    Args:
        sources: at least one.
        groups: which features, of `GROUPS`.
        name: what predictions made with these weights are marked with.
        encoder: for the group "embedding".
        trees: of each head.

    Returns:
        The weights, as plain JSON, with where they come from and how they did on what they had not seen.

    Raises:
        Problem: too few examples, or prompts that are missing.
    """
    _check_text(sources, groups)
    parts = {source.name: parts_of(source.examples) for source in sources}
    seen = [_exact(source, parts[source.name].train) for source in sources]
    later = [_exact(source, parts[source.name].calibrate) for source in sources]
    _check_size("train", sum(map(len, seen)), LEAST_EXAMPLES)
    _check_size("calibrate", sum(map(len, later)), LEAST_EXAMPLES // 2)
    lengths = [log(s.examples[i].outcome.tokens) for s, known in zip(sources, seen, strict=True) for i in known]
    start = float(np.median(lengths))
    embedding = _train_head(sources, seen, start, encoder) if "embedding" in groups and encoder else None
    tables = [_table(source, groups, start, encoder, embedding) for source in sources]
    fit_rows = [known[len(known) // 2 :] if embedding else known for known in seen]
    heads = _fit_heads(_stack(tables, fit_rows), trees)
    weights: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "groups": list(groups),
        "columns": list(columns_of(groups)),
        "start_level": start,
        "p90_shift": _conformal_shift(heads["p90"], _stack(tables, later)),
        "embedding": embedding,
        "heads": heads,
    }
    weights["provenance"] = [_provenance(source, parts[source.name], weights, encoder) for source in sources]
    return weights


def _check_text(sources: Sequence[Source], groups: Sequence[str]) -> None:
    needing = sorted(_TEXT_GROUPS.intersection(groups))
    for source in sources if needing else ():
        missing = sum(example.request.text is None for example in source.examples)
        if missing:
            what = f"{source.name}: {missing} of {len(source.examples)} requests have no text"
            fix = f"log the prompts in a column `text`, or train without --features {','.join(needing)}"
            raise Problem(what, fix=fix)


def _check_size(purpose: str, found: int, least: int) -> None:
    if found < least:
        what = f"{found} requests of known length to {purpose} on, of at least {least}"
        raise Problem(what, fix="give a longer log; requests that were cut off at a limit or aborted do not count")


def _exact(source: Source, part: Sequence[int]) -> list[int]:
    outcomes = [source.examples[index].outcome for index in part]
    return [index for index, outcome in zip(part, outcomes, strict=True) if outcome.exact and outcome.tokens >= 1]


def views_of(examples: Sequence[Example], start: float) -> list[View]:
    """Return what the history said of each request at its arrival."""
    ladder = Ladder(start)
    return list(
        in_time(
            examples,
            lambda example: ladder.look(example.request),
            lambda example, _: ladder.add(example.request, example.outcome),
        )
    )


def _table(
    source: Source, groups: Sequence[str], start: float, encoder: Encoder | None, embedding: Mapping[str, Any] | None
) -> _Table:
    views = views_of(source.examples, start)
    scores = [nan] * len(views)
    if embedding is not None and encoder is not None:
        scores = (_vectors(source.examples, encoder) @ np.array(embedding["weights"]) + embedding["bias"]).tolist()
    triples = zip(source.examples, views, scores, strict=True)
    rows = [row_of(example.request, view.columns, groups, score) for example, view, score in triples]
    return _Table(
        rows=np.array(rows, dtype=np.float64).reshape(len(rows), len(columns_of(groups))),
        base=np.array([view.base for view in views]),
        length=np.log([max(1, example.outcome.tokens) for example in source.examples]),
    )


def _stack(tables: Sequence[_Table], known: Sequence[Sequence[int]]) -> _Table:
    pairs = [(table, np.array(indices, dtype=np.intp)) for table, indices in zip(tables, known, strict=True)]
    return _Table(
        rows=np.concatenate([table.rows[indices] for table, indices in pairs]),
        base=np.concatenate([table.base[indices] for table, indices in pairs]),
        length=np.concatenate([table.length[indices] for table, indices in pairs]),
    )


def _fit_heads(table: _Table, trees: int) -> dict[str, Any]:
    """Fit the quantiles of the logarithm of the factor, and its mean so that tokens, not factors, come out right.

    One thread: the sums are then the same on every machine, and on a busy one training is not slowed by waiting.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with scikit-learn

    factor = table.length - table.base
    scale = np.exp(table.base)
    rows = np.where(np.isnan(table.rows).all(axis=0), 0.0, table.rows)  # what is never known cannot be cut into bins
    with threadpool_limits(limits=1):
        heads = {
            "p50": _boosting(len(factor), trees, loss="quantile", quantile=0.5).fit(rows, factor),
            "p90": _boosting(len(factor), trees, loss="quantile", quantile=_LEVEL).fit(rows, factor),
            "mean": _boosting(len(factor), trees, loss="poisson").fit(
                rows, np.exp(factor), sample_weight=scale / scale.mean()
            ),
        }
    return {name: plain_ensemble(heads[name]) for name in HEADS}


def _boosting(examples: int, trees: int, **loss: Any) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 - an extra, needed to train only

    return HistGradientBoostingRegressor(
        **loss,
        max_iter=trees,
        learning_rate=_RATE,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=max(_SMALLEST_LEAF, min(_LARGEST_LEAF, examples // _LEAF_SHARE)),
        l2_regularization=_L2,
        early_stopping=False,
        random_state=0,
    )


def plain_ensemble(model: Any) -> dict[str, Any]:
    """Return a fitted `HistGradientBoostingRegressor` as plain lists.

    scikit-learn has no public way to the nodes; a test compares what `Forest` makes of them with the model itself.
    """
    return {
        "baseline": float(np.ravel(model._baseline_prediction)[0]),  # noqa: SLF001 - see above
        "trees": [_plain_tree(tree.nodes) for (tree,) in model._predictors],  # noqa: SLF001 - see above
    }


def _plain_tree(nodes: Any) -> dict[str, list[Any]]:
    leaf = nodes["is_leaf"].astype(bool)
    itself = np.arange(len(nodes))
    return {
        "feature": np.where(leaf, 0, nodes["feature_idx"]).tolist(),
        "threshold": np.where(leaf, 0.0, nodes["num_threshold"]).tolist(),
        "missing_left": np.where(leaf, 0, nodes["missing_go_to_left"]).tolist(),
        "left": np.where(leaf, itself, nodes["left"]).tolist(),
        "right": np.where(leaf, itself, nodes["right"]).tolist(),
        "value": np.where(leaf, nodes["value"], 0.0).tolist(),
    }


def _conformal_shift(head: Mapping[str, Any], table: _Table) -> float:
    """Return what to add to the logarithm of p90 so that it covers 90 % of answers it was not fitted to.

    Split conformal prediction (conformalized quantile regression, Romano and others 2019), one-sided: the
    ceil((n + 1) x 0.9)-th smallest excess over the fitted quantile.
    """
    fitted = table.base + forest_from([head], table.rows.shape[1]).evaluate(table.rows)[:, 0]
    excess = np.sort(table.length - fitted)
    return float(excess[min(len(excess), ceil((len(excess) + 1) * _LEVEL)) - 1])


def _vectors(examples: Sequence[Example], encoder: Encoder) -> Floats:
    return np.asarray(encoder([truncate(example.request.text or "") for example in examples]), dtype=np.float64)


def _train_head(
    sources: Sequence[Source], seen: Sequence[Sequence[int]], start: float, encoder: Encoder
) -> dict[str, Any]:
    """Fit a linear head on the first half of what trains; the trees learn on the other half how far to trust it."""
    from sklearn.linear_model import Ridge  # noqa: PLC0415 - an extra, needed to train only

    vectors, factors = [], []
    for source, known in zip(sources, seen, strict=True):
        views = views_of(source.examples, start)
        half = known[: len(known) // 2]
        vectors.append(_vectors([source.examples[index] for index in half], encoder))
        factors += [log(source.examples[index].outcome.tokens) - views[index].base for index in half]
    model = Ridge(alpha=_RIDGE).fit(np.concatenate(vectors), np.array(factors))
    return {"weights": model.coef_.tolist(), "bias": float(model.intercept_)}


def _provenance(source: Source, parts: Parts, weights: Mapping[str, Any], encoder: Encoder | None) -> dict[str, Any]:
    held_out = judge(source, weights, encoder, parts.judge)
    counts = {"train": len(parts.train), "calibrate": len(parts.calibrate), "judge": len(parts.judge)}
    times = {
        name: round(source.examples[indices[0]].request.arrived_at, 3)
        for name, indices in (("train", parts.train), ("calibrate", parts.calibrate), ("judge", parts.judge))
        if indices
    }
    return {
        "name": source.name,
        **source.about,
        "digest": source.digest,
        "split": "by time; a conversation only where it began",
        "requests": counts | {"left_out": parts.left_out},
        "first_arrival_seconds": times,
        "held_out": held_out.fields(),
    }


def judge(source: Source, weights: Mapping[str, Any], encoder: Encoder | None, part: Sequence[int]) -> Scores:
    """Judge weights on some requests of a source, after a history of all that ended before each."""
    return score(source.examples, foresee(Boosted(weights, encoder), source.examples), part)


def typical_tokens(examples: Sequence[Example], part: Sequence[int]) -> tuple[float, float, float]:
    """Return median, 90th percentile and mean of the known lengths of some requests; what a constant predicts."""
    tokens = [examples[index].outcome.tokens for index in part if examples[index].outcome.exact]
    if not tokens:
        return exp(log(256.0)), 512.0, 256.0
    return float(np.median(tokens)), float(np.quantile(tokens, _LEVEL)), float(np.mean(tokens))
