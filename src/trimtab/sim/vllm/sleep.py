"""Pause and sleep: states in which an engine takes requests and serves none."""

import asyncio
from collections.abc import Collection
from typing import Final

from trimtab.sim.profile import SleepCost
from trimtab.sim.vllm.driver import Driver

_WEIGHTS: Final = "weights"


class Sleeper:
    """Puts one engine to sleep and wakes it.

    Attributes:
        level: 0 awake, 1 weights in host memory, 2 weights discarded; it stays until every part is awake.
        paused: Scheduling has been stopped by `/pause`, or by level 0.
        awake: What the metric `engine_sleep_state` says: level 0 is neither awake nor one of the deeper states.
    """

    def __init__(self, driver: Driver, cost: SleepCost, *, speed: float) -> None:
        self.level = 0
        self.paused = False
        self.awake = True
        self._asleep: set[str] = set()
        self._driver = driver
        self._cost = cost
        self._speed = speed
        self._turn = asyncio.Lock()  # two wakes that race must not both pay

    @property
    def sleeping(self) -> bool:
        """What `/is_sleeping` says: also true while scheduling is paused."""
        return self.level > 0 or self.paused

    async def pause(self, mode: str) -> None:
        """Stop scheduling. `abort` ends open requests, `wait` lets them finish, `keep` freezes them."""
        await self._settle(mode)
        self.paused = True

    def resume(self) -> None:
        """Undo `pause`; an engine that sleeps goes on sleeping."""
        self.paused = False
        if not self.level:
            self._driver.resume()

    async def sleep(self, level: int, mode: str) -> None:
        """Go to sleep: the KV cache is lost, and from level 1 on the weights have left the accelerator."""
        async with self._turn:
            await self._settle(mode)
            self.awake = False
            if level == 0:
                self.paused = True
                return
            if self.level == 0:
                await asyncio.sleep(self._cost.to_sleep(level) / self._speed)
                self._driver.engine.drop_cache()
                self.level = level
                self._asleep = {_WEIGHTS, "kv_cache"}

    async def wake(self, tags: Collection[str] | None = None) -> None:
        """Bring parts back, all without `tags`; with the last one the requests that were held go on."""
        async with self._turn:
            if _WEIGHTS in self._asleep and (tags is None or _WEIGHTS in tags):
                await asyncio.sleep(self._cost.to_wake(self.level) / self._speed)
            self._asleep -= self._asleep if tags is None else set(tags)
            if not self._asleep:
                self.level = 0
                self.awake = True
                self.paused = False
                self._driver.resume()

    async def _settle(self, mode: str) -> None:
        if mode == "wait":
            await self._driver.drained()
        self._driver.pause()
        if mode == "abort":
            self._driver.abort_all()
