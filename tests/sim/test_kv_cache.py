"""Blocks: counted exactly, found again by prefix, evicted in the order in which they were freed."""

import pytest

from trimtab.sim.kv_cache import NO_RUN, UNNAMED, KvCache


def filled(cache: KvCache, hashes: list[int]) -> list[int]:
    """The holding of a sequence whose blocks are all full and known by these hashes."""
    held = hashes[: cache.count_hits(hashes, len(hashes))]
    cache.hold(held)
    cache.take(len(hashes) - len(held))
    cache.name(held, hashes, len(hashes))
    return held


def hits(cache: KvCache, hashes: list[int]) -> int:
    return cache.count_hits(hashes, len(hashes))


@pytest.mark.parametrize(("capacity", "block_size"), [(0, 16), (8, 0), (-1, 16)])
def test_an_impossible_pool_is_refused(capacity: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="at least one block"):
        KvCache(capacity, block_size)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_blocks_for_rounds_up(tokens: int, blocks: int) -> None:
    assert KvCache(8, 16).blocks_for(tokens) == blocks


def test_no_more_is_taken_than_there_is() -> None:
    cache = KvCache(4, 16)
    cache.take(3)
    assert (cache.free, cache.used, cache.usage) == (1, 3, 0.75)
    with pytest.raises(AssertionError):
        cache.take(2)


def test_a_released_prefix_is_found_again() -> None:
    cache = KvCache(8, 16)
    cache.release(filled(cache, [1, 2, 3]), 0)
    assert cache.free == 8
    assert hits(cache, [1, 2, 3, 4]) == 3
    assert cache.count_hits([1, 2, 3, 4], 2) == 2
    assert hits(cache, [1, 9, 3]) == 1
    assert hits(cache, [9, 2, 3]) == 0


def test_a_shared_prefix_is_held_once_and_freed_by_the_last_holder() -> None:
    cache = KvCache(8, 16)
    first, second = filled(cache, [1, 2]), filled(cache, [1, 2])
    assert cache.used == 2
    cache.release(first, 0)
    assert cache.used == 2
    cache.release(second, 0)
    assert cache.used == 0
    assert hits(cache, [1, 2]) == 2


def test_the_tail_of_the_least_recently_freed_is_evicted_first() -> None:
    cache = KvCache(4, 16)
    older, newer = filled(cache, [1, 2]), filled(cache, [3, 4])
    cache.release(older, 0)
    cache.release(newer, 0)
    cache.take(1)
    assert hits(cache, [1, 2]) == 1, "block 2 goes before block 1, on which it depends"
    cache.take(1)
    assert hits(cache, [1, 2]) == 0
    assert hits(cache, [3, 4]) == 2


def test_use_makes_a_prefix_recent() -> None:
    cache = KvCache(4, 16)
    for hashes in ([1, 2], [3, 4], [1, 2]):
        cache.release(filled(cache, hashes), 0)
    cache.take(2)
    assert hits(cache, [1, 2]) == 2
    assert hits(cache, [3, 4]) == 0


def test_blocks_never_used_go_before_the_cache() -> None:
    cache = KvCache(4, 16)
    cache.release(filled(cache, [1, 2]), 0)
    cache.take(2)
    assert hits(cache, [1, 2]) == 2


def test_taking_up_a_cached_prefix_costs_the_blocks_that_nobody_holds() -> None:
    cache = KvCache(4, 16)
    first = filled(cache, [1, 2])
    assert cache.count_idle([1, 2], 2) == 0
    cache.release(first, 0)
    assert cache.count_idle([1, 2], 2) == 2
    cache.hold([1, 2])
    assert cache.free == 2


def test_side_by_side_the_same_prefix_stays_unnamed_in_the_second() -> None:
    cache = KvCache(8, 16)
    first: list[int] = []
    second: list[int] = []
    cache.take(4)
    for held in (first, second):
        cache.name(held, [1, 2], 2)
    assert (first, second) == ([1, 2], [UNNAMED, UNNAMED])
    cache.release(second, 0)
    assert cache.used == 2
    assert hits(cache, [1, 2]) == 2


def test_only_full_blocks_with_a_hash_are_named() -> None:
    cache = KvCache(8, 16)
    cache.take(4)
    held: list[int] = []
    cache.name(held, [1, 2, 3], 2)
    assert held == [1, 2]
    cache.name(held, [1, 2, 3], 4)
    assert held == [1, 2, 3]


class TestRuns:
    def test_what_was_kept_is_found_again(self) -> None:
        cache = KvCache(8, 16)
        cache.take(5)
        run = cache.release([], 5, kept=3)
        assert (cache.free, cache.blocks_of(run)) == (8, 3)
        assert cache.hold_run(run) == 3
        assert (cache.free, cache.blocks_of(run)) == (5, 0)

    def test_its_end_is_evicted_before_its_beginning_and_after_what_was_not_kept(self) -> None:
        cache = KvCache(5, 16)
        cache.take(5)
        run = cache.release([], 5, kept=3)
        cache.take(2)
        assert cache.blocks_of(run) == 3
        cache.take(2)
        assert cache.blocks_of(run) == 1
        assert cache.hold_run(run) == 1
        assert cache.free == 0

    def test_the_hashed_blocks_before_it_outlive_it(self) -> None:
        cache = KvCache(5, 16)
        held = filled(cache, [1, 2])
        cache.take(3)
        run = cache.release(held, 3, kept=3)
        cache.take(3)
        assert cache.blocks_of(run) == 0
        assert hits(cache, [1, 2]) == 2

    def test_without_kept_blocks_it_is_empty(self) -> None:
        cache = KvCache(5, 16)
        cache.take(2)
        assert cache.blocks_of(cache.release([], 2)) == 0
        assert cache.blocks_of(NO_RUN) == cache.hold_run(NO_RUN) == 0


def test_without_prefix_caching_nothing_is_found() -> None:
    cache = KvCache(8, 16, prefix_caching=False)
    held = filled(cache, [1, 2])
    assert held == []
    cache.release(held, 2)
    assert hits(cache, [1, 2]) == 0
    assert cache.free == 8


def test_forget_drops_what_nobody_holds() -> None:
    cache = KvCache(8, 16)
    held = filled(cache, [1, 2])
    cache.release(filled(cache, [3, 4]), 0)
    cache.forget()
    assert hits(cache, [3, 4]) == 0
    assert hits(cache, [1, 2]) == 2
    cache.release(held, 0)
    assert cache.free == 8
    cache.take(8)
    assert cache.used == 8
