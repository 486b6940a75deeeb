"""One measurement from beginning to end: look at the engine, load it, fit, predict, conclude."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trimtab.model.problem import Problem
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profiling.fitting import Fit, fit
from trimtab.sim.profiling.http import HttpTarget, Manner
from trimtab.sim.profiling.judge import Judged, judge
from trimtab.sim.profiling.load import ENOUGH_REQUESTS, Limits
from trimtab.sim.profiling.measure import Measurements, Measuring, Progress
from trimtab.sim.profiling.modelled import ModelledTarget
from trimtab.sim.profiling.survey import Gauges, read_gauges, read_max_model_len, read_version
from trimtab.sim.profiling.target import Ask, Seen, Target
from trimtab.workload.models import choose_model
from trimtab.workload.wire import Client, Clock

_ASSUMED_BUDGET: Final = 2048
_ASSUMED_SEQUENCES: Final = 256
_ASSUMED_BLOCK: Final = 16
_ASSUMED_MODEL_LEN: Final = 4096
_MOST_REQUESTS: Final = 1000
_SCALES: Final = (1.0, 0.5, 0.25, 0.12, 0.06)
_FEWEST_LENGTHS: Final = 3
_LOOKS: Final = 3
_LOOK_SECONDS: Final = 0.2
_QUIET_REQUESTS: Final = 12
_UNSTABLE: Final = 0.5  # spread of the middle half of equal idle requests, relative to their median
_AT_ONCE: Final = 0.1  # of a request's time, from its first token to its last
_UNSTEADY: Final = 0.1
_DOUBTFUL: Final = 0.25
_HIGH: Final = 0.9
_FOREIGN_SHARE: Final = 0.1
_FOREIGN_NOTED: Final = 0.01


@dataclass(frozen=True, slots=True)
class Told:
    """What the user says of the engine; None and 0 for what is to be found out.

    Attributes:
        model: Which model to ask for.
        seconds: How long everything may take.
        concurrency: Requests under way at most.
        max_model_len: Most tokens of prompt and answer together.
        max_num_seqs: Most sequences in a batch.
        max_num_batched_tokens: Token budget of an iteration.
        block_size: Tokens of a KV block.
        kv_blocks: KV blocks.
        busy: Measure although the engine has other traffic.
        patience_seconds: How long one answer may take.
    """

    model: str | None
    seconds: float
    concurrency: int
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    kv_blocks: int | None = None
    busy: bool = False
    patience_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Engine:
    """What is known of the engine before any load.

    Attributes:
        model: What it is asked for.
        version: As it says; empty if it does not.
        limits: What it can take.
        gauges: Its metrics.
        block_size: Tokens of a KV block.
        kv_blocks: KV blocks; None if neither it nor the user says.
        notes: What was assumed.
    """

    model: str
    version: str
    limits: Limits
    gauges: Gauges
    block_size: int
    kv_blocks: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a measurement amounts to.

    Attributes:
        engine: What was known before.
        config: Its limits, as far as they were seen.
        fit: What takes how long.
        judged: The saturated phase, measured and predicted.
        clients: How many clients it had.
        requests: How many requests it had.
        seconds: How long everything took.
        notes: What a reader of the profile should know.
    """

    engine: Engine
    config: EngineConfig
    fit: Fit
    judged: tuple[Judged, ...]
    clients: int
    requests: int
    seconds: float
    notes: tuple[str, ...]


async def look_at(client: Client, told: Told) -> Engine:
    """Ask the engine what it is, without load.

    Raises:
        Problem: No engine, no right to ask, no such model, or others are using it.
    """
    model = await choose_model(client, told.model)
    gauges = await _quiet_gauges(client, told)
    notes = []
    max_model_len = told.max_model_len or await read_max_model_len(client, model)
    if max_model_len is None:
        max_model_len = _ASSUMED_MODEL_LEN
        notes.append(f"the engine does not tell its longest context: {max_model_len} tokens assumed (--max-model-len)")
    block_size = told.block_size or gauges.block_size or _ASSUMED_BLOCK
    kv_blocks = told.kv_blocks or gauges.kv_blocks
    limits = Limits(max_model_len, kv_blocks * block_size if kv_blocks else None, told.concurrency, told.seconds)
    if len(limits.prompt_lengths()) < _FEWEST_LENGTHS:
        raise Problem(f"a longest context of {max_model_len} tokens is too short to measure", fix="use 128 or more")
    return Engine(model, await read_version(client), limits, gauges, block_size, kv_blocks, tuple(notes))


async def _quiet_gauges(client: Client, told: Told) -> Gauges:
    """The metrics, once they say that nobody else uses the engine."""
    for _ in range(_LOOKS):
        gauges = await read_gauges(client)
        if gauges.under_way and not told.busy:
            raise Problem(
                f"the engine is busy: {gauges.running or 0:.0f} requests run and {gauges.waiting or 0:.0f} wait",
                fix="measure when nobody else uses it, or pass --busy to get a profile of what is left of it",
            )
        await asyncio.sleep(_LOOK_SECONDS)
    return gauges


class Session:
    """A measurement of one engine over HTTP.

    Args:
        client: Connected to it.
        engine: What is known of it.
        told: What the user says of it.
        clock: In seconds.
        seed: Of prompts, orders and resampling.
        progress: Is told how far it is.
    """

    def __init__(
        self, client: Client, engine: Engine, told: Told, *, clock: Clock, seed: int, progress: Progress
    ) -> None:
        self._client = client
        self._engine = engine
        self._told = told
        self._seed = seed
        self._progress = progress
        self.target = HttpTarget(
            client, Manner(engine.model), clock=clock, seed=seed, patience_seconds=told.patience_seconds
        )

    async def run(self) -> Result:
        """Measure.

        Raises:
            Problem: The engine fails, refuses the load, or is used by others.
        """
        before = await read_gauges(self._client)
        self._progress("warming up", 0.0, 0.0, "")
        await self.target.learn_manner()
        if not self._told.busy:
            await check_quiet(self.target)
        result = await conclude(self.target, self._engine, self._told, self._seed, self._progress)
        return self._checked(result, before, await read_gauges(self._client))

    def _checked(self, result: Result, before: Gauges, after: Gauges) -> Result:
        """Add what the engine's counters say of others' traffic.

        Raises:
            Problem: Others had a large part of the engine.
        """
        if before.prompt_tokens is None or after.prompt_tokens is None or not self.target.prompt_tokens:
            return result
        foreign = after.prompt_tokens - before.prompt_tokens - self.target.prompt_tokens
        share = foreign / self.target.prompt_tokens
        if share > _FOREIGN_SHARE and not self._told.busy:
            raise Problem(
                f"others sent {foreign:.0f} prompt tokens meanwhile, {share:.0%} of what was sent to measure",
                fix="measure when nobody else uses the engine, or pass --busy",
            )
        return (
            result if share < _FOREIGN_NOTED else _noted(result, f"others sent {foreign:.0f} prompt tokens meanwhile")
        )


def _noted(result: Result, note: str) -> Result:
    return Result(
        result.engine, result.config, result.fit, result.judged, result.clients, result.requests, result.seconds,
        (*result.notes, note),
    )  # fmt: skip


async def check_quiet(target: Target) -> None:
    """Send equal requests one by one.

    Raises:
        Problem: They take so differently long that something else must be going on, or their tokens come all at once.
    """
    seen = await target.serve([Ask(64, 16)] * _QUIET_REQUESTS, 1, float("inf"))
    if sum(each.last_at - each.first_at < _AT_ONCE * each.e2e for each in seen) > _QUIET_REQUESTS / 2:
        raise Problem(
            "the tokens of an answer come all at once, so that the time between them cannot be measured",
            fix="measure the engine directly, not behind a proxy that buffers, and on a machine with CPUs to spare",
        )
    low, middle, high = np.quantile([each.e2e for each in seen], [0.25, 0.5, 0.75])
    if (high - low) / middle > _UNSTABLE:
        raise Problem(
            f"equal idle requests take from {low:.3g} to {high:.3g} s (the middle half): the engine is not idle",
            fix="measure when nothing else uses the engine or its machine, or pass --busy",
        )


async def conclude(target: Target, engine: Engine, told: Told, seed: int, progress: Progress) -> Result:
    """Load a target phase by phase, fit, predict the last phase.

    Args:
        target: What is measured.
        engine: What is known of it.
        told: What the user says of it.
        seed: Of orders, lengths and resampling.
        progress: Is told how far it is.
    """
    rng = np.random.default_rng([seed, 7])
    began = target.clock()
    measuring = Measuring(target, engine.limits, rng, progress)
    seen = await measuring.before_saturation()
    fitted = fit(seen, rng, told=told.max_num_batched_tokens, assumed=_ASSUMED_BUDGET)
    config, notes = _config(engine, told, seen, fitted)
    clients = min(engine.limits.concurrency, 2 * config.max_num_seqs)
    asks = _mixture(engine.limits, config, fitted, clients, measuring.seconds_left, rng)
    saturated = await measuring.saturated(asks, clients)
    judged = judge(saturated, clients, config, fitted.estimate.speed)
    return Result(
        engine, config, fitted, tuple(judged), clients, len(saturated), target.clock() - began,
        (*engine.notes, *notes, *_about(saturated, seen), *_doubts(fitted, judged)),
    )  # fmt: skip


def _config(engine: Engine, told: Told, seen: Measurements, fitted: Fit) -> tuple[EngineConfig, list[str]]:
    """The engine's limits: told, else seen, else assumed."""
    notes = []
    sequences = told.max_num_seqs or (seen.sequences if seen.sequences_bounded else None)
    if sequences is None:
        sequences = max(_ASSUMED_SEQUENCES, seen.sequences)
        notes.append(
            f"{seen.sequences} sequences decoded at once and more might have:"
            f" max_num_seqs {sequences} assumed (--max-num-seqs)"
        )
    kv_blocks = engine.kv_blocks
    if kv_blocks is None:
        most = max(sum(s.prompt_tokens + s.output_tokens for s in burst) for burst in [*seen.bursts, seen.idle[:1]])
        kv_blocks = max(2, -(-max(most, engine.limits.max_model_len) // engine.block_size) + 1)
        notes.append(
            f"the engine does not tell the size of its KV cache: {kv_blocks} blocks of {engine.block_size}"
            " tokens were in use at once, and nothing is known beyond (--num-gpu-blocks)"
        )
    if told.max_num_batched_tokens is None and (fitted.budget_seen is None or fitted.budget_seen.high is None):
        least = fitted.budget_seen.low if fitted.budget_seen else 0
        notes.append(
            f"an iteration computes at least {least} prompt tokens:"
            f" max_num_batched_tokens {fitted.budget} assumed (--max-num-batched-tokens)"
        )
    config = EngineConfig(
        kv_blocks=kv_blocks,
        block_size=engine.block_size,
        max_num_seqs=sequences,
        max_num_batched_tokens=max(fitted.budget, sequences),
        prefix_caching=False,  # no two prompts of a measurement begin alike
    )
    return config, notes


def _mixture(
    limits: Limits, config: EngineConfig, fitted: Fit, clients: int, seconds: float, rng: np.random.Generator
) -> list[Ask]:
    """Mixed requests, as long as enough of them can be served in the time that is left."""
    trial = max(4 * clients, 40)
    for scale in _SCALES:
        model = ModelledTarget(config, fitted.estimate.speed)
        model.play(limits.mixture(np.random.default_rng(0), trial, scale), clients, float("inf"))
        expected = model.now / trial * ENOUGH_REQUESTS
        if expected <= 0.8 * seconds:
            break
    count = min(_MOST_REQUESTS, max(ENOUGH_REQUESTS, int(seconds * trial / model.now)))
    return limits.mixture(rng, count, scale)


def _doubts(fitted: Fit, judged: Sequence[Judged]) -> list[str]:
    """What makes the profile less than it seems."""
    notes = []
    kind, spread = max(fitted.estimate.residuals.items(), key=lambda item: item[1][0])
    if spread[0] > _UNSTEADY:
        notes.append(
            f"the costs explain half of the equations ({kind}) no better than {spread[0]:.0%}: the engine's machine"
            " has other work, or its costs have another form"
        )
    worst = max((figure for figure in judged if figure.quantile != _HIGH), key=lambda figure: abs(figure.error))
    if abs(worst.error) > _DOUBTFUL:
        notes.append(f"the fit is off by {worst.error:+.0%} in {worst.metric} at full load: do not plan with it")
    return notes


def _about(saturated: Sequence[Seen], seen: Measurements) -> list[str]:
    notes = []
    if len(saturated) < ENOUGH_REQUESTS:
        notes.append(f"only {len(saturated)} requests fitted into the saturated phase: give it more --minutes")
    cached = sum(each.cached_tokens for each in [*saturated, *seen.idle])
    if cached > 0.01 * sum(each.prompt_tokens for each in [*saturated, *seen.idle]):
        notes.append(f"the engine found {cached} prompt tokens in its prefix cache: it looks faster than it is")
    return notes
