"""Waiting for a condition inside the process."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Let the event loop go on until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition belongs to code that knows no events
            await asyncio.sleep(0.001)
