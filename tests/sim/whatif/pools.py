"""A small pool, a small recorded load, and what they make together."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from trimtab.api import ServingPool
from trimtab.sim.whatif.case import Case, case_of

LEVELS = [
    {"name": "fast", "default": True, "ttftMilliseconds": 500, "percentile": 90},
    {"name": "slow", "completionSeconds": 60, "percentile": 95},
]


def manifest(*, args: tuple[str, ...] = ("--profile=tiny",), selector: str = "", **spec: Any) -> dict[str, Any]:
    container = {"name": "engine", "image": "x", "args": list(args), "resources": {"limits": {"nvidia.com/gpu": 2}}}
    node = {"trimtab.dev/accelerator": selector} if selector else {}
    template = {"spec": {"containers": [container], "nodeSelector": node}}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": "small", "namespace": "ai"},
        "spec": {
            "models": [{"name": "tiny"}],
            "replicas": 1,
            "serviceLevels": LEVELS,
            "queue": {"maxWaitingSeconds": 30},
            "workload": {"template": template},
            **spec,
        },
    }


SLOW: dict[str, Any] = {
    "args": ("--profile=tiny", "--max-num-seqs=4"),
    "models": [
        {"name": "tiny", "variants": [{"name": "one", "gpus": 2, "profiles": [{"accelerator": "x", "concurrency": 4}]}]}
    ],
}
"""Changes that make a replica take four requests at once, some nine a second: small runs fill it."""


def case(
    *, profile: str | None = None, shares: dict[str, float] | None = None, replicas: int | None = None, **changes: Any
) -> Case:
    pool = ServingPool.model_validate(manifest(**changes))
    return case_of(pool, profile=profile, model=None, shares=shares or {}, replicas=replicas)


def write_trace(folder: Path, *, seconds: float = 300.0, rate: float = 4.0, seed: int = 1) -> Path:
    """Write a Poisson load whose answers have 20 to 200 tokens."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / rate, int(seconds * rate)))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for time in times.tolist():
        moment = f"{start + timedelta(seconds=time):%Y-%m-%d %H:%M:%S.%f}"
        rows.append(f"{moment},{rng.integers(10, 400)},{rng.integers(20, 200)}")
    path = folder / "small.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def write_pool(folder: Path, *documents: dict[str, Any]) -> Path:
    path = folder / "pool.yaml"
    path.write_text(yaml.safe_dump_all(documents or (manifest(),)))
    return path
