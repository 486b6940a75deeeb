"""A scripted OpenAI-compatible server: says exactly what it is told to say, when it is told to.

In a test: `async with OpenAIServer(behave) as server`. By itself (for benchmarks): `python openai_server.py --port 0`
prints its port and answers every request with `max_tokens` tokens.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Script:
    """How one answer goes.

    Attributes:
        status: HTTP status; other than 200, `body` is the whole answer.
        body: the body of a plain answer; None: stream.
        content_type: of a plain answer.
        first_seconds: time before the first token.
        token_seconds: time between tokens.
        tokens: how many come; None: `max_tokens`.
        finish: the finish reason; empty: none.
        usage: whether the last chunk has the counts.
        tail: raw bytes of the body after the tokens, e.g. an error event; None: `[DONE]`.
        cut: close the connection instead of ending the body.
        hang: never end.
    """

    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    first_seconds: float = 0.0
    token_seconds: float = 0.0
    tokens: int | None = None
    finish: str = "length"
    usage: bool = True
    tail: bytes | None = None
    cut: bool = False
    hang: bool = False


@dataclass
class Received:
    """One request as the server saw it."""

    at_seconds: float
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)


Behave = Callable[[int, Received], Script]


def event(record: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(record).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked encoding."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def token(text: str, finish: str | None = None) -> bytes:
    """The event of one token."""
    return event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


TOKEN = chunk(token(" word"))


class OpenAIServer:
    """The server; `received` lists every request, `dropped` counts answers whose client left first."""

    def __init__(self, behave: Behave = lambda _number, _request: Script(), port: int = 0) -> None:
        self.behave = behave
        self.received: list[Received] = []
        self.dropped = 0
        self.connections = 0
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while await self._serve(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Received(time.monotonic(), method, path, headers, json.loads(raw or b"{}"))
        self.received.append(request)
        script = self.behave(len(self.received) - 1, request)
        if path.endswith("/v1/models"):
            script = Script(body=json.dumps({"data": [{"id": "m"}]}).encode())
        try:
            return await self._answer(script, request, writer)
        except (ConnectionError, asyncio.CancelledError):
            self.dropped += 1
            raise

    async def _answer(self, script: Script, request: Received, writer: asyncio.StreamWriter) -> bool:
        if script.body is not None:
            head = f"HTTP/1.1 {script.status} X\r\ncontent-type: {script.content_type}\r\n"
            head += f"content-length: {len(script.body)}\r\n\r\n"
            await asyncio.sleep(script.first_seconds)
            writer.write(head.encode() + script.body)
            await writer.drain()
            return not script.cut
        writer.write(STREAM_HEAD)
        count = request.body["max_tokens"] if script.tokens is None else script.tokens
        await self._tokens(script, count, writer)
        if script.hang:
            await asyncio.Event().wait()
        if script.cut:
            await writer.drain()
            return False
        writer.write(self._end(script, request, count))
        await writer.drain()
        return True

    async def _tokens(self, script: Script, count: int, writer: asyncio.StreamWriter) -> None:
        for number in range(count):
            await asyncio.sleep(script.token_seconds if number else script.first_seconds)
            writer.write(TOKEN)
            await writer.drain()

    def _end(self, script: Script, request: Received, count: int) -> bytes:
        body = b""
        if script.finish:
            body += event({"choices": [{"index": 0, "delta": {}, "finish_reason": script.finish}]})
        if script.usage:
            words = len(str(request.body.get("prompt") or request.body["messages"][0]["content"]).split())
            body += event({"choices": [], "usage": {"prompt_tokens": words, "completion_tokens": count}})
        body += b"data: [DONE]\n\n" if script.tail is None else script.tail
        return chunk(body) + b"0\r\n\r\n"


async def main() -> None:
    """Serve until killed."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--first-seconds", type=float, default=0.05)
    options.add_argument("--token-seconds", type=float, default=0.02)
    chosen = options.parse_args()
    script = Script(first_seconds=chosen.first_seconds, token_seconds=chosen.token_seconds)
    async with OpenAIServer(lambda _number, _request: script, chosen.port) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
