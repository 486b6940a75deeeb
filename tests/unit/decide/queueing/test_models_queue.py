"""The queue of several models: what it orders at each event."""

from dataclasses import replace

import pytest

from trimtab.decide.queueing import edf, late_last
from trimtab.decide.queueing.instance import Instance, Speed
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import EVICTION_COOLDOWN_SECONDS, Level, ModelsQueue
from trimtab.decide.queueing.orders import NO_ORDERS, Evict, Orders, Start, Swap
from trimtab.decide.queueing.plan import Plan
from trimtab.decide.queueing.plan import Problem as Planned
from trimtab.decide.queueing.policy import Policy
from trimtab.decide.queueing.request import Request
from trimtab.model.problem import Problem

LEVELS = {"fast": Level(10.0), "slow": Level(100.0)}
EDF = Policy("edf", edf.plan)
SPEED = Speed(tokens_per_second=100.0, seconds_per_prompt_token=0.001, step_seconds=0.02)


def machine(name: str = "m0", slots: int = 2, resident: str | None = "a", swap: float = 5.0) -> Instance:
    return Instance(name, slots, {"a": SPEED, "b": SPEED}, {"a": swap, "b": swap}, resident)


def queue(*machines: Instance, policy: Policy = EDF) -> ModelsQueue:
    return ModelsQueue(policy, LEVELS, machines or (machine(),), MeanLengths(100.0))


def request(key: int, model: str = "a", level: str = "fast", at: float = 0.0) -> Request:
    return Request(key, at, model, level, input_tokens=100)


def started(orders: Orders) -> list[tuple[int, str]]:
    return [(start.request.key, start.endpoint) for start in orders.starts]


class TestPulling:
    def test_a_machine_with_the_model_starts_it_at_once(self) -> None:
        assert started(queue().arrive(request(1), 0.0)) == [(1, "m0")]

    def test_no_more_than_its_slots(self) -> None:
        waiting = queue()
        starts = [started(waiting.arrive(request(key), 0.0)) for key in (1, 2, 3)]
        assert starts == [[(1, "m0")], [(2, "m0")], []]
        assert waiting.waiting == 1
        assert started(waiting.finish(1, 1.0, 50)) == [(3, "m0")]

    def test_the_less_loaded_machine_first(self) -> None:
        waiting = queue(machine("m0"), machine("m1"))
        assert [started(waiting.arrive(request(key), 0.0)) for key in (1, 2)] == [[(1, "m0")], [(2, "m1")]]

    def test_the_more_urgent_level_first(self) -> None:
        waiting = queue(machine(slots=1))
        waiting.arrive(request(1), 0.0)
        waiting.arrive(request(2, level="slow"), 0.1)
        waiting.arrive(request(3), 0.2)
        assert started(waiting.finish(1, 1.0, 10)) == [(3, "m0")]

    def test_nothing_while_the_cache_is_full(self) -> None:
        waiting = queue()
        waiting.report("m0", full=True, at=0.0)
        assert waiting.arrive(request(1), 1.0) == NO_ORDERS
        assert started(waiting.report("m0", full=False, at=2.0)) == [(1, "m0")]

    def test_each_start_says_which_plan_it_follows(self) -> None:
        waiting = queue()
        first, second = (waiting.arrive(request(key), float(key)).starts[0] for key in (1, 2))
        assert (first.generation, second.generation) == (1, 2)

    def test_a_static_batch_waits_for_the_one_before(self) -> None:
        waiting = queue(policy=replace(EDF, static_batches=True))
        assert started(waiting.arrive(request(1), 0.0)) == [(1, "m0")]
        assert waiting.arrive(request(2), 0.1) == NO_ORDERS
        assert waiting.arrive(request(3), 0.2) == NO_ORDERS
        assert started(waiting.finish(1, 1.0, 10)) == [(2, "m0"), (3, "m0")]

    def test_a_machine_serves_what_waits_for_another_like_it(self) -> None:
        waiting = queue(machine("m0", slots=1), machine("m1", slots=1))
        for key in (1, 2, 3, 4):
            waiting.arrive(request(key, at=0.1 * key), 0.1 * key)
        assert started(waiting.finish(2, 1.0, 10)) == [(3, "m1")]
        assert started(waiting.finish(3, 2.0, 10)) == [(4, "m1")], "although it was planned behind the first machine"


class TestSwapping:
    def test_an_idle_machine_swaps_and_starts_when_it_has_the_model(self) -> None:
        waiting = queue()
        assert waiting.arrive(request(1, "b"), 0.0) == Orders(swaps=(Swap("m0", "b"),))
        assert waiting.step(1.0) == NO_ORDERS
        assert started(waiting.swapped("m0", 5.0)) == [(1, "m0")]

    def test_what_runs_is_evicted_once_it_has_its_first_token_and_resumes_with_its_progress(self) -> None:
        waiting = queue()
        waiting.arrive(request(1), 0.0)
        assert waiting.arrive(request(2, "b"), 0.0) == NO_ORDERS
        due = waiting.next_due()
        assert due == pytest.approx(SPEED.first_token_seconds(100))
        assert waiting.step(due) == Orders(evictions=(Evict(1, "m0"),))
        assert waiting.evicted(1, due, 7) == Orders(swaps=(Swap("m0", "b"),))
        assert started(waiting.swapped("m0", 6.0)) == [(2, "m0")]
        assert waiting.finish(2, 7.0, 10).swaps == (Swap("m0", "a"),)
        (again,) = waiting.swapped("m0", 12.0).starts
        assert (again.request.key, again.produced) == (1, 7)

    def test_without_eviction_it_drains(self) -> None:
        waiting = queue(policy=replace(EDF, evicts=False))
        waiting.arrive(request(1), 0.0)
        waiting.arrive(request(2, "b"), 0.0)
        assert waiting.next_due() is None
        assert waiting.step(50.0) == NO_ORDERS
        assert waiting.finish(1, 60.0, 10).swaps == (Swap("m0", "b"),)

    def test_not_twice_within_the_cooldown(self) -> None:
        waiting = queue()
        waiting.arrive(request(1), 0.0)
        waiting.arrive(request(2, "b"), 0.0)
        first = waiting.next_due()
        assert first is not None
        waiting.step(first)
        waiting.evicted(1, first, 7)
        waiting.swapped("m0", 6.0)
        waiting.finish(2, 6.5, 10)
        waiting.swapped("m0", 7.0)
        waiting.arrive(request(3, "b"), 7.5)
        assert waiting.step(8.0) == NO_ORDERS
        assert waiting.next_due() == pytest.approx(first + EVICTION_COOLDOWN_SECONDS)

    def test_one_that_ended_meanwhile_is_not_missed(self) -> None:
        waiting = queue()
        waiting.arrive(request(1), 0.0)
        waiting.arrive(request(2, "b"), 0.0)
        waiting.step(1.0)
        assert waiting.finish(1, 1.0, 10).swaps == (Swap("m0", "b"),)


class TestPreparing:
    PREPARED = replace(EDF, prepares=True)

    def after_helping(self, policy: Policy) -> Orders:
        """The second machine has served a request for the model of the first, whose slot was taken."""
        machines = machine("m0", slots=1, swap=0.5), machine("m1", slots=1, resident="b", swap=0.5)
        waiting = queue(*machines, policy=policy)
        waiting.arrive(request(1, "b"), 0.0)
        waiting.finish(1, 1.0, 10)
        waiting.arrive(request(2), 1.0)
        waiting.arrive(request(3), 1.0)
        assert waiting.arrive(request(4), 1.0).swaps == (Swap("m1", "a"),)
        ((helped, _),) = started(waiting.swapped("m1", 1.5))
        waiting.finish(2, 2.0, 10)
        return waiting.finish(helped, 3.0, 10)

    def test_an_idle_machine_fetches_what_nobody_holds(self) -> None:
        assert self.after_helping(self.PREPARED) == Orders(swaps=(Swap("m1", "b"),))
        assert self.after_helping(EDF) == NO_ORDERS

    def test_not_what_was_never_asked_for_and_not_for_the_last_copy(self) -> None:
        waiting = queue(machine("m0"), machine("m1"), policy=self.PREPARED)
        assert waiting.step(0.0) == NO_ORDERS
        alone = queue(policy=self.PREPARED)
        alone.arrive(request(1, "b"), 0.0)
        alone.swapped("m0", 5.0)
        assert alone.finish(1, 6.0, 10) == NO_ORDERS


class TestLateness:
    LATE_LAST = Policy("late last", late_last.plan, late_last=True)

    def waiting_behind_one(self, policy: Policy) -> ModelsQueue:
        waiting = queue(machine(slots=1), policy=policy)
        waiting.arrive(request(1), 0.0)
        waiting.arrive(request(2, at=1.0), 1.0)
        waiting.arrive(request(3, at=10.5), 10.5)
        return waiting

    def test_earliest_deadline_first_serves_the_late_one_first(self) -> None:
        assert started(self.waiting_behind_one(EDF).finish(1, 12.0, 10)) == [(2, "m0")]

    def test_late_last_serves_it_last(self) -> None:
        waiting = self.waiting_behind_one(self.LATE_LAST)
        assert started(waiting.finish(1, 12.0, 10)) == [(3, "m0")]
        assert started(waiting.finish(3, 13.0, 10)) == [(2, "m0")]

    def test_foresight_counts_as_late_what_can_no_longer_be_in_time(self) -> None:
        just_before = 11.0 - SPEED.first_token_seconds(100) / 2
        plain = self.waiting_behind_one(self.LATE_LAST)
        assert started(plain.finish(1, just_before, 10)) == [(2, "m0")]
        foreseeing = self.waiting_behind_one(replace(self.LATE_LAST, foresight=True))
        assert started(foreseeing.finish(1, just_before, 10)) == [(3, "m0")]

    def test_a_patient_request_makes_room_just_in_time(self) -> None:
        waiting = queue(machine(slots=1), policy=replace(self.LATE_LAST, foresight=True, makes_room=True))
        waiting.arrive(request(1, level="slow"), 0.0)
        assert waiting.arrive(request(2), 0.0) == NO_ORDERS
        due = waiting.next_due()
        assert due is not None
        assert due < 10.0
        assert waiting.step(due).evictions == (Evict(1, "m0"),)
        assert started(waiting.evicted(1, due, 500)) == [(2, "m0")]

    def test_one_of_the_same_level_does_not(self) -> None:
        waiting = queue(machine(slots=1), policy=replace(self.LATE_LAST, foresight=True, makes_room=True))
        waiting.arrive(request(1), 0.0)
        waiting.arrive(request(2), 0.0)
        due = waiting.next_due()
        assert due is not None
        assert waiting.step(due) == NO_ORDERS


class TestLeaving:
    def test_a_waiting_request_can_be_withdrawn_once(self) -> None:
        waiting = queue(machine(slots=1))
        waiting.arrive(request(1), 0.0)
        waiting.arrive(request(2), 0.0)
        assert waiting.withdraw(2)
        assert not waiting.withdraw(2)
        assert not waiting.withdraw(1), "it runs"
        assert waiting.finish(1, 1.0, 10) == NO_ORDERS


class TestRefusals:
    def test_a_model_that_no_machine_can_hold(self) -> None:
        with pytest.raises(Problem, match="no machine can serve the model 'c'"):
            queue().arrive(request(1, "c"), 0.0)

    def test_a_level_that_is_not_declared(self) -> None:
        with pytest.raises(Problem, match="no service level 'urgent'"):
            queue().arrive(request(1, level="urgent"), 0.0)

    def test_no_machine(self) -> None:
        with pytest.raises(Problem, match="no machine"):
            ModelsQueue(EDF, LEVELS, (), MeanLengths(100.0))


def test_mean_lengths_move_from_the_prior_to_what_is_seen() -> None:
    lengths = MeanLengths(100.0, weight=10.0)
    assert lengths.mean("a", "fast") == 100.0
    for _ in range(10):
        lengths.learn("a", "fast", 200)
    assert lengths.mean("a", "fast") == 150.0
    assert lengths.mean("a", "") == 150.0
    assert lengths.mean("a", "slow") == 100.0


def test_a_start_of_nothing_is_no_order() -> None:
    orders = Orders(starts=(Start(request(1), "m0", 0, 1),))
    assert orders.then(NO_ORDERS) == orders
    assert NO_ORDERS.then(orders) == orders


class TestMachinesThatComeAndGo:
    def test_what_waits_for_a_machine_that_leaves_is_planned_anew_and_what_runs_ends_there(self) -> None:
        waiting = queue(machine("m0", slots=1), machine("m1", slots=1))
        for key in (1, 2, 3, 4):
            waiting.arrive(request(key, at=0.1 * key), 0.1 * key)
        assert waiting.set_instances([machine("m1", slots=1)], 1.0) == NO_ORDERS
        assert waiting.finish(1, 2.0, 10) == NO_ORDERS, "the machine that is gone gets nothing"
        assert started(waiting.finish(2, 3.0, 10)) == [(3, "m1")]
        assert started(waiting.finish(3, 4.0, 10)) == [(4, "m1")]

    def test_a_machine_that_joins_gets_work_at_once(self) -> None:
        waiting = queue(machine("m0", slots=1))
        for key in (1, 2):
            waiting.arrive(request(key), 0.0)
        assert started(waiting.set_instances([machine("m0", slots=1), machine("m1", slots=1)], 1.0)) == [(2, "m1")]

    def test_what_no_machine_can_serve_waits_for_one_that_can(self) -> None:
        waiting = queue(machine("m0", slots=1))
        for key in (1, 2):
            waiting.arrive(request(key), 0.0)
        assert waiting.set_instances([], 1.0) == NO_ORDERS
        assert waiting.step(5.0) == NO_ORDERS
        assert waiting.waiting == 1
        only_b = Instance("m1", 1, {"b": SPEED}, {"b": 5.0}, "b")
        assert waiting.set_instances([only_b], 6.0) == NO_ORDERS
        assert started(waiting.set_instances([only_b, machine("m2")], 7.0)) == [(2, "m2")]

    def test_requests_of_a_machine_that_is_lost_start_elsewhere_with_their_progress(self) -> None:
        waiting = queue(machine("m0", slots=1))
        waiting.arrive(request(1), 0.0)
        waiting.set_instances([machine("m1", slots=1)], 1.0)
        (again,) = waiting.evicted(1, 1.0, 5).starts
        assert (again.request.key, again.endpoint, again.produced) == (1, "m1", 5)

    def test_a_machine_that_comes_back_still_carries_what_it_did(self) -> None:
        waiting = queue(machine("m0", slots=1), machine("m1", slots=1))
        waiting.arrive(request(1), 0.0)
        waiting.set_instances([machine("m1", slots=1)], 1.0)
        waiting.set_instances([machine("m0", slots=1), machine("m1", slots=1)], 2.0)
        assert started(waiting.arrive(request(2, at=3.0), 3.0)) == [(2, "m1")]
        assert waiting.arrive(request(3, at=3.0), 3.0) == NO_ORDERS
        assert started(waiting.finish(1, 4.0, 10)) == [(3, "m0")]

    def test_reports_of_a_machine_that_is_gone_are_of_no_account(self) -> None:
        waiting = queue(machine("m0"), machine("m1"))
        assert waiting.arrive(request(1, "b"), 0.0).swaps == (Swap("m0", "b"),)
        waiting.set_instances([machine("m1")], 1.0)
        assert waiting.swapped("m0", 5.0) == NO_ORDERS
        assert waiting.report("m0", full=True, at=5.0) == NO_ORDERS

    def test_a_machine_may_not_lose_the_model_that_it_is_busy_with(self) -> None:
        waiting = queue()
        waiting.arrive(request(1), 0.0)
        with pytest.raises(Problem, match="busy with the model 'a'"):
            waiting.set_instances([Instance("m0", 2, {"b": SPEED}, {"b": 5.0}, "b")], 1.0)


class TestPlannersThatFail:
    def test_requests_are_served_in_the_order_of_deadlines_and_the_fault_is_told(self) -> None:
        def broken(*_: object) -> Plan:
            raise RuntimeError("out of luck")

        waiting = queue(machine(slots=1), policy=Policy("broken", broken))
        orders = waiting.arrive(request(1), 0.0)
        assert started(orders) == [(1, "m0")]
        assert "out of luck" in orders.reason
        waiting.arrive(request(2, level="slow"), 0.1)
        waiting.arrive(request(3), 0.2)
        assert started(waiting.finish(1, 1.0, 10)) == [(3, "m0")]

    def test_a_plan_that_forgets_a_group_is_a_fault(self) -> None:
        waiting = queue(policy=Policy("forgetful", lambda _, current: current))
        orders = waiting.arrive(request(1), 0.0)
        assert started(orders) == [(1, "m0")]
        assert "exactly once" in orders.reason

    def test_it_is_forgotten_with_the_next_plan(self) -> None:
        waiting = queue(
            policy=Policy("once", lambda wanted, current: edf.plan(wanted, current) if wanted.jobs[0].key else current)
        )
        assert waiting.arrive(request(1), 0.0).reason
        assert not waiting.arrive(request(2), 1.0).reason
        assert waiting.fault is None


def test_a_plan_is_searched_once_a_second_and_new_groups_are_added_in_between() -> None:
    asked: list[bool] = []

    def plan(problem: Planned, current: Plan) -> Plan:
        asked.append(problem.place_only)
        return edf.plan(problem, current)

    waiting = queue(machine(slots=1), policy=Policy("asks", plan, on_timer=True, group_batches=0.0))
    for key, at in ((1, 0.0), (2, 0.4), (3, 0.8)):
        waiting.arrive(request(key), at)
    assert asked == [False, True, True]
    assert waiting.next_due() == 1.0
    waiting.step(1.0)
    assert asked == [False, True, True, False]


def test_plans_are_told_how_uncertain_a_group_is() -> None:
    seen: list[Planned] = []

    def plan(problem: Planned, current: Plan) -> Plan:
        seen.append(problem)
        return edf.plan(problem, current)

    waiting = queue(machine(slots=4), policy=Policy("asks", plan))
    waiting.report("m0", full=True, at=0.0)
    for key in range(1, 5):
        waiting.arrive(request(key), 0.0)
    waiting.arrive(request(5, level="slow"), 0.0)
    first = seen[-1].jobs[0]
    assert first.deviation == pytest.approx(2 * 100.0 / 100.0), "four answers of 100 tokens, give or take 100 each"


def test_the_deviation_of_lengths_is_learned() -> None:
    lengths = MeanLengths(100.0, weight=10.0)
    assert lengths.deviation("a", "fast") == pytest.approx(100.0)
    for tokens in (150, 250) * 5000:
        lengths.learn("a", "fast", tokens)
    assert lengths.deviation("a", "fast") == pytest.approx(50.0, rel=0.01)
