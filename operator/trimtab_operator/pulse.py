"""Proof of life: `/livez` and `/readyz`, answered from a thread of their own, about a loop that must tick."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Pulse:
    """When the loop ticked last, and what is not ready yet.

    The event loop writes it and the health thread reads it, so a hung event loop shows.

    Attributes:
        stale_seconds: without a tick for this long the process is not live.
        awaited: what must be synced before the process is ready.
        monotonic: the clock, in seconds.
    """

    stale_seconds: float
    awaited: set[str] = field(default_factory=set)
    monotonic: Callable[[], float] = time.monotonic  # noqa: TID251 - shared with a thread, outside any Clock
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.monotonic()

    def beat(self) -> None:
        """Say that the loop is alive."""
        self._last = self.monotonic()

    def synced(self, name: str) -> None:
        """Say that `name` is synced."""
        self.awaited.discard(name)

    def livez(self) -> tuple[int, str]:
        """Return the HTTP status and text of `/livez`."""
        age = self.monotonic() - self._last
        if age > self.stale_seconds:
            return 503, f"the loop has not ticked for {age:.0f} s\n"
        return 200, f"ok: the loop ticked {age:.1f} s ago\n"

    def readyz(self) -> tuple[int, str]:
        """Return the HTTP status and text of `/readyz`."""
        awaited = sorted(self.awaited)
        return (503, f"not synced yet: {', '.join(awaited)}\n") if awaited else (200, "ok\n")


@contextmanager
def serve(pulse: Pulse, address: str, port: int) -> "Iterator[int]":
    """Answer `/livez` and `/readyz` while the context is open; yields the port, which is chosen if `port` is 0.

    Raises:
        OSError: the address or port cannot be bound.
    """
    pages = {"/livez": pulse.livez, "/readyz": pulse.readyz}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            status, text = page() if page else (404, "not found: try /livez or /readyz\n")
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            del format, args

    server = ThreadingHTTPServer((address, port), Handler)
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
