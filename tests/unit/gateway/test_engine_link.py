"""Which connections to an engine are used again, and which never."""

import asyncio
from typing import Any

import pytest

from tests.property.test_gateway_framing import Recorder, Wire
from trimtab_gateway.engine import EngineConnection, EngineLink
from trimtab_gateway.limits import Limits

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at


class Asker(Recorder):
    """An exchange that notes which connection it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: EngineConnection | None = None
        self.error = ""

    def connected(self, connection: EngineConnection) -> None:
        self.given = connection

    def unreachable(self, error: str) -> None:
        self.error = error


def a_link(clock: Clock, port: int = 1, **limits: Any) -> EngineLink:
    return EngineLink("127.0.0.1", port, Limits(**limits), clock.now)


def served(link: EngineLink, answer: bytes = ANSWER) -> tuple[EngineConnection, Wire]:
    """Return a connection that has carried one answer."""
    connection, wire = EngineConnection(link), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.send(Recorder(), b"", b"")
    connection.data_received(answer)
    return connection, wire


def given(link: EngineLink) -> EngineConnection | None:
    """Return the kept connection that a new exchange gets, if any, without letting it connect."""
    asker = Asker()
    task = link.open(asker)
    if task is not None:
        task.cancel()
    return asker.given


async def test_the_connection_used_last_is_used_first() -> None:
    link = a_link(Clock())
    (first, _), (second, _) = served(link), served(link)
    assert (given(link), given(link), given(link)) == (second, first, None)


async def test_a_connection_that_idled_too_long_is_closed_instead() -> None:
    clock = Clock()
    link = a_link(clock, engine_idle_seconds=4.0)
    _, wire = served(link)
    clock.at += 4.1
    assert given(link) is None
    assert wire.closing


async def test_idle_connections_are_closed_when_their_time_is_up_and_no_earlier() -> None:
    clock = Clock()
    link = a_link(clock)
    _, old = served(link)
    clock.at += 3
    _, young = served(link)
    link.close_idle(older_than=clock.at - 2)
    assert (old.closing, young.closing) == (True, False)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
async def test_a_connection_that_the_engine_wants_closed_is_not_kept(answer: bytes) -> None:
    link = a_link(Clock())
    _, wire = served(link, answer)
    assert wire.closing
    assert given(link) is None


async def test_a_connection_on_which_something_came_unasked_is_not_kept() -> None:
    link = a_link(Clock())
    connection, wire = served(link)
    connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire.closing
    assert given(link) is None


async def test_a_connection_that_ended_is_not_kept() -> None:
    link = a_link(Clock())
    connection, _ = served(link)
    connection.connection_lost(None)
    assert given(link) is None


async def test_a_closed_link_keeps_nothing_but_lets_answers_end() -> None:
    link = a_link(Clock())
    busy, wire = EngineConnection(link), Wire()
    busy.connection_made(wire)  # type: ignore[arg-type]
    recorder = Recorder()
    busy.send(recorder, b"", b"")
    _, idle = served(link)
    link.close()
    assert (idle.closing, wire.closing) == (True, False)
    busy.data_received(ANSWER)
    assert (recorder.end, wire.closing) == ("ended", True)


@pytest.mark.parametrize(("error", "end"), [(None, "ended"), (ConnectionResetError("reset"), "lost")])
async def test_a_body_until_the_end_is_whole_only_if_the_end_was_orderly(error: Exception | None, end: str) -> None:
    connection, recorder = EngineConnection(a_link(Clock())), Recorder()
    connection.connection_made(Wire())  # type: ignore[arg-type]
    connection.send(recorder, b"", b"")
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    connection.connection_lost(error)
    assert (recorder.end, recorder.content) == (end, b"all of it")


async def test_nobody_hears_of_a_connection_that_was_cancelled() -> None:
    connection, wire, recorder = EngineConnection(a_link(Clock())), Wire(), Recorder()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.send(recorder, b"", b"")
    connection.cancel()
    connection.connection_lost(None)
    assert (wire.closing, recorder.end) == (True, "")


async def test_a_refused_connection_is_reported_with_the_reason(unused_tcp_port: int) -> None:
    asker = Asker()
    task = a_link(Clock(), unused_tcp_port).open(asker)
    assert task is not None
    await asyncio.wait_for(task, 10)
    assert asker.error
    assert asker.given is None


async def test_an_address_with_colons_is_bracketed() -> None:
    assert EngineLink("::1", 80, Limits(), Clock().now).host_header == b"[::1]:80"
    assert EngineLink("engine", 80, Limits(), Clock().now).host_header == b"engine:80"
