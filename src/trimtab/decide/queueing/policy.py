"""What a policy of the several-model queue is: a plan for a problem, and which operations follow from it."""

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.decide.queueing.plan import Plan, Problem

Planner = Callable[[Problem, Plan], Plan]
"""Returns a plan for a problem, given the plan that is being carried out."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to run the queue. The queue carries out every policy's plans by the same operations.

    Attributes:
        name: For tables and reasons.
        plan: Orders the groups.
        late_last: Whether requests that are late leave their group and are served when nothing else waits.
        foresight: Whether a request counts as late once its first token cannot be in time any more.
        by_level: Whether a group holds requests of one service level only.
        on_timer: Whether the queue is planned anew each second that something waits, besides at every new group.
        evicts: Whether running requests give way to another model, their progress kept; else they are waited for.
        balances: Whether a machine without work of its own serves what waits for others that hold the same model.
        mega_tokens: Prompts above this get groups of their own [recalled]; None: no prompt does.
        judge_start: Whether the plan counts a group as late by its start; by default by its end, which is conservative.
        static_batches: Whether a machine is given a batch only when it has finished the one before.
        group_batches: Most requests in a group, as a multiple of the smallest machine's slots; 0: one request.
    """

    name: str
    plan: Planner
    late_last: bool = False
    foresight: bool = False
    by_level: bool = True
    on_timer: bool = False
    evicts: bool = True
    balances: bool = True
    mega_tokens: int | None = 3000
    judge_start: bool = False
    reserve: float = 0.0
    tardiness: float = 0.0
    counting: float = 1.0
    makes_room: bool = False
    switch_seconds: float = 0.0
    static_batches: bool = False
    group_batches: float = 1.0
