"""Sequences that decode side by side: each makes one token per iteration, so they are counted together.

A member's numbers are a constant plus the number of iterations so far. What an iteration needs to know of all members
(how much context they read, how many need a new KV block, who finishes next) therefore costs the same for one member
or a thousand, and for one iteration or a thousand. A member's own numbers are brought up to date when somebody asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush

from trimtab.sim.kv_cache import NO_RUN, BlockKey

_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine is asked to do.

    Attributes:
        prompt_tokens: Tokens of the prompt, at least 1.
        output_tokens: Tokens that will be produced, at least 1.
        priority: Lower is earlier; only the `priority` policy reads it.
        block_hashes: Chained hashes of the leading full blocks of prompt and answer, as far as they are known. Blocks
            beyond them can be found again by the same sequence only, after a preemption.
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

    While it decodes, its numbers are those of the last time that the engine brought them up to date: `complete`,
    `interrupt`, `running` and `sync` do.

    Attributes:
        computed: Tokens whose keys and values are in the KV cache.
        produced: Tokens of the answer so far.
        cached_tokens: Prompt tokens found in the prefix cache at the first admission.
        last_gap: Seconds between the last two tokens of the answer; None when several were accounted for at once.
        blocks: KV blocks that it holds.
        held: The hashes of its leading blocks, as far as the prefix cache knows them.
        run: Where the cache keeps the blocks beyond its hashes that it lost at its last preemption.
        place: Number of its admission, by which the batch is ordered; 0 while it is not in the batch.
        offset: `computed` less the lockstep's iterations; None outside the lockstep.
        due: The lockstep's iterations when it will have finished.
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
    blocks: int = 0
    held: list[int] = field(default_factory=list)
    run: int = NO_RUN
    place: int = 0
    offset: int | None = None
    due: int = 0

    @property
    def known_tokens(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return self.work.prompt_tokens + self.produced

    @property
    def alive(self) -> bool:
        """Whether it still waits or runs."""
        return self.phase is Phase.WAITING or self.phase is Phase.RUNNING

    @property
    def decodes(self) -> bool:
        """Whether only its newest token is not in the KV cache yet."""
        return self.produced > 0 and self.computed == self.work.prompt_tokens + self.produced - 1


class Lockstep:
    """The decoding sequences of a batch.

    Args:
        block_size: Tokens per KV block.
        naming: Whether it matters when a block whose hash is known gets full.

    Attributes:
        size: How many they are.
        iterations: How many iterations they have made.
        at: When the last of those ended.
    """

    __slots__ = (
        "_block_size", "_by_fill", "_finishes", "_longest", "_names", "_naming", "_offsets", "at", "iterations", "size",
    )  # fmt: skip

    def __init__(self, block_size: int, *, naming: bool) -> None:
        self.size = 0
        self.iterations = 0
        self.at = 0.0
        self._block_size = block_size
        self._naming = naming
        self._offsets = 0  # sum over the members
        self._by_fill = [0] * block_size  # members by offset modulo the block size
        self._finishes: list[
            tuple[int, int, Sequence]
        ] = []  # heap: due, place; those who left early go when they surface
        self._names: list[tuple[int, int, Sequence]] = []  # heap: iterations at which a block with a hash gets full
        self._longest: list[tuple[int, int, Sequence]] = []  # heap: minus the offset

    @property
    def context(self) -> int:
        """Tokens in the KV cache, all members together."""
        return self._offsets + self.size * self.iterations

    @property
    def longest(self) -> int:
        """Tokens that the longest member has in the KV cache."""
        while self._longest:
            less, place, sequence = self._longest[0]
            if sequence.place == place and sequence.offset == -less:
                return self.iterations - less
            heappop(self._longest)
        return 0

    def join(self, sequence: Sequence) -> None:
        """Add a sequence that decodes."""
        offset = sequence.computed - self.iterations
        sequence.offset = offset
        sequence.due = self.iterations + sequence.work.output_tokens - sequence.produced
        self.size += 1
        self._offsets += offset
        self._by_fill[offset % self._block_size] += 1
        heappush(self._finishes, (sequence.due, sequence.place, sequence))
        heappush(self._longest, (-offset, sequence.place, sequence))
        self._expect_name(sequence, sequence.computed // self._block_size)

    def leave(self, sequence: Sequence) -> None:
        """Take a member out, whose numbers are up to date."""
        assert sequence.offset is not None, "only a member leaves"
        self.size -= 1
        self._offsets -= sequence.offset
        self._by_fill[sequence.offset % self._block_size] -= 1
        sequence.offset = None

    def sync(self, sequence: Sequence) -> None:
        """Bring a member's numbers up to date; others are left alone."""
        if sequence.offset is None:
            return
        sequence.blocks = -(-(self.iterations + sequence.offset) // self._block_size)
        behind = self.iterations + sequence.offset - sequence.computed
        if behind:
            sequence.computed += behind
            sequence.produced += behind
            last = sequence.last_token_at
            sequence.last_gap = self.at - last if behind == 1 and last is not None else None
            sequence.last_token_at = self.at

    def disband(self, members: Iterable[Sequence]) -> None:
        """Let all members go; they must be given, their numbers up to date."""
        for sequence in members:
            self.leave(sequence)
        self._finishes.clear()
        self._longest.clear()
        self._names.clear()

    def advance(self, iterations: int, at: float) -> list[Sequence]:
        """Make iterations, the last of which ends at `at`, and only in it may members finish.

        Returns:
            Those that finished, in the order of the batch; they have left.
        """
        self.iterations += iterations
        self.at = at
        finished = []
        while self._next(self._finishes) == self.iterations:
            sequence = heappop(self._finishes)[-1]
            self.sync(sequence)
            self.leave(sequence)
            finished.append(sequence)
        return finished

    def until_finish(self) -> int:
        """Iterations until somebody finishes, the last one included."""
        return self._next(self._finishes) - self.iterations

    def until_name(self) -> int:
        """Iterations before the one in which a block is filled whose hash is known; 0: that is the next one."""
        return self._next(self._names) - self.iterations

    def fillers(self) -> list[Sequence]:
        """Return those who fill a block with a known hash in the next iteration, in the order of the batch."""
        found = []
        while self.until_name() == 0:
            sequence = heappop(self._names)[-1]
            self._expect_name(sequence, (self.iterations + (sequence.offset or 0)) // self._block_size + 1)
            found.append(sequence)
        return found

    def full_blocks(self, sequence: Sequence) -> int:
        """How many full blocks a member has at the end of the next iteration."""
        return (self.iterations + (sequence.offset or 0) + 1) // self._block_size

    def needs_block(self, sequence: Sequence) -> bool:
        """Whether a member needs a new KV block for the next iteration."""
        return sequence.offset is not None and (sequence.offset + self.iterations) % self._block_size == 0

    def blocks_for(self, iterations: int) -> int:
        """New KV blocks that the next iterations need."""
        cycles, rest = divmod(iterations, self._block_size)
        return cycles * self.size + sum(self._by_fill[-(self.iterations + i) % self._block_size] for i in range(rest))

    def affordable(self, blocks: int, most: int) -> int:
        """How many of the next `most` iterations can be made with so many new KV blocks."""
        cycles = blocks // self.size
        iterations = cycles * self._block_size
        left = blocks - cycles * self.size
        while iterations < most:
            left -= self._by_fill[-(self.iterations + iterations) % self._block_size]
            if left < 0:
                return iterations
            iterations += 1
        return most

    def _expect_name(self, sequence: Sequence, filling: int) -> None:
        """Note when a member fills its block number `filling`, if anybody else can know the block."""
        if self._naming and filling < len(sequence.work.block_hashes):
            when = (filling + 1) * self._block_size - 1 - (sequence.offset or 0)
            heappush(self._names, (when, sequence.place, sequence))

    def _next(self, heap: list[tuple[int, int, Sequence]]) -> int:
        while heap:
            when, place, sequence = heap[0]
            if sequence.place == place and sequence.offset is not None:
                return when
            heappop(heap)
        return _NEVER
