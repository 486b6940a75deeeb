"""The gateway's gauges of pools and engines, read from the pools themselves."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class PoolState:
    """What the gauges of one pool show.

    Attributes:
        name: the pool.
        in_flight: requests that its engines work on.
        waiting: requests that wait for a place.
        ready_capacity: requests that its ready engines may carry at once.
        endpoints: its engines, and whether each may get requests.
    """

    name: str
    in_flight: int
    waiting: int
    ready_capacity: int
    endpoints: tuple[tuple[str, bool], ...]


class PoolGauges(Collector):
    """Makes the gauges of all pools at each scrape: between scrapes a pool costs nothing, and a gone one leaves none.

    Attributes:
        read: returns all pools; the thread that scrapes calls it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.read: Callable[[], Iterable[PoolState]] = tuple
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the current state of all pools."""
        in_flight, waiting, capacity, up = families = self.describe()
        for pool in self.read():
            in_flight.add_metric([pool.name], pool.in_flight)
            waiting.add_metric([pool.name], pool.waiting)
            capacity.add_metric([pool.name], pool.ready_capacity)
            for endpoint, ready in pool.endpoints:
                up.add_metric([pool.name, endpoint], ready)
        return families

    def describe(self) -> list[GaugeMetricFamily]:
        """Return the names alone, so that a registry can refuse a second metric of the same name."""
        return [
            GaugeMetricFamily("trimtab_gateway_in_flight", "Requests that engines work on.", labels=["pool"]),
            GaugeMetricFamily("trimtab_gateway_waiting", "Requests that wait for a place.", labels=["pool"]),
            GaugeMetricFamily(
                "trimtab_gateway_ready_capacity",
                "Requests that the ready engines may carry at once.",
                labels=["pool"],
            ),
            GaugeMetricFamily(
                "trimtab_gateway_endpoint_up",
                "1 while an engine may get requests, 0 while it is not ready or has failed.",
                labels=["pool", "endpoint"],
            ),
        ]
