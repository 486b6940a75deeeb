"""The fast histograms say exactly what prometheus_client's say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from trimtab.obs.distribution import Distributions

BUCKETS = (0.001, 0.5, 1, 2.5)


def text(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 4) | st.sampled_from(BUCKETS))))
def test_a_scrape_reads_as_from_the_original(values: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    fast = Distributions("x_seconds", "What it is.", ["pool"], buckets=BUCKETS, registry=ours)
    slow = Histogram("x_seconds", "What it is.", ["pool"], buckets=BUCKETS, registry=theirs)
    for pool in sorted({pool for pool, _ in values}):
        slow.labels(pool)
    for pool, value in values:
        fast.labels(pool).observe(value)
        slow.labels(pool).observe(value)
    assert text(ours) == text(theirs)


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry()
    Distributions("x_seconds", "X.", [], buckets=BUCKETS, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Distributions("x_seconds", "X.", [], buckets=BUCKETS, registry=registry)


def test_labels_must_fit() -> None:
    fast = Distributions("x_seconds", "X.", ["pool"], buckets=BUCKETS, registry=CollectorRegistry())
    with pytest.raises(AssertionError, match="labels"):
        fast.labels("a", "b")


@pytest.mark.parametrize("buckets", [(2, 1), (1, 1)])
def test_bounds_must_ascend(buckets: tuple[float, ...]) -> None:
    with pytest.raises(AssertionError, match="ascend"):
        Distributions("x_seconds", "X.", [], buckets=buckets, registry=CollectorRegistry())
