"""A client that leaves takes its request with it, wherever that is."""

import asyncio

from tests.integration.gateway.conftest import CHAT, STREAM, Start, eventually
from tests.support.upstream import Call
from trimtab_gateway.limits import Limits


async def hang(_call: Call) -> None:
    await asyncio.Event().wait()


async def test_while_it_waits(start: Start) -> None:
    running = await start(hang, concurrency=1)
    async with running.connect() as first, running.connect() as second:
        await first.ask(CHAT)
        await running.engines[0].arrived.wait()
        await second.ask(CHAT)
        await eventually(lambda: running.queue.waiting == 1)
        second.leave()
        await eventually(lambda: running.queue.waiting == 0)
    await eventually(lambda: running.outcomes().get("cancelled") == 2)
    assert len(running.engines[0].requests) == 1


async def test_while_the_engine_is_being_connected(start: Start) -> None:
    running = await start(hang)
    # A listener whose backlog is full accepts no more: connecting hangs.
    full = await _full_listener()
    engine = next(iter(running.gateway.pools["chat"].engines.values()))
    engine.link._port = full.port
    async with running.connect() as client:
        await client.ask(CHAT)
        await eventually(lambda: len(engine.link._opening) == 1)
        client.leave()
        await eventually(lambda: not engine.link._opening)
    await eventually(lambda: running.outcomes() == {"cancelled": 1})
    assert not running.gateway.pools["chat"].has_requests
    full.close()


async def test_while_the_answer_has_not_begun(start: Start) -> None:
    running = await start(hang)
    async with running.connect() as client:
        await client.ask(CHAT)
        await running.engines[0].arrived.wait()
        client.leave()
        await asyncio.wait_for(running.engines[0].gone.wait(), 5)
    assert running.outcomes() == {"cancelled": 1}


async def test_while_the_answer_streams(start: Start) -> None:
    async def endless(call: Call) -> None:
        await call.events()
        await call.event("1")
        await asyncio.Event().wait()

    running = await start(endless)
    async with running.connect() as client:
        await client.ask(STREAM)
        await client.head()
        await client.chunk()
        client.leave()
        await asyncio.wait_for(running.engines[0].gone.wait(), 5)
    assert running.outcomes() == {"cancelled": 1}


async def test_by_ending_only_its_own_side(start: Start) -> None:
    running = await start(hang)
    async with running.connect() as client:
        await client.ask(CHAT)
        await running.engines[0].arrived.wait()
        client.writer.write_eof()
        await asyncio.wait_for(running.engines[0].gone.wait(), 5)


async def test_while_its_request_is_still_coming(start: Start) -> None:
    running = await start()
    async with running.connect() as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\n{")
        await eventually(lambda: running.gateway.buffered_bytes == 1)
        client.leave()
        await eventually(lambda: running.gateway.buffered_bytes == 0)
    assert running.engines[0].requests == []


async def test_with_pipelined_requests_behind_it(start: Start) -> None:
    running = await start(hang)
    async with running.connect() as client:
        await client.ask(CHAT)
        await client.ask(CHAT)
        await running.engines[0].arrived.wait()
        await eventually(lambda: running.gateway.buffered_bytes > len(str(CHAT)))
        client.leave()
        await asyncio.wait_for(running.engines[0].gone.wait(), 5)
    await eventually(lambda: running.gateway.buffered_bytes == 0)
    assert len(running.engines[0].requests) == 1


async def test_its_place_goes_to_the_next_one(start: Start) -> None:
    async def first_hangs(call: Call) -> None:
        if call.number == 1:
            await asyncio.Event().wait()
        await call.json()

    running = await start(first_hangs, concurrency=1)
    async with running.connect() as first, running.connect() as second:
        await first.ask(CHAT)
        await running.engines[0].arrived.wait()
        await second.ask(CHAT)
        await eventually(lambda: running.queue.waiting == 1)
        first.leave()
        assert (await second.answer()).status == 200


async def test_a_client_that_stops_reading_for_too_long_is_dropped(start: Start) -> None:
    async def flood(call: Call) -> None:
        await call.events()
        while True:
            await call.chunk(b"x" * 65536)

    running = await start(flood, limits=Limits(stall_seconds=0.2))
    async with running.connect() as client:
        await client.ask(STREAM)
        await client.head()
        await asyncio.wait_for(running.engines[0].gone.wait(), 20)
    assert running.outcomes() == {"cancelled": 1}


class _Full:
    """A listening socket whose backlog is full."""

    def __init__(self) -> None:
        import socket

        self.sockets = [socket.socket()]
        self.sockets[0].bind(("127.0.0.1", 0))
        self.sockets[0].listen(0)
        self.port = self.sockets[0].getsockname()[1]

    async def fill(self) -> None:
        import socket

        loop = asyncio.get_running_loop()
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            self.sockets.append(filler)
            try:
                async with asyncio.timeout(0.2):
                    await loop.sock_connect(filler, ("127.0.0.1", self.port))
            except TimeoutError:
                return

    def close(self) -> None:
        for each in self.sockets:
            each.close()


async def _full_listener() -> _Full:
    full = _Full()
    await full.fill()
    return full
