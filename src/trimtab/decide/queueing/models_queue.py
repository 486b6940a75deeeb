"""The queue in front of machines that share several models: groups, a plan for them, and the operations it implies.

Each machine has a virtual queue: groups of requests in the order in which it is to serve them. A policy plans these
queues; pulling, evicting, swapping models and balancing follow from the plan [QLM, paper]. Events come in, orders go
out; time is an argument and never goes back. Like `PoolQueue` it is advanced in place by its one owner, and the same
sequence of calls always gives the same orders.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, inf, sqrt

from trimtab.decide.queueing import edf
from trimtab.decide.queueing.group import Grouping, Groups
from trimtab.decide.queueing.instance import Instance
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.orders import Evict, Orders, Start, Swap
from trimtab.decide.queueing.plan import Job, Machine, Plan, Problem, check
from trimtab.decide.queueing.policy import Policy
from trimtab.decide.queueing.request import Request
from trimtab.decide.queueing.virtual import Lot, Member, Virtual
from trimtab.model.problem import Problem as Refused

TIMER_SECONDS = 1.0
"""How often a policy may search for a plan; one that estimates waits does although nothing else happened [design]."""
EVICTION_COOLDOWN_SECONDS = 10.0
MOST_EVICTIONS = 2
"""Of one request: afterwards it is waited for [design]."""
URGENT_SECONDS = 1.0
"""How long before it is too late for a request another one gives way to it [design]."""
PLANNED_BY_DEADLINE = "planned in the order of deadlines, because the planner failed: {!r}"
CLASSLESS_SECONDS = 60.0
"""The deadline that a policy without deadlines gives to every request, so that they form groups by model alone."""


@dataclass(frozen=True, slots=True)
class Level:
    """A service level.

    Attributes:
        ttft_seconds: The time to first token that it promises.
        weight: What a request that misses it costs, relative to others.
    """

    ttft_seconds: float
    weight: float = 1.0


class ModelsQueue:
    """What waits for machines that share models, and what happens at each event.

    Every request that `arrive` was given ends exactly once, by `withdraw` or by `finish`. Methods that take `at` return
    what is to be done at that moment; it must be done in the order in which it was returned.

    Args:
        policy: How the virtual queues are planned.
        levels: The service levels by name.
        instances: The machines.
        lengths: What is known of answer lengths; learns from requests that finish.

    Raises:
        Refused: There is no machine.

    Attributes:
        generation: How many plans have been made; each start is stamped with it.
        fault: What the policy failed with when the plan in force was made; the order of deadlines is then the plan.
    """

    def __init__(
        self, policy: Policy, levels: Mapping[str, Level], instances: Iterable[Instance], lengths: MeanLengths
    ) -> None:
        self.policy = policy
        self.levels = levels
        self.lengths = lengths
        self.generation = 0
        self.fault: Exception | None = None
        self._machines = {i.name: Virtual(i, resident=i.resident) for i in sorted(instances, key=lambda i: i.name)}
        if not self._machines:
            raise Refused("no machine is listed, so nothing could be served", fix="list at least one machine")
        self._leaving: dict[str, Virtual] = {}  # machines that are gone, until what they carry has ended
        slots = min(virtual.instance.slots for virtual in self._machines.values())
        mega = policy.mega_tokens if policy.mega_tokens is not None else 1 << 62
        grouping = Grouping(max(ceil(policy.group_batches * slots), 1), mega)
        self._groups: Groups[Member] = Groups(grouping)
        self._lots: dict[int, Lot] = {}
        self._unplaced: list[Lot] = []
        self._waiting: dict[int, Member] = {}
        self._carriers: dict[int, Virtual] = {}
        self._asked: Counter[str] = Counter()  # requests by model, so far
        self._urgent: dict[str | None, Lot] | None = None  # heads of queues by model, within one step
        self._stale = False  # whether a plan must be made
        self._searched_at = -inf  # when the policy was last free to search for a plan

    @property
    def waiting(self) -> int:
        """Requests that no machine carries."""
        return len(self._waiting)

    def machines(self) -> tuple[Virtual, ...]:
        """Return the machines by name, to be looked at only."""
        return tuple(self._machines.values())

    def set_instances(self, instances: Iterable[Instance], at: float) -> Orders:
        """Let machines join, leave or change; no machine at all is allowed.

        What waits for a machine that leaves is planned anew. What it carries stays there until it ends or is evicted;
        whoever lost the machine reports each of its requests as evicted. Requests that no machine can serve any more
        wait for one that can. Groups keep the size that the first machines gave them.

        Raises:
            Refused: A machine would lose the model that it carries requests for, or is changing to.
        """
        known = {**self._leaving, **self._machines}
        machines = {i.name: self._joined(i, known.get(i.name)) for i in sorted(instances, key=lambda i: i.name)}
        gone = {name: virtual for name, virtual in known.items() if name not in machines}
        for virtual in gone.values():
            self._unplaced += virtual.waiting()
            virtual.queue.clear()
        self._leaving = {name: virtual for name, virtual in gone.items() if virtual.is_busy}
        self._machines = machines
        self._stale = True
        return self.step(at)

    @staticmethod
    def _joined(instance: Instance, known: Virtual | None) -> Virtual:
        """Return a machine as it is from now on."""
        if known is None:
            return Virtual(instance, resident=instance.resident)
        if known.resident not in instance.speeds:
            if known.is_busy:
                raise Refused(
                    f"machine {instance.name!r} is busy with the model {known.resident!r}, which it is to lose",
                    fix="take the machine out until its requests have ended, then add it again",
                )
            known.resident = instance.resident
        known.instance = instance
        return known

    def arrive(self, request: Request, at: float) -> Orders:
        """Let a request wait for its turn.

        Raises:
            Refused: No machine can hold its model, or its level is not known.
        """
        if not any(request.model in v.instance.speeds for v in self._machines.values()):
            raise Refused(f"no machine can serve the model {request.model!r}", fix="add a machine that can hold it")
        if request.level not in self.levels:
            raise Refused(f"there is no service level {request.level!r}", fix="declare it, or ask for another one")
        seconds = self.levels[request.level].ttft_seconds if self.policy.by_level else CLASSLESS_SECONDS
        self._asked[request.model] += 1
        self._place(Member(request, request.arrived_at + seconds), at)
        return self.step(at)

    def withdraw(self, key: int) -> bool:
        """Take a waiting request out, e.g. because its client is gone; False when it does not wait."""
        if key not in self._waiting:
            return False
        self._leave(self._waiting[key])
        return True

    def finish(self, key: int, at: float, tokens: int | None = None) -> Orders:
        """Free the place of a request that ended.

        Args:
            key: The request.
            at: When it ended.
            tokens: How long its answer was; None when it was cut short.
        """
        member = self._stop(key)
        self._groups.remove(key)
        if tokens is not None:
            self.lengths.learn(member.model, member.request.level, tokens)
        return self.step(at)

    def evicted(self, key: int, at: float, produced: int) -> Orders:
        """Take back a request that a machine has stopped; what it has produced is kept.

        One that had its first token is owed the rest within the time that its level promises for a first one.
        """
        member = self._stop(key)
        if produced:
            member.produced = produced
            member.deadline = at + self.levels[member.request.level].ttft_seconds
        member.evictions += 1
        self._groups.evict(key)
        lot = self._lots[self._groups.of(key).key]
        if lot.waiting == 1:
            self._unplaced.append(lot)
            self._stale = True
        lot.count(member)
        self._waiting[key] = member
        return self.step(at)

    def swapped(self, name: str, at: float) -> Orders:
        """Note that a machine has made another model resident."""
        virtual = self._machines.get(name) or self._leaving.pop(name, None)
        if virtual is not None:
            virtual.ready_at = None
        return self.step(at)

    def report(self, name: str, *, full: bool, at: float) -> Orders:
        """Note whether a machine's KV cache is above the limit."""
        virtual = self._machines.get(name) or self._leaving.get(name)
        if virtual is not None:
            virtual.full = full
        return self.step(at)

    def step(self, at: float) -> Orders:
        """Decide everything that is due."""
        orders = Orders()
        if self._stale or self._timer_is_due(at):
            self._plan(at)
            orders = Orders(reason=PLANNED_BY_DEADLINE.format(self.fault)) if self.fault else orders
        self._urgent = None
        for virtual in sorted(self._machines.values(), key=lambda v: v.load):
            orders = orders.then(self._serve(virtual, at))
        return orders

    def next_due(self) -> float | None:
        """Return when `step` must be called at the latest although nothing else happened; None: never."""
        timer = self._searched_at + TIMER_SECONDS if self.policy.on_timer and self._waiting else inf
        due = min([timer, *(virtual.look_at for virtual in self._machines.values())])
        return due if due < inf else None

    def _timer_is_due(self, at: float) -> bool:
        return bool(self.policy.on_timer and self._waiting and at >= self._searched_at + TIMER_SECONDS)

    def _place(self, member: Member, at: float) -> None:
        group = self._groups.place(member, at)
        lot = self._lots.get(group.key)
        if lot is None:
            lot = self._lots[group.key] = Lot(group, member.model, member.request.level, member.late)
            self._unplaced.append(lot)
            self._stale = True
        lot.count(member)
        self._waiting[member.key] = member

    def _leave(self, member: Member) -> Lot:
        """Let a member that waits leave its group."""
        lot = self._lots[self._groups.of(member.key).key]
        self._groups.remove(member.key)
        lot.count(member, -1)
        del self._waiting[member.key]
        if not len(lot.group):
            del self._lots[lot.key]
        return lot

    def _stop(self, key: int) -> Member:
        virtual = self._carriers.pop(key)
        virtual.giving_way.discard(key)
        member = virtual.running.pop(key)
        if not virtual.is_busy:
            self._leaving.pop(virtual.instance.name, None)
        return member

    def _sort_out_late(self, lot: Lot, at: float) -> None:
        """Let those who cannot be in time any more wait behind all others."""
        bound = at + self._margin(lot)
        if lot.late or lot.deadline >= bound:
            return
        for member in [m for m in lot.group.members() if m.deadline < bound and not m.produced]:
            self._leave(member)
            member.late = True
            self._place(member, max(at, member.deadline))

    def _margin(self, lot: Lot) -> float:
        """How long before its deadline a request must go to a machine."""
        if not self.policy.foresight or not lot.waiting:
            return 0.0
        speeds = (virtual.instance.speeds.get(lot.model) for virtual in self._machines.values())
        tokens = lot.tokens / lot.waiting
        return min((speed.first_token_seconds(tokens) for speed in speeds if speed), default=0.0)

    def _can_be_served(self, lot: Lot) -> bool:
        return any(lot.model in virtual.instance.speeds for virtual in self._machines.values())

    def _plan(self, at: float) -> None:
        if self.policy.late_last:
            for lot in [lot for virtual in self._machines.values() for lot in virtual.waiting()]:
                self._sort_out_late(lot, at)
        placed = [[lot for lot in v.waiting() if v.instance.speeds.get(lot.model)] for v in self._machines.values()]
        queued = {lot.key for queue in placed for lot in queue}
        others = [lot for v in self._machines.values() for lot in v.waiting() if lot.key not in queued]
        others += [lot for lot in self._unplaced if lot.waiting]
        self._unplaced = [lot for lot in others if not self._can_be_served(lot)]
        lots = [lot for queue in placed for lot in queue] + [lot for lot in others if self._can_be_served(lot)]
        lots.sort(key=lambda lot: lot.key)
        numbers = {lot.key: number for number, lot in enumerate(lots)}
        plan: Plan = tuple(tuple(numbers[lot.key] for lot in queue) for queue in placed)
        self.fault = None
        place_only = at < self._searched_at + TIMER_SECONDS
        self._searched_at = self._searched_at if place_only else at
        if lots:
            plan = self._planned(self._problem(lots, at, place_only=place_only), plan)
        for virtual, order in zip(self._machines.values(), plan, strict=True):
            virtual.queue = [lots[number] for number in order]
        self._stale = False
        self.generation += 1

    def _planned(self, problem: Problem, current: Plan) -> Plan:
        """Return the policy's plan; where it fails, the order of deadlines, so that a fault delays nobody for ever."""
        try:
            plan = self.policy.plan(problem, current)
            check(problem, plan)
        except Exception as fault:  # noqa: BLE001 - whatever is wrong with a planner, requests must be served
            self.fault = fault
            return edf.plan(problem, current)
        return plan

    def _problem(self, lots: list[Lot], at: float, *, place_only: bool) -> Problem:
        machines = tuple(self._machine(virtual, at) for virtual in self._machines.values())
        return Problem(
            tuple(self._job(lot, at) for lot in lots),
            machines,
            judge_start=self.policy.judge_start,
            place_only=place_only,
        )

    def _job(self, lot: Lot, at: float) -> Job:
        level = self.levels[lot.level]
        weight = 0.0 if lot.late else level.weight * lot.waiting
        seconds = tuple(self._seconds(lot, virtual.instance) for virtual in self._machines.values())
        slack = lot.deadline - at - self._margin(lot) - self.policy.reserve * level.ttft_seconds
        tardiness = weight * self.policy.tardiness
        deviation = self._deviation(lot)
        return Job(lot.key, lot.model, slack, tardiness, seconds, late_penalty=weight, deviation=deviation)

    def _deviation(self, lot: Lot) -> float:
        """The standard deviation of the time that those who wait take on the machine where it is largest."""
        speeds = (virtual.instance.speeds.get(lot.model) for virtual in self._machines.values())
        slowest = min((speed.tokens_per_second for speed in speeds if speed), default=inf)
        return sqrt(lot.waiting) * self.lengths.deviation(lot.model, lot.level) / slowest

    def _seconds(self, lot: Lot, instance: Instance) -> float:
        """How long a machine is busy with those who wait."""
        speed = instance.speeds.get(lot.model)
        if speed is None:
            return inf
        mean = self.lengths.mean(lot.model, lot.level)
        tokens = max(lot.waiting * mean - lot.produced, lot.waiting)
        return tokens / speed.tokens_per_second + (lot.tokens + lot.produced) * speed.seconds_per_prompt_token

    def _machine(self, virtual: Virtual, at: float) -> Machine:
        busy = max(virtual.ready_at - at, 0.0) if virtual.ready_at is not None else 0.0
        # Of machines that are equally near, the one whose model is asked for least changes it.
        asked = self._asked[virtual.resident] if virtual.resident is not None else 0
        more = self.policy.switch_seconds * (1.0 + asked / max(self._asked.total(), 1))
        swaps = {model: seconds + more for model, seconds in virtual.instance.swap_seconds.items()}
        return Machine(virtual.instance.name, virtual.resident, swaps, busy)

    def _serve(self, virtual: Virtual, at: float) -> Orders:
        """Let a machine take what its queue offers, or change its model for it."""
        starts: list[Start] = []
        virtual.look_at = inf
        while virtual.ready_at is None and (lot := self._next_lot(virtual)) is not None:
            if lot.model != virtual.resident:
                return Orders(tuple(starts)) if starts else self._change(virtual, lot, at)
            if self.policy.static_batches and virtual.running:
                break
            if not virtual.has_room:
                return Orders(tuple(starts), self._make_room(virtual, lot, at))
            starts += self._pull(virtual, lot, at)
            self._urgent = None
        if self.policy.prepares and virtual.ready_at is None and not virtual.running and virtual.head() is None:
            return self._prepare(virtual, at)
        return Orders(tuple(starts))

    def _prepare(self, virtual: Virtual, at: float) -> Orders:
        """Let an idle machine, whose model others hold too, hold the most wanted of the models that nobody holds."""
        held = Counter(v.resident for v in self._machines.values())
        missing = [model for model in virtual.instance.speeds if not held[model] and self._asked[model]]
        if not missing or (virtual.resident is not None and held[virtual.resident] == 1):
            return Orders()
        return self._swap(virtual, max(sorted(missing), key=lambda model: self._asked[model]), at)

    def _swap(self, virtual: Virtual, model: str, at: float) -> Orders:
        virtual.resident = model
        virtual.ready_at = at + virtual.instance.swap_seconds[model]
        return Orders(swaps=(Swap(virtual.instance.name, model),))

    def _next_lot(self, virtual: Virtual) -> Lot | None:
        """What a machine serves next: the head of its queue, or one that is more urgent on a machine like it."""
        head = virtual.head()
        if not self.policy.balances or (head is not None and head.model != virtual.resident):
            return head
        if self._urgent is None:
            self._urgent = self._most_urgent()
        other = self._urgent.get(virtual.resident)
        return head if head is not None and (other is None or _urgency(head) <= _urgency(other)) else other

    def _most_urgent(self) -> dict[str | None, Lot]:
        """By model, the most urgent head of a queue."""
        first: dict[str | None, Lot] = {}
        for virtual in self._machines.values():
            head = virtual.head()
            if head is not None and (head.model not in first or _urgency(head) < _urgency(first[head.model])):
                first[head.model] = head
        return first

    def _pull(self, virtual: Virtual, lot: Lot, at: float) -> Iterator[Start]:
        """Start the next request of a lot; a whole batch where batches are static."""
        for _ in range(virtual.instance.slots if self.policy.static_batches else 1):
            if self.policy.late_last:
                self._sort_out_late(lot, at)
            first = self._first(lot)
            if first is None or not virtual.has_room:
                return
            member = self._groups.start(first.key)
            lot.count(member, -1)
            del self._waiting[member.key]
            member.started_at = at
            virtual.running[member.key] = member
            self._carriers[member.key] = virtual
            yield Start(member.request, virtual.instance.name, member.produced, self.generation)

    def _first(self, lot: Lot) -> Member | None:
        """The member of a lot that goes next."""
        order = self.policy.order
        if order is None:
            return lot.group.first()
        return min(lot.group.members(), key=lambda member: (order(member.request), member.key), default=None)

    def _make_room(self, virtual: Virtual, lot: Lot, at: float) -> tuple[Evict, ...]:
        """Evict one request of a patient level, if the first of a lot would else miss its deadline."""
        if not self.policy.makes_room or virtual.giving_way or virtual.full or lot.late:
            return ()
        urgent_at = lot.deadline - self._margin(lot) - URGENT_SECONDS
        if at < urgent_at:
            virtual.look_at = urgent_at
            return ()
        promised = self.levels[lot.level].ttft_seconds
        patient = [m for m in virtual.running.values() if self._gives_way(virtual, m, promised, at)]
        if not patient:
            return ()
        victim = max(patient, key=lambda m: (self.levels[m.request.level].ttft_seconds, m.started_at, m.key))
        virtual.giving_way.add(victim.key)
        return (Evict(victim.key, virtual.instance.name),)

    def _gives_way(self, virtual: Virtual, member: Member, promised: float, at: float) -> bool:
        """Whether a running request can wait rather than one with a shorter promise."""
        speed = virtual.instance.speeds[member.model]
        begun = member.started_at + speed.first_token_seconds(member.input_tokens) + URGENT_SECONDS <= at
        patient = self.levels[member.request.level].ttft_seconds > promised
        return begun and patient and member.evictions < MOST_EVICTIONS

    def _change(self, virtual: Virtual, lot: Lot, at: float) -> Orders:
        """Bring a machine to another model: let it drain, or evict what it carries, then swap."""
        if not virtual.running:
            return self._swap(virtual, lot.model, at)
        if virtual.giving_way or not self.policy.evicts:
            return Orders()
        allowed_at = self._evictable_at(virtual)
        if at < allowed_at:
            virtual.look_at = allowed_at
            return Orders()
        virtual.stopped_at = at
        virtual.giving_way.update(virtual.running)
        return Orders(evictions=tuple(Evict(key, virtual.instance.name) for key in virtual.running))

    def _evictable_at(self, virtual: Virtual) -> float:
        """When a machine's requests may be evicted for another model; infinite where they are waited for.

        Not before all have their first token, and not again within the cooldown. Evicting then costs one more prefill
        of each; draining would leave most slots empty until the longest answer has ended.
        """
        if any(member.evictions >= MOST_EVICTIONS for member in virtual.running.values()):
            return inf
        assert virtual.resident is not None, "what runs has a model"
        speed = virtual.instance.speeds[virtual.resident]
        begun = max(m.started_at + speed.first_token_seconds(m.input_tokens) for m in virtual.running.values())
        return max(begun, virtual.stopped_at + EVICTION_COOLDOWN_SECONDS)


def _urgency(lot: Lot) -> tuple[bool, float]:
    """Sorts those who are late behind all others."""
    return lot.late, lot.deadline
