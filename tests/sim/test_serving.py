"""The rules of continuous batching, one table or one small story each."""

import pytest

from tests.sim.engines import TICK, add_all, engine, run
from trimtab.model.problem import Problem
from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import EngineConfig, Iteration, Phase, Sequence, ServingEngine, Step, Work


@pytest.mark.parametrize(
    ("prompt", "output", "iterations"),
    [(1, 1, 1), (10, 1, 1), (10, 5, 5), (32, 1, 1), (33, 1, 2), (64, 3, 4), (65, 3, 5)],
)
def test_a_lone_request_takes_its_prompt_chunks_and_then_one_iteration_per_token(
    prompt: int, output: int, iterations: int
) -> None:
    target = engine()
    [sequence] = add_all(target, [Work(prompt, output)])
    assert run(target) == iterations
    assert (sequence.phase, sequence.produced) == (Phase.FINISHED, output)
    assert sequence.first_token_at == iterations - output + 1


def test_an_idle_engine_has_nothing_to_do() -> None:
    assert engine().next_iteration(5.0) is None


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (Work(0, 1), "prompt_tokens and output_tokens"),
        (Work(1, 0), "prompt_tokens and output_tokens"),
        (Work(250, 7), "above the 256 tokens"),
        (Work(1, 1, adapter="a"), "max_loras is 0"),
    ],
)
def test_what_can_never_be_served_is_refused_at_the_door(work: Work, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine().add(work, 0.0)


@pytest.mark.parametrize("limits", [{"max_num_seqs": 0}, {"max_num_seqs": 8, "max_num_batched_tokens": 7}])
def test_limits_that_no_engine_has_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(Problem, match="max_num_seqs"):
        engine(**limits)


def test_the_largest_request_fits_alone() -> None:
    target = engine()
    [sequence] = add_all(target, [Work(250, 6)])
    run(target)
    assert sequence.phase is Phase.FINISHED
    assert sequence.preemptions == 0


def test_decodes_go_before_prompts_and_prompts_fill_the_budget() -> None:
    target = engine(max_num_batched_tokens=10)
    first, second = add_all(target, [Work(8, 9), Work(30, 2)])
    iteration = target.next_iteration(0.0)
    assert iteration is not None
    assert list(iteration.tokens.items()) == [(first, 8), (second, 2)]
    target.complete(iteration)
    iteration = target.next_iteration(1.0)
    assert iteration is not None
    assert list(iteration.tokens.items()) == [(first, 1), (second, 9)]
    assert (iteration.decodes, iteration.prefill_tokens, iteration.total_tokens) == (1, 9, 10)


def test_at_most_max_num_seqs_run() -> None:
    target = engine(max_num_seqs=2)
    sequences = add_all(target, [Work(2, 3)] * 5)
    target.next_iteration(0.0)
    assert target.running == tuple(sequences[:2])
    assert target.waiting == tuple(sequences[2:])
    assert (target.num_running, target.num_waiting) == (2, 3)


def test_a_freed_slot_is_taken_in_the_next_iteration() -> None:
    target = engine(max_num_seqs=1)
    first, second = add_all(target, [Work(2, 3), Work(2, 1)])
    run(target)
    assert (first.last_token_at, second.admitted_at, second.first_token_at) == (3.0, 3.0, 4.0)


def test_time_of_an_iteration_is_the_sum_of_its_parts() -> None:
    cost = IterationCost(1.0, 0.1, 0.01, 0.001, 0.0001)
    target = engine(cost=cost)
    add_all(target, [Work(10, 3)])
    prefill = target.next_iteration(0.0)
    assert prefill is not None
    assert prefill.end == pytest.approx(1.0 + 0.1 * 10 + 0.0001 * 10 * 5)
    target.complete(prefill)
    decode = target.next_iteration(7.0)
    assert decode is not None
    assert (decode.context_tokens, decode.attention_pairs) == (10, 0.0)
    assert decode.end - decode.start == pytest.approx(1.0 + 0.01 + 0.001 * 10)


def test_a_mixed_prompt_chunk_slows_the_decodes_beside_it() -> None:
    cost = IterationCost(1.0, 0.1, 0.0, 0.0, 0.0)
    target = engine(cost=cost)
    [first] = add_all(target, [Work(1, 9)])
    gaps = []

    def watch(iteration: Iteration, progressed: list[Sequence]) -> None:
        if iteration.start == pytest.approx(3.1):
            target.add(Work(20, 1), iteration.end)
        if first in progressed and first.last_gap is not None:
            gaps.append(round(first.last_gap, 6))

    run(target, each=watch)
    assert gaps == [1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]


class TestPolicies:
    def order(self, target: ServingEngine, works: list[Work]) -> list[int]:
        sequences = [target.add(work, float(index)) for index, work in enumerate(works)]
        finished: list[int] = []
        run(target, float(len(works)), lambda _, done: finished.extend(sequences.index(s) for s in done))
        return finished

    def test_fcfs_ignores_priority(self) -> None:
        works = [Work(1, 1, priority=p) for p in (5, -5, 0)]
        assert self.order(engine(max_num_seqs=1), works) == [0, 1, 2]

    def test_priority_lower_is_earlier_and_ties_go_by_arrival(self) -> None:
        works = [Work(1, 1, priority=p) for p in (5, 0, -5, 0, 5, -5)]
        target = engine(max_num_seqs=1, scheduling_policy="priority")
        assert self.order(target, works) == [2, 5, 1, 3, 0, 4]

    def test_a_running_sequence_keeps_its_slot(self) -> None:
        target = engine(max_num_seqs=1, scheduling_policy="priority")
        [low] = add_all(target, [Work(1, 5, priority=9)])
        target.complete(target.next_iteration(0.0))  # type: ignore[arg-type]
        [high] = add_all(target, [Work(1, 1, priority=-9)], now=1.0)
        run(target, 1.0)
        assert low.last_token_at == 5.0
        assert high.first_token_at == 6.0


class TestPreemption:
    """Two requests of 8 + 8 tokens in a cache of 6 blocks of 4: they fit one after the other, not together."""

    def pair(self, **limits: object) -> tuple[ServingEngine, list[Sequence]]:
        target = engine(kv_blocks=7, **limits)
        return target, add_all(target, [Work(8, 8), Work(8, 8)])

    def test_the_last_admitted_loses_its_blocks_and_still_finishes(self) -> None:
        target, (first, second) = self.pair()
        run(target)
        assert (first.preemptions, second.preemptions) == (0, 1)
        assert target.preemptions == 1
        assert first.produced == second.produced == 8
        assert target.cache.used == 0

    def test_preempted_tokens_are_kept_and_their_keys_computed_again(self) -> None:
        target, (_, second) = self.pair(prefix_caching=False)
        recomputed: list[int] = []

        def watch(iteration: Iteration, _: list[Sequence]) -> None:
            if second in iteration.tokens and second.preemptions:
                recomputed.append(iteration.tokens[second])

        run(target, each=watch)
        assert recomputed[0] > 8, "prompt and the answer so far"
        assert recomputed[1:] == [1] * (len(recomputed) - 1)

    def test_recomputation_hits_the_prefix_cache(self) -> None:
        target, (_, second) = self.pair()
        # Another request frees enough room early, before the blocks of the preempted one are overwritten.
        preempted_at: list[int] = []

        def watch(iteration: Iteration, _: list[Sequence]) -> None:
            if second in iteration.preempted:
                preempted_at.append(second.known_tokens)
                target.abort(target.running[0])
            if second in iteration.tokens and preempted_at:
                preempted_at.append(iteration.tokens[second])

        run(target, each=watch)
        known, first_chunk = preempted_at[:2]
        assert first_chunk < known, "full blocks were found, only the rest was computed"

    def test_by_priority_the_least_important_loses(self) -> None:
        target = engine(kv_blocks=7, scheduling_policy="priority")
        low, high = add_all(target, [Work(8, 8, priority=1), Work(8, 8, priority=0)])
        run(target)
        assert high.admitted_at == low.admitted_at == 0.0
        assert (low.preemptions, high.preemptions) == (1, 0)

    def test_no_one_is_admitted_in_an_iteration_that_preempts(self) -> None:
        target = engine(kv_blocks=7, max_num_seqs=2)
        sequences = add_all(target, [Work(8, 8), Work(8, 8), Work(1, 1)])

        def watch(iteration: Iteration, _: list[Sequence]) -> None:
            if iteration.preempted:
                assert sequences[2] not in iteration.tokens

        run(target, each=watch)
        assert target.preemptions >= 1

    def test_a_victim_that_was_already_served_gives_its_budget_back(self) -> None:
        target = engine(kv_blocks=7, scheduling_policy="priority", max_num_batched_tokens=16)
        low = target.add(Work(7, 9, priority=5), 0.0)
        high = target.add(Work(7, 9, priority=0), 1.0)

        def watch(iteration: Iteration, _: list[Sequence]) -> None:
            assert iteration.total_tokens == sum(iteration.tokens.values())
            assert not set(iteration.preempted) & set(iteration.tokens)

        run(target, 1.0, each=watch)
        assert low.produced == high.produced == 9

    def test_the_first_in_the_batch_can_be_its_own_victim(self) -> None:
        target = engine(kv_blocks=7, scheduling_policy="priority", prefix_caching=False)
        low = target.add(Work(8, 9, priority=1), 0.0)
        first = target.next_iteration(0.0)
        assert first is not None
        target.complete(first)
        high = target.add(Work(8, 9, priority=0), 1.0)
        alone: list[Sequence] = []

        def watch(iteration: Iteration, _: list[Sequence]) -> None:
            if low in iteration.preempted:
                alone.extend(iteration.tokens)

        run(target, 1.0, each=watch)
        assert (low.preemptions, high.preemptions) == (1, 0)
        assert alone == [high], "the iteration in which it gave up still served the other"
        assert (low.produced, high.produced) == (9, 9)

    def test_tokens_of_a_victim_go_to_those_after_it(self) -> None:
        target = engine(kv_blocks=16, scheduling_policy="priority", max_num_batched_tokens=20, prefix_caching=False)
        low = target.add(Work(37, 9, priority=5), 0.0)
        for start in (0.0, 1.0):
            target.complete(target.next_iteration(start))  # type: ignore[arg-type]
        high, third = add_all(target, [Work(16, 4), Work(40, 2)], now=2.0)
        served: list[dict[Sequence, int]] = []
        run(target, 2.0, each=lambda iteration, _: served.append(dict(iteration.tokens)))
        assert low.preemptions == 1
        assert served[:2] == [{low: 1, high: 16, third: 3}, {high: 1, third: 19}]


class TestPrefixCache:
    HASHES = tuple(range(100, 120))

    def test_the_second_of_two_equal_prompts_computes_only_its_last_block(self) -> None:
        target = engine()
        [first] = add_all(target, [Work(20, 1, block_hashes=self.HASHES)])
        run(target)
        [second] = add_all(target, [Work(20, 1, block_hashes=self.HASHES)], now=1.0)
        iteration = target.next_iteration(1.0)
        assert iteration is not None
        assert iteration.tokens[second] == 4, "at least one token is computed, in whole blocks"
        assert (first.cached_tokens, second.cached_tokens) == (0, 16)
        assert (target.prefix_queries, target.prefix_hits) == (40, 16)

    @pytest.mark.parametrize(("prompt", "cached"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (21, 20)])
    def test_hits_are_whole_blocks_and_leave_a_token(self, prompt: int, cached: int) -> None:
        target = engine()
        for _ in range(2):
            [sequence] = add_all(target, [Work(prompt, 1, block_hashes=self.HASHES)])
            run(target)
        assert sequence.cached_tokens == cached

    def test_prompts_that_part_share_what_is_before(self) -> None:
        target = engine()
        other = (*self.HASHES[:2], 7, 8, 9)
        add_all(target, [Work(20, 1, block_hashes=self.HASHES)])
        run(target)
        [sequence] = add_all(target, [Work(20, 1, block_hashes=other)])
        run(target)
        assert sequence.cached_tokens == 8

    def test_an_answer_is_found_by_the_next_turn(self) -> None:
        target = engine()
        add_all(target, [Work(8, 8, block_hashes=self.HASHES)])
        run(target)
        [turn] = add_all(target, [Work(20, 1, block_hashes=self.HASHES)])
        run(target)
        assert turn.cached_tokens == 12, "the last token of the answer was never an input"

    def test_unknown_blocks_are_nobody_elses(self) -> None:
        target = engine()
        add_all(target, [Work(20, 1), Work(20, 1)])
        run(target)
        [third] = add_all(target, [Work(20, 1)])
        run(target)
        assert third.cached_tokens == 0


class TestAbort:
    def test_of_a_running_sequence_frees_its_blocks_at_once(self) -> None:
        target = engine()
        first, second = add_all(target, [Work(8, 8), Work(8, 2)])
        iteration = target.next_iteration(0.0)
        assert iteration is not None
        assert target.abort(first)
        assert target.cache.used == 2
        assert target.complete(iteration) == [second]
        run(target, 1.0)
        assert (first.phase, first.produced, second.phase) == (Phase.ABORTED, 0, Phase.FINISHED)
        assert target.cache.used == 0

    def test_of_a_waiting_sequence_lets_the_next_one_move_up(self) -> None:
        target = engine(max_num_seqs=1)
        _, second, third = add_all(target, [Work(1, 1), Work(1, 1), Work(1, 1)])
        assert target.abort(second)
        assert target.waiting[1:] == (third,)
        run(target)
        assert third.first_token_at == 2.0

    def test_of_an_ended_sequence_is_false(self) -> None:
        target = engine()
        [sequence] = add_all(target, [Work(1, 1)])
        run(target)
        assert not target.abort(sequence)
        assert sequence.phase is Phase.FINISHED


class TestAdapters:
    def test_no_more_adapters_than_slots_share_a_batch(self) -> None:
        target = engine(max_loras=1)
        first, second, third, base = add_all(
            target, [Work(1, 2, adapter="a"), Work(1, 2, adapter="b"), Work(1, 2, adapter="a"), Work(1, 2)]
        )
        target.next_iteration(0.0)
        assert target.running == (first, third, base)
        assert target.waiting == (second,)
        assert target.num_deferred == 1

    def test_a_deferred_sequence_runs_when_the_slot_is_free(self) -> None:
        target = engine(max_loras=1)
        _, second = add_all(target, [Work(1, 2, adapter="a"), Work(1, 2, adapter="b")])
        run(target)
        assert second.admitted_at == 2.0
        assert target.num_deferred == 0


def test_a_paused_engine_holds_everything() -> None:
    target = engine()
    [sequence] = add_all(target, [Work(1, 2)])
    target.paused = True
    assert target.next_iteration(0.0) is None
    target.paused = False
    assert run(target, 10.0) == 12.0
    assert sequence.first_token_at == 11.0


def test_vllm_keeps_one_block_for_itself() -> None:
    assert ServingEngine(EngineConfig(kv_blocks=48, block_size=32), TICK).token_capacity == 47 * 32


class TestSkipping:
    """Many iterations at once; that their times are right is the property tests' part."""

    def begun(self, **limits: object) -> tuple[ServingEngine, Sequence, Step]:
        """An engine after its first iteration, and the step that follows."""
        target = engine(**limits)  # type: ignore[arg-type]
        [sequence] = add_all(target, [Work(4, 100)])
        first = target.next_step(0.0)
        assert first is not None
        assert target.finish(first) == []
        step = target.next_step(1.0)
        assert step is not None
        return target, sequence, step

    def test_a_step_lasts_until_somebody_finishes(self) -> None:
        target, sequence, step = self.begun()
        assert (step.iterations, step.end) == (99, 100.0)
        assert target.finish(step) == [sequence]
        assert (sequence.produced, sequence.last_token_at, target.cache.used) == (100, 100.0, 0)
        assert (target.iterations, target.busy_seconds) == (100, 100.0)
        assert target.next_step(100.0) is None

    def test_a_step_ends_where_blocks_run_out(self) -> None:
        target = engine(kv_blocks=13)
        add_all(target, [Work(4, 40), Work(4, 40)])
        target.finish(target.next_step(0.0))  # type: ignore[arg-type]
        step = target.next_step(1.0)
        assert step is not None
        assert step.iterations == 20, "five blocks of four tokens more for each"
        assert target.finish(step) == []
        target.next_step(step.end)
        assert target.preemptions == 1

    def test_an_interruption_accounts_for_what_is_over_and_leaves_what_is_under_way(self) -> None:
        target, sequence, step = self.begun()
        rest = target.interrupt(step, 50.5)
        assert (rest.start, rest.end, rest.iterations) == (50.0, 51.0, 1)
        assert target.running[0].produced == 50
        assert target.interrupt(rest, 50.7) is rest
        target.abort(sequence)
        assert target.finish(rest) == []
        assert (sequence.produced, target.cache.used) == (50, 0)

    def test_an_arrival_need_not_interrupt_what_it_cannot_change(self) -> None:
        target, _, step = self.begun(max_num_seqs=1)
        assert target.goes_on(step, Work(1, 1), 50.5)
        target, _, step = self.begun()
        assert not target.goes_on(step, Work(1, 1), 50.5)
        assert target.goes_on(target.interrupt(step, 50.5), Work(1, 1), 50.5)

    def test_a_more_important_arrival_interrupts_where_the_queue_is_held_up(self) -> None:
        target = engine(scheduling_policy="priority", kv_blocks=35)  # 34 blocks, of which the first takes 27
        add_all(target, [Work(104, 20)])
        for start in (0.0, 1.0, 2.0, 3.0):
            target.finish(target.next_step(start))  # type: ignore[arg-type]
        add_all(target, [Work(60, 2, priority=1)], now=4.0)  # it needs eight for its first chunk
        step = target.next_step(4.0)
        assert step is not None
        assert (step.iterations, target.num_waiting) == (19, 1)
        assert target.goes_on(step, Work(1, 1, priority=2), 4.5)
        assert target.goes_on(step, Work(1, 1, priority=1), 4.5)
        assert not target.goes_on(step, Work(1, 1, priority=0), 4.5)

    @pytest.mark.parametrize("growth", [0.0, 1e-6, 0.01])
    @pytest.mark.parametrize("iterations", [1, 2, 50, 3000])
    def test_completed_iterations_are_found_at_and_between_their_ends(self, growth: float, iterations: int) -> None:
        step = Step(7.0, 0.0, 0.02, growth, iterations)
        for completed in range(iterations):
            end, following = step.end_of(completed), step.end_of(completed + 1)
            assert step.completed_by(end) == completed
            assert step.completed_by((end + following) / 2) == completed
        assert step.completed_by(step.end_of(iterations)) == iterations - 1, "the last one ends by `finish`"
        assert step.completed_by(6.9) == 0
