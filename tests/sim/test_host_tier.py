"""Blocks in host memory: what is kept, and what it does to an engine that uses it."""

import pytest

from tests.sim.engines import engine
from trimtab.model.problem import Problem
from trimtab.sim.host_tier import HostTier
from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import EngineConfig, Phase, Sequence, ServingEngine, Work

BLOCK = 4
COST = IterationCost(1.0, 0.01, 0.0, 0.0, 0.0, per_host_block=0.5)


def test_the_longest_unused_goes_first() -> None:
    host = HostTier(3)
    host.store([1, 2, 3])
    host.use([1], 0, 1)
    host.store([4])
    assert (host.count_hits([1], 0, 1), host.count_hits([2], 0, 1), len(host)) == (1, 0, 3)
    assert (host.written, host.read) == (4, 1)


def test_hits_end_at_a_gap_and_at_the_most_that_is_asked_for() -> None:
    host = HostTier(10)
    host.store([1, 2, 4])
    assert host.count_hits([1, 2, 3, 4], 0, 4) == 2
    assert host.count_hits([1, 2, 3, 4], 1, 4) == 1
    assert host.count_hits([1, 2], 0, 1) == 1


def test_a_prefix_outlives_its_continuations() -> None:
    host = HostTier(4)
    host.store([1, 2, 3])
    host.use([1, 2, 3], 0, 3)
    host.store([8, 9])
    assert host.count_hits([1, 2, 3], 0, 3) == 2


def test_what_the_gpu_has_and_the_host_lost_is_copied_again() -> None:
    host = HostTier(4)
    host.use([1, 2], 2, 0)
    assert host.count_hits([1, 2], 0, 2) == 2
    host.forget()
    assert len(host) == 0


def test_an_empty_tier_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one block"):
        HostTier(0)


def test_offloading_needs_prefix_caching() -> None:
    with pytest.raises(Problem, match="host_kv_blocks is set"):
        EngineConfig(kv_blocks=10, host_kv_blocks=5, prefix_caching=False)


def offloading(**limits: object) -> ServingEngine:
    defaults: dict[str, object] = {"kv_blocks": 9, "host_kv_blocks": 100, "block_size": BLOCK}
    return engine(cost=COST, **(defaults | limits))


def a_turn(conversation: int, prompt: int, output: int) -> Work:
    hashes = tuple(conversation * 1000 + block for block in range((prompt + output) // BLOCK))
    return Work(prompt, output, block_hashes=hashes)


def serve(target: ServingEngine, *works: Work, at: float = 0.0) -> tuple[list[Sequence], float]:
    """Serve these alone; returns them and when they were done."""
    sequences = [target.add(work, at) for work in works]
    while (step := target.next_step(at)) is not None:
        at = step.end
        target.finish(step)
    assert all(sequence.phase is Phase.FINISHED for sequence in sequences)
    assert target.cache.used == 0
    return sequences, at


def test_evicted_blocks_come_back_from_the_host() -> None:
    target = offloading()
    _, at = serve(target, a_turn(1, 16, 1))
    _, at = serve(target, a_turn(2, 30, 1), at=at)  # needs all of the GPU's blocks
    (again,), done = serve(target, a_turn(1, 24, 1), at=at)
    assert again.cached_tokens == 16
    assert target.host_hits == 16
    assert again.first_token_at == done
    assert done == pytest.approx(at + 4 * COST.per_host_block + COST.base + 8 * COST.per_prefill_token)


def test_without_a_host_they_are_computed_again() -> None:
    target = offloading(host_kv_blocks=0)
    _, at = serve(target, a_turn(1, 16, 1))
    _, at = serve(target, a_turn(2, 30, 1), at=at)
    (again,), done = serve(target, a_turn(1, 24, 1), at=at)
    assert (again.cached_tokens, target.host) == (0, None)
    assert done == pytest.approx(at + COST.base + 24 * COST.per_prefill_token)


@pytest.mark.parametrize(("answers", "found"), [(True, 24), (False, 16)])
def test_answers_are_found_where_they_are_kept(answers: bool, found: int) -> None:
    target = offloading(host_kv_answers=answers)
    _, at = serve(target, a_turn(1, 16, 9))
    _, at = serve(target, a_turn(2, 30, 1), at=at)
    (again,), _ = serve(target, a_turn(1, 26, 1), at=at)
    assert again.cached_tokens == found


def test_the_engine_goes_on_while_blocks_are_copied() -> None:
    target = offloading(kv_blocks=17)
    _, at = serve(target, a_turn(1, 16, 1))
    _, at = serve(target, a_turn(2, 60, 1), at=at)
    (other, again), _ = serve(target, Work(4, 6), a_turn(1, 24, 1), at=at)
    assert other.first_token_at == pytest.approx(at + COST.base + 4 * COST.per_prefill_token)
    assert again.admitted_at is not None
    assert again.admitted_at >= at + 4 * COST.per_host_block


def test_one_that_leaves_while_its_blocks_are_copied_frees_them() -> None:
    target = offloading()
    _, at = serve(target, a_turn(1, 16, 1))
    _, at = serve(target, a_turn(2, 30, 1), at=at)
    again = target.add(a_turn(1, 24, 1), at)
    iteration = target.next_iteration(at)
    assert iteration is not None
    assert (iteration.tokens, target.loading, target.num_waiting) == ({}, (again,), 1)
    assert target.cache.used > 0
    assert target.abort(again)
    assert (target.cache.used, target.loading, target.num_waiting) == (0, (), 0)
    target.complete(iteration)
    assert target.next_iteration(iteration.end) is None


def test_sleep_takes_the_place_of_one_whose_blocks_are_copied() -> None:
    target = offloading()
    _, at = serve(target, a_turn(1, 16, 1))
    _, at = serve(target, a_turn(2, 30, 1), at=at)
    again = target.add(a_turn(1, 24, 1), at)
    iteration = target.next_iteration(at)
    assert iteration is not None
    target.complete(iteration)
    target.drop_cache()
    assert (target.cache.used, target.waiting) == (0, (again,))
    serve(target, at=iteration.end)
    assert again.phase is Phase.FINISHED
