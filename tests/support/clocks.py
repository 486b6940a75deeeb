"""Clocks that tests move."""

import asyncio


class FakeClock:
    """Time that passes only by sleeping on it, at once."""

    def __init__(self, at: float = 1_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await asyncio.sleep(0)
