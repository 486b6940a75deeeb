"""Free ports, and who listens where."""

import os
import socket

import pytest

from trimtab.local import ports
from trimtab.model.problem import Problem


@pytest.fixture
def listening() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_listened_on_is_not_free(listening: int) -> None:
    assert listening not in ports.free(1, (), range(listening, listening + 20))


def test_a_port_that_is_taken_is_not_chosen(listening: int) -> None:
    window = range(listening + 1, listening + 40)
    first = ports.free(1, (), window)[0]
    assert first not in ports.free(3, {first}, window)


def test_all_ports_are_different() -> None:
    found = ports.free(10, ())
    assert len(set(found)) == 10
    assert all(port in ports.DEFAULT_RANGE for port in found)


def test_the_search_begins_at_the_first_choice_and_goes_around() -> None:
    window = range(23000, 23010)
    assert ports.free(1, (), window, first_choice=7)[0] in window[7:]
    assert set(ports.free(10, (), window, first_choice=7)) == set(window)


def test_too_few_free_ports_are_an_error_that_says_what_to_do(listening: int) -> None:
    with pytest.raises(Problem, match=rf"only 0 of 3 ports .* free in {listening}-{listening}\nfix: .*TRIMTAB_PORTS"):
        ports.free(3, (), range(listening, listening + 1))


@pytest.mark.parametrize("text", ["", "21000", "21000-", "-21000", "5-3", "0-5", "1-65536", "a-b"])
def test_a_malformed_range_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="is not a range of ports"):
        ports.port_range(text)


def test_a_range_includes_both_ends() -> None:
    assert ports.port_range("21000-21003") == range(21000, 21004)


def test_listeners_of_a_process_are_found(listening: int) -> None:
    assert ports.Listener(os.getpid(), "127.0.0.1", listening) in ports.listeners([os.getpid()])


def test_an_ipv6_listener_is_found() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with server:
        assert ports.Listener(os.getpid(), "::1", server.getsockname()[1]) in ports.listeners([os.getpid()])


def test_a_process_that_is_gone_listens_nowhere() -> None:
    assert ports.listeners([2**22 + 1]) == []


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("127.0.0.1", True),
        ("127.219.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.1.2.3", False),
        ("::ffff:10.1.2.3", False),
    ],
)
def test_loopback_is_told_from_the_rest(address: str, verdict: bool) -> None:
    assert ports.is_loopback(address) is verdict
