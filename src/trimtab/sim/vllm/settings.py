"""Everything that a simulated engine can be told at its start."""

from dataclasses import dataclass
from typing import Final

from trimtab.model.problem import Problem
from trimtab.sim.profile import Profile
from trimtab.sim.serving import EngineConfig

VLLM_VERSION: Final = "0.32.0"  # whose answers the simulator gives


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of one simulated engine; the command line and its help are made in `trimtab.cli.engine`.

    Attributes:
        names: Model names that requests may use; the first one is shown in answers and metrics.
        speed: How many times faster than the profile everything is. All that is seen from outside, metrics
            included, is in wall-clock seconds: an engine at speed 5 looks like one five times as fast.
        seed: Of answer lengths and texts.
        max_num_queued_reqs: Waiting requests above which new ones are refused; None for no bound.
        shutdown_timeout: Seconds that open requests get after SIGTERM; 0 aborts them at once.
        dev_mode: Serve the development endpoints (`/sleep`, `/pause` and their kin).
        runtime_lora: Serve `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`.
        adapters: LoRA adapters that are there from the start: (name, path).
        hidden_metrics: Also show the older names of renamed metrics.
    """

    names: tuple[str, ...]
    profile: Profile
    config: EngineConfig
    max_model_len: int
    host: str = "127.0.0.1"
    port: int = 8000
    speed: float = 1.0
    seed: int = 0
    api_keys: tuple[str, ...] = ()
    max_num_queued_reqs: int | None = None
    shutdown_timeout: float = 0.0
    stream_interval: int = 1
    prompt_tokens_details: bool = False
    request_id_headers: bool = False
    load_tracking: bool = False
    dev_mode: bool = False
    runtime_lora: bool = False
    hidden_metrics: bool = False
    adapters: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise Problem("the engine has no model name", fix="pass --model NAME")
        if not 0 < self.speed < float("inf"):
            raise Problem(f"--speed must be above zero, got {self.speed:g}", fix="pass --speed 1 for real time")
        capacity = (self.config.kv_blocks - 1) * self.config.block_size
        if self.max_model_len > capacity:
            raise Problem(
                f"max_model_len {self.max_model_len} is above the {capacity} tokens that the KV cache holds",
                fix=f"pass --max-model-len {capacity} or less, or a larger --num-gpu-blocks-override",
            )

    @property
    def model(self) -> str:
        """The name shown in answers and metrics."""
        return self.names[0]
