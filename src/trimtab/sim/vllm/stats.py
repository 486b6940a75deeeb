"""What an engine counts for its metrics: plain numbers, cheap enough to touch for every token."""

from bisect import bisect_left
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from typing import Final

from trimtab.sim.serving import Iteration, Sequence
from trimtab.sim.vllm.text import FinishReason

# vLLM 0.32's bounds.
REQUEST_SECONDS: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
FIRST_TOKEN_SECONDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_SECONDS: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
ITERATION_TOKENS: Final = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CHOICES: Final = (1, 2, 5, 10, 20)
PREEMPTIONS: Final = (1, 2, 3, 4, 5, 10, 20)


def token_bounds(largest: int) -> tuple[int, ...]:
    """1, 2, 5, 10, ... up to `largest`: vLLM's bounds for numbers of tokens."""
    bounds = [mantissa * 10**exponent for exponent in range(len(str(largest))) for mantissa in (1, 2, 5)]
    return tuple(bound for bound in bounds if bound <= largest)


class Histogram:
    """Counts per bucket, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Ordered[float]) -> None:
        self.bounds = tuple(map(float, bounds))
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class EngineStats:
    """Counters and histograms of one engine, in wall-clock seconds.

    Args:
        speed: Engine seconds per wall-clock second.
        max_model_len: Largest number of tokens of a request; it sets the bounds of the token histograms.
    """

    def __init__(self, *, speed: float, max_model_len: int) -> None:
        tokens = token_bounds(max_model_len)
        self._speed = speed
        self.refused = 0
        self.failures = 0  # requests that ended in an error nobody foresaw
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.finished: dict[str, int] = dict.fromkeys(("stop", "length", "abort", "error", "repetition"), 0)
        self.request_prompt_tokens = Histogram(tokens)
        self.request_generation_tokens = Histogram(tokens)
        self.request_max_num_generation_tokens = Histogram(tokens)
        self.request_params_n = Histogram(CHOICES)
        self.request_params_max_tokens = Histogram(tokens)
        self.request_prefill_kv_computed_tokens = Histogram(tokens)
        self.request_num_preemptions = Histogram(PREEMPTIONS)
        self.iteration_tokens = Histogram(ITERATION_TOKENS)
        self.time_to_first_token = Histogram(FIRST_TOKEN_SECONDS)
        self.inter_token_latency = Histogram(TOKEN_SECONDS)
        self.request_time_per_output_token = Histogram(TOKEN_SECONDS)
        self.e2e_request_latency = Histogram(REQUEST_SECONDS)
        self.request_queue_time = Histogram(REQUEST_SECONDS)
        self.request_inference_time = Histogram(REQUEST_SECONDS)
        self.request_prefill_time = Histogram(REQUEST_SECONDS)
        self.request_decode_time = Histogram(REQUEST_SECONDS)

    def count_iteration(self, iteration: Iteration, progressed: Iterable[Sequence]) -> None:
        """Account for an iteration and the tokens that it produced."""
        self.iteration_tokens.observe(iteration.total_tokens)
        for sequence in progressed:
            self.generation_tokens += 1
            if sequence.produced > 1 and sequence.last_gap is not None:
                self.inter_token_latency.observe(sequence.last_gap / self._speed)
            else:
                self.prompt_tokens += sequence.work.prompt_tokens
                self.cached_tokens += sequence.cached_tokens
                self.time_to_first_token.observe((iteration.end - sequence.arrived_at) / self._speed)

    def count_finished(self, sequence: Sequence, reason: FinishReason, *, max_tokens: int, n: int) -> None:
        """Account for a request that has its whole answer."""
        admitted, first, last = sequence.admitted_at, sequence.first_token_at, sequence.last_token_at
        assert admitted is not None
        assert first is not None
        assert last is not None
        produced = sequence.produced
        self.finished[reason] += 1
        self.request_prompt_tokens.observe(sequence.work.prompt_tokens)
        self.request_generation_tokens.observe(produced)
        self.request_max_num_generation_tokens.observe(produced)
        self.request_params_n.observe(n)
        self.request_params_max_tokens.observe(max_tokens)
        self.request_prefill_kv_computed_tokens.observe(sequence.work.prompt_tokens - sequence.cached_tokens)
        self.request_num_preemptions.observe(sequence.preemptions)
        self.e2e_request_latency.observe((last - sequence.arrived_at) / self._speed)
        self.request_queue_time.observe((admitted - sequence.arrived_at) / self._speed)
        self.request_inference_time.observe((last - admitted) / self._speed)
        self.request_prefill_time.observe((first - admitted) / self._speed)
        self.request_decode_time.observe((last - first) / self._speed)
        if produced > 1:
            self.request_time_per_output_token.observe((last - first) / (produced - 1) / self._speed)
