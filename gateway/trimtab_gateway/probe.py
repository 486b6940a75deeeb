"""Health checks of engines that no kubelet checks."""

import asyncio
from http import HTTPStatus

from trimtab_gateway.dispatcher import Dispatcher, Engine

_HEAD_BYTES = 4096


async def is_healthy(host: str, port: int, timeout_seconds: float) -> bool:
    """Whether an engine answers `GET /health` with 200 in time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _status(host, port) == HTTPStatus.OK
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False


async def probe(pool: Dispatcher, engine: Engine, timeout_seconds: float) -> None:
    """Check one engine and report it. A good answer ends an ejection early; a bad one counts as unreachable.

    A draining vLLM answers `/health` with 200 while it refuses every request, so a good answer here does not clear
    failures of real requests unless the engine was unreachable before.
    """
    healthy = await is_healthy(engine.address.host, engine.address.port, timeout_seconds)
    if not healthy:
        pool.report(engine, failed=True, unreachable=True)
    elif engine.health.on_trial and engine.unreachable:
        pool.report(engine, failed=False)


async def _status(host: str, port: int) -> int:
    reader, writer = await asyncio.open_connection(host, port, limit=_HEAD_BYTES)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % host.encode("idna"))
        line = await reader.readuntil(b"\r\n")
        version, _, rest = line.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise ValueError("not HTTP")
        return int(rest[:3])
    finally:
        writer.close()
