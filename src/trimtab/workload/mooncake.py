"""The Mooncake traces: one JSON object a line, with the ids of the prompt's prefix blocks.

Source: repository kvcache-ai/Mooncake, `FAST25-release/traces`. Blocks hold 512 tokens; equal ids mean that the KV
cache of that block can be used again.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from trimtab.workload.fault import TraceError
from trimtab.workload.request import BLOCK_TOKENS, Trace, TraceRequest
from trimtab.workload.textfile import Row, json_rows

KEYS = ("timestamp", "input_length", "output_length", "hash_ids")


def read_mooncake(path: Path, *, name: str = "mooncake") -> Trace:
    """Read one Mooncake trace; its timestamps are milliseconds after the start.

    Raises:
        TraceError: a fault in the file, by row and field.
    """
    requests = tuple(_requests(path))
    if not requests:
        raise TraceError(path, "the file is empty")
    return Trace(name, str(path), requests, requests[-1].at_seconds)


def _requests(path: Path) -> Iterator[TraceRequest]:
    previous_seconds = 0.0
    for row in json_rows(path):
        at_seconds = row.number_of("timestamp") / 1000
        previous_seconds = row.arrival("timestamp", at_seconds, previous_seconds)
        input_tokens = row.tokens("input_length")
        yield TraceRequest(previous_seconds, input_tokens, row.tokens("output_length"), _blocks(row, input_tokens))


def _blocks(row: Row, input_tokens: int) -> tuple[int, ...]:
    ids = row.value("hash_ids")
    if not isinstance(ids, list) or not all(isinstance(block, int) and not isinstance(block, bool) for block in ids):
        raise row.fault("hash_ids", "not a list of whole numbers")
    needed = math.ceil(input_tokens / BLOCK_TOKENS)
    if len(ids) != needed:
        raise row.fault("hash_ids", f"{len(ids)} blocks for {input_tokens} tokens, not {needed} of {BLOCK_TOKENS}")
    return tuple(ids)
