"""How fast an engine is: the fitted numbers of one model on one accelerator, read from small YAML files.

One iteration of continuous batching takes

    base + (weights^s + (arithmetic * (P + D))^s)^(1/s)
         + per_prefill_token * P + per_decode_sequence * D + per_context_token * C + per_attention_pair * A     seconds

for P prompt tokens processed, D sequences that decode one token each, C tokens of context that those D sequences read,
and A pairs of (new token, earlier token) that the prompt chunks attend over. `base` holds what every iteration pays:
launching kernels, scheduling. Reading the weights and computing with them overlap, so that the slower of the two
counts, and near the point where they meet a little more: the less, the larger `s`, the `sharpness`. The form is linear
in C, so that a run of equal iterations has a closed sum.

Two things that some engines do can be told too. An iteration with prompt tokens costs `mixed` more, and takes at least
`mixed_floor`, because its kernels are launched one by one where those of decodes alone are replayed as one graph. And
with more than `split_decodes` sequences the attention of a sequence is no longer shared out among processors, so that
the term in C becomes `unsplit_context_token * C + per_longest_token * L`, L being the longest context among the D
sequences. An engine that offloads its KV cache pays `per_stored_token` more for each token.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib import resources
from math import hypot
from pathlib import Path
from typing import Any, Final

import yaml

from trimtab.model.problem import Problem

SHIPPED = resources.files("trimtab.sim") / "profiles"

WIDER: Final = 2
"""By how much errors are multiplied where a profile was extrapolated [design]: no measurement says by how much."""


@dataclass(frozen=True, slots=True)
class IterationCost:
    """Seconds that the parts of an iteration cost.

    Attributes:
        weights: To read the weights once; 0 where `base` holds it, as if it did not overlap with arithmetic.
        arithmetic: To compute with the weights, per token processed, if reading them took no time.
        sharpness: How soon the slower of the two alone counts; 2, and more for larger products.
        mixed: What an iteration with prompt tokens costs more.
        mixed_floor: The least that an iteration with prompt tokens takes.
        split_decodes: Most decoding sequences whose attention is shared out among processors; 0 for no such limit.
        unsplit_context_token: Beyond it, what takes the place of `per_context_token`.
        per_longest_token: Beyond it, per token of the longest context.
        per_host_block: To bring a block of the KV cache back from host memory, while the engine goes on.
        per_stored_token: To copy a token's part of the KV cache to host memory, for engines that do.
    """

    base: float
    per_prefill_token: float
    per_decode_sequence: float
    per_context_token: float
    per_attention_pair: float
    weights: float = 0.0
    arithmetic: float = 0.0
    mixed: float = 0.0
    mixed_floor: float = 0.0
    split_decodes: float = 0.0
    unsplit_context_token: float = 0.0
    per_longest_token: float = 0.0
    per_host_block: float = 0.0
    per_stored_token: float = 0.0
    sharpness: float = 2.0

    def seconds(
        self,
        *,
        prefill_tokens: int,
        decodes: int,
        context_tokens: int,
        attention_pairs: float,
        longest_context: int = 0,
    ) -> float:
        """Duration of one iteration."""
        seconds = (
            self.base
            + self._products(self.arithmetic * (prefill_tokens + decodes))
            + self.per_prefill_token * prefill_tokens
            + self.per_decode_sequence * decodes
            + self.per_attention_pair * attention_pairs
        )
        if self._is_unsplit(decodes):
            seconds += self.unsplit_context_token * context_tokens + self.per_longest_token * longest_context
        else:
            seconds += self.per_context_token * context_tokens
        return max(seconds + self.mixed, self.mixed_floor) if prefill_tokens else seconds

    def growth(self, decodes: int) -> float:
        """By how much an iteration of decodes takes longer than the one before: each context has a token more."""
        if self._is_unsplit(decodes):
            return self.unsplit_context_token * decodes + self.per_longest_token
        return self.per_context_token * decodes

    def offloading(self) -> "IterationCost":
        """The cost of an engine that copies its KV cache to host memory."""
        return replace(
            self,
            per_prefill_token=self.per_prefill_token + self.per_stored_token,
            per_decode_sequence=self.per_decode_sequence + self.per_stored_token,
        )

    def _products(self, arithmetic: float) -> float:
        """Seconds of the products with the weights, whose arithmetic alone takes so long."""
        if self.sharpness == 2:  # noqa: PLR2004 - the square root is exact where powers are not
            return hypot(self.weights, arithmetic)
        return float((self.weights**self.sharpness + arithmetic**self.sharpness) ** (1 / self.sharpness))

    def _is_unsplit(self, decodes: int) -> bool:
        return 0 < self.split_decodes < decodes


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """What HTTP, tokenizing and handing over cost between a request's arrival and the engine's queue.

    Attributes:
        busy_per_request: Seconds in which it does nothing else for each request, so that the next one waits.
    """

    per_request: float = 0.0
    per_prompt_token: float = 0.0
    busy_per_request: float = 0.0

    def seconds(self, prompt_tokens: int) -> float:
        """Seconds for one request."""
        return self.per_request + self.per_prompt_token * prompt_tokens


@dataclass(frozen=True, slots=True)
class Errors:
    """How far off predicted medians are, relative to measured ones: 0.1 is 10 %, and 0 that nobody measured it.

    Measured on load stages, or whole runs, that the profile was not fitted to.
    """

    ttft: float = 0.0
    time_between_tokens: float = 0.0
    e2e: float = 0.0

    @classmethod
    def extrapolated(cls, *sources: "Errors") -> "Errors":
        """The errors to state of what was not measured, given those of what it was made from: twice the largest."""
        names = [f.name for f in fields(cls)]
        return cls(**{name: WIDER * max(getattr(source, name) for source in sources) for name in names})


@dataclass(frozen=True, slots=True)
class OutputLength:
    """Log-normal distribution of answer lengths, for requests that do not say how long the answer is."""

    median_tokens: float
    log_sigma: float


@dataclass(frozen=True, slots=True)
class SleepCost:
    """Seconds to put the weights to sleep and to wake them, by vLLM's level 1 (host memory) and 2 (discard)."""

    sleep_level_1: float
    sleep_level_2: float
    wake_level_1: float
    wake_level_2: float

    def to_sleep(self, level: int) -> float:
        """Seconds until an engine sleeps; level 0 only pauses."""
        return (0.0, self.sleep_level_1, self.sleep_level_2)[level]

    def to_wake(self, level: int) -> float:
        """Seconds until an engine that slept at `level` serves again."""
        return (0.0, self.wake_level_1, self.wake_level_2)[level]


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one accelerator.

    Attributes:
        kv_blocks: KV-cache blocks, vLLM's `num_gpu_blocks`.
        extrapolated: True when parts were measured on other hardware or another model and scaled.
        source: Where the numbers come from and how they were made.
        error: What was measured about their accuracy, in words with numbers.
        errors: The same for programs: the median over load stages, or over whole runs.
        worst_errors: In the worst stage; 0 where no more than one was measured.
        intervals: 95 % intervals of the numbers that have one, by their names in the file, such as `iteration.base`.
        async_scheduling: Whether the engine plans an iteration while the one before it runs.
        host_kv_blocks: Blocks that host memory keeps where the KV cache is offloaded, which it is not by default.
        host_kv_answers: Whether blocks of answers are found there.
        kv_bytes_per_token: Bytes of a token's keys and values, on all devices together; 0 where that is not known.
    """

    name: str
    model: str
    accelerator: str
    tensor_parallel: int
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int
    kv_blocks: int
    iteration: IterationCost
    output_length: OutputLength
    sleep: SleepCost
    extrapolated: bool
    source: str
    error: str
    front_end: FrontEnd = FrontEnd()
    errors: Errors = Errors()
    worst_errors: Errors = Errors()
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    async_scheduling: bool = False
    host_kv_blocks: int = 0
    host_kv_answers: bool = True
    kv_bytes_per_token: int = 0


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with Trimtab."""
    return sorted(entry.name.removesuffix(".yaml") for entry in SHIPPED.iterdir() if entry.name.endswith(".yaml"))


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped profile by its name, or any profile by the path of its file.

    Raises:
        Problem: There is no such profile, or it is malformed; the message names the file and the field.
    """
    path = Path(name_or_path)
    source = path if path.suffix in {".yaml", ".yml"} else SHIPPED / f"{name_or_path}.yaml"
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        fix = f"name one of {', '.join(shipped_profiles())}, or the path of a .yaml file"
        raise Problem(f"there is no profile {name_or_path!r}", fix=fix) from error
    try:
        return parse_profile(yaml.safe_load(text))
    except (ValueError, yaml.YAMLError) as error:
        raise Problem(f"the profile {source} is malformed: {error}", fix="compare it with a shipped profile") from error


def parse_profile(raw: Any) -> Profile:
    """Build a profile from the parsed YAML.

    Raises:
        ValueError: A field is missing, unknown, of the wrong type or out of range.
    """
    values = _exactly(raw, Profile, "")
    profile = Profile(
        **{
            **values,
            "iteration": IterationCost(**_numbers(values["iteration"], IterationCost, "iteration")),
            "output_length": OutputLength(**_numbers(values["output_length"], OutputLength, "output_length")),
            "sleep": SleepCost(**_numbers(values["sleep"], SleepCost, "sleep")),
            "intervals": _intervals(values.get("intervals", {})),
            "front_end": FrontEnd(**_numbers(values.get("front_end", {}), FrontEnd, "front_end")),
            **{name: Errors(**_numbers(values.get(name, {}), Errors, name)) for name in ("errors", "worst_errors")},
        }
    )
    for name in ("tensor_parallel", "max_model_len", "max_num_batched_tokens", "max_num_seqs", "block_size"):
        _positive_integer(getattr(profile, name), name)
    _positive_integer(profile.kv_blocks, "kv_blocks")
    _texts(profile)
    if profile.max_num_batched_tokens < profile.max_num_seqs:
        raise ValueError(
            f"max_num_batched_tokens is {profile.max_num_batched_tokens}, below max_num_seqs ({profile.max_num_seqs}):"
            " a sequence that decodes would go without its token"
        )
    if (profile.kv_blocks - 1) * profile.block_size < profile.max_model_len:
        raise ValueError(
            f"kv_blocks holds {(profile.kv_blocks - 1) * profile.block_size} tokens beside the block kept free, fewer"
            f" than max_model_len ({profile.max_model_len}): the longest request could never be served"
        )
    for name in ("host_kv_blocks", "kv_bytes_per_token"):
        _positive_integer(getattr(profile, name) or 1, name)
    for name in ("async_scheduling", "host_kv_answers"):
        if not isinstance(getattr(profile, name), bool):
            raise ValueError(f"{name} must be true or false, got {getattr(profile, name)!r}")  # noqa: TRY004 - as above
    if profile.iteration.base <= 0:
        raise ValueError("iteration.base must be above zero, else time would stand still")
    if profile.iteration.sharpness < 1:
        raise ValueError("iteration.sharpness must be at least 1")
    _ordered(profile.errors, profile.worst_errors)
    return profile


def _exactly(raw: Any, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where or 'the file'} must be a mapping")  # noqa: TRY004 - the file is wrong, not the caller
    names = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    prefix = f"{where}." if where else ""
    if missing := sorted(needed - set(raw)):
        raise ValueError(f"{prefix}{missing[0]} is missing")
    if unknown := sorted(str(key) for key in set(raw) - names):
        raise ValueError(f"{prefix}{unknown[0]} is not a field of a profile")
    return dict(raw)


def _numbers(raw: Any, kind: type, where: str) -> dict[str, float]:
    values = _exactly(raw, kind, where)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"{where}.{name} must be a number of at least 0, got {value!r}")
    return {name: float(value) for name, value in values.items()}


def _texts(profile: Profile) -> None:
    for name in ("name", "model", "accelerator", "source", "error"):
        if not isinstance(getattr(profile, name), str):
            raise ValueError(f"{name} must be text, got {getattr(profile, name)!r}")  # noqa: TRY004 - as in `_exactly`
    if not isinstance(profile.extrapolated, bool):
        raise ValueError(f"extrapolated must be true or false, got {profile.extrapolated!r}")  # noqa: TRY004


def _ordered(usual: Errors, worst: Errors) -> None:
    for f in fields(Errors):
        low, high = getattr(usual, f.name), getattr(worst, f.name)
        if 0 < high < low:
            raise ValueError(f"worst_errors.{f.name} is {high:g}, below errors.{f.name}, the median, which is {low:g}")


def _intervals(raw: Any) -> dict[str, tuple[float, float]]:
    if not isinstance(raw, Mapping):
        raise ValueError("intervals must be a mapping")  # noqa: TRY004 - the file is wrong, not the caller
    read = {}
    for name, pair in raw.items():
        numbers = [x for x in pair if isinstance(x, int | float)] if isinstance(pair, list | tuple) else []
        if len(numbers) != 2 or len(numbers) != len(pair) or not numbers[0] <= numbers[1]:  # noqa: PLR2004
            raise ValueError(f"intervals.{name} must be a list of two ascending numbers, got {pair!r}")
        read[str(name)] = (float(numbers[0]), float(numbers[1]))
    return read


def _positive_integer(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number above zero, got {value!r}")
