import socket
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.local.process_node.addresses import Network, Pool, candidates, claim
from trimtab.model.problem import Problem


def test_pods_and_services_have_ranges_of_their_own() -> None:
    network = Network(20)

    assert network.node == "127.20.0.1"
    assert network.pods().take("a") == "127.20.1.0"
    assert network.services().take("a") == "127.20.128.0"


def test_an_owner_keeps_its_address() -> None:
    pool = Network(20).pods()

    assert pool.take("a") == pool.take("a", wanted="127.20.1.9")


def test_a_new_owner_gets_the_address_it_had_before_if_it_is_free() -> None:
    pool = Network(20).pods()

    assert pool.take("a", wanted="127.20.3.7") == "127.20.3.7"
    assert pool.take("b", wanted="127.20.3.7") == "127.20.1.0"
    assert pool.take("c", wanted="127.99.3.7") == "127.20.1.1"


def test_a_freed_address_comes_last_again() -> None:
    pool = Pool("127.20.1.0", "127.20.1.2")
    first = pool.take("a")
    pool.release("a")

    assert [pool.take(owner) for owner in "bcd"] == ["127.20.1.1", "127.20.1.2", first]


def test_an_empty_pool_says_what_to_do() -> None:
    pool = Pool("127.20.1.0", "127.20.1.0")
    pool.take("a")

    with pytest.raises(Problem, match="start a second process node"):
        pool.take("b")


def test_releasing_what_was_never_taken_changes_nothing() -> None:
    pool = Pool("127.20.1.0", "127.20.1.0")
    pool.release("a")

    assert pool.take("b") == "127.20.1.0"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_no_two_owners_ever_share_an_address(moves: list[tuple[bool, int]]) -> None:
    pool = Pool("127.20.1.0", "127.20.1.9")
    held: dict[str, str] = {}
    for take, owner in moves:
        if take:
            held[str(owner)] = pool.take(str(owner))
        else:
            pool.release(str(owner))
            held.pop(str(owner), None)
        assert len(set(held.values())) == len(held)


def test_every_network_is_a_candidate_once_and_the_preferred_one_first() -> None:
    found = list(candidates("seed", preferred=254))

    assert found[0] == 254
    assert sorted(found) == list(range(16, 255))


def test_the_seed_decides_where_a_node_starts() -> None:
    assert list(islice(candidates("/a"), 3)) == list(islice(candidates("/a"), 3))
    assert next(candidates("/a")) != next(candidates("/b"))


def test_two_nodes_never_claim_the_same_network() -> None:
    port = _free_port()
    first, one = claim("/a", port)
    second, two = claim("/a", port)
    with one, two:
        assert first != second
        assert one.getsockname() == (first.node, port)

    again, three = claim("/a", port, preferred=second.second)
    with three:
        assert again == second


def test_a_port_that_is_taken_everywhere_is_named() -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        with pytest.raises(Problem, match="--kubelet-port"):
            claim("/a", everywhere.getsockname()[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
