"""Small answers in one piece, over the same client as the load."""

import asyncio
from collections.abc import Mapping

from trimtab.workload.wire import Client


class _Whole:
    """Takes in an answer in one piece."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        del headers
        self.status = status

    def on_data(self, data: bytes, at_seconds: float) -> None:
        del at_seconds
        self.body += data


async def fetch(client: Client, path: str, *, patience_seconds: float) -> tuple[int, bytes]:
    """GET `path`; returns the status and the body.

    Raises:
        AnswerLost: no connection, or it failed before the answer was complete.
        TimeoutError: not complete in time.
    """
    answer = _Whole()
    async with asyncio.timeout(patience_seconds):
        await client.send("GET", path, b"", answer)
    return answer.status, bytes(answer.body)
