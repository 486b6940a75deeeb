"""The serving physics: continuous batching of one engine, iteration by iteration, as a pure state machine.

The rules are those of vLLM's scheduler. Every iteration has a budget of tokens. Running sequences are served first, in
the order in which they were admitted: one token each for those that decode, a chunk of the prompt for those that do not
yet. What is left of the budget admits waiting sequences, prompts in chunks, as long as sequence slots, KV blocks and
adapter slots last. A running sequence that finds no free block takes those of the worst one (the last admitted, or by
priority), which goes back to the queue and computes its tokens again, less what the prefix cache still holds.

Nothing here reads a clock, waits or draws random numbers, so that the lab can run it as events and `trimtab engine`
against a wall clock:

    while (iteration := engine.next_iteration(now)) is not None:
        now = iteration.end
        progressed = engine.complete(iteration)
"""

import heapq
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from trimtab.sim.kv_cache import BlockKey, Holding, KvCache
from trimtab.sim.profile import IterationCost, Profile

SchedulingPolicy = Literal["fcfs", "priority"]

# Hashes of blocks whose content nobody else can produce lie above all 64-bit hashes that requests bring along.
_PRIVATE: Final = 1 << 64
_PRIVATE_BLOCKS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits and policy of one engine, named as vLLM's flags.

    Attributes:
        kv_blocks: vLLM's `num_gpu_blocks`; one of them is never handed out.
        max_loras: Different adapters in one batch; 0 means that requests may not name an adapter.
    """

    kv_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    scheduling_policy: SchedulingPolicy = "fcfs"
    prefix_caching: bool = True
    max_loras: int = 0

    @classmethod
    def of(cls, profile: Profile) -> "EngineConfig":
        """The limits that a profile was measured with."""
        return cls(
            kv_blocks=profile.kv_blocks,
            block_size=profile.block_size,
            max_num_seqs=profile.max_num_seqs,
            max_num_batched_tokens=profile.max_num_batched_tokens,
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine is asked to do.

    Attributes:
        prompt_tokens: Tokens of the prompt, at least 1.
        output_tokens: Tokens that will be produced, at least 1.
        priority: Lower is earlier; only the `priority` policy reads it.
        block_hashes: Chained hashes of the leading full blocks of prompt and answer, as far as they are known. Blocks
            beyond them get hashes of their own, which only the same sequence can hit after a preemption.
        adapter: LoRA adapter, or "".
    """

    prompt_tokens: int
    output_tokens: int
    priority: int = 0
    block_hashes: tuple[BlockKey, ...] = ()
    adapter: str = ""


class Phase(Enum):
    """Where a sequence is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine. Read-only for everybody but the engine; times are in its seconds.

    Attributes:
        computed: Tokens whose keys and values are in the KV cache.
        produced: Tokens of the answer so far.
        cached_tokens: Prompt tokens found in the prefix cache at the first admission.
        last_gap: Seconds between the last two tokens of the answer.
    """

    work: Work
    ordinal: int
    arrived_at: float
    phase: Phase = Phase.WAITING
    computed: int = 0
    produced: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    admitted_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    last_gap: float | None = None
    holding: Holding = field(default_factory=Holding)
    hashes: list[BlockKey] = field(default_factory=list)

    @property
    def known_tokens(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return self.work.prompt_tokens + self.produced

    @property
    def alive(self) -> bool:
        """Whether it still waits or runs."""
        return self.phase is Phase.WAITING or self.phase is Phase.RUNNING


@dataclass(frozen=True, slots=True)
class Iteration:
    """One step of the engine: what it processes and how long that takes.

    Attributes:
        tokens: Tokens processed for each sequence, in the order of the batch.
        context_tokens: Tokens of context that the decoding sequences read.
        attention_pairs: Pairs of (new token, earlier token) in the prompt chunks.
    """

    start: float
    end: float
    tokens: dict[Sequence, int]
    prefill_tokens: int
    decodes: int
    context_tokens: int
    attention_pairs: float
    preempted: tuple[Sequence, ...]

    @property
    def total_tokens(self) -> int:
        """All tokens processed."""
        return self.prefill_tokens + self.decodes


class ServingEngine:
    """Continuous batching of one engine. See the module's text for the rules.

    Attributes:
        paused: While true no iteration starts (pause and sleep).
        preemptions: Times that a sequence lost its KV blocks.
        prefix_queries: Prompt tokens looked up in the prefix cache at first admissions.
        prefix_hits: Those of them that were found.
    """

    def __init__(self, config: EngineConfig, cost: IterationCost) -> None:
        if config.max_num_seqs < 1 or config.max_num_batched_tokens < 1:
            raise ValueError("max_num_seqs and max_num_batched_tokens must be at least 1")
        self.config = config
        self.cost = cost
        self.cache = KvCache(max(config.kv_blocks - 1, 1), config.block_size, prefix_caching=config.prefix_caching)
        self.paused = False
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._running: list[Sequence] = []
        self._queue: list[tuple[int, float, int, Sequence]] = []  # heap; aborted sequences leave it when they surface
        self._waiting = 0
        self._deferred = 0
        self._added = 0

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences in the batch, in the order of their admission."""
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """Sequences in the queue, the next one first."""
        in_order = sorted(self._queue, key=lambda entry: entry[:3])
        return tuple(entry[-1] for entry in in_order if entry[-1].phase is Phase.WAITING)

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
        sequence = Sequence(work=work, ordinal=self._added, arrived_at=now, hashes=list(work.block_hashes))
        self._enqueue(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> bool:
        """End a sequence and free its blocks at once; False if it had ended before."""
        if not sequence.alive:
            return False
        if sequence.phase is Phase.RUNNING:
            self._running.remove(sequence)
            self.cache.release(sequence.holding)
        else:
            self._waiting -= 1
        sequence.phase = Phase.ABORTED
        return True

    def drop_cache(self) -> None:
        """Lose every block, as a sleeping engine does; running sequences go back to the queue and compute again."""
        for sequence in reversed(self.running):
            self._preempt(sequence)
        self.cache.forget()

    def next_iteration(self, now: float) -> Iteration | None:
        """Plan the iteration that starts at `now`; None if there is nothing to do.

        The plan must be completed before the next one is asked for.
        """
        if self.paused:
            return None
        batch: dict[Sequence, int] = {}
        preempted: list[Sequence] = []
        while not batch:
            before = len(preempted)
            budget = self._serve_running(batch, preempted)
            if len(preempted) == before:
                self._admit_waiting(batch, budget, now)
                break
            # Else nobody is admitted; where nobody was served either, the pass took no time and is made again.
        return self._timed(batch, tuple(preempted), now) if batch else None

    def complete(self, iteration: Iteration) -> list[Sequence]:
        """Account for an iteration that has ended.

        Returns:
            The sequences that produced a token, in the order of the batch; some of them have finished with it.
        """
        progressed = []
        for sequence, tokens in iteration.tokens.items():
            if sequence.phase is not Phase.RUNNING:
                continue
            sequence.computed += tokens
            if sequence.computed == sequence.known_tokens:
                self._produce(sequence, iteration.end)
                progressed.append(sequence)
        if any(sequence.phase is Phase.FINISHED for sequence in progressed):
            self._running = [sequence for sequence in self._running if sequence.phase is Phase.RUNNING]
        return progressed

    def _serve_running(self, batch: dict[Sequence, int], preempted: list[Sequence]) -> int:
        """Give running sequences their tokens; returns the budget that is left."""
        budget = self.config.max_num_batched_tokens
        for sequence in list(self._running):
            if not budget:
                break
            if sequence.phase is not Phase.RUNNING:  # lost its blocks to one before it
                continue
            tokens = min(sequence.known_tokens - sequence.computed, budget)
            while not self._reserve(sequence, tokens):
                victim = self._worst_running()
                budget += batch.pop(victim, 0)
                self._preempt(victim)
                preempted.append(victim)
                if victim is sequence:
                    return budget
            batch[sequence] = tokens
            budget -= tokens
        return budget

    def _admit_waiting(self, batch: dict[Sequence, int], budget: int, now: float) -> None:
        passed_over = []
        while budget and self._queue and len(self._running) < self.config.max_num_seqs:
            sequence = self._queue[0][-1]
            if sequence.phase is not Phase.WAITING:
                heapq.heappop(self._queue)
            elif not self._adapter_fits(sequence):
                passed_over.append(heapq.heappop(self._queue))
            else:
                tokens = self._admit(sequence, budget, now)
                if not tokens:
                    break
                heapq.heappop(self._queue)
                batch[sequence] = tokens
                budget -= tokens
        self._deferred = len(passed_over)
        for entry in passed_over:
            heapq.heappush(self._queue, entry)

    def _admit(self, sequence: Sequence, budget: int, now: float) -> int:
        """Move a sequence into the batch; returns its tokens in this iteration, 0 if there is no room for it."""
        # The last token is always computed, because its logits are what the next one is drawn from.
        usable = min(len(sequence.hashes), (sequence.known_tokens - 1) // self.cache.block_size)
        hits = sequence.hashes[: self.cache.count_hits(sequence.hashes[:usable])]
        found = len(hits) * self.cache.block_size
        tokens = min(sequence.known_tokens - found, budget)
        if not self.cache.can_admit(hits, self.cache.blocks_for(found + tokens)):
            return 0
        sequence.holding = self.cache.admit(hits)
        sequence.computed = found
        self._reserve(sequence, tokens)
        self._waiting -= 1
        self._running.append(sequence)
        sequence.phase = Phase.RUNNING
        if sequence.admitted_at is None:
            sequence.admitted_at = max(now, sequence.arrived_at)
            sequence.cached_tokens = found
            self.prefix_queries += sequence.work.prompt_tokens
            self.prefix_hits += found
        return tokens

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Get the blocks for `tokens` more tokens, and offer those that they fill to the prefix cache."""
        end = sequence.computed + tokens
        size = self.cache.block_size
        if end > len(sequence.holding) * size and not self.cache.grow(sequence.holding, self.cache.blocks_for(end)):
            return False
        full = end // size
        if full > sequence.holding.named:
            for index in range(len(sequence.hashes), full):
                sequence.hashes.append(_PRIVATE + sequence.ordinal * _PRIVATE_BLOCKS + index)
            self.cache.name(sequence.holding, sequence.hashes, full)
        return True

    def _worst_running(self) -> Sequence:
        if self.config.scheduling_policy == "fcfs":
            return self._running[-1]
        return max(self._running, key=lambda s: (s.work.priority, s.arrived_at, s.ordinal))

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self.cache.release(sequence.holding)
        sequence.computed = 0
        sequence.preemptions += 1
        self.preemptions += 1
        self._enqueue(sequence)

    def _enqueue(self, sequence: Sequence) -> None:
        sequence.phase = Phase.WAITING
        self._waiting += 1
        if self.config.scheduling_policy == "priority":
            key = (sequence.work.priority, sequence.arrived_at, sequence.ordinal)
        else:
            key = (0, 0.0, sequence.ordinal)
        heapq.heappush(self._queue, (*key, sequence))

    def _adapter_fits(self, sequence: Sequence) -> bool:
        if not sequence.work.adapter:
            return True
        loaded = {other.work.adapter for other in self._running if other.work.adapter}
        return sequence.work.adapter in loaded or len(loaded) < self.config.max_loras

    def _produce(self, sequence: Sequence, at: float) -> None:
        sequence.produced += 1
        if sequence.last_token_at is None:
            sequence.first_token_at = at
        else:
            sequence.last_gap = at - sequence.last_token_at
        sequence.last_token_at = at
        if sequence.produced == sequence.work.output_tokens:
            sequence.phase = Phase.FINISHED
            self.cache.release(sequence.holding)

    def _timed(self, batch: dict[Sequence, int], preempted: tuple[Sequence, ...], now: float) -> Iteration:
        prefill = decodes = context = 0
        pairs = 0.0
        for sequence, tokens in batch.items():
            if sequence.produced and sequence.computed == sequence.known_tokens - 1:
                decodes += 1
                context += sequence.computed
            else:
                prefill += tokens
                pairs += tokens * (sequence.computed + tokens / 2)
        seconds = self.cost.seconds(
            prefill_tokens=prefill, decodes=decodes, context_tokens=context, attention_pairs=pairs
        )
        return Iteration(now, now + seconds, batch, prefill, decodes, context, pairs, preempted)
