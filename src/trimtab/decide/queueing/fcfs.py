"""First come, first served."""

from trimtab.decide.queueing.request import Request


def order(request: Request) -> float:
    """Rank a request by its arrival; the lowest rank goes first and ties keep the order of their keys."""
    return request.arrived_at
