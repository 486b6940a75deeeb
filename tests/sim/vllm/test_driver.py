"""The physics against a clock: a virtual one here, so that times are exact."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import EngineConfig, ServingEngine, Work
from trimtab.sim.vllm.driver import Driver, Job
from trimtab.sim.vllm.stats import EngineStats
from trimtab.sim.vllm.text import Answer

COST = IterationCost(0.1, 0.001, 0.0, 0.0, 0.0)  # a tenth of a second, and a millisecond per prompt token
pytestmark = pytest.mark.looptime


@dataclass
class Seen:
    """A listener that writes down what it hears, and when."""

    tokens: list[tuple[float, int]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def progressed(self, job: Job) -> None:
        self.tokens.append((round(asyncio.get_running_loop().time(), 4), job.produced))
        if job.finished:
            self.ends.append("finished")

    def aborted(self, job: Job) -> None:
        self.ends.append(f"aborted at {job.produced}")

    def refused(self, job: Job) -> None:
        assert job.produced == 0
        self.ends.append("refused")


@dataclass
class Bench:
    driver: Driver
    started_at: float

    def submit(self, prompt: int = 100, output: int = 3) -> tuple[Job, Seen]:
        seen = Seen()
        answer = Answer(["x"] * output, "length")
        job = Job(Work(prompt, output), answer, seen, choice=0, max_tokens=output, n=1)
        self.driver.submit(job)
        return job, seen

    async def at(self, seconds: float) -> None:
        """Go on to this time after the start."""
        await asyncio.sleep(self.started_at + seconds - asyncio.get_running_loop().time())

    def times(self, seen: Seen) -> list[tuple[float, int]]:
        return [(round(at - self.started_at, 4), produced) for at, produced in seen.tokens]


Make = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    tasks: list[asyncio.Task[None]] = []

    async def build(*, speed: float = 1.0, max_queued: int | None = None, max_num_seqs: int = 8) -> Bench:
        config = EngineConfig(kv_blocks=1000, max_num_seqs=max_num_seqs, max_num_batched_tokens=1000)
        stats = EngineStats(speed=speed, max_model_len=4096)
        driver = Driver(ServingEngine(config, COST), stats, speed=speed, max_queued=max_queued)
        tasks.append(asyncio.ensure_future(driver.run()))
        return Bench(driver, asyncio.get_running_loop().time())

    yield build
    for task in tasks:
        task.cancel()


async def test_tokens_come_when_the_physics_says(make: Make) -> None:
    bench = await make()
    _, seen = bench.submit(prompt=100, output=3)
    await bench.at(1)
    assert bench.times(seen) == [(0.2, 1), (0.3, 2), (0.4, 3)]
    assert seen.ends == ["finished"]


async def test_speed_divides_all_times(make: Make) -> None:
    bench = await make(speed=4.0)
    _, seen = bench.submit(prompt=100, output=3)
    await bench.at(1)
    assert bench.times(seen) == [(0.05, 1), (0.075, 2), (0.1, 3)]
    stats = bench.driver.stats
    assert stats.time_to_first_token.total == pytest.approx(0.05)
    assert stats.e2e_request_latency.total == pytest.approx(0.1)
    assert stats.inter_token_latency.total == pytest.approx(0.05)


async def test_an_arrival_waits_for_the_end_of_the_iteration(make: Make) -> None:
    bench = await make()
    bench.submit(prompt=100, output=9)
    await bench.at(0.25)
    _, late = bench.submit(prompt=200, output=1)
    await bench.at(2)
    assert bench.times(late) == [(0.6, 1)], "from 0.3 on, with 0.1 + 0.2 seconds"
    assert bench.driver.stats.request_queue_time.total == pytest.approx(0.05)


async def test_an_engine_that_was_idle_starts_at_the_arrival(make: Make) -> None:
    bench = await make()
    await bench.at(7.03)
    _, seen = bench.submit(prompt=100, output=1)
    await bench.at(8)
    assert bench.times(seen) == [(7.23, 1)]


async def test_a_cancelled_job_hears_nothing_more_and_frees_its_blocks(make: Make) -> None:
    bench = await make()
    job, seen = bench.submit(output=100)
    await bench.at(0.45)
    bench.driver.cancel(job)
    assert bench.driver.engine.cache.used == 0
    await bench.at(2)
    assert (bench.times(seen)[-1], seen.ends) == ((0.4, 3), [])
    await bench.driver.drained()


async def test_a_job_cancelled_before_the_engine_saw_it(make: Make) -> None:
    bench = await make()
    job, seen = bench.submit()
    bench.driver.cancel(job)
    await bench.at(1)
    assert (seen.tokens, seen.ends, job.sequence) == ([], [], None)


async def test_abort_all_tells_running_waiting_and_arriving_jobs(make: Make) -> None:
    bench = await make(max_num_seqs=1)
    jobs = [bench.submit(output=100), bench.submit()]
    await bench.at(0.45)
    jobs.append(bench.submit())
    bench.driver.abort_all()
    assert [seen.ends for _, seen in jobs] == [["aborted at 3"], ["aborted at 0"], ["aborted at 0"]]


async def test_drained_returns_after_the_last_token(make: Make) -> None:
    bench = await make()
    _, seen = bench.submit(output=5)
    await bench.driver.drained()
    assert seen.ends == ["finished"]
    assert asyncio.get_running_loop().time() - bench.started_at == pytest.approx(0.6)


async def test_the_queue_bound_holds_at_the_engine(make: Make) -> None:
    bench = await make(max_num_seqs=1, max_queued=2)
    jobs = [bench.submit() for _ in range(5)]
    await bench.at(5)
    assert [seen.ends for _, seen in jobs] == [["finished"]] * 2 + [["refused"]] * 3
    assert bench.driver.stats.refused == 3


async def test_pause_holds_and_resume_goes_on(make: Make) -> None:
    bench = await make()
    _, seen = bench.submit(prompt=100, output=3)
    await bench.at(0.25)
    bench.driver.pause()
    await bench.at(5)
    assert bench.times(seen) == [(0.2, 1), (0.3, 2)], "the iteration under way ends"
    bench.driver.resume()
    await bench.at(6)
    assert bench.times(seen)[-1] == (5.1, 3)


async def test_a_small_delay_of_the_process_is_caught_up(make: Make) -> None:
    bench = await make()
    _, seen = bench.submit(prompt=100, output=4)
    await bench.at(0.25)
    bench.driver._origin -= 0.15  # as if nothing had run for so long
    await bench.at(2)
    assert [produced for _, produced in seen.tokens][-1] == 4
    assert bench.driver.lost_seconds == 0.0
    assert bench.times(seen)[-1][0] == pytest.approx(0.5 - 0.15, abs=0.051)


async def test_a_large_delay_is_lost_and_counted(make: Make) -> None:
    bench = await make()
    _, seen = bench.submit(prompt=100, output=6)
    await bench.at(0.25)
    bench.driver._origin -= 5.0
    await bench.at(3)
    assert seen.ends == ["finished"]
    assert bench.driver.lost_seconds == pytest.approx(5.0, abs=0.2)


async def test_everything_is_counted(make: Make) -> None:
    bench = await make()
    for _ in range(3):
        bench.submit(prompt=50, output=4)
    await bench.driver.drained()
    stats = bench.driver.stats
    assert (stats.prompt_tokens, stats.generation_tokens) == (150, 12)
    assert stats.finished["length"] == 3
    assert sum(stats.inter_token_latency.counts) == 9
    assert sum(stats.iteration_tokens.counts) == 4
    assert stats.iteration_tokens.total == 150 + 9
    assert sum(stats.request_decode_time.counts) == 3
