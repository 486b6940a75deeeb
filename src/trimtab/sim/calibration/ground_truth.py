"""The data set of recorded vLLM runs (`recorded`), replayed through the serving physics.

Each run is predicted from the shape of its model and the speeds of its accelerator, with the run's own settings. A run
that those speeds were fitted to is predicted with speeds that were fitted without it, which is what judges; what the
fit makes of it is reported beside that and judges nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from trimtab.model.problem import Problem
from trimtab.sim.calibration.engine_log import implied_blocks, log_of
from trimtab.sim.calibration.fitting import blocks_of, computed_blocks, engine_of, fingerprint
from trimtab.sim.calibration.recorded import RecordedRun, find_runs, read_run
from trimtab.sim.calibration.replay import Engine, replay
from trimtab.sim.calibration.source import Cell, Compared, Findings, Run
from trimtab.sim.calibration.stages import Stage, stages_of
from trimtab.sim.hardware import Architecture, Fitted, architecture_of, load_accelerator
from trimtab.sim.profile import Profile, load_profile
from trimtab.workload.fault import TraceError

FOLDER: Final = "vllm-h100-groundtruth"


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """See the module's text."""

    name: str = FOLDER
    title: str = "vLLM under guidellm's sweeps, by its request spans"

    def replay(self, data: Path, *, fit: bool) -> Findings:
        """See `Source.replay`."""
        runs, problems = read_all(data / self.name)
        if fit and runs:
            from trimtab.sim.calibration.refit import refit  # noqa: PLC0415 - needs scipy, and takes long to import

            made = refit(data, runs)
            found = [predicted for run in runs for predicted in predict(run, made.accelerators, made.profiles)]
            return Findings(tuple(found), (*problems, *made.problems), made.profiles, made.files, made.notes)
        found = [predicted for run in runs for predicted in predict(run, _shipped(runs), None)]
        return Findings(tuple(found), tuple(problems), notes=tuple(_caches(runs)))


def _caches(runs: Sequence[RecordedRun]) -> Iterator[str]:
    """Say what the runs' logs imply about their KV caches, and what the memory was taken to give."""
    for run in runs:
        model, fitted = architecture_of(run.setup.model), load_accelerator(run.setup.accelerator)
        if run.logged_blocks and model and fitted:
            computed, used = (of(run, model, fitted.accelerator) for of in (computed_blocks, blocks_of))
            yield f"{run.id}: its log implies {run.logged_blocks} KV blocks, its memory {computed}; {used} were taken."


def read_all(folder: Path) -> tuple[list[RecordedRun], list[str]]:
    """Read every run of a folder; what cannot be read is a sentence."""
    if not folder.is_dir():
        return [], [f"{folder}: no such folder; point --data at the folder that holds it"]
    runs, problems = [], []
    for path in find_runs(folder):
        try:
            run = read_run(path)
            runs.append(run)
            if (log := log_of(path, run.id)).exists():
                runs[-1] = replace(run, logged_blocks=implied_blocks(run, log) or 0)
        except TraceError as error:
            problems.append(str(error))
    if not runs and not problems:
        problems.append(f"{folder}: no file *_otel_requests.csv, plain, .gz or .xz")
    return runs, problems


Accelerators = dict[str, Fitted | None]


def _shipped(runs: Sequence[RecordedRun]) -> Accelerators:
    return {name: load_accelerator(name) for name in sorted({run.setup.accelerator for run in runs})}


def predict(run: RecordedRun, accelerators: Accelerators, profiles: Sequence[Profile] | None) -> list[Run]:
    """Replay one run, once as it judges, and once more with what was fitted to it, if that was.

    Args:
        run: The run.
        accelerators: By the runs' names of them.
        profiles: Those that were fitted to runs; None: those that ship.
    """
    blank = Run(run.id, FOLDER, _setup_of(run), "", extrapolated=True, in_fit=False, requests=(), judged=False)
    model, fitted = architecture_of(run.setup.model), accelerators.get(run.setup.accelerator)
    if model is None or run.setup.quantization:
        return [replace(blank, reason=f"The shape of {run.setup.model} is not known: no profile can be made.")]
    if fitted is None:
        return [replace(blank, reason=f"No speeds of the accelerator {run.setup.accelerator} were ever fitted.")]
    try:
        engine_of(run, model, fitted.accelerator)
    except Problem as problem:
        return [replace(blank, reason=f"No engine has the run's settings: {problem.what}.")]
    stages = stages_of(run)
    mark = fingerprint(run)
    tuned = _tuned(run, model, fitted, profiles)
    if mark not in fitted.without:
        name = tuned.name if tuned else f"{model.name} from the speeds of {fitted.accelerator.name}"
        engine = _engine(run, model, fitted, tuned)
        return [_compare(replace(blank, profile=name, extrapolated=tuned is None), run, stages, engine, judged=True)]
    apart = replace(blank, profile=f"{model.name} from speeds fitted without this run")
    seen = replace(blank, id=f"{run.id} (fitted)", profile=tuned.name if tuned else "", extrapolated=False, in_fit=True)
    return [
        _compare(apart, run, stages, engine_of(run, model, fitted.without[mark]), judged=True),
        _compare(seen, run, stages, _engine(run, model, fitted, tuned), judged=False),
    ]


def _tuned(run: RecordedRun, model: Architecture, fitted: Fitted, profiles: Sequence[Profile] | None) -> Profile | None:
    """Return the profile that was fitted to other runs of the same model on as many devices, if there is one."""
    known = [load_profile(name) for name in fitted.tuned] if profiles is None else profiles
    for profile in (profile for profile in known if profile.name in fitted.tuned):
        shape = architecture_of(profile.model)
        same = shape is not None and replace(shape, name=model.name) == model
        if same and profile.tensor_parallel == run.setup.tensor_parallel:
            return profile
    return None


def _engine(run: RecordedRun, model: Architecture, fitted: Fitted, tuned: Profile | None) -> Engine:
    engine = engine_of(run, model, fitted.accelerator)
    return Engine(engine.config, tuned.iteration, tuned.front_end) if tuned else engine


def _compare(blank: Run, run: RecordedRun, stages: Sequence[Stage], engine: Engine, *, judged: bool) -> Run:
    capacity = (engine.config.kv_blocks - 1) * engine.config.block_size
    longest = max(r.prompt_tokens + r.output_tokens for r in (run.first, *run.requests))
    if longest > capacity:
        why = f"A request has {longest} tokens, and the KV cache would hold {max(capacity, 0)} by the memory's size."
        return replace(blank, reason=why)
    predicted = replay(run, stages, engine)
    names = [stage.name for stage in stages for _ in range(stage.start, stage.stop)]
    compared = zip(names, run.requests, predicted, strict=True)
    requests = tuple(Compared(name, request.latency, latency) for name, request, latency in compared)
    reason = " ".join(run.remarks) if judged else "The profile was fitted to this run."
    return replace(blank, requests=requests, judged=judged, reason=reason)


def _setup_of(run: RecordedRun) -> dict[str, Cell]:
    setup = run.setup
    return {
        "model": setup.model,
        "accelerator": setup.accelerator,
        "tensor_parallel": setup.tensor_parallel,
        "max_num_batched_tokens": setup.max_num_batched_tokens,
        "max_num_seqs": setup.max_num_seqs,
        "max_model_len": setup.max_model_len,
        "prefix_tokens": setup.prefix_tokens,
    }
