"""A download site on loopback that can misbehave."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """What it serves, and what it was asked.

    Attributes:
        address: Its base address.
        files: Content by path.
        asked: `METHOD /path` of each request, in order.
        stuck: Paths that are never answered.
        trickling: Paths that are sent a byte at a time, for ever.
        cut: Paths that end after half of their content.
        released: Set to let whatever is stuck end.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)
    trickling: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    site = FileServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site))
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, site: FileServer, *arguments: Any) -> None:
        self._site = site
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self._site.asked.append(f"{self.command} {self.path}")
        if self.path in self._site.stuck:
            self._site.released.wait()
            return
        content = self._site.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content is not None:
            self._send(content)

    def _send(self, content: bytes) -> None:
        if self.path in self._site.cut:
            content = content[: len(content) // 2]
        if self.path in self._site.trickling:
            self._trickle(content)
        else:
            self.wfile.write(content)

    def _trickle(self, content: bytes) -> None:
        with suppress(OSError):
            for at in range(len(content)):
                if self._site.released.wait(0.02):
                    return
                self.wfile.write(content[at : at + 1])

    def log_message(self, *_: object) -> None:
        pass
