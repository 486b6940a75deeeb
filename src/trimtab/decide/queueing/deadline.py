"""Earliest deadline first, for one model: a request's place is its arrival and the time that its level allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from trimtab.decide.queueing.request import Request


@dataclass(frozen=True, slots=True)
class DeadlineOrder:
    """The order as a `PoolQueue` takes it.

    Attributes:
        seconds: From arrival to the deadline, by service level; a level that is not here goes last.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, request: Request) -> float:
        """Rank a request; equal ranks keep the order of their keys, i.e. of arrival."""
        return request.arrived_at + self.seconds.get(request.level, inf)
