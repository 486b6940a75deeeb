"""The rules of the serving physics written down naively: every sequence and every block touched in every iteration.

The production physics must give the same times; it counts sequences and blocks together instead.
"""

import heapq
from collections import OrderedDict
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

from trimtab.sim.kv_cache import BlockKey
from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import EngineConfig, Phase, Work

_PRIVATE = 1 << 64  # hashes of blocks whose content nobody else can produce lie above all that requests bring along


@dataclass(slots=True)
class Holding:
    """The blocks of one sequence, in the order of its tokens."""

    keys: list[BlockKey] = field(default_factory=list)
    named: int = 0  # leading blocks that have been offered to the prefix cache

    def __len__(self) -> int:
        return len(self.keys)


class NaiveCache:
    """A pool of blocks with reference counts and a prefix cache.

    Args:
        capacity: Blocks that sequences can hold (vLLM keeps one of `num_gpu_blocks` for itself).
        block_size: Tokens per block.
        prefix_caching: Whether freed full blocks can be found again by their hash.
    """

    __slots__ = ("_anonymous", "_holders", "_idle", "_untouched", "block_size", "capacity", "prefix_caching")

    def __init__(self, capacity: int, block_size: int, *, prefix_caching: bool = True) -> None:
        if capacity < 1 or block_size < 1:
            raise ValueError(f"a KV cache needs at least one block of one token, got {capacity} of {block_size}")
        self.capacity = capacity
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self._untouched = capacity  # blocks that have never been used: handed out first
        self._idle: OrderedDict[BlockKey, None] = OrderedDict()  # unheld blocks, least recently freed first
        self._holders: dict[BlockKey, int] = {}  # hash of a held block -> sequences that hold it
        self._anonymous = 0

    @property
    def free(self) -> int:
        """Blocks that nobody holds; those of the prefix cache count as free."""
        return self._untouched + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks held by at least one sequence."""
        return self.capacity - self.free

    def blocks_for(self, tokens: int) -> int:
        """Blocks that `tokens` tokens need."""
        return -(-tokens // self.block_size)

    def count_hits(self, hashes: Ordered[BlockKey]) -> int:
        """How many leading blocks of a sequence are in the cache."""
        if not self.prefix_caching:
            return 0
        for hits, key in enumerate(hashes):
            if key not in self._holders and key not in self._idle:
                return hits
        return len(hashes)

    def can_admit(self, hits: Ordered[BlockKey], blocks: int) -> bool:
        """Whether a sequence with these cached blocks fits with `blocks` blocks in all."""
        idle_hits = sum(key in self._idle for key in hits)  # taking these up shrinks the free pool too
        return blocks - len(hits) <= self.free - idle_hits

    def admit(self, hits: Ordered[BlockKey]) -> Holding:
        """Start a holding with the cached blocks `hits`, which must be in the cache."""
        for key in hits:
            self._holders[key] = self._holders.get(key, 0) + 1
            self._idle.pop(key, None)
        return Holding(keys=list(hits), named=len(hits))

    def grow(self, holding: Holding, blocks: int) -> bool:
        """Add fresh blocks until the holding has `blocks`; False, and nothing changed, if they are not there."""
        missing = blocks - len(holding)
        if missing <= 0:
            return True
        if missing > self.free:
            return False
        for _ in range(missing):
            self._anonymous -= 1
            holding.keys.append(self._anonymous)
            self._take_one()
        return True

    def name(self, holding: Holding, hashes: Ordered[BlockKey], full: int) -> None:
        """Offer the first `full` blocks of a holding to the prefix cache under their hashes.

        A block whose hash is known already stays anonymous: the two sequences computed the same prefix side by side.
        """
        if not self.prefix_caching:
            return
        for index in range(holding.named, full):
            key = hashes[index]
            if key not in self._holders and key not in self._idle:
                self._holders[key] = 1
                holding.keys[index] = key
        holding.named = max(holding.named, full)

    def forget_names(self, holding: Holding, start: int) -> None:
        """Make the blocks from `start` on anonymous again."""
        for index in range(start, len(holding)):
            del self._holders[holding.keys[index]]
            self._anonymous -= 1
            holding.keys[index] = self._anonymous
        holding.named = min(holding.named, start)

    def release(self, holding: Holding) -> None:
        """Give all blocks back, the last first, so that a prefix outlives its continuations."""
        for key in reversed(holding.keys):
            if key < 0:
                self._idle[key] = None
                continue
            holders = self._holders[key] - 1
            if holders:
                self._holders[key] = holders
            else:
                del self._holders[key]
                self._idle[key] = None
        holding.keys.clear()
        holding.named = 0

    def shrink(self, holding: Holding, blocks: int) -> None:
        """Give back fresh blocks beyond so many."""
        while len(holding) > blocks:
            self._idle[holding.keys.pop()] = None

    def _take_one(self) -> None:
        if self._untouched:
            self._untouched -= 1
        else:
            self._idle.popitem(last=False)


class NaiveHost:
    """Blocks in host memory: a list, the least recently used first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys: list[BlockKey] = []

    def store(self, keys: Ordered[BlockKey]) -> None:
        """Add those that are not here, and drop what is too much."""
        for key in keys:
            if key not in self.keys:
                self.keys.append(key)
                del self.keys[: -self.capacity]

    def use(self, keys: Ordered[BlockKey], on_gpu: int) -> None:
        """Make them the most recently used, the first one last; copy those from the GPU that are not here."""
        for key in reversed(keys):
            if key in self.keys:
                self.keys.remove(key)
                self.keys.append(key)
        self.store(keys[:on_gpu])


@dataclass(slots=True, eq=False)
class NaiveSequence:
    """One request inside the engine."""

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
    holding: Holding = field(default_factory=Holding)
    hashes: list[BlockKey] = field(default_factory=list)

    @property
    def known_tokens(self) -> int:
        return self.work.prompt_tokens + self.produced

    @property
    def alive(self) -> bool:
        return self.phase is Phase.WAITING or self.phase is Phase.RUNNING


@dataclass(frozen=True, slots=True)
class NaiveIteration:
    """One iteration."""

    start: float
    end: float
    tokens: dict[NaiveSequence, int]


class ReferenceEngine:
    """One engine, iteration by iteration."""

    def __init__(self, config: EngineConfig, cost: IterationCost) -> None:
        self.config = config
        self.cost = cost.offloading() if config.host_kv_blocks else cost
        self.host = NaiveHost(config.host_kv_blocks) if config.host_kv_blocks else None
        self._loading: list[tuple[NaiveSequence, float]] = []
        self._link_free_at = 0.0
        self.cache = NaiveCache(max(config.kv_blocks - 1, 1), config.block_size, prefix_caching=config.prefix_caching)
        self.preemptions = 0
        self._running: list[NaiveSequence] = []
        self._queue: list[tuple[int, float, int, NaiveSequence]] = []
        self._fresh: list[NaiveSequence] = []
        self._under_way = False
        self._waiting = 0
        self._added = 0
        self._private = 0

    @property
    def running(self) -> tuple[NaiveSequence, ...]:
        """Sequences in the batch, in the order of their admission."""
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[NaiveSequence, ...]:
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

    def add(self, work: Work, now: float) -> NaiveSequence:
        self._added += 1
        sequence = NaiveSequence(work=work, ordinal=self._added, arrived_at=now, hashes=list(work.block_hashes))
        if self._under_way and self.config.async_scheduling:
            self._fresh.append(sequence)
        else:
            self._enqueue(sequence)
        return sequence

    def abort(self, sequence: NaiveSequence) -> bool:
        """End a sequence and free its blocks at once; False if it had ended before."""
        if not sequence.alive:
            return False
        if sequence.phase is Phase.RUNNING:
            self._running.remove(sequence)
            self.cache.release(sequence.holding)
        elif sequence not in self._fresh:
            self._waiting -= 1
            if any(sequence is other for other, _ in self._loading):
                self._loading = [(other, at) for other, at in self._loading if other is not sequence]
                self.cache.release(sequence.holding)
        sequence.phase = Phase.ABORTED
        return True

    def next_iteration(self, now: float) -> NaiveIteration | None:
        """Plan the iteration that starts at `now`; None if there is nothing to do.

        The plan must be completed before the next one is asked for.
        """
        batch: dict[NaiveSequence, int] = {}
        preempted: list[NaiveSequence] = []
        while not batch:
            before = len(preempted)
            budget = self._serve_running(batch, preempted)
            if len(preempted) == before:
                self._admit_waiting(batch, budget, now)
                break
            # Else nobody is admitted; where nobody was served either, the pass took no time and is made again.
        fresh, self._fresh = [s for s in self._fresh if s.alive], []
        for sequence in fresh:
            self._enqueue(sequence)
        if not batch and (fresh or any(at <= now for _, at in self._loading)):
            return self.next_iteration(now)
        if not batch and not self._loading:
            return None
        self._under_way = True
        if not batch:  # nothing to do before a copy is over
            return NaiveIteration(now, min(at for _, at in self._loading), {})
        return self._timed(batch, now)

    def complete(self, iteration: NaiveIteration) -> list[NaiveSequence]:
        """Account for an iteration that has ended.

        Returns:
            The sequences that produced a token, in the order of the batch; some of them have finished with it.
        """
        self._under_way = False
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

    def _serve_running(self, batch: dict[NaiveSequence, int], preempted: list[NaiveSequence]) -> int:
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

    def _admit_waiting(self, batch: dict[NaiveSequence, int], budget: int, now: float) -> None:
        for sequence, at in list(self._loading):
            if at <= now and budget:
                rest = sequence.known_tokens - sequence.computed
                tokens = min(rest, budget)
                if not self.cache.grow(sequence.holding, self.cache.blocks_for(sequence.computed + tokens)):
                    tokens = len(sequence.holding) * self.cache.block_size - sequence.computed
                self._loading.remove((sequence, at))
                self._enter(sequence, tokens, now)
                self.cache.shrink(sequence.holding, self.cache.blocks_for(sequence.computed + tokens))
                batch[sequence] = tokens
                budget = budget - tokens if tokens == rest else 0
        passed_over = []
        while budget and self._queue and len(self._running) + len(self._loading) < self.config.max_num_seqs:
            sequence = self._queue[0][-1]
            if sequence.phase is not Phase.WAITING:
                heapq.heappop(self._queue)
            elif not self._adapter_fits(sequence):
                passed_over.append(heapq.heappop(self._queue))
            elif self._load(sequence, budget, now):
                heapq.heappop(self._queue)
            else:
                tokens = 0 if self._in_host(sequence)[1] else self._admit(sequence, budget, now)
                if not tokens:
                    break
                heapq.heappop(self._queue)
                batch[sequence] = tokens
                budget -= tokens
        for entry in passed_over:
            heapq.heappush(self._queue, entry)

    def _admit(self, sequence: NaiveSequence, budget: int, now: float) -> int:
        """Move a sequence into the batch; returns its tokens in this iteration, 0 if there is no room for it."""
        # The last token is always computed, because its logits are what the next one is drawn from.
        usable = min(len(sequence.hashes), (sequence.known_tokens - 1) // self.cache.block_size)
        hits = sequence.hashes[: self.cache.count_hits(sequence.hashes[:usable])]
        found = len(hits) * self.cache.block_size
        tokens = min(sequence.known_tokens - found, budget)
        if not self.cache.can_admit(hits, self.cache.blocks_for(found + tokens)):
            return 0
        sequence.holding = self.cache.admit(hits)
        shared = len(sequence.work.block_hashes)
        self.cache.forget_names(sequence.holding, shared)
        del sequence.hashes[shared:]
        sequence.computed = found
        if self.host is not None:
            self.host.use(hits[:shared], shared)
        self._enter(sequence, tokens, now)
        return tokens

    def _in_host(self, sequence: NaiveSequence) -> tuple[int, int]:
        """Leading blocks on the GPU, and those after them that only the host has."""
        shared = sequence.work.block_hashes[: (sequence.known_tokens - 1) // self.cache.block_size]
        on_gpu = self.cache.count_hits(shared)
        end = on_gpu
        while self.host is not None and end < len(shared) and shared[end] in self.host.keys:
            end += 1
        return on_gpu, end - on_gpu

    def _load(self, sequence: NaiveSequence, budget: int, now: float) -> bool:
        """Start copying blocks from the host, if there are any and there is room."""
        on_gpu, in_host = self._in_host(sequence)
        shared, found = sequence.work.block_hashes, (on_gpu + in_host) * self.cache.block_size
        blocks = self.cache.blocks_for(found + min(sequence.known_tokens - found, budget))
        if not in_host or self.host is None or not self.cache.can_admit(shared[:on_gpu], blocks):
            return False
        sequence.holding = self.cache.admit(shared[:on_gpu])
        assert self.cache.grow(sequence.holding, blocks)
        self.host.use(shared[: on_gpu + in_host], on_gpu)
        del sequence.hashes[len(shared) :]
        sequence.computed = found
        self._link_free_at = max(self._link_free_at, now) + in_host * self.cost.per_host_block
        self._loading.append((sequence, self._link_free_at))
        return True

    def _enter(self, sequence: NaiveSequence, tokens: int, now: float) -> None:
        found = sequence.computed
        self._reserve(sequence, tokens)
        self._waiting -= 1
        self._running.append(sequence)
        sequence.phase = Phase.RUNNING
        if sequence.admitted_at is None:
            sequence.admitted_at = max(now, sequence.arrived_at)
            sequence.cached_tokens = found

    def _reserve(self, sequence: NaiveSequence, tokens: int) -> bool:
        """Get the blocks for `tokens` more tokens, and offer those that they fill to the prefix cache."""
        end = sequence.computed + tokens
        size = self.cache.block_size
        if end > len(sequence.holding) * size and not self.cache.grow(sequence.holding, self.cache.blocks_for(end)):
            return False
        full = end // size
        if full > sequence.holding.named:
            before = sequence.holding.named
            self.cache.name(sequence.holding, sequence.hashes, min(full, len(sequence.hashes)))
            if self.host is not None:
                known = len(sequence.work.block_hashes)
                if not self.config.host_kv_answers:
                    known = min(known, sequence.work.prompt_tokens // size)
                self.host.store(sequence.hashes[before : min(full, known)])
        return True

    def _worst_running(self) -> NaiveSequence:
        if self.config.scheduling_policy == "fcfs":
            return self._running[-1]
        return max(self._running, key=lambda s: (s.work.priority, s.arrived_at, s.ordinal))

    def _preempt(self, sequence: NaiveSequence) -> None:
        self._running.remove(sequence)
        full = sequence.computed // self.cache.block_size
        for _ in range(len(sequence.hashes), full):  # what only this sequence can find again
            self._private += 1
            sequence.hashes.append(_PRIVATE + self._private)
        self.cache.name(sequence.holding, sequence.hashes, min(full, len(sequence.hashes)))
        self.cache.release(sequence.holding)
        sequence.computed = 0
        sequence.preemptions += 1
        self.preemptions += 1
        self._enqueue(sequence)

    def _enqueue(self, sequence: NaiveSequence) -> None:
        sequence.phase = Phase.WAITING
        self._waiting += 1
        if self.config.scheduling_policy == "priority":
            key = (sequence.work.priority, sequence.arrived_at, sequence.ordinal)
        else:
            key = (0, 0.0, sequence.ordinal)
        heapq.heappush(self._queue, (*key, sequence))

    def _adapter_fits(self, sequence: NaiveSequence) -> bool:
        if not sequence.work.adapter:
            return True
        batch = [*self._running, *(other for other, _ in self._loading)]
        loaded = {other.work.adapter for other in batch if other.work.adapter}
        return sequence.work.adapter in loaded or len(loaded) < self.config.max_loras

    def _produce(self, sequence: NaiveSequence, at: float) -> None:
        sequence.produced += 1
        if sequence.last_token_at is None:
            sequence.first_token_at = at
        sequence.last_token_at = at
        if sequence.produced == sequence.work.output_tokens:
            sequence.phase = Phase.FINISHED
            self.cache.release(sequence.holding)

    def _timed(self, batch: dict[NaiveSequence, int], now: float) -> NaiveIteration:
        prefill = decodes = context = longest = 0
        pairs = 0.0
        for sequence, tokens in batch.items():
            if sequence.produced and sequence.computed == sequence.known_tokens - 1:
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
        return NaiveIteration(now, now + seconds, batch)
