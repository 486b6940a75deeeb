"""An encoder of prompts, for predictors that read text; an extra that is imported only when it is asked for.

Any model that `sentence-transformers` loads will do, by a folder or by a name that it knows. Only a linear head is
trained here; the encoder stays as it is, unlike in the paper (ssjf.md §3.2), whose encoder is trained for three epochs.
"""

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from trimtab.decide.queueing.length_boosted import Encoder
from trimtab.decide.queueing.length_trees import Rows
from trimtab.model.problem import Problem

DEADLINE_SECONDS = 0.020
"""How long one micro-batch may take before its predictions come from the fallback (ssjf.md §3.7)."""


def load_encoder(name: str) -> Encoder:
    """Load an encoder.

    Args:
        name: a folder, or a name that the library knows.

    Raises:
        Problem: the extra is not installed, or the model cannot be had.
    """
    try:
        library: Any = importlib.import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        fix = "pip install sentence-transformers"
        raise Problem(f"an encoder needs the Python package {error.name}", fix=fix) from error
    try:
        model = library.SentenceTransformer(name, device="cpu")
    except (OSError, ValueError) as error:
        raise Problem(f"encoder {name}: {error}", fix="name a folder that holds the model") from error

    def encode(prompts: Sequence[str]) -> Rows:
        vectors: Rows = np.asarray(model.encode(list(prompts), show_progress_bar=False), dtype=np.float64)
        return vectors

    return encode


def within(encoder: Encoder, seconds: float = DEADLINE_SECONDS) -> Encoder:
    """Return an encoder that raises `TimeoutError` where an answer takes longer, so that `Guarded` falls back.

    One batch is encoded at a time; while a late one is still under way, those after it are late, too, and are not
    begun once nobody waits for them.
    """
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")

    def encode(prompts: Sequence[str]) -> Rows:
        answer = worker.submit(encoder, prompts)
        try:
            return answer.result(timeout=seconds)
        except TimeoutError:
            answer.cancel()
            raise

    return encode
