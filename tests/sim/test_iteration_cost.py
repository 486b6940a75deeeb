"""What an iteration costs, where engines do not do the same thing at any size."""

from dataclasses import replace

import pytest

from tests.sim.engines import add_all, engine, run
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import IterationCost, load_profile
from trimtab.sim.serving import ServingEngine, Work

COST = IterationCost(
    1.0, 0.1, 0.01, 0.001, 0.0, mixed=0.5, mixed_floor=3.0, split_decodes=2, unsplit_context_token=0.0005,
    per_longest_token=0.02,
)  # fmt: skip


def seconds(prefill: int, decodes: int, context: int = 0, longest: int = 0) -> float:
    return COST.seconds(
        prefill_tokens=prefill, decodes=decodes, context_tokens=context, attention_pairs=0.0, longest_context=longest
    )


def test_an_iteration_with_prompt_tokens_costs_more_and_at_least_its_floor() -> None:
    assert seconds(0, 2) == pytest.approx(1.02)
    assert seconds(1, 2) == 3.0
    assert seconds(30, 2) == pytest.approx(1.0 + 3.0 + 0.02 + 0.5)


def test_attention_that_is_not_shared_out_waits_for_the_longest_context() -> None:
    assert seconds(0, 2, context=100, longest=90) == pytest.approx(1.02 + 0.1)
    assert seconds(0, 3, context=100, longest=90) == pytest.approx(1.03 + 0.05 + 1.8)


@pytest.mark.parametrize("decodes", [1, 2, 3, 8])
def test_growth_is_what_one_token_more_for_each_costs(decodes: int) -> None:
    later = seconds(0, decodes, context=100 + decodes, longest=51)
    assert COST.growth(decodes) == pytest.approx(later - seconds(0, decodes, context=100, longest=50))


def test_offloading_costs_each_token() -> None:
    cost = replace(COST, per_stored_token=0.25).offloading()
    assert (cost.per_prefill_token, cost.per_decode_sequence) == (0.35, 0.26)


def test_the_longest_context_is_that_of_who_is_left() -> None:
    target = engine(cost=replace(COST, mixed_floor=0.0, mixed=0.0, per_decode_sequence=0.0), max_num_seqs=4)
    took: list[float] = []
    add_all(target, [Work(10, 2), Work(5, 4), Work(3, 4), Work(2, 4)])
    run(target, each=lambda iteration, _: took.append(iteration.end - iteration.start))
    assert took[1] == pytest.approx(1.0 + 20 * 0.0005 + 10 * 0.02)
    assert took[2] == pytest.approx(1.0 + 13 * 0.0005 + 6 * 0.02), "the longest one has left"


def planning_ahead(*, ahead: bool) -> ServingEngine:
    return engine(async_scheduling=ahead)


@pytest.mark.parametrize(("ahead", "first_token_at"), [(False, 4.0), (True, 5.0)])
def test_who_comes_while_an_iteration_runs_waits_for_the_one_planned_already(
    ahead: bool, first_token_at: float
) -> None:
    target = planning_ahead(ahead=ahead)
    target.add(Work(4, 8), 0.0)
    step = target.next_step(0.0)
    assert step is not None
    target.finish(step)
    step = target.next_step(1.0)
    assert step is not None
    step = target.interrupt(step, 2.5)
    late = target.add(Work(4, 1), 2.5)
    assert (target.num_waiting, target.waiting) == (1, (late,))
    while late.first_token_at is None:
        target.finish(step)
        step = target.next_step(step.end)
        assert step is not None
    assert late.first_token_at == first_token_at


def test_who_comes_to_an_idle_engine_does_not_wait() -> None:
    target = planning_ahead(ahead=True)
    first = target.add(Work(4, 1), 5.0)
    run(target, 5.0)
    assert first.first_token_at == 6.0


def test_one_that_leaves_before_it_was_seen_is_forgotten() -> None:
    target = planning_ahead(ahead=True)
    target.add(Work(4, 3), 0.0)
    iteration = target.next_iteration(0.0)
    assert iteration is not None
    late = target.add(Work(4, 3), 0.5)
    assert target.abort(late)
    target.complete(iteration)
    assert run(target, 1.0) == 3.0
    assert (target.num_waiting, late.produced) == (0, 0)


def test_a_profile_says_whether_its_engine_plans_ahead() -> None:
    profile = load_profile("tiny")
    assert not EngineConfig.of(profile).async_scheduling
    ahead = EngineConfig.of(replace(profile, async_scheduling=True, host_kv_blocks=7))
    assert (ahead.async_scheduling, ahead.host_kv_blocks) == (True, 0), "offloading is off until it is asked for"
