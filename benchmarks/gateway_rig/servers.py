"""The two servers that the gateway is compared with, on the same loop and parser that it uses.

python -m benchmarks.gateway_rig.servers engine PORT
python -m benchmarks.gateway_rig.servers relay PORT ENGINE_PORT
"""

import asyncio
import gc
import sys
from typing import cast

import httptools
import uvloop

ANSWER_BODY = (
    b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}]}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER_BODY) + ANSWER_BODY
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"token"}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
EVENTS = 20
EVENT_SECONDS = 0.005


class Engine(asyncio.Protocol):
    """Answers at once, or streams `EVENTS` events `EVENT_SECONDS` apart."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        if b'"stream":true' not in body:
            self._transport.write(ANSWER)
            return
        self._transport.write(STREAM_HEAD)
        begun = asyncio.get_running_loop().time()
        self._event(0, begun)

    def _event(self, number: int, begun: float) -> None:
        if self._transport.is_closing():
            return
        if number == EVENTS:
            self._transport.write(DONE)
            return
        self._transport.write(CHUNK)
        due = begun + (number + 1) * EVENT_SECONDS
        asyncio.get_running_loop().call_at(due, self._event, number + 1, begun)


class Relay(asyncio.Protocol):
    """Copies bytes both ways without looking at them: the least that anything between client and engine does."""

    def __init__(self, engine_port: int) -> None:
        self._engine_port = engine_port
        self._early: list[bytes] = []
        self._other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: _Back(self.transport), "127.0.0.1", self._engine_port)
        self._other = transport
        transport.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            self._other.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._other is not None:
            self._other.abort()


class _Back(asyncio.Protocol):
    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._client.close()


async def _serve(kind: str, port: int, engine_port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        Engine if kind == "engine" else lambda: Relay(engine_port), "127.0.0.1", port, backlog=1024
    )
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))
