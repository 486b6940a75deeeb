"""Policies of the several-model queue: which plan each makes of a problem."""

from dataclasses import replace

import pytest

from trimtab.decide.queueing import edf, late_last, per_model, swap_batching
from trimtab.decide.queueing.fixed_batch import FixedBatch
from trimtab.decide.queueing.oracle import Oracle
from trimtab.decide.queueing.plan import Job, Machine, Plan, Problem, check, cost
from trimtab.decide.queueing.qlm import Qlm

GOLDEN = Problem(
    tuple(
        Job(key, model, due, 1.0, (10.0,))
        for key, (model, due) in enumerate(zip("abab", (15, 30, 60, 60), strict=True))
    ),
    (Machine("m0", "a", {"a": 5.0, "b": 5.0}),),
)
"""qlm.md §6."""


def problem(jobs: str, deadlines: tuple[float, ...], machines: int = 1, late: tuple[int, ...] = ()) -> Problem:
    """Ten-second jobs for the models that `jobs` names; the machines hold "a"."""
    return Problem(
        tuple(
            Job(key, model, due, 0.0, (10.0,) * machines, late_penalty=0.0 if key in late else 1.0)
            for key, (model, due) in enumerate(zip(jobs, deadlines, strict=True))
        ),
        tuple(Machine(f"m{number}", "a", {"a": 5.0, "b": 5.0}) for number in range(machines)),
    )


def empty(wanted: Problem) -> Plan:
    return tuple(() for _ in wanted.machines)


@pytest.mark.parametrize(
    "policy", [edf.plan, late_last.plan, swap_batching.plan, per_model.plan, FixedBatch(3.0), Qlm(), Oracle()]
)
@pytest.mark.parametrize("wanted", [GOLDEN, problem("abba", (5, 50, -3, 20), 2, late=(2,)), problem("", ())])
def test_every_plan_runs_every_job_once(policy: object, wanted: Problem) -> None:
    assert callable(policy)
    check(wanted, policy(wanted, empty(wanted)))


class TestEdf:
    def test_by_deadline_whatever_the_swaps(self) -> None:
        assert edf.plan(GOLDEN, ((),)) == ((0, 1, 2, 3),)
        assert cost(GOLDEN, ((0, 1, 2, 3),)).swaps == 3

    def test_each_to_the_machine_that_ends_first(self) -> None:
        assert edf.plan(problem("aaa", (1, 2, 3), 2), ((), ())) == ((0, 2), (1,))

    def test_late_ones_stay_first(self) -> None:
        assert edf.plan(problem("aa", (50, -3), late=(1,)), ((),)) == ((1, 0),)


class TestLateLast:
    def test_late_ones_go_last(self) -> None:
        assert late_last.plan(problem("aa", (50, -3), late=(1,)), ((),)) == ((0, 1),)


class TestSwapBatching:
    def test_a_model_s_groups_stay_together(self) -> None:
        wanted = problem("abab", (1, 2, 30, 40))
        assert swap_batching.plan(wanted, ((),)) == ((0, 2, 1, 3),)

    def test_a_batch_that_has_begun_is_ended_although_another_model_is_more_urgent(self) -> None:
        wanted = problem("aab", (50, 60, 1))
        assert swap_batching.plan(wanted, ((0, 1),)) == ((0, 1, 2),)

    def test_who_comes_later_waits_for_the_next_turn(self) -> None:
        wanted = problem("aba", (50, 60, 1))
        assert swap_batching.plan(wanted, ((0, 1),)) == ((0, 2, 1),), "the most urgent model has the next turn"
        assert swap_batching.plan(problem("aba", (50, 2, 3)), ((0, 1),)) == ((0, 1, 2),)


class TestPerModel:
    def test_in_the_order_of_creation_on_the_machines_of_the_model(self) -> None:
        assert per_model.plan(problem("abab", (9, 1, 2, 3), 2), ((), ())) == ((0, 2), (1, 3))

    def test_models_without_a_machine_of_their_own_share_one(self) -> None:
        assert per_model.plan(problem("abab", (9, 1, 2, 3)), ((),)) == ((0, 1, 2, 3),)


class TestFixedBatch:
    def test_what_the_worst_case_would_miss_goes_last(self) -> None:
        assert FixedBatch(3.0)(problem("aa", (20, 40)), ((),)) == ((1, 0),)
        assert FixedBatch(1.0)(problem("aa", (20, 40)), ((),)) == ((0, 1),)


class TestQlm:
    def test_fewer_swaps_where_nobody_is_late(self) -> None:
        plan = Qlm()(GOLDEN, ((),))
        assert cost(GOLDEN, plan)[:2] == (0.0, 2)

    def test_what_cannot_be_saved_goes_last(self) -> None:
        wanted = problem("aaa", (5, 10, 20))
        (order,) = Qlm()(wanted, ((),))
        assert order[-1] == 0
        assert cost(wanted, (order,)).penalty == 1.0

    def test_an_idle_machine_helps_where_that_gains_more_than_its_swap(self) -> None:
        jobs = tuple(Job(key, "b", 1000.0, 1.0, (10.0, 10.0)) for key in range(6))
        machines = tuple(Machine(name, held, {"a": 5.0, "b": 5.0}) for name, held in (("m0", "b"), ("m1", "a")))
        wanted = Problem(jobs, machines)
        assert [len(queue) for queue in Qlm()(wanted, (tuple(range(6)), ()))] == [3, 3]
        assert [len(queue) for queue in Qlm(payback=1e9)(wanted, (tuple(range(6)), ()))] == [6, 0]

    def test_nobody_swaps_for_what_is_late_already(self) -> None:
        jobs = tuple(Job(key, "b", -5.0, 0.0, (10.0, 10.0)) for key in range(6))
        machines = tuple(Machine(name, held, {"a": 5.0, "b": 5.0}) for name, held in (("m0", "b"), ("m1", "a")))
        assert Qlm()(Problem(jobs, machines), (tuple(range(6)), ()))[1] == ()

    def test_the_current_plan_stays_where_nobody_is_predicted_to_be_late(self) -> None:
        wanted = problem("abab", (500, 500, 500, 500))
        assert Qlm()(wanted, ((0, 1, 2, 3),)) == ((0, 1, 2, 3),), "although one swap would do"

    def test_a_wait_that_is_not_certain_is_predicted_to_be_late_earlier(self) -> None:
        wanted = problem("abab", (500, 500, 500, 50.0))  # the last ends at 55 s, or at 35 s if it goes first or second
        early = replace(wanted, jobs=tuple(replace(job, deadline_in=job.deadline_in + 10.0) for job in wanted.jobs))
        uncertain = replace(early, jobs=tuple(replace(job, deviation=5.0) for job in early.jobs))
        current = ((0, 1, 2, 3),)
        assert cost(wanted, Qlm()(wanted, current)).penalty == 0.0 < cost(wanted, current).penalty
        assert Qlm()(early, current) == current
        assert cost(uncertain, Qlm()(uncertain, current)).swaps < cost(uncertain, current).swaps
        assert Qlm(margin=0.0)(uncertain, current) == current

    def test_a_moment_after_a_search_new_groups_are_only_added(self) -> None:
        wanted = problem("abab", (500, 500, 500, 50.0))
        added = Qlm()(replace(wanted, place_only=True), ((0, 1, 2),))
        assert [job for job in added[0] if job != 3] == [0, 1, 2]

    def test_a_plan_that_is_hardly_better_is_not_worth_the_change(self) -> None:
        jobs = tuple(Job(key, "a", -1000.0, weight, (10.0,)) for key, weight in enumerate((1.0, 1.05)))
        wanted = Problem(jobs, (Machine("m0", "a", {"a": 5.0}),))
        assert cost(wanted, ((1, 0),)) < cost(wanted, ((0, 1),))
        assert Qlm()(wanted, ((0, 1),)) == ((0, 1),)


def test_the_oracle_is_never_worse_for_few_groups() -> None:
    assert cost(GOLDEN, Oracle()(GOLDEN, ((),))).penalty == 0.0
