"""Waiting for a condition of something that cannot be watched."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


async def until(probe: Callable[[], Awaitable[Found | None]], *, seconds: float = 30.0) -> Found:
    """Ask again and again until the answer is neither None nor False, and return it.

    Raises:
        TimeoutError: it did not come in time.
    """
    async with asyncio.timeout(seconds):
        while True:
            found = await probe()
            if found is not None and found is not False:
                return found
            await asyncio.sleep(0.05)
