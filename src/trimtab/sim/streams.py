"""Random streams that nobody can shift: each purpose of each entity has its own, made from its name.

Two policies that are compared see the same arrivals, lengths and noise, however many numbers either draws in between
and in whatever order; and so do two workers, and two runs under different hash seeds.
"""

from hashlib import blake2b

import numpy as np

_BYTES = 16

PILOT = 1_000_000
"""First of the seeds that settings, loads and weights are chosen on; reported seeds count from 0."""


def stream(seed: int, entity: str, purpose: str) -> np.random.Generator:
    """Return the random stream of one purpose of one entity.

    Args:
        seed: of the run.
        entity: who draws, e.g. `client/7`.
        purpose: for what, e.g. `think time`.
    """
    name = repr((seed, entity, purpose)).encode()
    return np.random.default_rng(int.from_bytes(blake2b(name, digest_size=_BYTES).digest(), "big"))
