"""A client that sends exactly the bytes it is told, and reads answers without hiding anything."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    """One answer: `raw` is its body with the chunk framing, `body` without."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> None:
        await self.send(post(body, path, **headers))

    async def answer(self) -> Answer:
        async with asyncio.timeout(20):
            return await self._answer()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(20):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = text[:-4].split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
        return int(line.split(" ")[1]), headers

    async def chunk(self) -> tuple[bytes, bytes]:
        """Return the next chunk's content, and the chunk as it was framed."""
        async with asyncio.timeout(20):
            line = await self.reader.readuntil(b"\r\n")
            content = await self.reader.readexactly(int(line.partition(b";")[0], 16) + 2)
        assert content.endswith(b"\r\n")
        return content[:-2], line + content

    async def closed(self) -> bytes:
        """Return what still comes until the other side ends; a reset counts as an end."""
        data = b""
        async with asyncio.timeout(20):
            try:
                while part := await self.reader.read(65536):
                    data += part
            except ConnectionResetError:
                pass
        return data

    def leave(self) -> None:
        self.writer.transport.abort()

    async def _answer(self) -> Answer:
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            body, raw = b"", b""
            while True:
                content, framed = await self.chunk()
                body, raw = body + content, raw + framed
                if not content:
                    return Answer(status, headers, body, raw)
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.closed()
        return Answer(status, headers, body, body)


def post(body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> bytes:
    """Return a request as an ordinary client writes it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "gateway", "content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + f"\r\ncontent-length: {len(content)}\r\n\r\n").encode() + content


@asynccontextmanager
async def connection(port: int, host: str = "127.0.0.1") -> AsyncIterator[Client]:
    """Connect to a server."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
