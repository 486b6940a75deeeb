"""What every process that serves does the same way: its listener, its metrics, and when it stops."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, start_http_server

from trimtab.model.problem import Problem


def listen(address: str, port: int, *, backlog: int = 128) -> socket.socket:
    """Return a listening TCP socket.

    Raises:
        Problem: the port is taken or the address is not ours.
    """
    try:
        return socket.create_server((address, port), backlog=backlog)
    except OSError as error:
        fix = "set another port or address"
        raise Problem(f"cannot listen on {address}:{port}: {error.strerror}", fix=fix) from error


@asynccontextmanager
async def serving_metrics(address: str, port: int, registry: CollectorRegistry) -> AsyncIterator[None]:
    """Answer `/metrics` from a thread of its own while the context is open.

    Raises:
        Problem: the port is taken or the address is not ours.
    """
    try:
        server, thread = start_http_server(port, address, registry=registry)
    except OSError as error:
        problem = f"cannot listen on {address}:{port} for metrics: {error.strerror}"
        raise Problem(problem, fix="set --metrics-port") from error
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


async def asked_to_stop() -> None:
    """Wait for SIGTERM or SIGINT. From the first call on, neither ends the process by itself."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
