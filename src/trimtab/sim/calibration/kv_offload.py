"""The data set of closed-loop sweeps (`sweeps`), replayed closed-loop through the serving physics.

A run is predicted from the profile of its model on as many devices, with the run's own limits: sequences, offloading,
and the size of the KV cache as its server showed it. A run that the profile was fitted to is predicted with numbers
that were fitted without any run of as many clients on as many devices, which is what judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from trimtab.sim.calibration.closed_loop import Replayed, replay
from trimtab.sim.calibration.source import Cell, Compared, Findings, Run
from trimtab.sim.calibration.sweeps import Sweep, other_runs, read_sweeps, why_not
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import FrontEnd, IterationCost, Profile, load_profile, shipped_profiles
from trimtab.workload.fault import TraceError

FOLDER: Final = "vllm-kv-offload"
PROFILES: Final = "llama-3.3-70b-fp4-b200-tp"
WITHOUT: Final = Path(__file__).with_name("kv_offload.yaml")
"""Numbers that were fitted without the runs that they predict, by the runs' fingerprints."""
_NO_PROFILE: Final = (
    "No profile: the runs of this model answer too few requests, at other settings, to fit one; nothing is predicted."
)

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


@dataclass(frozen=True, slots=True)
class KvOffload:
    """See the module's text."""

    name: str = FOLDER
    title: str = "vLLM under closed-loop conversations, with and without a KV cache in host memory"

    def replay(self, data: Path, *, fit: bool) -> Findings:
        """See `Source.replay`."""
        folder = data / self.name
        if not folder.is_dir():
            return Findings(problems=(f"{folder}: no such folder; point --data at the folder that holds it",))
        sweeps, problems = read_sweeps(folder)
        if fit and sweeps:
            from trimtab.sim.calibration.sweep_fit import refit  # noqa: PLC0415 - a fit is rare

            made = refit(sweeps)
            runs = [predict(sweep, sweeps, made.fits) for sweep in sweeps]
            return Findings((*runs, *_others(folder, problems)), tuple(problems), made.profiles, made.files, made.notes)
        runs = [predict(sweep, sweeps, shipped_fits()) for sweep in sweeps]
        return Findings((*runs, *_others(folder, problems)), tuple(problems))


def shipped_fits() -> Fits:
    """What ships."""
    profiles = [load_profile(name) for name in shipped_profiles() if name.startswith(PROFILES)]
    without = yaml.safe_load(WITHOUT.read_text(encoding="utf-8")) if WITHOUT.is_file() else {}
    return Fits({profile.tensor_parallel: profile for profile in profiles}, without)


def predict(sweep: Sweep, sweeps: Sequence[Sweep], fits: Fits) -> Run:
    """Replay one run, and say whether it judges."""
    reason, profile = why_not(sweep, sweeps), fits.profiles.get(sweep.setting.tensor_parallel)
    blank = Run(sweep.id, FOLDER, _setup_of(sweep), "", extrapolated=True, in_fit=False, requests=(), judged=False)
    if profile is None:
        return replace(blank, reason=f"No profile for {sweep.setting.tensor_parallel} devices was ever fitted.")
    name = profile.name
    if speeds := fits.without.get(sweep.fingerprint):
        profile, name = with_speeds(profile, speeds), f"{name}, fitted without this run"
    replayed = play(sweep, profile)
    remark = (
        f"{replayed.found:.0%} of the prompt tokens were found again in the replay, {replayed.found_on_host:.0%} on the"
        f" host; {replayed.preemptions} preemptions."
    )
    return replace(
        blank,
        profile=name,
        extrapolated=profile.extrapolated,
        requests=compare(sweep, replayed),
        judged=not reason,
        reason=reason or remark,
    )


def play(sweep: Sweep, profile: Profile) -> Replayed:
    """Replay a run with a profile and the run's own limits."""
    return replay(sweep.requests, config_of(sweep, profile), profile.iteration, profile.front_end)


def config_of(sweep: Sweep, profile: Profile) -> EngineConfig:
    """The limits of a run's engine."""
    setting, tokens = sweep.setting, sweep.kv_tokens()
    return replace(
        EngineConfig.of(profile),
        kv_blocks=profile.kv_blocks if tokens is None else tokens // profile.block_size,
        max_num_seqs=setting.max_num_seqs,
        max_num_batched_tokens=max(profile.max_num_batched_tokens, setting.max_num_seqs),
        host_kv_blocks=profile.host_kv_blocks if setting.offload else 0,
    )


def compare(sweep: Sweep, replayed: Replayed) -> tuple[Compared, ...]:
    """All requests but the first, which met a cold server."""
    stage = f"{sweep.clients} clients"
    pairs = zip(sweep.requests, replayed.latencies, strict=True)
    return tuple(Compared(stage, asked.latency, latency) for asked, latency in pairs)[1:]


def with_speeds(profile: Profile, speeds: Speeds) -> Profile:
    """The profile with other numbers."""
    parts: dict[str, dict[str, Any]] = {"iteration": {}, "front_end": {}}
    for name, value in speeds.items():
        part, _, own = name.partition(".")
        parts[part][own] = value
    iteration: IterationCost = replace(profile.iteration, **parts["iteration"])
    front_end: FrontEnd = replace(profile.front_end, **parts["front_end"])
    return replace(profile, iteration=iteration, front_end=front_end)


def _others(folder: Path, problems: list[str]) -> list[Run]:
    """Runs of which only their requests are listed: they are reported, and nothing is predicted."""
    try:
        counts = other_runs(folder)
    except TraceError as error:
        problems.append(str(error))
        return []
    return [
        Run(
            name, FOLDER, {"requests": sent}, "", extrapolated=True, in_fit=False, requests=(), judged=False,
            reason=f"{_NO_PROFILE} {sent} requests are recorded, of which {failed} failed.",
        )
        for name, (sent, failed) in counts.items()
    ]  # fmt: skip


def _setup_of(sweep: Sweep) -> dict[str, Cell]:
    setting = sweep.setting
    return {
        "tensor_parallel": setting.tensor_parallel,
        "max_num_seqs": setting.max_num_seqs,
        "offload": setting.offload,
        "clients": sweep.clients,
        "kv_tokens": sweep.kv_tokens(),
    }
