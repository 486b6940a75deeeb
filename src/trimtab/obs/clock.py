"""Wall-clock time, and its form on the Kubernetes wire."""

import asyncio
import time
from datetime import UTC, datetime


class WallClock:
    """The real clock: seconds since the epoch."""

    def now(self) -> float:
        """Return the current time in seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


def to_time(seconds: float) -> str:
    """Return RFC 3339 in UTC with whole seconds, as Kubernetes writes times."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at_time(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()
