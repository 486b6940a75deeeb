"""KV-cache blocks of one engine: who holds how many, and which finished prefixes can be used again.

A block holds the keys and values of `block_size` consecutive tokens. A full block is known by the chained hash of all
tokens up to its end, so that equal prefixes have equal hashes. Blocks that nobody holds stay usable until they are
needed: the least recently freed goes first, as in vLLM's block pool. Nothing is stored, only counted, so a block is its
hash, or an anonymous key while it has none.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

BlockKey = int  # a hash (not negative) or an anonymous key (negative)


@dataclass(slots=True)
class Holding:
    """The blocks of one sequence, in the order of its tokens."""

    keys: list[BlockKey] = field(default_factory=list)
    named: int = 0  # leading blocks that have been offered to the prefix cache

    def __len__(self) -> int:
        return len(self.keys)


class KvCache:
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

    @property
    def usage(self) -> float:
        """Held share of the pool, 0 to 1."""
        return self.used / self.capacity

    def blocks_for(self, tokens: int) -> int:
        """Blocks that `tokens` tokens need."""
        return -(-tokens // self.block_size)

    def count_hits(self, hashes: Sequence[BlockKey]) -> int:
        """How many leading blocks of a sequence are in the cache."""
        if not self.prefix_caching:
            return 0
        for hits, key in enumerate(hashes):
            if key not in self._holders and key not in self._idle:
                return hits
        return len(hashes)

    def can_admit(self, hits: Sequence[BlockKey], blocks: int) -> bool:
        """Whether a sequence with these cached blocks fits with `blocks` blocks in all."""
        idle_hits = sum(key in self._idle for key in hits)  # taking these up shrinks the free pool too
        return blocks - len(hits) <= self.free - idle_hits

    def admit(self, hits: Sequence[BlockKey]) -> Holding:
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

    def name(self, holding: Holding, hashes: Sequence[BlockKey], full: int) -> None:
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

    def forget(self) -> None:
        """Drop every cached prefix that nobody holds (sleep, or `/reset_prefix_cache`)."""
        self._untouched += len(self._idle)
        self._idle.clear()

    def _take_one(self) -> None:
        if self._untouched:
            self._untouched -= 1
        else:
            self._idle.popitem(last=False)
