"""`/metrics` with vLLM's names, labels and bounds."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from trimtab.sim.vllm.driver import Driver
from trimtab.sim.vllm.settings import EngineSettings
from trimtab.sim.vllm.sleep import Sleeper
from trimtab.sim.vllm.stats import EngineStats, Histogram

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"
_LABELS: Final = ("engine", "model_name")
_SLEEP_STATES: Final = ("awake", "weights_offloaded", "discard_all")  # by level


class EngineMetrics(Collector):
    """Reads the engine when it is scraped."""

    def __init__(
        self, settings: EngineSettings, driver: Driver, sleeper: Sleeper, unix_time: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._engine = driver.engine
        self._stats = driver.stats
        self._sleeper = sleeper
        self._unix_time = unix_time
        self._values = ("0", settings.model)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The scrape, in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All families, in vLLM's order."""
        yield from self._state()
        yield from self._counters()
        yield from self._histograms()
        yield from self._information()
        if self._settings.hidden_metrics:
            yield from self._older_names()

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _by_label(self, family: Metric, values: dict[str, float]) -> Metric:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        for label, value in values.items():
            family.add_metric((*self._values, label), value)
        return family

    def _state(self) -> Iterator[Metric]:
        held = self._engine.paused  # a paused engine shows neither running nor waiting requests
        running = 0 if held else self._engine.num_running
        waiting = 0 if held else self._driver.waiting
        deferred = 0 if held else self._engine.num_deferred
        yield self._gauge("vllm:num_requests_running", "Number of requests in model execution batches.", running)
        yield self._gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting)
        reasons = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason: 'capacity' = waiting for scheduling capacity;"
            " 'deferred' = deferred by transient constraints.",
            labels=(*_LABELS, "reason"),
        )
        yield self._by_label(reasons, {"capacity": waiting - deferred, "deferred": deferred})
        sleep = GaugeMetricFamily(
            "vllm:engine_sleep_state",
            "Engine sleep state: awake, weights_offloaded (level 1) or discard_all (level 2).",
            labels=(*_LABELS, "sleep_state"),
        )
        shown = _SLEEP_STATES[self._sleeper.level] if self._sleeper.level or self._sleeper.awake else ""
        yield self._by_label(sleep, {state: float(state == shown) for state in _SLEEP_STATES})
        usage = self._engine.cache.usage
        yield self._gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", usage)

    def _counters(self) -> Iterator[Metric]:
        stats, engine = self._stats, self._engine
        computed = stats.prompt_tokens - stats.cached_tokens
        on_device, on_host = engine.prefix_hits - engine.host_hits, engine.host_hits
        asked_host = engine.prefix_queries if engine.host is not None else 0
        yield self._counter("vllm:prefix_cache_queries", "Prefix cache queries, in tokens.", engine.prefix_queries)
        yield self._counter("vllm:prefix_cache_hits", "Prefix cache hits, in tokens.", on_device)
        yield self._counter(
            "vllm:external_prefix_cache_queries", "External prefix cache queries, in tokens.", asked_host
        )
        yield self._counter("vllm:external_prefix_cache_hits", "External prefix cache hits, in tokens.", on_host)
        yield self._counter("vllm:mm_cache_queries", "Multi-modal cache queries, in items.", 0)
        yield self._counter("vllm:mm_cache_hits", "Multi-modal cache hits, in items.", 0)
        yield self._counter("vllm:num_preemptions", "Cumulative number of preemptions.", engine.preemptions)
        yield self._counter("vllm:prompt_tokens", "Number of prefill tokens processed.", stats.prompt_tokens)
        sources = CounterMetricFamily(
            "vllm:prompt_tokens_by_source", "Number of prompt tokens by source.", labels=(*_LABELS, "source")
        )
        by_source = {
            "local_compute": computed,
            "local_cache_hit": stats.cached_tokens - on_host,
            "external_kv_transfer": on_host,
        }
        yield self._by_label(sources, {key: float(value) for key, value in by_source.items()})
        yield self._counter("vllm:prompt_tokens_cached", "Number of cached prompt tokens.", stats.cached_tokens)
        tiers = CounterMetricFamily(
            "vllm:prompt_tokens_cached_by_source",
            "Prefix-cache hit tokens by the cache tier that supplied them.",
            labels=(*_LABELS, "source"),
        )
        elsewhere = dict.fromkeys(("p2p", "disk", "external_unspecified"), 0.0)
        yield self._by_label(tiers, {"device": float(on_device), "host": float(on_host), **elsewhere})
        yield self._counter("vllm:generation_tokens", "Number of generation tokens processed.", stats.generation_tokens)
        finished = CounterMetricFamily(
            "vllm:request_success",
            "Count of successfully processed requests.",
            labels=("engine", "finished_reason", "model_name"),
        )
        for reason, count in stats.finished.items():
            finished.add_metric(("0", reason, self._settings.model), count)
        yield finished
        refused = CounterMetricFamily(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            labels=("model_name", "reason"),
        )
        refused.add_metric((self._settings.model, "max_num_queued_reqs"), stats.refused)
        refused.add_metric((self._settings.model, "max_num_queued_tokens"), 0)
        yield refused

    def _histograms(self) -> Iterator[Metric]:
        for name, text, histogram in _histograms_of(self._stats):
            yield self._histogram(name, text, histogram)

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(name, text, labels=_LABELS)
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
        family.add_metric(self._values, buckets, histogram.total)
        return family

    def _information(self) -> Iterator[Metric]:
        config = self._engine.config
        yield _info(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            {
                "block_size": str(config.block_size),
                "cache_dtype": "auto",
                "enable_prefix_caching": str(config.prefix_caching),
                "engine": "0",
                "kv_cache_size_tokens": str(config.kv_blocks * config.block_size),
                "num_gpu_blocks": str(config.kv_blocks),
            },
            1.0,
        )
        if config.max_loras:
            running = {s.work.adapter for s in self._engine.running if s.work.adapter}
            waiting = {s.work.adapter for s in self._engine.waiting if s.work.adapter}
            yield _info(
                "vllm:lora_requests_info",
                "Running stats on lora requests.",
                {
                    "max_lora": str(config.max_loras),
                    "running_lora_adapters": ",".join(sorted(running)),
                    "waiting_lora_adapters": ",".join(sorted(waiting)),
                },
                self._unix_time(),
            )
        yield GaugeMetricFamily(
            "trimtab_engine_lost_seconds",
            "Wall-clock seconds that the simulator fell behind its profile for want of CPU.",
            value=self._driver.lost_seconds,
        )

        failures = CounterMetricFamily("trimtab_engine_failures", "Requests that ended in an unexpected error.")
        failures.add_metric((), self._stats.failures)
        yield failures

    def _older_names(self) -> Iterator[Metric]:
        usage = self._engine.cache.usage
        yield self._gauge("vllm:gpu_cache_usage_perc", "DEPRECATED: use vllm:kv_cache_usage_perc.", usage)
        yield self._counter(
            "vllm:gpu_prefix_cache_queries", "DEPRECATED: use vllm:prefix_cache_queries.", self._engine.prefix_queries
        )
        on_device = self._engine.prefix_hits - self._engine.host_hits
        yield self._counter("vllm:gpu_prefix_cache_hits", "DEPRECATED: use vllm:prefix_cache_hits.", on_device)
        yield self._histogram(
            "vllm:time_per_output_token_seconds",
            "DEPRECATED: use vllm:inter_token_latency_seconds.",
            self._stats.inter_token_latency,
        )


def _histograms_of(stats: EngineStats) -> list[tuple[str, str, Histogram]]:
    return [
        ("vllm:request_prompt_tokens", "Number of prefill tokens processed.", stats.request_prompt_tokens),
        ("vllm:request_generation_tokens", "Number of generation tokens processed.", stats.request_generation_tokens),
        ("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", stats.iteration_tokens),
        (
            "vllm:request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            stats.request_max_num_generation_tokens,
        ),
        ("vllm:request_params_n", "Histogram of the n request parameter.", stats.request_params_n),
        (
            "vllm:request_params_max_tokens",
            "Histogram of the max_tokens request parameter.",
            stats.request_params_max_tokens,
        ),
        ("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", stats.time_to_first_token),
        ("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", stats.inter_token_latency),
        (
            "vllm:request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            stats.request_time_per_output_token,
        ),
        (
            "vllm:e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            stats.e2e_request_latency,
        ),
        (
            "vllm:request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            stats.request_queue_time,
        ),
        (
            "vllm:request_inference_time_seconds",
            "Histogram of time spent in RUNNING phase for request.",
            stats.request_inference_time,
        ),
        (
            "vllm:request_prefill_time_seconds",
            "Histogram of time spent in PREFILL phase for request.",
            stats.request_prefill_time,
        ),
        (
            "vllm:request_decode_time_seconds",
            "Histogram of time spent in DECODE phase for request.",
            stats.request_decode_time,
        ),
        (
            "vllm:request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            stats.request_num_preemptions,
        ),
        (
            "vllm:request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            stats.request_prefill_kv_computed_tokens,
        ),
    ]


def _info(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family
