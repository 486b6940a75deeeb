"""The client's turn on the CPU.

A client that waits for a CPU measures its own waiting. Engines keep CPUs busy while they wait for their devices, and a
fair scheduler then lets a client that sleeps most of the time wait for hundreds of milliseconds [measured: Linux 6.18,
2 CPUs, a vLLM on them: 240 ms, with real-time priority none].
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def first_in_line() -> Iterator[bool]:
    """Let this thread run as soon as it has something to do, where the system allows it; says whether it does."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (AttributeError, OSError):  # no such system, or not allowed
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
