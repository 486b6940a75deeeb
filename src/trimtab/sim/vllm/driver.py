"""The wall-clock shell of the serving physics: waits until each iteration is over, then hands out its tokens.

The engine's clock is the wall clock times the speed. While the engine is busy an iteration starts exactly where the one
before it ended, so that coarse timers do not add up. If the process cannot keep up (no CPU left), tokens of several
iterations leave in one piece; if it falls far behind, the engine's clock is set to the wall clock, and the time
lost is counted, because from then on the engine is slower than its profile.
"""

import asyncio
from typing import Final, Protocol

from trimtab.sim.serving import Iteration, Phase, Sequence, ServingEngine, Work
from trimtab.sim.vllm.stats import EngineStats
from trimtab.sim.vllm.text import Answer

_TIMER_SECONDS: Final = 0.0005  # waits shorter than this are skipped: the timer would be late by more
_YIELD_SECONDS: Final = 0.004  # the longest that connections go unserved while the engine catches up
_MAX_LAG_SECONDS: Final = 0.25


class Job:
    """One answer under way: a sequence of the engine, and who gets its tokens."""

    __slots__ = ("answer", "choice", "listener", "max_tokens", "n", "sequence", "work")

    def __init__(
        self, work: Work, answer: Answer, listener: "Listener", *, choice: int, max_tokens: int, n: int
    ) -> None:
        self.work = work
        self.answer = answer
        self.listener = listener
        self.choice = choice
        self.max_tokens = max_tokens
        self.n = n
        self.sequence: Sequence | None = None

    @property
    def produced(self) -> int:
        """Tokens so far."""
        return self.sequence.produced if self.sequence else 0

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were found in the prefix cache."""
        return self.sequence.cached_tokens if self.sequence else 0

    @property
    def finished(self) -> bool:
        """Whether the last token has been produced."""
        return self.sequence is not None and self.sequence.phase is Phase.FINISHED


class Listener(Protocol):
    """Who gets the tokens of a job."""

    def progressed(self, job: Job) -> None:
        """`job.produced` has grown, and `job.finished` says whether that was all."""

    def aborted(self, job: Job) -> None:
        """The engine gave up the job; what was produced so far is all."""

    def refused(self, job: Job) -> None:
        """The queue was full when the job reached the engine."""


class Driver:
    """Runs one engine against the event loop's clock.

    Args:
        engine: The physics.
        stats: What the metrics show.
        speed: Engine seconds per wall-clock second.
        max_queued: Waiting requests above which new ones are refused; None for no bound.

    Attributes:
        waiting_seen: Waiting requests after the last iteration: what vLLM's front end knows of the queue.
        lost_seconds: Wall-clock seconds that the engine fell behind its profile for want of CPU.
    """

    def __init__(self, engine: ServingEngine, stats: EngineStats, *, speed: float, max_queued: int | None) -> None:
        self.engine = engine
        self.stats = stats
        self.waiting_seen = 0
        self.lost_seconds = 0.0
        self._speed = speed
        self._max_queued = max_queued
        self._loop = asyncio.get_running_loop()
        self._origin = self._loop.time()
        self._engine_time = 0.0  # where the engine's clock stands; it lags a little behind `now` while busy
        self._busy = False
        self._yielded_at = self._origin
        self._arrivals: list[tuple[Job, float]] = []
        self._jobs: dict[Sequence, Job] = {}
        self._fresh: dict[Job, None] = {}  # jobs with tokens that their listener has not been told of
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def now(self) -> float:
        """The wall clock, in engine seconds."""
        return (self._loop.time() - self._origin) * self._speed

    @property
    def waiting(self) -> int:
        """Requests that have not been admitted to the batch."""
        return self.engine.num_waiting + len(self._arrivals)

    @property
    def queue_looks_full(self) -> bool:
        """Whether the front end would refuse a request at its arrival."""
        return self._max_queued is not None and self.waiting_seen >= self._max_queued

    def submit(self, job: Job) -> None:
        """Hand a job to the engine, which sees it at its next iteration."""
        self._arrivals.append((job, self.now))
        self._empty.clear()
        self._wake.set()

    def cancel(self, job: Job) -> None:
        """Forget a job whose client is gone."""
        if job.sequence is None:
            self._arrivals = [entry for entry in self._arrivals if entry[0] is not job]
        else:
            self.engine.abort(job.sequence)
            self._jobs.pop(job.sequence, None)
        self._fresh.pop(job, None)
        self._note_if_empty()

    def abort(self, job: Job) -> None:
        """End a job early and tell its listener."""
        self.cancel(job)
        job.listener.aborted(job)

    def abort_all(self) -> None:
        """End every job early."""
        self._flush()
        for job in [*self._jobs.values(), *(job for job, _ in self._arrivals)]:
            self.abort(job)

    def pause(self) -> None:
        """Start no further iteration."""
        self.engine.paused = True

    def resume(self) -> None:
        """Go on."""
        self.engine.paused = False
        self._wake.set()

    async def drained(self) -> None:
        """Wait until no job is left."""
        await self._empty.wait()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            iteration = self._begin()
            if iteration is None:
                self._flush()
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._until(iteration.end)
            self._end(iteration)

    def _begin(self) -> Iteration | None:
        now = self.now
        if not self._busy:
            self._engine_time = now
        elif now - self._engine_time > _MAX_LAG_SECONDS * self._speed:
            self.lost_seconds += (now - self._engine_time) / self._speed
            self._engine_time = now
        self._take_arrivals()
        iteration = self.engine.next_iteration(self._engine_time)
        self._busy = iteration is not None
        self.waiting_seen = self.engine.num_waiting
        return iteration

    def _take_arrivals(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        for job, arrived_at in arrivals:
            if self._max_queued is not None and self.engine.num_waiting >= self._max_queued:
                self.stats.refused += 1
                job.listener.refused(job)
            else:
                job.sequence = self.engine.add(job.work, min(arrived_at, self._engine_time))
                self._jobs[job.sequence] = job
        self._note_if_empty()

    async def _until(self, engine_time: float) -> None:
        now = self._loop.time()
        delay = engine_time / self._speed + self._origin - now
        if delay > _TIMER_SECONDS:
            self._flush()
            await asyncio.sleep(delay)
        elif now - self._yielded_at > _YIELD_SECONDS:
            self._flush()
            await asyncio.sleep(0)
        else:
            return
        self._yielded_at = self._loop.time()

    def _end(self, iteration: Iteration) -> None:
        self._engine_time = iteration.end
        progressed = self.engine.complete(iteration)
        self.stats.count_iteration(iteration, progressed)
        for sequence in progressed:
            job = self._jobs[sequence]
            self._fresh[job] = None
            if sequence.phase is Phase.FINISHED:
                del self._jobs[sequence]
                self.stats.count_finished(sequence, job.answer.finish_reason, max_tokens=job.max_tokens, n=job.n)
                self._note_if_empty()

    def _note_if_empty(self) -> None:
        if not self._jobs and not self._arrivals:
            self._empty.set()

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for job in fresh:
            job.listener.progressed(job)
