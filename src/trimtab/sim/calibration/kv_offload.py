"""The data set of closed-loop sweeps (`sweeps`), replayed closed-loop through the serving physics.

A run is predicted from the profile of its model on as many devices, with the run's own limits: sequences, offloading,
and the size of the KV cache as its server showed it. A run that the profile was fitted to is predicted with numbers
that were fitted without any run of as many clients on as many devices, which is what judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from trimtab.sim.calibration.closed_loop import Replayed
from trimtab.sim.calibration.source import Cell, Compared, Findings, Run
from trimtab.sim.calibration.sweep_profiles import Fits, play, shipped_fits, with_speeds
from trimtab.sim.calibration.sweeps import Sweep, other_runs, read_sweeps, why_not
from trimtab.workload.fault import TraceError

FOLDER: Final = "vllm-kv-offload"
_NO_PROFILE: Final = (
    "No profile: the runs of this model answer too few requests, at other settings, to fit one; nothing is predicted."
)


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
            runs = _reported(sweeps, made.fits)
            return Findings((*runs, *_others(folder, problems)), tuple(problems), made.profiles, made.files, made.notes)
        return Findings((*_reported(sweeps, shipped_fits()), *_others(folder, problems)), tuple(problems))


def _reported(sweeps: Sequence[Sweep], fits: Fits) -> list[Run]:
    """Every run; those that were fitted to also as the fit makes them, which judges nothing."""
    runs = []
    for sweep in sweeps:
        run = predict(sweep, sweeps, fits)
        runs.append(run)
        if run.judged and not sweep.setting.offload and sweep.fingerprint in fits.without:
            seen = predict(sweep, sweeps, Fits(fits.profiles, {}))
            why = "The profile was fitted to this run."
            runs.append(replace(seen, id=f"{sweep.id} (fitted)", in_fit=True, judged=False, reason=why))
    return runs


def predict(sweep: Sweep, sweeps: Sequence[Sweep], fits: Fits) -> Run:
    """Replay one run, if it judges; else say why it does not."""
    reason, profile = why_not(sweep, sweeps), fits.profiles.get(sweep.setting.tensor_parallel)
    blank = Run(sweep.id, FOLDER, _setup_of(sweep), "", extrapolated=True, in_fit=False, requests=(), judged=False)
    if reason:
        return replace(blank, reason=reason)
    if profile is None:
        return replace(blank, reason=f"No profile for {sweep.setting.tensor_parallel} devices was ever fitted.")
    name = profile.name
    if speeds := fits.without.get(sweep.fingerprint):
        profile, name = with_speeds(profile, speeds), f"{name}, fitted without this run"
    replayed = play(sweep, profile)
    remark = (
        f"{replayed.found:.0%} of the prompt tokens were found again in the replay, {replayed.found_on_host:.0%} on the"
        f" host ({sweep.known:.0%} were said before, by the clients' count); {replayed.preemptions} preemptions (the"
        f" server's: {sweep.preemptions})."
    )
    return replace(
        blank,
        profile=name,
        extrapolated=profile.extrapolated,
        requests=compare(sweep, replayed),
        judged=True,
        reason=remark,
    )


def compare(sweep: Sweep, replayed: Replayed) -> tuple[Compared, ...]:
    """All requests but the first, which met a cold server."""
    stage = f"{sweep.clients} clients"
    pairs = zip(sweep.requests, replayed.latencies, strict=True)
    return tuple(Compared(stage, asked.latency, latency) for asked, latency in pairs)[1:]


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
