"""Small fake engines on loopback, with every bad habit that a gateway has to survive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Received:
    """One request as an engine saw it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass
class Call:
    """A request being answered: behaviors write to it."""

    received: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: str = "200 OK", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}"] + [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def json(self, body: bytes = b'{"ok":true}', status: str = "200 OK", **headers: str) -> None:
        await self.send(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n".encode()
            + b"".join(f"{name.replace('_', '-')}: {value}\r\n".encode() for name, value in headers.items())
            + b"\r\n"
            + body
        )

    async def events(self) -> None:
        await self.head(content_type="text/event-stream; charset=utf-8", transfer_encoding="chunked")

    async def event(self, data: str) -> None:
        await self.chunk(f"data: {data}\n\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    def die(self) -> None:
        """Lose the connection as a killed process does."""
        self.writer.transport.abort()


Behavior = Callable[[Call], Awaitable[None]]


async def answer(call: Call) -> None:
    """A small JSON answer."""
    await call.json()


async def echo(call: Call) -> None:
    """The request's own body as the answer."""
    await call.json(call.received.body)


async def stream(call: Call) -> None:
    """Three events and the end."""
    await call.events()
    for token in ("one", "two", "three"):
        await call.event(f'{{"token":"{token}"}}')
    await call.chunk(b"data: [DONE]\n\n")
    await call.end()


@dataclass
class Upstream:
    """One fake engine: counts connections, keeps what it received, and sees who leaves.

    Attributes:
        behavior: how it answers inference requests; may be changed at any time.
        requests: what it received, `/health` excluded.
        connections: connections that were made to it.
        gone: set whenever a client leaves while its request is being answered.
        busy: requests being answered now.
        most_busy: the most that `busy` has been.
    """

    behavior: Behavior = answer
    healthy: bool = True
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    busy: int = 0
    most_busy: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop_listening(self) -> None:
        """Refuse new connections; those that are open stay."""
        assert self._server is not None
        self._server.close()

    async def stop(self) -> None:
        """Close the listener and every connection, as a killed process does."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the end of the test: asyncio.start_server would log it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        received = await _read(reader)
        if received.line.startswith("GET /health "):
            await Call(received, reader, writer, 0).json(b"", "200 OK" if self.healthy else "503 Service Unavailable")
            return True
        self.requests.append(received)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        self.arrived.set()
        call = Call(received, reader, writer, len(self.requests))
        answering = asyncio.ensure_future(self.behavior(call))
        watching = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() or (watching.done() and not watching.cancelled() and writer.is_closing()):
                self.gone.set()
                return False
            answering.result()
            return not writer.is_closing()
        finally:
            self.busy -= 1
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head[:-4].split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in fields)]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    return Received(line, headers, await reader.readexactly(length))


@asynccontextmanager
async def upstream(behavior: Behavior = answer, port: int = 0) -> AsyncIterator[Upstream]:
    """Run a fake engine on a free port."""
    engine = await Upstream(behavior).start(port)
    try:
        yield engine
    finally:
        await engine.stop()
