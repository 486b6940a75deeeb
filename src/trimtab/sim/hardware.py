"""From a model's shape and an accelerator's speeds to the cost of an iteration: profiles for what nobody measured.

What an iteration does is counted from the shape of the model: bytes of weights and of KV cache read, multiplications,
elementwise work, messages between devices. An accelerator does each at a speed of its own, fitted to what was measured
(`trimtab.sim.calibration.fitting`). Tensor parallelism divides the work, and adds two all-reduces per layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from math import ceil, sqrt
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from trimtab.sim.profile import FrontEnd, IterationCost

_MODELS: Final = resources.files("trimtab.sim") / "architectures.yaml"
_ACCELERATORS: Final = resources.files("trimtab.sim") / "accelerators"
_QUANTIZED: Final = ("fp8", "fp4", "int8", "int4", "awq", "gptq", "w4a16", "w8a8", "gguf", "bnb")
_LEAST_SHARP: Final = 1.2
_MOST_SHARP: Final = 5.0
_BYTES: Final = 2  # of a number in bfloat16
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a transformer, named as in its `config.json`.

    Attributes:
        intermediate_size: Of one expert, where there are several.
        experts: How many there are; 1 for a dense model.
        active_experts: How many of them each token uses.
        tied: Whether the output layer shares the embedding's weights.
    """

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    intermediate_size: int
    vocabulary: int
    head_size: int = 128
    experts: int = 1
    active_experts: int = 1
    tied: bool = False

    @property
    def _attention(self) -> int:
        """Weights of the attention of one layer."""
        return self.hidden_size * self.head_size * 2 * (self.heads + self.kv_heads)

    @property
    def _feed_forward(self) -> int:
        """Weights of one expert of one layer."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_weights(self) -> int:
        """Weights of all layers, those of every expert included."""
        return self.layers * (self._attention + self.experts * self._feed_forward)

    @property
    def active_weights(self) -> int:
        """Weights of all layers that one token is multiplied with."""
        return self.layers * (self._attention + self.active_experts * self._feed_forward)

    @property
    def output_weights(self) -> int:
        """Weights of the output layer, read once per iteration."""
        return self.vocabulary * self.hidden_size

    @property
    def bytes_of_weights(self) -> int:
        """What all weights take, in bfloat16."""
        embeddings = self.output_weights * (1 if self.tied else 2)
        return _BYTES * (self.layer_weights + embeddings)

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token, in bfloat16."""
        return 2 * _BYTES * self.layers * self.kv_heads * self.head_size


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How fast a kind of device does what an iteration consists of. Seconds, bytes and operations.

    Attributes:
        memory_gib: As the engine sees it.
        weights_per_second: Bytes of weights read.
        arithmetic_per_second: Operations of matrix products.
        kv_per_second: Bytes of the KV cache read by decoding sequences.
        attention_per_second: Operations of attention of prompts.
        sharp_bytes: Bytes of weights per layer at which reading them and computing with them overlap with a sharpness
            of 2; it grows with the square root (see `IterationCost`).
        elementwise_per_second: Bytes moved by what is between the matrix products.
        per_layer: Launching what one layer consists of.
        per_mixed_layer: The least that a layer takes in an iteration with prompt tokens, whose kernels are launched
            one by one. Not fitted: few iterations are short enough to show it.
        per_step: Scheduling, and handing over.
        per_sequence: Sampling and bookkeeping for each sequence that decodes.
        per_step_parallel: What `per_step` is more, where several devices work together.
        all_reduce_latency: Of a small message, by devices.
        all_reduce_per_byte: Of a large one, by devices.
        front_end: What HTTP and tokenizing take, on the host that the measured engines ran on.
        activation_bytes: What an engine keeps free of KV blocks: bytes per token of the budget and number between the
            products of the feed-forward part,
        logit_bytes: per sequence and word of the vocabulary,
        parallel_gib: and on each of several devices for their communication.
    """

    name: str
    memory_gib: float
    weights_per_second: float
    arithmetic_per_second: float
    kv_per_second: float
    attention_per_second: float
    elementwise_per_second: float
    sharp_bytes: float
    per_layer: float
    per_mixed_layer: float
    per_step: float
    per_sequence: float
    per_step_parallel: float
    all_reduce_latency: Mapping[int, float]
    all_reduce_per_byte: Mapping[int, float]
    front_end: FrontEnd
    activation_bytes: float
    logit_bytes: float
    parallel_gib: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """An accelerator's speeds and how they were found.

    Attributes:
        accelerator: Fitted to everything.
        without: Fitted to everything but one run, by the run's fingerprint: what says how well a run is predicted that
            was not seen.
        tuned: Profiles, by name, that were fitted further to a run of their own model.
        source: Where the numbers come from and how they were made.
    """

    accelerator: Accelerator
    without: Mapping[str, Accelerator]
    tuned: tuple[str, ...]
    source: str


def accelerators() -> list[str]:
    """Names of the accelerators whose speeds ship."""
    if not _ACCELERATORS.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in _ACCELERATORS.iterdir())


def load_accelerator(name: str) -> Fitted | None:
    """Read what ships about a kind of accelerator, such as "h100"; None where that is nothing."""
    if name not in accelerators():
        return None
    raw = _read(_ACCELERATORS / f"{name}.yaml")
    return Fitted(
        accelerator=_accelerator(name, raw["speeds"]),
        without={run: _accelerator(name, {**raw["speeds"], **speeds}) for run, speeds in raw["without"].items()},
        tuned=tuple(raw["tuned"]),
        source=raw["source"],
    )


def _accelerator(name: str, raw: Mapping[str, Any]) -> Accelerator:
    return Accelerator(name=name, **{**raw, "front_end": FrontEnd(**raw["front_end"])})


def cost_of(model: Architecture, accelerator: Accelerator, tensor_parallel: int) -> IterationCost:
    """Cost of an iteration of a model on so many devices of a kind."""
    a, devices = accelerator, tensor_parallel
    reduces = 2 * model.layers if devices > 1 else 0
    message = model.hidden_size * _BYTES * a.all_reduce_per_byte.get(devices, 0.0)
    # Twice the residual stream is read and written whole by every device; the rest is divided among them.
    moved = _BYTES * model.layers * (8 * model.hidden_size + 3 * _between(model, devices))
    token = moved / a.elementwise_per_second + reduces * message
    kv_heads = max(model.kv_heads / devices, 1)
    read = _BYTES * (model.layer_weights + model.output_weights) / devices
    return IterationCost(
        base=a.per_step
        + (a.per_step_parallel if devices > 1 else 0.0)
        + a.per_layer * model.layers
        + reduces * a.all_reduce_latency.get(devices, 0.0),
        per_prefill_token=token,
        per_decode_sequence=token + a.per_sequence,
        per_context_token=model.kv_bytes_per_token / model.kv_heads * kv_heads / a.kv_per_second,
        per_attention_pair=4 * model.layers * model.heads * model.head_size / devices / a.attention_per_second,
        weights=read / a.weights_per_second,
        arithmetic=2 * model.active_weights / devices / a.arithmetic_per_second,
        mixed_floor=a.per_step + a.per_mixed_layer * model.layers,
        sharpness=sharpness_of(_BYTES * model.layer_weights / model.layers / devices, a.sharp_bytes),
    )


def sharpness_of(layer_bytes: float, sharp_bytes: float) -> float:
    """How sharply the products of a layer with so many bytes of weights turn from reading to computing."""
    return min(max(2 * sqrt(layer_bytes / sharp_bytes), _LEAST_SHARP), _MOST_SHARP)


def kv_blocks_of(
    model: Architecture,
    accelerator: Accelerator,
    *,
    tensor_parallel: int = 1,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    block_size: int = 16,
    gpu_memory_utilization: float = 0.9,
) -> int:
    """KV blocks that vLLM would find room for; 0 or less where the weights leave none.

    It takes the memory that it may use, less the weights and the most that a full batch needs besides.
    """
    usable = accelerator.memory_gib * gpu_memory_utilization * _GIB
    activations = accelerator.activation_bytes * max_num_batched_tokens * _between(model, tensor_parallel)
    logits = accelerator.logit_bytes * max_num_seqs * model.vocabulary
    parallel = accelerator.parallel_gib * _GIB if tensor_parallel > 1 else 0.0
    free = usable - model.bytes_of_weights / tensor_parallel - activations - logits - parallel
    per_token = model.kv_bytes_per_token / model.kv_heads * max(ceil(model.kv_heads / tensor_parallel), 1)
    return int(free / per_token / block_size)


def _between(model: Architecture, devices: int) -> float:
    """Numbers per token between the two products of the feed-forward part, on one device."""
    return model.active_experts * model.intermediate_size / devices


def architecture_of(model: str) -> Architecture | None:
    """Return the shape of a model by its name; None where it is not known.

    A name is known if its last part is one of the list, or begins with one and goes on after a hyphen. Quantized
    variants are not known, because they have other weights.
    """
    name = PurePosixPath(model).name.lower().removeprefix("meta-")
    known = _shapes()
    fitting = [k for k in known if name == k or name.startswith(f"{k}-")]
    if not fitting or any(mark in name for mark in _QUANTIZED):
        return None
    best = max(fitting, key=len)
    return Architecture(name=best, **known[best])


@cache
def _shapes() -> dict[str, Any]:
    return _read(_MODELS)


def _read(source: Traversable) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return read
