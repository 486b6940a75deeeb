"""What holds for every test."""

import asyncio


def pytest_configure() -> None:
    # The looptime plug-in asks for the current event loop before each test, synchronous ones included, and Python
    # would make one that nobody closes.
    asyncio.set_event_loop(None)
