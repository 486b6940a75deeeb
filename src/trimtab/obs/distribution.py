"""Histograms for hot paths: one bisection for each value instead of a comparison and a lock for each bucket."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Distribution:
    """How often values fell into each bucket. One thread may observe; any thread may read, a value or so behind."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value, in the first bucket whose bound is not below it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> tuple[Iterable[float], float]:
        """Return how many values are up to each bound, infinity included, and the sum."""
        return map(float, accumulate(self._counts)), self._sum


class Distributions(Collector):
    """A family of distributions under one metric name, one for each combination of labels.

    `prometheus_client.Histogram` has the same `labels(...).observe(...)` and takes four times as long.

    Args:
        name: the metric's name, with its unit.
        documentation: what it says, in one sentence.
        labels: names of the labels.
        buckets: upper bounds, ascending, without infinity.
        registry: where it is collected from.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        buckets: Iterable[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._bounds = tuple(float(bound) for bound in buckets)
        assert list(self._bounds) == sorted(set(self._bounds)), "bounds ascend"
        self._bound_names = [floatToGoString(bound) for bound in (*self._bounds, inf)]  # type: ignore[no-untyped-call]
        self._children: dict[tuple[str, ...], Distribution] = {}
        registry.register(self)

    def labels(self, *values: str) -> Distribution:
        """Return the distribution of these label values; keep it where it is used often."""
        assert len(values) == len(self._labels), f"{self._name} has the labels {self._labels}"
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Distribution(self._bounds)
        return child

    def remove(self, *values: str) -> None:
        """Forget the distribution of these label values, if there is one."""
        self._children.pop(values, None)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return the current state of all distributions, for a scrape."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, child in sorted(self._children.copy().items()):
            counts, total = child.read()
            family.add_metric(values, list(zip(self._bound_names, counts, strict=True)), total)
        return [family]

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Return the name alone, so that a registry can refuse a second metric of the same name."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=self._labels)]
