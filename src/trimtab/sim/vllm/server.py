"""Composition and life of one simulated engine."""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

import structlog

from trimtab.model.problem import Problem
from trimtab.sim.serving import ServingEngine
from trimtab.sim.vllm.api import EngineApi
from trimtab.sim.vllm.driver import Driver
from trimtab.sim.vllm.http import HttpServer
from trimtab.sim.vllm.settings import EngineSettings
from trimtab.sim.vllm.sleep import Sleeper
from trimtab.sim.vllm.stats import EngineStats

_WRITE_OUT_SECONDS: Final = 2.0  # for the last bytes of answers, after the engine has stopped
log = structlog.get_logger("trimtab.engine")


class EngineServer:
    """One engine with its HTTP server. Must be made inside a running event loop.

    Args:
        settings: What to simulate.
        unix_time: The wall clock.
    """

    def __init__(self, settings: EngineSettings, unix_time: Callable[[], float]) -> None:
        self.settings = settings
        engine = ServingEngine(settings.config, settings.profile.iteration)
        stats = EngineStats(speed=settings.speed, max_model_len=settings.max_model_len)
        self.driver = Driver(engine, stats, speed=settings.speed, max_queued=settings.max_num_queued_reqs)
        self.api = EngineApi(
            settings, self.driver, Sleeper(self.driver, settings.profile.sleep, speed=settings.speed), unix_time
        )
        self.http = HttpServer(self.api, unix_time)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen and serve; returns the port.

        Raises:
            Problem: The address cannot be bound.
        """
        host, port = self.settings.host, self.settings.port
        try:
            bound = await self.http.listen(host, port)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Problem(f"cannot listen on {host}:{port}: {reason}", fix="pass another --host or --port") from error
        self._running = asyncio.get_running_loop().create_task(self.driver.run())
        return bound

    async def wait(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set; an error inside the engine ends the wait too.

        Raises:
            Exception: The engine failed.
        """
        assert self._running is not None
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        await asyncio.wait({self._running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._running.done():
            self._running.result()

    async def stop(self) -> None:
        """Give open requests their time, abort the rest, and close."""
        if self.settings.shutdown_timeout:
            self.api.draining = True
            await self._drain(self.settings.shutdown_timeout)
        self.http.stop_listening()
        self.driver.abort_all()
        if self._running is not None:
            self._running.cancel()
        for _ in range(round(_WRITE_OUT_SECONDS / 0.01)):
            if not self.http.connections:
                return
            await asyncio.sleep(0.01)

    async def _drain(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.driver.drained(), seconds)
        except TimeoutError:
            log.warning("open requests did not finish in time and are aborted", seconds=seconds)


async def serve(settings: EngineSettings, unix_time: Callable[[], float]) -> None:
    """Run a simulated engine until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = EngineServer(settings, unix_time)
    port = await server.start()
    log.info(
        "engine serves",
        model=settings.model,
        profile=settings.profile.name,
        url=f"http://{settings.host}:{port}",
        speed=settings.speed,
    )
    await server.wait(stop)
    await server.stop()
    lost = round(server.driver.lost_seconds, 3)
    log.info("engine stopped", generation_tokens=server.driver.stats.generation_tokens, lost_seconds=lost)
