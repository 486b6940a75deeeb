"""KV-cache blocks of one engine: how many are held, and which finished prefixes can be used again.

A block holds the keys and values of `block_size` consecutive tokens. A full block is known by the chained hash of all
tokens up to its end, so that equal prefixes have equal hashes. Blocks that nobody holds stay usable until they are
needed: the least recently freed goes first, as in vLLM's block pool.

Nothing is stored, only counted. A block that others may share is its hash. Blocks that nobody else can ever find are
numbers: those that a sequence frees in one go are one *run*, of which the last block is evicted first.
"""

from collections import OrderedDict
from collections.abc import Sequence

BlockKey = int
"""A hash, not negative."""

UNNAMED = -1
"""Stands for a held block whose hash another block had first: the two sequences computed it side by side."""

NO_RUN = -1
"""A run that never has a block."""


class KvCache:
    """A pool of blocks with reference counts and a prefix cache.

    Args:
        capacity: Blocks that sequences can hold (vLLM keeps one of `num_gpu_blocks` for itself).
        block_size: Tokens per block.
        prefix_caching: Whether freed full blocks can be found again by their hash.

    Attributes:
        free: Blocks that nobody holds; those of the prefix cache count as free.
    """

    __slots__ = ("_holders", "_idle", "_runs", "_untouched", "block_size", "capacity", "free", "prefix_caching")

    def __init__(self, capacity: int, block_size: int, *, prefix_caching: bool = True) -> None:
        if capacity < 1 or block_size < 1:
            raise ValueError(f"a KV cache needs at least one block of one token, got {capacity} of {block_size}")
        self.capacity = capacity
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.free = capacity
        self._untouched = capacity  # blocks that have never been used: handed out first
        self._idle: OrderedDict[int, int] = OrderedDict()  # hash or run -> blocks; the least recently freed first
        self._holders: dict[BlockKey, int] = {}  # hash of a held block -> sequences that hold it
        self._runs = NO_RUN

    @property
    def used(self) -> int:
        """Blocks held by at least one sequence."""
        return self.capacity - self.free

    @property
    def usage(self) -> float:
        """Held share of the pool, 0 to 1."""
        return self.used / self.capacity

    def blocks_for(self, tokens: int) -> int:
        """Blocks that `tokens` tokens need."""
        return -(-tokens // self.block_size)

    def count_hits(self, hashes: Sequence[BlockKey], most: int) -> int:
        """How many of the first `most` blocks of a sequence are in the cache, without a gap."""
        hits = 0
        if self.prefix_caching:
            most = min(most, len(hashes))
            while hits < most and (hashes[hits] in self._holders or hashes[hits] in self._idle):
                hits += 1
        return hits

    def count_idle(self, hashes: Sequence[BlockKey], hits: int) -> int:
        """How many of the first `hits` blocks, all in the cache, nobody holds: taking those up costs free blocks."""
        return sum(hashes[index] in self._idle for index in range(hits))

    def is_safe(self, key: BlockKey, blocks: int) -> bool:
        """Whether handing out `blocks` fresh blocks cannot evict the block with this hash."""
        return blocks <= self._untouched or key not in self._idle

    def blocks_of(self, run: int) -> int:
        """How many blocks of a run are still there."""
        return self._idle.get(run, 0)

    def take(self, blocks: int) -> None:
        """Hand out fresh blocks; at least so many must be free."""
        assert blocks <= self.free, "a block is held once"
        self.free -= blocks
        fresh = min(blocks, self._untouched)
        self._untouched -= fresh
        blocks -= fresh
        while blocks:
            key, count = next(iter(self._idle.items()))
            if count > blocks:
                self._idle[key] = count - blocks
                return
            del self._idle[key]
            blocks -= count

    def hold(self, hits: Sequence[BlockKey]) -> None:
        """Take up cached blocks by their hashes; all must be in the cache."""
        for key in hits:
            self._holders[key] = self._holders.get(key, 0) + 1
            if self._idle.pop(key, 0):
                self.free -= 1

    def hold_run(self, run: int) -> int:
        """Take up what is left of a run; returns how many blocks that was."""
        blocks = self._idle.pop(run, 0)
        self.free -= blocks
        return blocks

    def name(self, held: list[int], hashes: Sequence[BlockKey], full: int) -> None:
        """Offer a sequence's blocks up to the `full`-th to the prefix cache, as far as their hashes are known.

        Args:
            held: The hashes of its leading blocks, which this call extends.
            hashes: The hashes of its blocks.
            full: How many of its blocks are full.
        """
        if not self.prefix_caching:
            return
        for index in range(len(held), min(full, len(hashes))):
            key = hashes[index]
            if key in self._holders or key in self._idle:
                held.append(UNNAMED)
            else:
                self._holders[key] = 1
                held.append(key)

    def release(self, held: Sequence[int], others: int, kept: int = 0) -> int:
        """Give a sequence's blocks back, the last first, so that a prefix outlives its continuations.

        Args:
            held: What `name` and `hold` collected.
            others: Its blocks beyond those.
            kept: The first so many of the others can be found again as a run.

        Returns:
            The run of the kept blocks; without any, a run that has none.
        """
        self._free_run(others - kept)
        run = self._free_run(kept)
        for key in reversed(held):
            if key == UNNAMED:
                self._free_run(1)
            elif (holders := self._holders[key] - 1) > 0:
                self._holders[key] = holders
            else:
                del self._holders[key]
                self._idle[key] = 1
                self.free += 1
        return run

    def forget(self) -> None:
        """Drop every cached prefix that nobody holds (sleep, or `/reset_prefix_cache`)."""
        self._untouched = self.free
        self._idle.clear()

    def _free_run(self, blocks: int) -> int:
        self._runs -= 1
        if blocks:
            self._idle[self._runs] = blocks
            self.free += blocks
        return self._runs
