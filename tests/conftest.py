"""What holds for every test."""

import asyncio
import logging
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# A busy machine is no defect: properties are judged by what they find, not by how long one example takes.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("patient")


def pytest_configure() -> None:
    # The looptime plug-in asks for the current event loop before each test, synchronous ones included, and Python
    # would make one that nobody closes.
    asyncio.set_event_loop(None)
    # Started in the background by a shell, pytest would hand its ignored SIGINT on to processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo what a command that a test runs in this process does to everybody's logs."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
