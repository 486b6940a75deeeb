"""A pool's manifest as something that can be simulated, and where that leaves what was calibrated."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trimtab.api import ServingPool
from trimtab.api.common import ServiceLevel
from trimtab.decide.queueing import Bounds
from trimtab.model.problem import Problem
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import Profile, load_profile, shipped_profiles
from trimtab.sim.whatif.scaled import scaled_profile
from trimtab.workload.level import short_duration

DEFAULT_CONCURRENCY = 64
"""Requests that the gateway gives one replica at once where the pool's profiles do not say."""

_ENGINE = "engine"  # the container's name, as the kind demands
_LIMITS = {
    "max-num-seqs": "max_num_seqs",
    "max-num-batched-tokens": "max_num_batched_tokens",
    "block-size": "block_size",
    "num-gpu-blocks-override": "kv_blocks",
}


@dataclass(frozen=True, slots=True)
class Level:
    """A service level and its part of the requests.

    Attributes:
        objective: Percent of its requests that must meet all targets.
        share: Of the requests, 0 to 1.
        weight: How much a miss of it counts against a miss of others, for orders that weigh.
    """

    name: str
    ttft_seconds: float | None
    tpot_seconds: float | None
    completion_seconds: float | None
    objective: float
    share: float
    weight: float = 1.0

    @property
    def deadline_seconds(self) -> float:
        """How long an order by deadlines gives a request: to its first token, else to its end."""
        return self.ttft_seconds or self.completion_seconds or 3600.0

    @property
    def described(self) -> str:
        """The promise in a few words."""
        targets = (("TTFT", self.ttft_seconds), ("TPOT", self.tpot_seconds), ("done", self.completion_seconds))
        words = ", ".join(f"{what} ≤ {short_duration(seconds)}" for what, seconds in targets if seconds is not None)
        return f"{words} for {self.objective:g} % of requests"


@dataclass(frozen=True, slots=True)
class Case:
    """A pool as the lab builds it.

    Attributes:
        config: The engine's limits; the profile's where the pool's arguments name no others.
        capacity: Requests that the gateway gives one replica at once.
        longest: Most tokens of prompt and answer that the engine takes.
        replicas: As the pool has them; at least 1.
        gpus: Of one replica.
        policy: The pool's own order of service.
        warnings: Where this leaves what the profile was calibrated for, one sentence each.
    """

    name: str
    model: str
    profile: Profile
    profile_name: str
    config: EngineConfig
    capacity: int
    longest: int
    bounds: Bounds
    levels: tuple[Level, ...]
    replicas: int
    gpus: int
    policy: str
    aging_factor: float
    warnings: tuple[str, ...]


def read_pool(path: Path, name: str | None = None) -> ServingPool:
    """Read the ServingPool in a manifest, the one called `name` if there are several.

    Raises:
        Problem: There is none, there are several, or its fields are wrong; the message names the file and the field.
    """
    found = [document for document in _documents(path) if document.get("kind") == "ServingPool"]
    names = [str(document.get("metadata", {}).get("name")) for document in found]
    chosen = [document for document, its in zip(found, names, strict=True) if name is None or its == name]
    if len(chosen) != 1:
        what = f"{path} holds no ServingPool{f' called {name!r}' if name else ''}" if not chosen else ""
        fix = f"it holds {', '.join(names)}; choose with --pool" if names else "name a manifest with one"
        raise Problem(what or f"{path} holds {len(chosen)} ServingPools", fix=fix)
    try:
        return ServingPool.model_validate(chosen[0])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        explained = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        fix = f"correct {field} in the manifest; `kubectl explain servingpool.{explained}` describes it"
        raise Problem(f"{path}: {field}: {first['msg']}", fix=fix) from error


def _documents(path: Path) -> list[Mapping[str, Any]]:
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}", fix="name a file with a ServingPool") from error
    except yaml.YAMLError as error:
        raise Problem(f"{path} is not YAML: {error}", fix="correct it there") from error
    return [document for document in documents if isinstance(document, Mapping)]


def case_of(
    pool: ServingPool, *, profile: str | None, model: str | None, shares: Mapping[str, float], replicas: int | None
) -> Case:
    """Return what is to be simulated of a pool.

    Args:
        pool: The manifest.
        profile: Name or file of the engine's profile; by default the one that the pool's model, accelerator and tensor
            parallelism call for.
        model: Which of the pool's models, where it has several.
        shares: Of the requests, by service level; by default all ask for the pool's default level.
        replicas: Instead of the pool's own number.

    Raises:
        Problem: The pool cannot be simulated, or nothing was calibrated for it; the fix says what to name.
    """
    spec, served = pool.spec, _model(pool, model)
    container = _container(pool)
    arguments = _arguments([*container.get("command", ()), *container.get("args", ()), *_variant_args(served)])
    wanted = _Wanted.of(pool, served.name, served.weights, arguments)
    named = profile or arguments.get("profile")
    profile_name, found = (named, load_profile(named)) if named else _matching(wanted)
    config, longest, outside = _limits(found, arguments)
    extrapolated = (
        [f"the profile {profile_name} is extrapolated: {found.error.rstrip('.')}"] if found.extrapolated else []
    )
    return Case(
        name=pool.metadata.name or "pool",
        model=served.name,
        profile=found,
        profile_name=profile_name,
        config=config,
        capacity=pool.spec.declared_concurrency or DEFAULT_CONCURRENCY,
        longest=longest,
        bounds=Bounds(spec.queue.max_requests, float(spec.queue.max_waiting_seconds)),
        levels=_levels(spec.service_levels, shares),
        replicas=replicas or spec.replicas or spec.scaling.min_replicas or 1,
        gpus=_gpus(container, served),
        policy=_policy(spec.queue.policy, spec.queue.order_within_group),
        aging_factor=float(spec.queue.aging_factor),
        warnings=(*wanted.misfits(found), *outside, *extrapolated),
    )


def _policy(policy: str, within: str) -> str:
    """Name the pool's order: the requests of a one-model pool without levels are one group, ordered within."""
    return within if policy == "FCFS" else policy


def _model(pool: ServingPool, name: str | None) -> Any:
    models = {model.name: model for model in pool.spec.models}
    if name is not None and name not in models:
        raise Problem(f"the pool does not serve {name!r}", fix=f"name one of {', '.join(models)}")
    if name is None and len(models) > 1:
        fix = f"look at one with --model, of {', '.join(models)}; `trimtab lab run qlm` studies pools of several"
        raise Problem("the pool serves several models, which `whatif` does not simulate together", fix=fix)
    return models[name] if name else pool.spec.models[0]


def _container(pool: ServingPool) -> Mapping[str, Any]:
    if pool.spec.workload is None:
        return {}
    containers = pool.spec.workload.template["spec"]["containers"]
    found: Mapping[str, Any] = next(one for one in containers if one["name"] == _ENGINE)
    return found


def _variant_args(served: Any) -> Sequence[str]:
    return served.variants[0].args if served.variants else ()


def _arguments(words: Sequence[str]) -> dict[str, str]:
    """Read `--name=value` and `--name value`; later ones win, as with the engine."""
    read: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = str(word).removeprefix("--").partition("=")
        if str(word).startswith("--"):
            read[name] = value if equals else ("" if str(following).startswith("--") else str(following))
    return read


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the pool runs, as far as its manifest says."""

    model: str
    aliases: tuple[str, ...]
    accelerator: str
    tensor_parallel: int | None

    @classmethod
    def of(cls, pool: ServingPool, name: str, weights: str | None, arguments: Mapping[str, str]) -> "_Wanted":
        template = pool.spec.workload.template["spec"] if pool.spec.workload else {}
        accelerator = str(template.get("nodeSelector", {}).get("trimtab.dev/accelerator", ""))
        parallel = arguments.get("tensor-parallel-size", "")
        aliases = tuple(filter(None, (name, weights, arguments.get("model"))))
        return cls(weights or arguments.get("model") or name, aliases, accelerator, int(parallel) if parallel else None)

    def same_model(self, profile: Profile) -> bool:
        return any(_bare(alias) == _bare(profile.model) for alias in self.aliases)

    def same_accelerator(self, profile: Profile) -> bool:
        return not self.accelerator or _gpu(self.accelerator) == _gpu(profile.accelerator)

    def same_parallelism(self, profile: Profile) -> bool:
        return self.tensor_parallel is None or self.tensor_parallel == profile.tensor_parallel

    def misfits(self, profile: Profile) -> Iterator[str]:
        """Say in what the profile is not of this pool."""
        if not self.same_model(profile):
            yield f"the profile is of {profile.model}, the pool serves {self.model}"
        if not self.same_accelerator(profile):
            yield f"the profile is of {profile.accelerator}, the pool asks for {self.accelerator}"
        if not self.same_parallelism(profile):
            yield (
                f"the profile is of tensor parallelism {profile.tensor_parallel}, the pool runs {self.tensor_parallel}"
            )

    @property
    def described(self) -> str:
        parallel = f" at tensor parallelism {self.tensor_parallel}" if self.tensor_parallel else ""
        return f"{self.model}{f' on {self.accelerator}' if self.accelerator else ''}{parallel}"


def _bare(model: str) -> str:
    """Reduce a model's name to what identifies it: `hf://meta-llama/Llama-3.1-8B-Instruct` is `llama318b`."""
    stem = model.rsplit("/", 1)[-1].lower()
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-(instruct|chat|it|hf)\b", "", stem).replace("meta-", ""))


def _gpu(name: str) -> str:
    """Reduce an accelerator's name to its type: `NVIDIA H100 80GB` and `nvidia-h100` are `h100`."""
    found = re.search(r"[a-z]+\d{2,4}[a-z]?", re.sub(r"nvidia|amd|intel", " ", name.lower()))
    return found.group(0) if found else name.lower()


def _matching(wanted: _Wanted) -> tuple[str, Profile]:
    """Return the shipped profile of this pool.

    Raises:
        Problem: None was calibrated for it, or several.
    """
    known = {name: load_profile(name) for name in shipped_profiles()}
    fits = [name for name, profile in known.items() if not list(wanted.misfits(profile))]
    if len(fits) == 1:
        return fits[0], known[fits[0]]
    if fits:
        raise Problem(f"{wanted.described} fits several profiles", fix=f"choose with --profile: {', '.join(fits)}")
    scaled = scaled_profile(wanted.model, _gpu(wanted.accelerator), wanted.tensor_parallel or 1)
    if scaled is not None:
        return scaled.name, scaled
    near = [name for name, profile in known.items() if wanted.same_model(profile)] or list(known)
    fix = (
        "name the pool's accelerator in its nodeSelector if it does not, or measure the engine with `trimtab profile "
        f"--url URL` and pass the file to --profile, or pass one of {', '.join(near)} and mind the warnings"
    )
    raise Problem(f"nothing was calibrated for {wanted.described}", fix=fix)


def _limits(profile: Profile, arguments: Mapping[str, str]) -> tuple[EngineConfig, int, list[str]]:
    """Return the engine's limits, the longest sequence, and in what they go beyond the profile."""
    given = {field: _whole(name, arguments[name]) for name, field in _LIMITS.items() if name in arguments}
    longest = _whole("max-model-len", arguments["max-model-len"]) if "max-model-len" in arguments else None
    config = replace(EngineConfig.of(profile), **given)  # type: ignore[arg-type]
    outside = []
    if longest is not None and longest > profile.max_model_len:
        fix = "lower --max-model-len, or measure the engine with it: `trimtab profile --url URL`"
        raise Problem(f"--max-model-len {longest} is beyond the {profile.max_model_len} tokens of the profile", fix=fix)
    for name, field in (("max-num-seqs", "max_num_seqs"), ("max-num-batched-tokens", "max_num_batched_tokens")):
        if getattr(config, field) > getattr(profile, field):
            made_for = getattr(profile, field)
            outside.append(f"--{name} {getattr(config, field)} is beyond the {made_for} that the profile was made for")
    held = (config.kv_blocks - 1) * config.block_size
    return config, min(longest or profile.max_model_len, held), outside


def _whole(name: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise Problem(f"the engine's argument --{name} is {text!r}", fix="write a whole number above zero")
    return int(text)


def _gpus(container: Mapping[str, Any], served: Any) -> int:
    if served.variants:
        return int(served.variants[0].gpus)
    limits = container.get("resources", {}).get("limits", {})
    return int(next((count for name, count in sorted(limits.items()) if name.endswith("/gpu")), 1))


def _levels(declared: Sequence[ServiceLevel], shares: Mapping[str, float]) -> tuple[Level, ...]:
    if not declared:
        fix = "add spec.serviceLevels, e.g. {name: interactive, ttftMilliseconds: 2000, tpotMilliseconds: 60}"
        raise Problem("the pool declares no service level, so nothing can be attained", fix=fix)
    names = [level.name for level in declared]
    if unknown := sorted(set(shares) - set(names)):
        raise Problem(f"--share names no level of the pool: {unknown[0]}", fix=f"name one of {', '.join(names)}")
    default = next((level.name for level in declared if level.default), names[0])
    parts = dict(shares) or {default: 1.0}
    total = sum(parts.values())
    return tuple(_level(level, parts[level.name] / total) for level in declared if parts.get(level.name))


def _level(level: ServiceLevel, share: float) -> Level:
    return Level(
        level.name,
        _seconds(level.ttft_milliseconds),
        _seconds(level.tpot_milliseconds),
        None if level.completion_seconds is None else float(level.completion_seconds),
        float(level.percentile),
        share,
        float(level.weight),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
