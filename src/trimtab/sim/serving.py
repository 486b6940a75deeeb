"""The serving physics: continuous batching of one engine, iteration by iteration, as a pure state machine.

The rules are those of vLLM's scheduler. Every iteration has a budget of tokens. Running sequences are served first, in
the order in which they were admitted: one token each for those that decode, a chunk of the prompt for those that do not
yet. What is left of the budget admits waiting sequences, prompts in chunks, as long as sequence slots, KV blocks and
adapter slots last. A running sequence that finds no free block takes those of the worst one (the last admitted, or by
priority), which goes back to the queue and computes its tokens again, less what the prefix cache still holds.

With a host tier, blocks that follow those found on the GPU may be found in host memory. Their sequence takes its place
and its blocks, and waits until they have been copied; the engine goes on meanwhile. Copies come one after the other.

Nothing here reads a clock, waits or draws random numbers, so that the lab can run it as events and `trimtab engine`
against a wall clock, one iteration after the other:

    while (iteration := engine.next_iteration(now)) is not None:
        now = iteration.end
        progressed = engine.complete(iteration)

Between changes iterations differ only in the context that they read, which grows by the same number of tokens each
time. So any number of them can be made at once, exactly, and what happens in between cuts the step short:

    while (step := engine.next_step(now)) is not None:
        ...  # if something happens at a time before step.end: step = engine.interrupt(step, time)
        now = step.end
        finished = engine.finish(step)
"""

import heapq
from collections import Counter
from dataclasses import replace

from trimtab.sim.host_tier import HostTier
from trimtab.sim.iteration import EngineConfig, Iteration, SchedulingPolicy, Step
from trimtab.sim.kv_cache import NO_RUN, KvCache
from trimtab.sim.lockstep import Lockstep, Phase, Sequence, Work
from trimtab.sim.profile import IterationCost

__all__ = ["EngineConfig", "Iteration", "Phase", "SchedulingPolicy", "Sequence", "ServingEngine", "Step", "Work"]


class ServingEngine:
    """Continuous batching of one engine. See the module's text for the rules.

    Attributes:
        paused: While true no iteration starts (pause and sleep).
        preemptions: Times that a sequence lost its KV blocks.
        prefix_queries: Prompt tokens looked up in the prefix cache at first admissions.
        prefix_hits: Those of them that were found.
        iterations: Iterations that are over.
        busy_seconds: What they took.
        host: The blocks in host memory; None without offloading.
        host_hits: Prompt tokens that were found there at first admissions.
    """

    def __init__(self, config: EngineConfig, cost: IterationCost) -> None:
        self.config = config
        self.cost = cost.offloading() if config.host_kv_blocks else cost
        self.host = HostTier(config.host_kv_blocks) if config.host_kv_blocks else None
        self.host_hits = 0
        self.cache = KvCache(max(config.kv_blocks - 1, 1), config.block_size, prefix_caching=config.prefix_caching)
        self.paused = False
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.iterations = 0
        self.busy_seconds = 0.0
        self._running: dict[int, Sequence] = {}  # by place; all but the last one, at most, decode in lockstep
        self._lockstep = Lockstep(config.block_size, naming=config.prefix_caching)
        self._served: dict[Sequence, int] = {}  # what the iteration under way processes outside the lockstep
        self._under_way = False
        self._queue: list[tuple[int, float, int, Sequence]] = []  # heap; aborted sequences leave it when they surface
        self._fresh: list[Sequence] = []  # came while an iteration ran whose successor had been planned
        self._loading: dict[Sequence, float] = {}  # wait for their blocks from the host, until when
        self._link_free_at = 0.0
        self._waiting = 0
        self._deferred = 0
        self._added = 0
        self._places = 0
        self._adapters: Counter[str] = Counter()  # of the running sequences

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences in the batch, in the order of their admission, their numbers up to date."""
        for sequence in self._running.values():
            self.sync(sequence)
        return tuple(self._running.values())

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """Sequences in the queue, the next one first."""
        in_order = [entry[-1] for entry in sorted(self._queue, key=lambda entry: entry[:3])]
        in_order = [*self._loading, *in_order, *self._fresh]
        return tuple(sequence for sequence in in_order if sequence.phase is Phase.WAITING)

    @property
    def loading(self) -> tuple[Sequence, ...]:
        """Those of the waiting sequences whose blocks come from the host; they hold their blocks already."""
        return tuple(self._loading)

    @property
    def num_running(self) -> int:
        """Length of `running`."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Length of `waiting`."""
        return self._waiting

    @property
    def num_deferred(self) -> int:
        """Waiting sequences that were passed over for want of an adapter slot."""
        return min(self._deferred, self._waiting)

    @property
    def token_capacity(self) -> int:
        """Most tokens that one sequence can have, prompt and answer together."""
        return self.cache.capacity * self.cache.block_size

    def sync(self, sequence: Sequence) -> None:
        """Bring a sequence's numbers up to date."""
        if sequence.offset is not None:
            self._lockstep.sync(sequence)
            if self._under_way:
                sequence.blocks = self.cache.blocks_for(sequence.computed + 1)

    def add(self, work: Work, now: float) -> Sequence:
        """Put a request into the queue.

        Raises:
            ValueError: It can never be served by this engine; the message names the field.
        """
        if work.prompt_tokens < 1 or work.output_tokens < 1:
            raise ValueError("prompt_tokens and output_tokens must be at least 1")
        if work.prompt_tokens + work.output_tokens > self.token_capacity:
            raise ValueError(
                f"prompt_tokens + output_tokens is {work.prompt_tokens + work.output_tokens},"
                f" above the {self.token_capacity} tokens of the KV cache"
            )
        if work.adapter and not self.config.max_loras:
            raise ValueError("adapter is set, but max_loras is 0")
        self._added += 1
        sequence = Sequence(work, self._added, now)
        if self._under_way and self.config.async_scheduling:
            self._waiting += 1
            self._fresh.append(sequence)
        else:
            self._enqueue(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> bool:
        """End a sequence and free its blocks at once; False if it had ended before."""
        if not sequence.alive:
            return False
        if sequence.phase is Phase.RUNNING:
            self._remove(sequence)
            self._release(sequence)
        else:
            self._waiting -= 1
            self._stop_loading(sequence)
        sequence.phase = Phase.ABORTED
        return True

    def drop_cache(self) -> None:
        """Lose every block, as a sleeping engine does; running sequences go back to the queue and compute again."""
        for sequence in reversed(self.running):
            self._preempt(sequence)
        for sequence in [*self._loading]:
            self._stop_loading(sequence)
            self._waiting -= 1
            self._enqueue(sequence)
        self.cache.forget()

    def next_iteration(self, now: float) -> Iteration | None:
        """Plan the iteration that starts at `now`; None if there is nothing to do.

        The plan must be completed before the next one is asked for.
        """
        iteration = self._begin(now)
        if iteration is not None and self._lockstep.size:
            served = iteration.tokens
            everybody = {s: 1 if s.offset is not None else served[s] for s in self._running.values() if self._serves(s)}
            iteration = replace(iteration, tokens=everybody)
        return iteration

    def complete(self, iteration: Iteration) -> list[Sequence]:
        """Account for an iteration that has ended.

        Returns:
            The sequences that produced a token, in the order of the batch; some of them have finished with it.
        """
        before = [(sequence, sequence.produced) for sequence in iteration.tokens if sequence.phase is Phase.RUNNING]
        self._end(iteration.start, iteration.end)
        for sequence, _ in before:
            self.sync(sequence)
        return [sequence for sequence, produced in before if sequence.produced > produced]

    def next_step(self, now: float) -> Step | None:
        """Like `next_iteration`, but as many iterations at once as are equal; `finish` or `interrupt` ends the step."""
        if not self.paused and (iterations := self._equal_iterations()) > 1:
            self._deferred = 0
            size, context = self._lockstep.size, self._lockstep.context
            first = self.cost.seconds(
                prefill_tokens=0,
                decodes=size,
                context_tokens=context,
                attention_pairs=0.0,
                longest_context=self._lockstep.longest,
            )
            growth = self.cost.growth(size)
            end = now + iterations * first + growth * (iterations * (iterations - 1) / 2)
            return Step(now, end, first, growth, iterations)
        return self._single(now)

    def interrupt(self, step: Step, now: float) -> Step:
        """Account for what is over at `now`; the iteration under way then becomes a step of its own.

        Afterwards requests can be added and aborted, and the engine looks as it does after `next_iteration`.
        """
        if step.iteration is not None:
            return step
        completed = step.completed_by(now)
        boundary = step.end_of(completed)
        self._pass_over(completed, step.start, boundary)
        rest = self._single(boundary)
        assert rest is not None, "what is under way goes on"
        return rest

    def finish(self, step: Step) -> list[Sequence]:
        """Account for a step that has ended; returns the sequences that have finished."""
        if step.iteration is not None:
            return self._end(step.start, step.end)
        return self._pass_over(step.iterations, step.start, step.end)

    def goes_on(self, step: Step, work: Work, now: float) -> bool:
        """Whether a request added now changes nothing before the end of the step, so that nothing need interrupt it."""
        if step.iteration is not None:
            return True
        if self.config.async_scheduling:  # which iteration of the step it comes in makes a difference
            return False
        if len(self._running) >= self.config.max_num_seqs:
            return True
        if not self._queue or self._queue[0][-1].phase is not Phase.WAITING:
            return False
        return self._queue[0][:2] <= self._rank(work, now)

    def _single(self, now: float) -> Step | None:
        iteration = self._begin(now)
        if iteration is None:
            return None
        return Step(now, iteration.end, iteration.end - now, 0.0, 1, iteration)

    def _serves(self, sequence: Sequence) -> bool:
        return sequence.offset is not None or sequence in self._served

    def _begin(self, now: float) -> Iteration | None:
        if self.paused:
            return None
        assert not self._under_way, "an iteration is completed before the next one"
        preempted: list[Sequence] = []
        self._served = {}
        while not self._served:
            before = len(preempted)
            budget = self._serve_running(preempted)
            if len(preempted) == before:
                self._admit_waiting(budget, now)
                break
            if self._lockstep.size:
                break
            # Else nobody is admitted; where nobody was served either, the pass took no time and is made again.
        fresh = self._take_fresh()
        if not self._served and not self._lockstep.size:
            arrived = min(self._loading.values(), default=None)
            if fresh or (arrived is not None and arrived <= now):
                return self._begin(now)
            if arrived is None:
                return None
            self._under_way = True
            return Iteration(now, arrived, {}, 0, 0, 0, 0.0, tuple(preempted))
        self._under_way = True
        return self._timed(tuple(preempted), now)

    def _take_fresh(self) -> bool:
        """Let the next plan see those that came before this one; returns whether there are any."""
        alive = [sequence for sequence in self._fresh if sequence.alive]
        self._fresh = []
        for sequence in alive:
            self._waiting -= 1
            self._enqueue(sequence)
        return bool(alive)

    def _end(self, start: float, end: float) -> list[Sequence]:
        """Account for the iteration under way; returns those that finished, in the order of the batch."""
        self._under_way = False
        self.iterations += 1
        self.busy_seconds += end - start
        finished = self._lockstep.advance(1, end)
        for sequence in finished:
            self._finish(sequence)
        for sequence, tokens in self._served.items():
            if sequence.phase is not Phase.RUNNING:
                continue
            sequence.computed += tokens
            if sequence.computed == sequence.known_tokens and self._produce(sequence, end):
                finished.append(sequence)
        self._form_up()
        return finished

    def _pass_over(self, iterations: int, start: float, end: float) -> list[Sequence]:
        """Make equal iterations at once; only in the last one may sequences finish."""
        if not iterations:
            return []
        self.iterations += iterations
        self.busy_seconds += end - start
        self.cache.take(self._lockstep.blocks_for(iterations))
        finished = self._lockstep.advance(iterations, end)
        for sequence in finished:
            self._finish(sequence)
        return finished

    def _form_up(self) -> None:
        """Let those that decode from now on join the lockstep; they are the last ones, or everybody after a break."""
        for sequence in self._served if self._lockstep.size else self._running.values():
            if sequence.phase is Phase.RUNNING and sequence.offset is None and sequence.decodes:
                self._lockstep.join(sequence)

    def _equal_iterations(self) -> int:
        """How many iterations from now on only decode the same sequences; 0 or 1 where that is not sure."""
        lockstep = self._lockstep
        if not lockstep.size or len(self._running) > lockstep.size or self._fresh or self._loading:
            return 0
        iterations = lockstep.affordable(self.cache.free, min(lockstep.until_finish(), lockstep.until_name()))
        return iterations if iterations > 1 and self._nobody_can_join() else 0

    def _nobody_can_join(self) -> bool:
        """Whether nobody is admitted however many iterations only decode: certain if true, not if false.

        Such iterations take free blocks and evict cached ones. So the first in the queue needs at least the blocks of
        its tokens less those that others hold for it now, or those of a chunk that fills the budget.
        """
        self._drop_aborted()
        budget = self.config.max_num_batched_tokens - self._lockstep.size
        if not self._queue or not budget or len(self._running) >= self.config.max_num_seqs:
            return True
        sequence = self._queue[0][-1]
        if not self._adapter_fits(sequence):
            return False
        cache, hashes = self.cache, sequence.work.block_hashes
        hits = cache.count_hits(hashes, (sequence.known_tokens - 1) // cache.block_size)
        shared = hits - cache.count_idle(hashes, hits)
        least = min(cache.blocks_for(sequence.known_tokens) - shared, cache.blocks_for(budget))
        return cache.free - self._lockstep.blocks_for(1) < least

    def _serve_running(self, preempted: list[Sequence]) -> int:
        """Give running sequences their tokens; returns the budget that is left."""
        if len(self._running) > self._lockstep.size + 1:  # disbanded by a pass in which nobody was served
            return self._serve_one_by_one(preempted)
        needed = self._lockstep.blocks_for(1)
        prompt = self._unfinished_prompt()
        tokens = self._chunk(prompt)
        chunk_blocks = 0 if prompt is None else self._missing_blocks(prompt, tokens)
        enough = needed + chunk_blocks <= self.cache.free
        fillers = self._lockstep.fillers()
        if not (enough or (self.config.scheduling_policy == "fcfs" and not fillers)):
            return self._serve_one_by_one(preempted)
        if not all(self.cache.is_safe(s.work.block_hashes[len(s.held)], needed) for s in fillers):
            return self._serve_one_by_one(preempted)
        while needed > self.cache.free:  # the last admitted gives way, until the others have their blocks
            victim = self._worst_running()
            needed -= self._lockstep.needs_block(victim)
            self._preempt(victim)
            preempted.append(victim)
        self.cache.take(needed)
        for filler in fillers:
            self._name(filler, self._lockstep.full_blocks(filler))
        budget = self.config.max_num_batched_tokens - self._lockstep.size
        if prompt is None or prompt.phase is not Phase.RUNNING or not tokens:
            return budget
        if not self._reserve(prompt, tokens):
            self._preempt(prompt)
            preempted.append(prompt)
            return budget
        self._served[prompt] = tokens
        return budget - tokens

    def _unfinished_prompt(self) -> Sequence | None:
        """The sequence that computes its prompt: the last admitted, because it left no budget for others."""
        if len(self._running) == self._lockstep.size:
            return None
        return next(reversed(self._running.values()))

    def _chunk(self, prompt: Sequence | None) -> int:
        if prompt is None:
            return 0
        return min(prompt.known_tokens - prompt.computed, self.config.max_num_batched_tokens - self._lockstep.size)

    def _serve_one_by_one(self, preempted: list[Sequence]) -> int:
        """Serve in the order of the batch, where it matters who gets a block or a hash first."""
        budget = self.config.max_num_batched_tokens
        in_order = self.running
        self._lockstep.disband(s for s in in_order if s.offset is not None)
        for sequence in in_order:
            if not budget:
                break
            if sequence.phase is not Phase.RUNNING:  # lost its blocks to one before it
                continue
            tokens = min(sequence.known_tokens - sequence.computed, budget)
            while not self._reserve(sequence, tokens):
                victim = self._worst_running()
                budget += self._served.pop(victim, 0)
                self._preempt(victim)
                preempted.append(victim)
                if victim is sequence:
                    return budget
            self._served[sequence] = tokens
            budget -= tokens
        return budget

    def _admit_waiting(self, budget: int, now: float) -> None:
        budget = self._admit_loaded(budget, now)
        passed_over = []
        while budget and self._queue and len(self._running) + len(self._loading) < self.config.max_num_seqs:
            sequence = self._queue[0][-1]
            if sequence.phase is not Phase.WAITING:
                heapq.heappop(self._queue)
            elif not self._adapter_fits(sequence):
                passed_over.append(heapq.heappop(self._queue))
            else:
                tokens = self._admit(sequence, budget, now)
                if not tokens and sequence not in self._loading:
                    break
                heapq.heappop(self._queue)
                if tokens:
                    self._served[sequence] = tokens
                budget -= tokens
        self._deferred = len(passed_over)
        for entry in passed_over:
            heapq.heappush(self._queue, entry)

    def _admit(self, sequence: Sequence, budget: int, now: float) -> int:
        """Move a sequence into the batch; returns its tokens in this iteration, 0 if there is no room for it."""
        cache, hashes = self.cache, sequence.work.block_hashes
        # The last token is always computed, because its logits are what the next one is drawn from.
        most = (sequence.known_tokens - 1) // cache.block_size
        hits = cache.count_hits(hashes, most)
        if self.host is not None and (loaded := self.host.count_hits(hashes, hits, most)):
            self._load(self.host, sequence, hits, loaded, budget, now)
            return 0
        again = cache.blocks_of(sequence.run) if hits == len(hashes) else 0
        found = (hits + again) * cache.block_size
        tokens = min(sequence.known_tokens - found, budget)
        fresh = cache.blocks_for(found + tokens) - hits - again
        if fresh > cache.free - again - cache.count_idle(hashes, hits):
            return 0
        sequence.held = list(hashes[:hits])
        cache.hold(sequence.held)
        sequence.blocks = hits + (cache.hold_run(sequence.run) if again else 0)
        sequence.run = NO_RUN
        sequence.computed = found
        if self.host is not None:
            self.host.use(hashes, hits, 0)
        self._take_place(sequence)
        self._enter(sequence, now)
        self._reserve(sequence, tokens)
        return tokens

    def _load(self, host: HostTier, sequence: Sequence, hits: int, loaded: int, budget: int, now: float) -> None:
        """Start copying a sequence's blocks from the host, if there is room for them and for what it computes then."""
        cache, hashes = self.cache, sequence.work.block_hashes
        found = (hits + loaded) * cache.block_size
        fresh = cache.blocks_for(found + min(sequence.known_tokens - found, budget)) - hits
        if fresh > cache.free - cache.count_idle(hashes, hits):
            return
        sequence.held = list(hashes[:hits])
        cache.hold(sequence.held)
        cache.take(fresh)
        host.use(hashes, hits, loaded)
        if sequence.admitted_at is None:
            self.host_hits += loaded * cache.block_size
        sequence.blocks = hits + fresh
        sequence.run = NO_RUN
        sequence.computed = found
        self._take_place(sequence)
        self._link_free_at = max(self._link_free_at, now) + loaded * self.cost.per_host_block
        self._loading[sequence] = self._link_free_at

    def _admit_loaded(self, budget: int, now: float) -> int:
        """Let those whose blocks have arrived compute the rest of their prompts; returns the budget that is left.

        Who cannot compute all of it keeps the others out, as long prompts do.
        """
        for sequence in [sequence for sequence, at in self._loading.items() if at <= now]:
            if not budget:
                break
            rest = sequence.known_tokens - sequence.computed
            tokens = min(rest, budget)
            if self._missing_blocks(sequence, tokens) > self.cache.free:
                tokens = sequence.blocks * self.cache.block_size - sequence.computed
            del self._loading[sequence]
            self._enter(sequence, now)
            self._reserve(sequence, tokens)
            self._give_back(sequence, sequence.blocks - self.cache.blocks_for(sequence.computed + tokens))
            self._served[sequence] = tokens
            budget = budget - tokens if tokens == rest else 0
        return budget

    def _give_back(self, sequence: Sequence, blocks: int) -> None:
        """Free blocks that a sequence had reserved for a larger budget than it got."""
        self.cache.release((), blocks)
        sequence.blocks -= blocks

    def _stop_loading(self, sequence: Sequence) -> None:
        """Take its blocks and its place from a sequence if it waits for the host."""
        if self._loading.pop(sequence, None) is not None:
            self._release(sequence)
            sequence.computed = 0
            self._give_place_up(sequence)

    def _missing_blocks(self, sequence: Sequence, tokens: int) -> int:
        return max(self.cache.blocks_for(sequence.computed + tokens) - sequence.blocks, 0)

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Get the blocks for `tokens` more tokens, and offer those that they fill to the prefix cache."""
        missing = self._missing_blocks(sequence, tokens)
        if missing > self.cache.free:
            return False
        self.cache.take(missing)
        sequence.blocks += missing
        self._name(sequence, (sequence.computed + tokens) // self.cache.block_size)
        return True

    def _name(self, sequence: Sequence, full: int) -> None:
        hashes, before = sequence.work.block_hashes, len(sequence.held)
        self.cache.name(sequence.held, hashes, full)
        if self.host is not None:
            end = len(sequence.held)
            if not self.config.host_kv_answers:
                end = min(end, sequence.work.prompt_tokens // self.cache.block_size)
            self.host.store(hashes[before:end])

    def _worst_running(self) -> Sequence:
        if self.config.scheduling_policy == "fcfs":
            return next(reversed(self._running.values()))
        return max(self._running.values(), key=lambda s: (s.work.priority, s.arrived_at, s.ordinal))

    def _preempt(self, sequence: Sequence) -> None:
        self._remove(sequence)
        self._release(sequence, again=True)
        sequence.computed = 0
        sequence.preemptions += 1
        self.preemptions += 1
        self._enqueue(sequence)

    def _enter(self, sequence: Sequence, now: float) -> None:
        """Move a sequence that has taken its place and its blocks into the batch."""
        self._waiting -= 1
        self._places += 1
        sequence.place = self._places
        sequence.phase = Phase.RUNNING
        self._running[sequence.place] = sequence
        if sequence.admitted_at is None:
            sequence.admitted_at = max(now, sequence.arrived_at)
            sequence.cached_tokens = sequence.computed
            self.prefix_queries += sequence.work.prompt_tokens
            self.prefix_hits += sequence.computed

    def _take_place(self, sequence: Sequence) -> None:
        if sequence.work.adapter:
            self._adapters[sequence.work.adapter] += 1

    def _give_place_up(self, sequence: Sequence) -> None:
        if sequence.work.adapter:
            self._adapters[sequence.work.adapter] -= 1
            self._adapters += Counter()  # drops what has come down to zero

    def _remove(self, sequence: Sequence) -> None:
        """Take a sequence out of the batch, its numbers up to date."""
        self.sync(sequence)
        if sequence.offset is not None:
            self._lockstep.leave(sequence)
        del self._running[sequence.place]
        sequence.place = 0
        self._give_place_up(sequence)

    def _release(self, sequence: Sequence, *, again: bool = False) -> None:
        """Free its blocks; with `again` it finds those that are full when it comes back."""
        others = sequence.blocks - len(sequence.held)
        kept = 0
        if again and self.cache.prefix_caching:
            kept = max(sequence.computed // self.cache.block_size - len(sequence.work.block_hashes), 0)
        sequence.run = self.cache.release(sequence.held, others, kept)
        sequence.held.clear()
        sequence.blocks = 0

    def _enqueue(self, sequence: Sequence) -> None:
        sequence.phase = Phase.WAITING
        self._waiting += 1
        rank = self._rank(sequence.work, sequence.arrived_at)
        heapq.heappush(self._queue, (*rank, sequence.ordinal, sequence))

    def _rank(self, work: Work, arrived_at: float) -> tuple[int, float]:
        return (work.priority, arrived_at) if self.config.scheduling_policy == "priority" else (0, 0.0)

    def _drop_aborted(self) -> None:
        while self._queue and self._queue[0][-1].phase is not Phase.WAITING:
            heapq.heappop(self._queue)

    def _adapter_fits(self, sequence: Sequence) -> bool:
        adapter = sequence.work.adapter
        return not adapter or adapter in self._adapters or len(self._adapters) < self.config.max_loras

    def _produce(self, sequence: Sequence, at: float) -> bool:
        """Give a sequence outside the lockstep its token; returns whether that was its last."""
        sequence.produced += 1
        if sequence.last_token_at is None:
            sequence.first_token_at = at
        else:
            sequence.last_gap = at - sequence.last_token_at
        sequence.last_token_at = at
        if sequence.produced < sequence.work.output_tokens:
            return False
        self._finish(sequence)
        return True

    def _finish(self, sequence: Sequence) -> None:
        self._remove(sequence)
        self._release(sequence)
        sequence.phase = Phase.FINISHED

    def _timed(self, preempted: tuple[Sequence, ...], now: float) -> Iteration:
        decodes, context = self._lockstep.size, self._lockstep.context
        longest = self._lockstep.longest
        prefill = 0
        pairs = 0.0
        for sequence, tokens in self._served.items():
            if sequence.decodes:
                decodes += 1
                context += sequence.computed
                longest = max(longest, sequence.computed)
            else:
                prefill += tokens
                pairs += tokens * (sequence.computed + tokens / 2)
        seconds = self.cost.seconds(
            prefill_tokens=prefill,
            decodes=decodes,
            context_tokens=context,
            attention_pairs=pairs,
            longest_context=longest,
        )
        return Iteration(now, now + seconds, self._served, prefill, decodes, context, pairs, preempted)
