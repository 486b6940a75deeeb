"""What a client sends before the backend has accepted is not lost, on uvloop too, which reads before it is asked to."""

import asyncio

import pytest
import uvloop

from trimtab.local.process_node.forward import Forwarder


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def _ask_all(times: int) -> list[bytes]:
    backend = await asyncio.start_server(_echo, "127.0.0.1", 0)
    probe = await asyncio.start_server(_echo, "127.0.0.1", 0)
    address = probe.sockets[0].getsockname()
    probe.close()
    await probe.wait_closed()
    forwarder = Forwarder(address)
    assert await forwarder.serve((backend.sockets[0].getsockname(),))
    answers = []
    for _ in range(times):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello\n")
        answers.append(await asyncio.wait_for(reader.read(), 5))
        writer.close()
        await writer.wait_closed()
    await forwarder.stop()
    backend.close()
    return answers


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # uvloop closes sockets a tick too late
def test_a_request_that_comes_with_the_connection_arrives() -> None:
    assert uvloop.run(_ask_all(200)) == [b"hello\n"] * 200
