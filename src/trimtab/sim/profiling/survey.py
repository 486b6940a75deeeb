"""What an engine says about itself, before any load: models, limits, metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from trimtab.api.openai import MODELS
from trimtab.workload.gather import fetch
from trimtab.workload.wire import AnswerLost, Client

_OK: Final = 200
_PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Gauges:
    """What its metrics say at one moment; None for what they do not.

    Attributes:
        running: Requests in the batch.
        waiting: Requests in the queue.
        prompt_tokens: Processed since it started.
        output_tokens: Produced since it started.
        preemptions: Since it started.
        block_size: Tokens of a KV block.
        kv_blocks: KV blocks.
    """

    running: float | None = None
    waiting: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    preemptions: float | None = None
    block_size: int | None = None
    kv_blocks: int | None = None

    @property
    def under_way(self) -> float:
        """Requests that it has, as far as is known."""
        return (self.running or 0.0) + (self.waiting or 0.0)


async def read_gauges(client: Client) -> Gauges:
    """Scrape `/metrics`; without one, nothing is known."""
    status, body = await _fetch(client, "/metrics")
    if status != _OK:
        return Gauges()
    try:
        return gauges_of(body.decode())
    except ValueError:
        return Gauges()


def gauges_of(text: str) -> Gauges:
    """Read vLLM's metrics, those of its data-parallel engines added up.

    Raises:
        ValueError: It is not Prometheus' text format.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    cache = next(_named(samples, "vllm:cache_config_info"), None)
    labels = cache.labels if cache else {}
    return Gauges(
        running=_sum(samples, "vllm:num_requests_running"),
        waiting=_sum(samples, "vllm:num_requests_waiting"),
        prompt_tokens=_sum(samples, "vllm:prompt_tokens_total"),
        output_tokens=_sum(samples, "vllm:generation_tokens_total"),
        preemptions=_sum(samples, "vllm:num_preemptions_total"),
        block_size=_whole(labels, "block_size"),
        kv_blocks=_whole(labels, "num_gpu_blocks"),
    )


def _named(samples: list[Sample], name: str) -> Iterator[Sample]:
    return (sample for sample in samples if sample.name == name)


def _sum(samples: list[Sample], name: str) -> float | None:
    values = [sample.value for sample in _named(samples, name)]
    return sum(values) if values else None


def _whole(labels: Mapping[str, str], name: str) -> int | None:
    text = labels.get(name, "")
    return int(text) if text.isdecimal() and int(text) else None


async def read_max_model_len(client: Client, model: str) -> int | None:
    """What the list of models says of a model's longest context; None where it says nothing (it is vLLM's field)."""
    status, body = await _fetch(client, MODELS)
    if status != _OK:
        return None
    try:
        entries = orjson.loads(body)["data"]
        return next((int(e["max_model_len"]) for e in entries if e.get("id") == model and e.get("max_model_len")), None)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None


async def read_version(client: Client) -> str:
    """The engine's version, where it has vLLM's `/version`; else empty."""
    status, body = await _fetch(client, "/version")
    try:
        return str(orjson.loads(body)["version"]) if status == _OK else ""
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


async def _fetch(client: Client, path: str) -> tuple[int, bytes]:
    try:
        return await fetch(client, path, patience_seconds=_PATIENCE_SECONDS)
    except (AnswerLost, TimeoutError):
        return 0, b""
