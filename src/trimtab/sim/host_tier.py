"""Blocks of the KV cache that host memory keeps: what the GPU has to drop can come back over the bus.

Every full block whose content others can ask for is copied to the host as soon as it is computed, as vLLM's
offloading connector does it. The host drops the block that was longest not stored and not asked for.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from trimtab.sim.kv_cache import BlockKey


class HostTier:
    """A pool of blocks in host memory.

    Args:
        capacity: Blocks that it holds.

    Attributes:
        written: Blocks that were copied to it.
        read: Blocks that were copied back.
    """

    __slots__ = ("_blocks", "capacity", "read", "written")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a host tier needs at least one block, got {capacity}")
        self.capacity = capacity
        self.written = 0
        self.read = 0
        self._blocks: OrderedDict[BlockKey, None] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        """Return the number of blocks that it holds."""
        return len(self._blocks)

    def count_hits(self, hashes: Sequence[BlockKey], start: int, most: int) -> int:
        """How many blocks from the `start`-th up to the `most`-th are here, without a gap."""
        end = start
        while end < min(most, len(hashes)) and hashes[end] in self._blocks:
            end += 1
        return end - start

    def store(self, keys: Iterable[BlockKey]) -> None:
        """Copy blocks here that are not here yet."""
        for key in keys:
            if key not in self._blocks:
                self._blocks[key] = None
                self.written += 1
                if len(self._blocks) > self.capacity:
                    self._blocks.popitem(last=False)

    def use(self, hashes: Sequence[BlockKey], gpu_hits: int, host_hits: int) -> None:
        """A sequence takes up blocks: the first ones from the GPU, the next ones from here.

        All become the most recently used, the first of them last, so that a prefix outlives its continuations. Those
        on the GPU that have gone from here are copied again.
        """
        for key in reversed(hashes[: gpu_hits + host_hits]):
            if key in self._blocks:
                self._blocks.move_to_end(key)
        self.store(hashes[:gpu_hits])
        self.read += host_hits

    def forget(self) -> None:
        """Drop everything."""
        self._blocks.clear()
