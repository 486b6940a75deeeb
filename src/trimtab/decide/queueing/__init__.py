"""Queues in front of engines: who is let in, who goes next, to which engine, and who is told to go away.

Everything here is deterministic and free of clocks and I/O: time is an argument, ties are broken by arrival and by
name. The gateway calls these functions with wall-clock times, the lab with simulated ones.

A queue's state changes with each request, thousands of times a second, and holds thousands of entries; copying it for
each step would cost more than the decision. So `PoolQueue` is advanced in place by its one owner, and what leaves it
(`Decision` and its parts) is frozen. The same sequence of calls always gives the same decisions, which the property
tests check by replaying.
"""

from trimtab.decide.queueing.fleet import Endpoint, Fleet
from trimtab.decide.queueing.queue import Bounds, Decision, Dispatch, PoolQueue, Refusal
from trimtab.decide.queueing.request import Request

__all__ = ["Bounds", "Decision", "Dispatch", "Endpoint", "Fleet", "PoolQueue", "Refusal", "Request"]
