"""The engines of a pool, as a queue sees them: how many requests each one carries and may carry."""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

_SLACK = 64  # outdated entries tolerated in the heap before it is rebuilt


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One engine.

    Attributes:
        name: unique in its pool; ties between equally loaded engines go to the lowest name.
        capacity: how many requests it may carry at once, at least 1.
        ready: whether it may get new requests; false while it starts, drains or fails.
    """

    name: str
    capacity: int
    ready: bool = True


class _Load:
    """An endpoint with the number of requests that it carries."""

    __slots__ = ("endpoint", "in_flight", "listed")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self.listed = True

    @property
    def has_room(self) -> bool:
        return self.listed and self.endpoint.ready and self.in_flight < self.endpoint.capacity

    @property
    def ratio(self) -> float:
        return self.in_flight / self.endpoint.capacity


class Fleet:
    """Endpoints with their loads; finding the least loaded one costs O(log n) amortized.

    The heap holds an entry for each load that an endpoint with room had; entries that no longer tell the truth are
    dropped when they surface.
    """

    __slots__ = ("_heap", "_loads", "ready_capacity", "total_in_flight")

    def __init__(self) -> None:
        self._loads: dict[str, _Load] = {}
        self._heap: list[tuple[float, str]] = []
        self.ready_capacity = 0
        """Requests that all ready endpoints may carry together."""
        self.total_in_flight = 0
        """Requests that all endpoints carry, those that left the pool with open requests included."""

    def in_flight(self, name: str) -> int:
        """Return how many requests an endpoint carries; 0 when it is unknown."""
        load = self._loads.get(name)
        return load.in_flight if load else 0

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the endpoints that belong to the pool, by name."""
        return tuple(load.endpoint for _, load in sorted(self._loads.items()) if load.listed)

    def replace(self, endpoints: Iterable[Endpoint]) -> None:
        """Set the endpoints of the pool. One that left keeps its open requests but gets no new ones."""
        wanted = {endpoint.name: endpoint for endpoint in endpoints}
        for name, load in list(self._loads.items()):
            if name not in wanted:
                load.listed = False
                self._forget_if_done(name, load)
        for name, endpoint in wanted.items():
            load = self._loads.setdefault(name, _Load(endpoint))
            load.endpoint, load.listed = endpoint, True
        self._rebuild()

    def update(self, endpoint: Endpoint) -> None:
        """Change one endpoint of the pool, e.g. its readiness; one that does not belong to the pool is left alone."""
        load = self._loads.get(endpoint.name)
        if load is None or not load.listed or load.endpoint == endpoint:
            return
        load.endpoint = endpoint
        self._rebuild()

    def least_loaded(self) -> str | None:
        """Return the ready endpoint with the lowest share of its capacity in use, or None when none has room."""
        while self._heap:
            ratio, name = self._heap[0]
            load = self._loads.get(name)
            if load is not None and load.has_room and load.ratio == ratio:
                return name
            heappop(self._heap)
        return None

    def take(self, name: str) -> None:
        """Count one more request on an endpoint that has room."""
        load = self._loads[name]
        assert load.has_room, "only an endpoint with room takes a request"
        load.in_flight += 1
        self.total_in_flight += 1
        self._enter(name, load)

    def give_back(self, name: str) -> None:
        """Count one request less on an endpoint."""
        load = self._loads[name]
        assert load.in_flight > 0, "a request ends once"
        load.in_flight -= 1
        self.total_in_flight -= 1
        self._forget_if_done(name, load)
        self._enter(name, load)

    def _enter(self, name: str, load: _Load) -> None:
        if not load.has_room:
            return
        heappush(self._heap, (load.ratio, name))
        if len(self._heap) > 4 * len(self._loads) + _SLACK:
            self._rebuild()

    def _forget_if_done(self, name: str, load: _Load) -> None:
        if not load.listed and load.in_flight == 0:
            del self._loads[name]

    def _rebuild(self) -> None:
        self._heap = [(load.ratio, name) for name, load in self._loads.items() if load.has_room]
        heapify(self._heap)
        self.ready_capacity = sum(
            load.endpoint.capacity for load in self._loads.values() if load.listed and load.endpoint.ready
        )
