"""Listeners, metrics and the signal to stop, as the serving processes share them."""

import asyncio
import os
import signal
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from trimtab.model.problem import Problem
from trimtab.obs.serving import asked_to_stop, listen, serving_metrics


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(Problem, match=f"cannot listen on 127.0.0.1:{port}: ") as caught:
            listen("127.0.0.1", port)
    assert "port" in caught.value.fix


async def test_metrics_are_answered_while_the_context_is_open_and_the_port_is_free_afterwards() -> None:
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    registry = CollectorRegistry()
    Counter("seen_total", "Seen.", registry=registry).inc(3)
    async with serving_metrics("127.0.0.1", port, registry):
        assert "seen_total 3.0" in await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
        with pytest.raises(Problem, match=f"127.0.0.1:{port} for metrics"):
            await serving_metrics("127.0.0.1", port, registry).__aenter__()
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_either_signal_stops(number: signal.Signals) -> None:
    waiting = asyncio.create_task(asked_to_stop())
    await asyncio.sleep(0)  # let it take the signals over
    try:
        assert not waiting.done()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(waiting, 5)
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(each)


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())
