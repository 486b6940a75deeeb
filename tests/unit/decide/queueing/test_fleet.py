"""Which engine is the least loaded one, and that loads are kept through every change."""

import pytest

from trimtab.decide.queueing import Endpoint, Fleet


def a_fleet(**capacities: int) -> Fleet:
    fleet = Fleet()
    fleet.replace([Endpoint(name, capacity) for name, capacity in capacities.items()])
    return fleet


def fill(fleet: Fleet, count: int) -> list[str]:
    taken = []
    for _ in range(count):
        name = fleet.least_loaded()
        assert name is not None
        fleet.take(name)
        taken.append(name)
    return taken


def test_an_empty_fleet_has_no_engine() -> None:
    assert Fleet().least_loaded() is None


def test_equal_engines_take_turns_in_the_order_of_their_names() -> None:
    assert fill(a_fleet(b=2, a=2, c=2), 6) == ["a", "b", "c", "a", "b", "c"]


def test_a_larger_engine_gets_its_share() -> None:
    taken = fill(a_fleet(large=6, small=2), 8)
    assert (taken.count("large"), taken.count("small")) == (6, 2)
    assert taken[:4].count("small") == 1


def test_a_full_fleet_has_no_room_until_a_request_ends() -> None:
    fleet = a_fleet(a=1, b=1)
    fill(fleet, 2)
    assert fleet.least_loaded() is None
    fleet.give_back("b")
    assert fleet.least_loaded() == "b"


def test_an_engine_that_is_not_ready_is_passed_over_and_keeps_its_load() -> None:
    fleet = a_fleet(a=2, b=2)
    fill(fleet, 2)
    fleet.update(Endpoint("a", 2, ready=False))
    assert (fleet.least_loaded(), fleet.in_flight("a"), fleet.ready_capacity) == ("b", 1, 2)
    fleet.update(Endpoint("a", 2))
    assert fill(fleet, 2) == ["a", "b"]


def test_an_engine_that_left_ends_its_requests_and_is_then_forgotten() -> None:
    fleet = a_fleet(a=2, b=2)
    fleet.take("a")
    fleet.replace([Endpoint("b", 2)])
    assert ([each.name for each in fleet.endpoints()], fleet.total_in_flight) == (["b"], 1)
    assert fill(fleet, 2) == ["b", "b"]
    fleet.give_back("a")
    assert (fleet.in_flight("a"), fleet.total_in_flight) == (0, 2)


def test_an_engine_that_left_and_came_back_still_carries_its_requests() -> None:
    fleet = a_fleet(a=2)
    fleet.take("a")
    fleet.replace([])
    assert fleet.least_loaded() is None
    fleet.replace([Endpoint("a", 2)])
    assert fill(fleet, 1) == ["a"]
    assert fleet.least_loaded() is None


def test_a_smaller_capacity_takes_nothing_away_but_admits_nothing_new() -> None:
    fleet = a_fleet(a=4)
    fill(fleet, 3)
    fleet.update(Endpoint("a", 2))
    assert (fleet.least_loaded(), fleet.in_flight("a")) == (None, 3)
    fleet.give_back("a")
    assert fleet.least_loaded() is None
    fleet.give_back("a")
    assert fleet.least_loaded() == "a"


def test_news_of_an_unknown_engine_is_ignored() -> None:
    fleet = a_fleet(a=1)
    fleet.update(Endpoint("ghost", 5))
    assert fill(fleet, 1) == ["a"]
    assert fleet.least_loaded() is None


@pytest.mark.parametrize("name", ["a", "b"])
def test_only_what_was_taken_can_be_given_back(name: str) -> None:
    fleet = a_fleet(a=1, b=1)
    with pytest.raises(AssertionError, match="ends once"):
        fleet.give_back(name)


def test_outdated_entries_do_not_pile_up() -> None:
    fleet = a_fleet(**{f"e{number}": 10 for number in range(5)})
    for _ in range(10_000):
        fleet.take("e4")
        fleet.give_back("e4")
    assert len(fleet._heap) < 200
    assert fleet.least_loaded() == "e0"
