"""The waiting line: requests in a policy's order, with removal from anywhere."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from trimtab.decide.queueing.request import Request

Order = Callable[[Request], float]
"""A policy's rank of a request: the lowest goes first."""

_SLACK = 64  # removed entries tolerated in a heap before it is rebuilt


class Line:
    """Requests that wait, in rank order; `push`, `pop` and `remove` cost O(log n) amortized.

    Two heaps hold the requests: one by rank, one by arrival, because the longest wait ends first whatever the order of
    service is. A removed request stays in the heaps until it surfaces or the heaps are rebuilt.
    """

    __slots__ = ("_by_arrival", "_by_rank", "_live", "_order")

    def __init__(self, order: Order) -> None:
        self._order = order
        self._live: dict[int, Request] = {}
        self._by_rank: list[tuple[float, int]] = []
        self._by_arrival: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: int) -> bool:
        return key in self._live

    def push(self, request: Request) -> None:
        """Add a request, at the place that its rank gives it."""
        assert request.key not in self._live, "a request waits once"
        self._live[request.key] = request
        heappush(self._by_rank, (self._order(request), request.key))
        heappush(self._by_arrival, (request.arrived_at, request.key))

    def remove(self, key: int) -> Request | None:
        """Take a request out of the line; None when it does not wait."""
        request = self._live.pop(key, None)
        if len(self._by_rank) > 2 * len(self._live) + _SLACK:
            self._by_rank = [(self._order(waiting), waiting.key) for waiting in self._live.values()]
            heapify(self._by_rank)
        if len(self._by_arrival) > 2 * len(self._live) + _SLACK:
            self._by_arrival = [(waiting.arrived_at, waiting.key) for waiting in self._live.values()]
            heapify(self._by_arrival)
        return request

    def pop(self) -> Request:
        """Take out the request that goes first. The line must not be empty."""
        self._drop_removed(self._by_rank)
        _, key = heappop(self._by_rank)
        request = self.remove(key)
        assert request is not None, "the surface of the heap is live"
        return request

    def oldest(self) -> Request | None:
        """Return the request that arrived first, without taking it out."""
        self._drop_removed(self._by_arrival)
        return self._live[self._by_arrival[0][1]] if self._by_arrival else None

    def _drop_removed(self, heap: list[tuple[float, int]]) -> None:
        while heap and heap[0][1] not in self._live:
            heappop(heap)
