"""What a closed-loop sweep is predicted with: the profiles of its model, and numbers fitted without the run itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from trimtab.sim.calibration.closed_loop import Replayed, replay
from trimtab.sim.calibration.sweeps import Sweep
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import FrontEnd, IterationCost, Profile, load_profile, shipped_profiles

PROFILES: Final = "llama-3.3-70b-fp4-b200-tp"
WITHOUT: Final = Path(__file__).with_name("kv_offload.yaml")
"""Numbers that were fitted without the runs that they predict, by the runs' fingerprints."""
Speeds = Mapping[str, float]
"""Numbers of a profile, by names such as `iteration.base`."""


@dataclass(frozen=True, slots=True)
class Fits:
    """What predicts.

    Attributes:
        profiles: By tensor parallelism.
        without: By fingerprint of a run, the numbers that were fitted without it.
    """

    profiles: Mapping[int, Profile]
    without: Mapping[str, Speeds]


def shipped_fits() -> Fits:
    """What ships."""
    profiles = [load_profile(name) for name in shipped_profiles() if name.startswith(PROFILES)]
    without = yaml.safe_load(WITHOUT.read_text(encoding="utf-8")) if WITHOUT.is_file() else {}
    return Fits({profile.tensor_parallel: profile for profile in profiles}, without)


def play(sweep: Sweep, profile: Profile) -> Replayed:
    """Replay a run with a profile and the run's own limits."""
    return replay(sweep.requests, config_of(sweep, profile), profile.iteration, profile.front_end)


def config_of(sweep: Sweep, profile: Profile) -> EngineConfig:
    """The limits of a run's engine."""
    setting, tokens = sweep.setting, sweep.kv_tokens()
    return replace(
        EngineConfig.of(profile, offloads=setting.offload),
        kv_blocks=profile.kv_blocks if tokens is None else tokens // profile.block_size,
        max_num_seqs=setting.max_num_seqs,
        max_num_batched_tokens=max(profile.max_num_batched_tokens, setting.max_num_seqs),
    )


def with_speeds(profile: Profile, speeds: Speeds) -> Profile:
    """The profile with other numbers."""
    parts: dict[str, dict[str, Any]] = {"iteration": {}, "front_end": {}}
    for name, value in speeds.items():
        part, _, own = name.partition(".")
        parts[part][own] = value
    iteration: IterationCost = replace(profile.iteration, **parts["iteration"])
    front_end: FrontEnd = replace(profile.front_end, **parts["front_end"])
    return replace(profile, iteration=iteration, front_end=front_end)
