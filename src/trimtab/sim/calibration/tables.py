"""Measurements other than recorded runs that say how fast an accelerator is: kernels, messages, and steps of decoding.

Each is a table known by its folder and columns. What is not there is a sentence, not an error: the fit then rests on
the rest, and on guesses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from trimtab.learn.profiles import slope
from trimtab.sim.hardware import Architecture, architecture_of
from trimtab.workload.textfile import COMPRESSIONS, Row, csv_rows

_KERNELS: Final = "vidur-profiles"
_STEPS: Final = "mlenergy-v3"
_PRODUCTS: Final = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
_BETWEEN: Final = ("input_layernorm", "attn_rope", "post_attention_layernorm", "mlp_act", "add")
_SHAPE: Final = ("n_head", "n_kv_head", "n_embd", "n_expanded_embd", "num_tokens", "num_tensor_parallel_workers")
_LARGE_MESSAGE: Final = 16 * 2**20
_LARGE_PRODUCT: Final = 2048
_MANY_TOKENS: Final = 1024
_ONE_SEQUENCE: Final = 16  # tokens up to which a product takes as long as reading its weights
LARGEST_BATCH: Final = 32.5
_PROMPT_TOKENS: Final = 250.0


@dataclass(frozen=True, slots=True)
class Kernels:
    """Speeds of the parts of a layer, measured alone: bytes and operations per second."""

    weights_per_second: float
    arithmetic_per_second: float
    elementwise_per_second: float


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """The median time between tokens of a batch that decodes.

    Attributes:
        context: Tokens that each sequence has, on average; its prompt is not known and taken as 250 tokens.
    """

    model: Architecture
    tensor_parallel: int
    batch: float
    context: float
    seconds: float


def read_kernels(data: Path, accelerator: str) -> Kernels | None:
    """Read the speeds of kernels; None where there is no table of this accelerator.

    Raises:
        TraceError: A table is malformed.
    """
    rows = [_Layer.of(row) for path in _tables(data / _KERNELS, f"compute_{accelerator}__*__mlp.csv") for row in path]
    if not rows:
        return None
    small = [layer for layer in rows if layer.tokens <= _ONE_SEQUENCE]
    large = [layer for layer in rows if layer.tokens >= _LARGE_PRODUCT]
    many = [layer for layer in rows if layer.tokens >= _MANY_TOKENS]
    per_byte = slope(np.array([layer.weights * 2 for layer in small]), np.array([layer.products for layer in small]))
    arithmetic = float(np.median([2 * x.weights * x.tokens / x.products for x in large]))
    return Kernels(
        weights_per_second=1 / per_byte,
        arithmetic_per_second=arithmetic,
        elementwise_per_second=float(np.median([x.moved * x.tokens / x.between for x in many])),
    )


def read_messages(data: Path, accelerator: str) -> dict[int, float]:
    """Read the seconds per byte of large all-reduces, by devices; empty where there is no table of this accelerator.

    Raises:
        TraceError: A table is malformed.
    """
    sizes: dict[int, list[tuple[float, float]]] = {}
    for table in _tables(data / _KERNELS, f"network_{accelerator}_*__all_reduce.csv"):
        for row in table:
            if (size := row.number_of("size")) >= _LARGE_MESSAGE:
                seconds = row.number_of("time_stats.all_reduce.median") / 1000
                sizes.setdefault(row.tokens("num_workers"), []).append((size, seconds))
    return {devices: slope(*np.array(points).T) for devices, points in sorted(sizes.items())}


def read_decode_steps(data: Path, accelerator: str, *, small: bool = True) -> list[DecodeStep]:
    """Read times between tokens of dense models in bfloat16 whose shape is known, in small batches or in large ones.

    Speeds are fitted to small ones: most iterations of large ones hold a prompt, whose length is not known.

    Raises:
        TraceError: The table is malformed.
    """
    steps = []
    for table in _tables(data / _STEPS, "configurations.csv"):
        for row in table:
            step = _decode_step(row, accelerator)
            if step is not None and (step.batch <= LARGEST_BATCH) is small:
                steps.append(step)
    return steps


def _decode_step(row: Row, accelerator: str) -> DecodeStep | None:
    fields = row.fields
    if str(row.value("gpu_model")).lower() != accelerator or row.value("weight_precision") != "bfloat16":
        return None
    model = architecture_of(str(row.value("model_id")))
    chat = "chat" in str(fields.get("task", "chat"))  # elsewhere prompts are of another length
    if model is None or not chat or not fields.get("median_itl_ms") or model.experts > 1:
        return None
    return DecodeStep(
        model=model,
        tensor_parallel=int(row.number_of("tensor_parallel")),
        batch=row.number_of("avg_batch_size"),
        context=_PROMPT_TOKENS + row.number_of("avg_output_len") / 2,
        seconds=row.number_of("median_itl_ms") / 1000,
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of one model on one of several devices: seconds of its products and of what is between them."""

    tokens: int
    weights: float
    moved: float
    products: float
    between: float

    @classmethod
    def of(cls, row: Row) -> "_Layer":
        heads, kv_heads, width, inner, tokens, devices = (row.tokens(column) for column in _SHAPE)
        weights = (2 * width * width + 2 * width * width * kv_heads / heads + 3 * width * inner) / devices
        return cls(
            tokens,
            weights,
            moved=2 * (8 * width + 3 * inner / devices),
            products=_seconds(row, _PRODUCTS),
            between=_seconds(row, _BETWEEN),
        )


def _seconds(row: Row, operations: Sequence[str]) -> float:
    columns = (f"time_stats.{operation}.median" for operation in operations)
    return sum(row.number_of(column) for column in columns if row.fields.get(column)) / 1000


def _tables(folder: Path, pattern: str) -> Iterator[Iterator[Row]]:
    """Yield every table that fits a pattern, plain or compressed, in the order of their names."""
    paths = sorted(path for ending in COMPRESSIONS for path in folder.glob(f"{pattern}{ending}"))
    for path in paths:
        yield csv_rows(path, ())
