"""A profile for a model that nobody measured, from its shape and the measured speeds of the accelerator."""

from trimtab.sim.hardware import Architecture, architecture_of, cost_of, kv_blocks_of, load_accelerator
from trimtab.sim.profile import OutputLength, Profile, SleepCost

_BATCHED_TOKENS = 8192
_SEQUENCES = 256
_BLOCK_SIZE = 16
_MODEL_LENGTH = 32_768
_COPY_BYTES_PER_SECOND = 20e9
_LOAD_BYTES_PER_SECOND = 1e9
_ERROR = "Not measured on this model: its parts were measured on others and scaled to its shape."


def scaled_profile(model: str, accelerator: str, tensor_parallel: int) -> Profile | None:
    """Return a profile, marked extrapolated; None where the model's shape or the accelerator's speeds are not known.

    Args:
        model: Its name, with or without an owner.
        accelerator: Its type, e.g. `h100`.
        tensor_parallel: Devices that one replica uses.
    """
    shape, fitted = architecture_of(model), load_accelerator(accelerator)
    if shape is None or fitted is None:
        return None
    blocks = kv_blocks_of(
        shape, fitted.accelerator, tensor_parallel=tensor_parallel, max_num_batched_tokens=_BATCHED_TOKENS,
        max_num_seqs=_SEQUENCES, block_size=_BLOCK_SIZE,
    )  # fmt: skip
    parallel = tensor_parallel in (1, *fitted.accelerator.all_reduce_per_byte)
    if blocks < _BATCHED_TOKENS // _BLOCK_SIZE or not parallel:
        return None
    return Profile(
        name=f"{shape.name} scaled to {accelerator}, tensor parallelism {tensor_parallel}",
        model=model,
        accelerator=accelerator,
        tensor_parallel=tensor_parallel,
        max_model_len=_MODEL_LENGTH,
        max_num_batched_tokens=_BATCHED_TOKENS,
        max_num_seqs=_SEQUENCES,
        block_size=_BLOCK_SIZE,
        kv_blocks=blocks,
        iteration=cost_of(shape, fitted.accelerator, tensor_parallel),
        output_length=OutputLength(median_tokens=129.0, log_sigma=0.86),
        sleep=_sleep(shape, tensor_parallel),
        extrapolated=True,
        source=fitted.source,
        error=_ERROR,
        front_end=fitted.accelerator.front_end,
    )


def _sleep(shape: Architecture, tensor_parallel: int) -> SleepCost:
    copied = shape.bytes_of_weights / tensor_parallel / _COPY_BYTES_PER_SECOND
    return SleepCost(copied, 0.1, copied, shape.bytes_of_weights / tensor_parallel / _LOAD_BYTES_PER_SECOND)
