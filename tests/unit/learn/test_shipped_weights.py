"""The weights that ship, on the traces that can be had."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from trimtab.decide.queueing.lengths import Example, Features, Outcome
from trimtab.learn.length_judge import Judgement, judge_all
from trimtab.learn.lengths import Source
from trimtab.learn.shipped import SHIPPED, predictor_from, read_weights
from trimtab.sim.foreseen import held_out
from trimtab.workload.catalog import Entry, find_traces
from trimtab.workload.length_log import examples_of
from trimtab.workload.length_sources import recorded

REPOSITORY = Path(__file__).parents[3]


def data_folder() -> Path | None:
    folder = Path(os.environ.get("TRIMTAB_DATA", REPOSITORY.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


@cache
def found() -> tuple[Entry, ...]:
    return tuple(find_traces(data_folder()).entries.values())


@cache
def sources(form: str) -> tuple[Source, ...]:
    """Traces of a format on whose earlier part the weights were trained; figures of others are not known beforehand."""
    known = {source["digest"] for source in read_weights()["provenance"]}
    entries = [entry for entry in found() if entry.format.name == form]
    read = [Source(entry.name, examples_of(recorded(entry))) for entry in entries]
    return tuple(source for source in read if source.digest in known)


@cache
def judged(form: str) -> list[dict[str, Judgement]]:
    judgements, skipped = judge_all(sources(form), read_weights(), None, whole=False)
    assert not skipped
    return [{one.predictor: one for one in judgements if one.source == source.name} for source in sources(form)]


def test_azure_conversations_are_ranked_well_enough() -> None:
    assert sources("azure"), "the trace that ships is one that the weights were trained on"
    for predictors in judged("azure"):
        trained = predictors["lengths"].scores
        assert trained.tau >= 0.5
        assert 0.87 <= trained.coverage_p90 <= 0.93
        assert (trained.order, trained.ssjf_share) == ("ssjf", 1.0)
        assert trained.pinball_p50 < 0.5 * predictors["tenant-history"].scores.pinball_p50


def test_mooncake_conversations_fall_back_to_first_come_first_served() -> None:
    if not sources("mooncake"):
        pytest.skip("no Mooncake trace in the data folder")
    for predictors in judged("mooncake"):
        for judgement in predictors.values():
            assert judgement.scores.tau < 0.3
            assert (judgement.scores.order, judgement.scores.ssjf_share) == ("fcfs", 0.0)


def test_lengths_that_nothing_predicts_fall_back_to_first_come_first_served() -> None:
    rng = np.random.default_rng(11)
    sizes, lengths = rng.integers(1, 20_000, 2_500), np.exp(rng.normal(5.5, 0.8, 2_500)).astype(int) + 1
    examples = [
        Example(Features(int(size), arrived_at=float(at)), Outcome(int(tokens), ended_at=at + 2.0))
        for at, (size, tokens) in enumerate(zip(sizes, lengths, strict=True))
    ]
    judgements, _ = judge_all([Source("noise", examples)], read_weights(), None, whole=True)
    trained = judgements[-1].scores
    assert abs(trained.tau) < 0.1
    assert (trained.order, trained.ssjf_share) == ("fcfs", 0.0)
    assert 0.86 <= trained.coverage_p90 <= 0.94


def test_the_weights_say_where_they_come_from() -> None:
    weights = read_weights()
    assert weights["made_by"].startswith("trimtab predictor train --trace ")
    assert SHIPPED.stat().st_size < 200_000
    for source in weights["provenance"]:
        assert source["licence"].split()[0].rstrip(".") in {"CC-BY-4.0", "Apache-2.0"}
        assert source["source"]
        assert source["held_out"]["requests"] == source["requests"]["judge"]
        assert "/" not in source["file"]


def test_held_out_figures_in_the_weights_are_those_that_judging_gives() -> None:
    recorded_figures = {source["digest"]: source["held_out"] for source in read_weights()["provenance"]}
    for source, predictors in zip(sources("azure"), judged("azure"), strict=True):
        assert predictors["lengths"].scores.fields() == recorded_figures[source.digest]


def test_experiments_get_true_lengths_with_real_errors() -> None:
    trace = recorded(find_traces().find("azure-conv")).window(0.0, 300.0)
    pairs = held_out(trace)
    assert len(pairs) == round(0.2 * len(trace.requests))
    assert [pair.arrived_at for pair in pairs] == sorted(pair.arrived_at for pair in pairs)
    off = [abs(pair.prediction.p50 - pair.tokens) for pair in pairs]
    assert 20.0 < sum(off) / len(off) < 80.0


def test_a_prediction_costs_less_than_the_budget() -> None:
    """One micro-batch of 32 within the 20 ms after which a fallback answers, with a wide margin: the best of many."""
    from time import perf_counter

    predictor = predictor_from()
    for size in range(1, 500):
        predictor.observe(Features(size), Outcome(size))
    batch = [Features(size) for size in range(100, 132)]
    took = []
    for _ in range(30):
        began = perf_counter()
        predictor.predict(batch)
        took.append(perf_counter() - began)
    assert min(took) < 0.010
