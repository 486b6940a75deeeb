"""What a client sends before the backend has accepted is not lost, on uvloop too, which reads before it is asked to."""

import asyncio
import subprocess
import sys

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
    for number in range(times):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello\n")
        if number % 2:
            writer.write_eof()
        answers.append(await asyncio.wait_for(reader.read(), 5))
        writer.close()
        await writer.wait_closed()
    await forwarder.stop()
    backend.close()
    return answers


def test_a_request_that_comes_with_the_connection_arrives() -> None:
    """In a process of its own: uvloop closes sockets after its loop has ended, of which pytest would complain."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "200 of 200 arrived\n", done.stderr


if __name__ == "__main__":
    found = uvloop.run(_ask_all(200))
    print(f"{found.count(b'hello' + bytes([10]))} of {len(found)} arrived")
