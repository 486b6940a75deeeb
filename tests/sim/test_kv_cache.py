"""Blocks: counted exactly, found again by prefix, evicted in the order in which they were freed."""

import pytest

from trimtab.sim.kv_cache import Holding, KvCache


def filled(cache: KvCache, hashes: list[int]) -> Holding:
    """A holding whose blocks are all full and known by these hashes."""
    holding = cache.admit(hashes[: cache.count_hits(hashes)])
    assert cache.grow(holding, len(hashes))
    cache.name(holding, hashes, len(hashes))
    return holding


@pytest.mark.parametrize(("capacity", "block_size"), [(0, 16), (8, 0), (-1, 16)])
def test_an_impossible_pool_is_refused(capacity: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="at least one block"):
        KvCache(capacity, block_size)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_blocks_for_rounds_up(tokens: int, blocks: int) -> None:
    assert KvCache(8, 16).blocks_for(tokens) == blocks


def test_grow_takes_all_or_nothing() -> None:
    cache = KvCache(4, 16)
    first, second = cache.admit([]), cache.admit([])
    assert cache.grow(first, 3)
    assert not cache.grow(second, 2)
    assert (len(first), len(second), cache.free) == (3, 0, 1)
    assert cache.grow(second, 1)
    assert cache.usage == 1.0


def test_growing_to_fewer_blocks_changes_nothing() -> None:
    cache = KvCache(4, 16)
    holding = cache.admit([])
    assert cache.grow(holding, 2)
    assert cache.grow(holding, 1)
    assert len(holding) == 2


def test_a_released_prefix_is_found_again() -> None:
    cache = KvCache(8, 16)
    cache.release(filled(cache, [1, 2, 3]))
    assert cache.free == 8
    assert cache.count_hits([1, 2, 3, 4]) == 3
    assert cache.count_hits([1, 9, 3]) == 1
    assert cache.count_hits([9, 2, 3]) == 0


def test_a_shared_prefix_is_held_once_and_freed_by_the_last_holder() -> None:
    cache = KvCache(8, 16)
    first, second = filled(cache, [1, 2]), filled(cache, [1, 2])
    assert cache.used == 2
    cache.release(first)
    assert cache.used == 2
    cache.release(second)
    assert cache.used == 0
    assert cache.count_hits([1, 2]) == 2


def test_the_tail_of_the_least_recently_freed_is_evicted_first() -> None:
    cache = KvCache(4, 16)
    older, newer = filled(cache, [1, 2]), filled(cache, [3, 4])
    cache.release(older)
    cache.release(newer)
    holding = cache.admit([])
    cache.grow(holding, 1)
    assert cache.count_hits([1, 2]) == 1, "block 2 goes before block 1, on which it depends"
    cache.grow(holding, 2)
    assert cache.count_hits([1, 2]) == 0
    assert cache.count_hits([3, 4]) == 2


def test_use_makes_a_prefix_recent() -> None:
    cache = KvCache(4, 16)
    for hashes in ([1, 2], [3, 4], [1, 2]):
        cache.release(filled(cache, hashes))
    holding = cache.admit([])
    cache.grow(holding, 2)
    assert cache.count_hits([1, 2]) == 2
    assert cache.count_hits([3, 4]) == 0


def test_blocks_never_used_go_before_the_cache() -> None:
    cache = KvCache(4, 16)
    cache.release(filled(cache, [1, 2]))
    holding = cache.admit([])
    cache.grow(holding, 2)
    assert cache.count_hits([1, 2]) == 2


def test_taking_up_a_cached_prefix_counts_against_the_free_blocks() -> None:
    cache = KvCache(4, 16)
    cache.release(filled(cache, [1, 2]))
    assert cache.can_admit([1, 2], 4)
    other = cache.admit([])
    cache.grow(other, 2)
    assert cache.free == 2
    assert cache.can_admit([1, 2], 2)
    assert not cache.can_admit([1, 2], 3), "its two hits are the two free blocks"


def test_side_by_side_the_same_prefix_stays_anonymous_in_the_second() -> None:
    cache = KvCache(8, 16)
    first, second = cache.admit([]), cache.admit([])
    for holding in (first, second):
        cache.grow(holding, 2)
        cache.name(holding, [1, 2], 2)
    assert cache.used == 4
    cache.release(second)
    assert cache.used == 2
    assert cache.count_hits([1, 2]) == 2


def test_without_prefix_caching_nothing_is_found() -> None:
    cache = KvCache(8, 16, prefix_caching=False)
    cache.release(filled(cache, [1, 2]))
    assert cache.count_hits([1, 2]) == 0
    assert cache.free == 8


def test_forget_drops_what_nobody_holds() -> None:
    cache = KvCache(8, 16)
    held = filled(cache, [1, 2])
    cache.release(filled(cache, [3, 4]))
    cache.forget()
    assert cache.count_hits([3, 4]) == 0
    assert cache.count_hits([1, 2]) == 2
    cache.release(held)
    assert cache.free == 8
