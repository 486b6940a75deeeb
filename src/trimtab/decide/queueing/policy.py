"""What a policy of the several-model queue is: a plan for a problem, and which operations follow from it."""

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.decide.queueing.line import Order
from trimtab.decide.queueing.plan import Plan, Problem

Planner = Callable[[Problem, Plan], Plan]
"""Returns a plan for a problem, given the plan that is being carried out, in which new groups are missing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to run the queue. The queue carries out every policy's plans by the same operations.

    Attributes:
        name: For tables and reasons.
        plan: Orders the groups.
        by_level: Whether requests are told apart by their service level; else deadlines are unknown to the policy.
        late_last: Whether requests that are late leave their group and are served when nothing else waits.
        foresight: Whether a request counts as late once its first token cannot be in time any more.
        on_timer: Whether the queue is planned anew each second that something waits, besides at every new group.
        evicts: Whether running requests give way to another model, their progress kept; else they are waited for.
        makes_room: Whether a running request gives way to one of a level with a shorter promise that is about to miss.
        prepares: Whether an idle machine fetches a model that nobody holds before it is asked for (warm start).
        balances: Whether a machine serves what waits for others that hold the same model, if that is more urgent.
        static_batches: Whether a machine is given a batch only when it has finished the one before.
        mega_tokens: Prompts above this get groups of their own [recalled]; None: no prompt does.
        order: The rank of a request inside its group, e.g. by predicted length; by default they leave as they came.
        group_batches: Most requests in a group, as a multiple of the smallest machine's slots; 0: one request.
        reserve: The planner's deadlines are so much earlier, as a part of what the level promises.
        tardiness: What a request costs for each second after the planner's deadline, where missing it costs 1.
        judge_start: Whether a group keeps its deadline by starting in time; by default it must have ended.
        switch_seconds: What bringing a machine to another model costs besides the swap, for the planner.
    """

    name: str
    plan: Planner
    by_level: bool = True
    late_last: bool = False
    foresight: bool = False
    on_timer: bool = False
    evicts: bool = True
    makes_room: bool = False
    prepares: bool = False
    balances: bool = True
    static_batches: bool = False
    mega_tokens: int | None = 3000
    order: Order | None = None
    group_batches: float = 1.0
    reserve: float = 0.0
    tardiness: float = 0.0
    judge_start: bool = False
    switch_seconds: float = 0.0
