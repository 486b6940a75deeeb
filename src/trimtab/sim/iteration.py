"""What an engine may do in one iteration, and what it did: limits, plans and steps."""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from trimtab.model.problem import Problem
from trimtab.sim.lockstep import Sequence
from trimtab.sim.profile import Profile

SchedulingPolicy = Literal["fcfs", "priority"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits and policy of one engine, named as vLLM's flags.

    Attributes:
        kv_blocks: vLLM's `num_gpu_blocks`; one of them is never handed out.
        max_num_batched_tokens: At least `max_num_seqs`, so that no sequence that decodes goes without its token.
        max_loras: Different adapters in one batch; 0 means that requests may not name an adapter.
        async_scheduling: Plan each iteration while the one before it runs, so that what comes meanwhile waits for both.
        host_kv_blocks: Blocks of the KV cache that host memory keeps besides; 0 for no offloading.
        host_kv_answers: Whether the host can find blocks of answers again, and not those of prompts only.

    Raises:
        Problem: No engine has these limits; vLLM refuses them too.
    """

    kv_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    scheduling_policy: SchedulingPolicy = "fcfs"
    prefix_caching: bool = True
    max_loras: int = 0
    async_scheduling: bool = False
    host_kv_blocks: int = 0
    host_kv_answers: bool = True

    def __post_init__(self) -> None:
        if self.max_num_seqs < 1:
            raise Problem(f"max_num_seqs is {self.max_num_seqs}, so nothing could run", fix="set it to 1 or more")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise Problem(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, below max_num_seqs ({self.max_num_seqs})",
                fix="raise max_num_batched_tokens or lower max_num_seqs",
            )
        if self.host_kv_blocks and not self.prefix_caching:
            raise Problem("host_kv_blocks is set, but nothing is found again", fix="switch prefix caching on")

    @classmethod
    def of(cls, profile: Profile, *, offloads: bool = False) -> "EngineConfig":
        """The limits that a profile was measured with.

        Args:
            profile: The engine's.
            offloads: Whether it copies its KV cache to host memory, as much of it as the profile says.
        """
        return cls(
            kv_blocks=profile.kv_blocks,
            block_size=profile.block_size,
            max_num_seqs=profile.max_num_seqs,
            max_num_batched_tokens=profile.max_num_batched_tokens,
            async_scheduling=profile.async_scheduling,
            host_kv_blocks=profile.host_kv_blocks if offloads else 0,
            host_kv_answers=profile.host_kv_answers,
        )


@dataclass(frozen=True, slots=True)
class Iteration:
    """One step of the engine: what it processes and how long that takes.

    Attributes:
        tokens: Tokens processed for each sequence, in the order of the batch. `Step.iteration` lists only those that
            do not decode in lockstep.
        context_tokens: Tokens of context that the decoding sequences read.
        attention_pairs: Pairs of (new token, earlier token) in the prompt chunks.
    """

    start: float
    end: float
    tokens: dict[Sequence, int]
    prefill_tokens: int
    decodes: int
    context_tokens: int
    attention_pairs: float
    preempted: tuple[Sequence, ...]

    @property
    def total_tokens(self) -> int:
        """All tokens processed."""
        return self.prefill_tokens + self.decodes


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration that is under way, or several equal ones of decoding sequences only.

    Attributes:
        first: Seconds that the first iteration takes.
        growth: Seconds by which each one takes longer than the one before it.
        iterations: How many there are.
        iteration: The iteration under way; None for several, of which nothing is accounted for before they are over.
    """

    start: float
    end: float
    first: float
    growth: float
    iterations: int
    iteration: Iteration | None = None

    def end_of(self, iterations: int) -> float:
        """When so many iterations are over."""
        return self.start + iterations * self.first + self.growth * (iterations * (iterations - 1) / 2)

    def completed_by(self, now: float) -> int:
        """How many iterations are over at `now`; the last one never is, so that it ends by `finish`."""
        elapsed = now - self.start
        half = self.first - self.growth / 2
        guess = int(2 * elapsed / (half + sqrt(half * half + 2 * self.growth * max(elapsed, 0.0))))
        completed = min(max(guess, 0), self.iterations - 1)
        while completed and self.end_of(completed) > now:
            completed -= 1
        while completed + 1 < self.iterations and self.end_of(completed + 1) <= now:
            completed += 1
        return completed
