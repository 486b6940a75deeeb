import math
from dataclasses import dataclass

import pytest

from trimtab.decide.queueing.group import Grouping, Groups, slack_bucket


@dataclass(frozen=True, slots=True)
class Request:
    key: int
    deadline: float = 20.0
    model: str = "a"
    input_tokens: int = 500


def groups(most: int = 4) -> Groups[Request]:
    return Groups(Grouping(most))


def test_alike_requests_share_a_group_in_the_order_of_arrival() -> None:
    queue = groups()
    assert len({queue.place(Request(key), at=0.0).key for key in (1, 2, 3)}) == 1
    assert [member.key for member in queue.of(1).members()] == [1, 2, 3]
    assert queue.of(2).first() == Request(1)
    assert 2 in queue
    assert len(queue) == 1


@pytest.mark.parametrize(
    "other",
    [
        Request(2, model="b"),
        Request(2, deadline=60.0),
        Request(2, deadline=-1.0),
        Request(2, input_tokens=3001),
    ],
)
def test_requests_that_differ_have_groups_of_their_own(other: Request) -> None:
    queue = groups()
    assert queue.place(Request(1), at=0.0) is not queue.place(other, at=0.0)


def test_a_mega_prompt_is_kept_apart_from_prompts_of_nearly_its_length() -> None:
    queue = groups()
    assert queue.place(Request(1, input_tokens=3000), 0.0) is not queue.place(Request(2, input_tokens=3001), 0.0)


@pytest.mark.parametrize("slack", [1.0, 5.0, 15.0, 20.0, 60.0, 3600.0])
def test_a_round_objective_is_not_split_by_the_milliseconds_of_its_way(slack: float) -> None:
    assert slack_bucket(slack) == slack_bucket(slack - 0.01) == slack_bucket(slack + 0.01)


def test_slacks_are_bucketed_by_factors_of_two() -> None:
    assert [slack_bucket(2.0**power) for power in range(-3, 8)] == list(range(-3, 8))
    assert slack_bucket(0.0) == slack_bucket(-100.0) < slack_bucket(1e-9)


def test_a_bucket_is_judged_once_so_that_waiting_changes_no_group() -> None:
    queue = groups()
    home = queue.place(Request(1, deadline=20.0), at=0.0)
    assert queue.place(Request(2, deadline=39.0), at=19.0) is home
    assert queue.of(1) is home


@pytest.mark.parametrize("limit", [1, 4, 8])
def test_a_full_group_is_closed(limit: int) -> None:
    queue = groups(limit)
    homes = [queue.place(Request(key), at=0.0).key for key in range(limit + 1)]
    assert homes == [0] * limit + [1]
    assert queue[0].closed
    assert queue[1].closed is (limit == 1)


def test_a_group_that_has_started_takes_no_more() -> None:
    queue = groups()
    home = queue.place(Request(1), at=0.0)
    queue.place(Request(2), at=0.0)
    assert queue.start(1) == Request(1)
    assert home.closed
    assert (home.waiting, home.running, len(home)) == (1, 1, 2)
    assert queue.place(Request(3), at=0.0) is not home


def test_the_deadline_is_that_of_the_most_urgent_member_that_waits() -> None:
    queue = groups()
    for key, deadline in ((1, 17.0), (2, 15.0), (3, 16.0)):
        queue.place(Request(key, deadline), at=0.0)
    home = queue.of(1)
    assert home.deadline == 15.0
    queue.start(2)
    assert home.deadline == 16.0
    queue.remove(3)
    assert home.deadline == 17.0
    queue.evict(2)
    assert home.deadline == 15.0
    queue.start(1)
    queue.start(2)
    assert home.deadline == math.inf


def test_an_evicted_member_is_served_next() -> None:
    queue = groups()
    for key in (1, 2, 3):
        queue.place(Request(key), at=0.0)
    queue.start(1)
    queue.start(2)
    queue.evict(2)
    assert [member.key for member in queue.of(3).members()] == [2, 3]


def test_a_group_does_not_grow_by_evictions_however_many_there_are() -> None:
    queue = groups()
    for key in (1, 2):
        queue.place(Request(key), at=0.0)
    for _ in range(1000):
        queue.start(2)
        queue.evict(2)
    assert len(queue.of(2)._deadlines) < 100
    assert queue.of(2).deadline == 20.0


def test_an_empty_group_is_gone_and_nothing_can_join_it() -> None:
    queue = groups()
    home = queue.place(Request(1), at=0.0)
    queue.remove(1)
    assert 1 not in queue
    assert list(queue) == []
    again = queue.place(Request(2), at=0.0)
    assert again is not home
    assert list(queue) == [again]


def test_a_group_whose_last_member_runs_is_kept_until_it_ends() -> None:
    queue = groups()
    home = queue.place(Request(1), at=0.0)
    queue.start(1)
    assert list(queue) == [home]
    queue.remove(1)
    assert list(queue) == []
