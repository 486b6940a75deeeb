"""`trimtab engine`: a simulated LLM engine behind vLLM's HTTP API."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import click

from trimtab.model.problem import Problem
from trimtab.obs.logging import LogFormat, configure
from trimtab.sim.profile import Profile, load_profile, shipped_profiles
from trimtab.sim.serving import EngineConfig
from trimtab.sim.vllm.server import serve
from trimtab.sim.vllm.settings import EngineSettings

_IGNORED_FLAGS = (
    "--enforce-eager", "--trust-remote-code", "--enable-chunked-prefill", "--disable-log-requests",
    "--disable-log-stats", "--disable-uvicorn-access-log", "--disable-hybrid-kv-cache-manager",
)  # fmt: skip
_IGNORED_OPTIONS = (
    "--dtype", "--gpu-memory-utilization", "--download-dir", "--load-format", "--uvicorn-log-level",
    "--kv-offloading-backend",
)  # fmt: skip


def _ignored(command: Any) -> Any:
    """Add the vLLM options that make no difference to a simulation."""
    for name in _IGNORED_FLAGS:
        command = click.option(name, is_flag=True, hidden=True, expose_value=False)(command)
    for name in _IGNORED_OPTIONS:
        command = click.option(name, hidden=True, expose_value=False)(command)
    return command


@click.command(epilog=f"Shipped profiles: {', '.join(shipped_profiles())}.")
@click.option("--model", required=True, help="Name that requests use; no weights are loaded.")
@click.option("--served-model-name", multiple=True, help="Other names, instead of --model; the first one is shown.")
@click.option("--profile", "profile_name", default="tiny", show_default=True, help="A shipped profile or a .yaml file.")
@click.option(
    "--host", envvar="POD_IP", default="127.0.0.1", show_default="$POD_IP, else 127.0.0.1", help="Address to bind."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 picks a free one.")
@click.option(
    "--speed", type=float, default=1.0, show_default=True, help="Times as fast as the profile, seen from outside."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of answer lengths and texts.")
@click.option("--max-model-len", type=click.IntRange(1), help="Most tokens of prompt and answer. [default: profile's]")
@click.option("--max-num-seqs", type=click.IntRange(1), help="Most requests in a batch. [default: profile's]")
@click.option("--max-num-batched-tokens", type=click.IntRange(1), help="Token budget per iteration.")
@click.option("--block-size", type=click.IntRange(1), help="Tokens per KV-cache block.")
@click.option("--num-gpu-blocks-override", "kv_blocks", type=click.IntRange(2), help="KV-cache blocks.")
@click.option(
    "--kv-offloading-size", type=click.FloatRange(0, min_open=True), metavar="GIB",
    help="Host memory that keeps KV-cache blocks, all devices together.",
)  # fmt: skip
@click.option(
    "--scheduling-policy", type=click.Choice(["fcfs", "priority"]), default="fcfs", show_default=True,
    help="`priority` reads the field `priority` of requests: lower is earlier.",
)  # fmt: skip
@click.option("--enable-prefix-caching/--no-enable-prefix-caching", "prefix_caching", default=True, show_default=True)
@click.option("--enable-lora", is_flag=True, help="Accept LoRA adapters.")
@click.option("--max-loras", type=click.IntRange(1), default=1, show_default=True, help="Adapters in one batch.")
@click.option("--lora-modules", multiple=True, metavar="NAME=PATH", help="Adapters that are loaded from the start.")
@click.option(
    "--allow-runtime-lora-updating", "runtime_lora", is_flag=True, envvar="VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    show_envvar=True, help="Serve /v1/load_lora_adapter and /v1/unload_lora_adapter.",
)  # fmt: skip
@click.option("--api-key", "api_keys", multiple=True, envvar="VLLM_API_KEY", show_envvar=True, help="Gates /v1.")
@click.option("--max-num-queued-reqs", type=click.IntRange(1), help="Refuse requests while so many wait.")
@click.option(
    "--shutdown-timeout", type=click.FloatRange(0), default=0.0, show_default=True,
    help="Seconds that open requests get after SIGTERM; 0 aborts them.",
)  # fmt: skip
@click.option("--stream-interval", type=click.IntRange(1), default=1, show_default=True, help="Tokens per chunk.")
@click.option("--enable-prompt-tokens-details", "prompt_tokens_details", is_flag=True, help="Cached tokens in usage.")
@click.option("--enable-request-id-headers", "request_id_headers", is_flag=True, help="X-Request-Id in answers.")
@click.option("--enable-server-load-tracking", "load_tracking", is_flag=True, help="/load counts; else it is 0.")
@click.option(
    "--enable-sleep-mode", "dev_mode", is_flag=True, envvar="VLLM_SERVER_DEV_MODE", show_envvar=True,
    help="Serve /sleep, /wake_up, /pause, /resume, /abort_requests and /reset_prefix_cache.",
)  # fmt: skip
@click.option("--show-hidden-metrics", "hidden_metrics", is_flag=True, help="Also the older names of renamed metrics.")
@click.option(
    "--log-format", type=click.Choice([fmt.value for fmt in LogFormat]), default=LogFormat.AUTO.value, show_default=True
)
@_ignored
def engine(
    *,
    model: str,
    served_model_name: tuple[str, ...],
    profile_name: str,
    max_model_len: int | None,
    kv_offloading_size: float | None,
    enable_lora: bool,
    max_loras: int,
    lora_modules: tuple[str, ...],
    log_format: str,
    **options: Any,
) -> None:
    """Simulate an LLM engine behind vLLM's HTTP API: real queues, batches and KV-cache use, and made-up words.

    Options are named as vLLM's. Those that change nothing here (--enforce-eager, --dtype, --gpu-memory-utilization
    and a few more) are accepted; all others are refused.
    """
    configure(LogFormat(log_format))
    profile = load_profile(profile_name)
    limits = {name: options.pop(name) for name in ("max_num_seqs", "max_num_batched_tokens", "block_size", "kv_blocks")}
    config = replace(
        _with_block_size(EngineConfig.of(profile), limits["block_size"]),
        **{name: value for name, value in limits.items() if value is not None},
        scheduling_policy=options.pop("scheduling_policy"),
        prefix_caching=options.pop("prefix_caching"),
        max_loras=max_loras if enable_lora else 0,
    )
    if kv_offloading_size is not None:
        config = replace(config, host_kv_blocks=_host_blocks(kv_offloading_size, profile, config.block_size))
    settings = EngineSettings(
        names=served_model_name or (model,),
        profile=profile,
        config=config,
        max_model_len=_model_len(max_model_len, profile),
        adapters=tuple(map(_adapter, lora_modules)),
        **options,
    )
    _run(settings)


def _with_block_size(config: EngineConfig, block_size: int | None) -> EngineConfig:
    """Blocks of another size, and as many of them as hold the same number of tokens."""
    if block_size is None:
        return config
    blocks = max(2, config.kv_blocks * config.block_size // block_size)
    return replace(config, block_size=block_size, kv_blocks=blocks)


def _host_blocks(gib: float, profile: Profile, block_size: int) -> int:
    """Blocks that so much host memory holds."""
    if not profile.kv_bytes_per_token:
        fix = "leave --kv-offloading-size out, or give the profile a kv_bytes_per_token"
        raise Problem(f"the profile {profile.name} does not say how large the KV cache of a token is", fix=fix)
    return max(1, int(gib * 2**30 / (profile.kv_bytes_per_token * block_size)))


def _model_len(asked: int | None, profile: Profile) -> int:
    if asked is not None and asked > profile.max_model_len:
        fix = f"pass {profile.max_model_len} or less"
        raise Problem(f"--max-model-len {asked} is above the profile's {profile.max_model_len} tokens", fix=fix)
    return asked or profile.max_model_len


def _adapter(module: str) -> tuple[str, str]:
    name, _, path = module.partition("=")
    if not name or not path:
        raise Problem(f"--lora-modules {module!r} is not NAME=PATH", fix="write --lora-modules my-adapter=/some/path")
    return name, path


def _run(settings: EngineSettings) -> None:
    try:
        import uvloop  # noqa: PLC0415 - optional: not on every platform, and twice as fast where it is
    except ModuleNotFoundError:
        asyncio.run(serve(settings, time.time))
    else:
        uvloop.run(serve(settings, time.time))
