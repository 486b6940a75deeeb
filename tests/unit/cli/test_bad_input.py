"""Bad input, by the commands that meet it: each gets one line that names the file, the row and the field, and one fix.

Every damage of every format is in `tests/unit/workload/test_malformed_traces.py` and `tests/sim/test_profile.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from trimtab.cli.main import cli, describe
from trimtab.model.problem import Problem
from trimtab.sim.profile import SHIPPED

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FIRST, SECOND = "2023-11-16 18:15:46.68", "2023-11-16 18:15:50.99"
TINY = yaml.safe_load((SHIPPED / "tiny.yaml").read_text(encoding="utf-8"))
POOL = """\
apiVersion: trimtab.dev/v1alpha1
kind: ServingPool
metadata: {name: chat, namespace: ml}
spec: 3
"""

Write = Callable[[str, str], str]


def trace(*rows: str) -> str:
    return HEADER + "".join(f"{row}\n" for row in rows)


def profile(**changes: object) -> str:
    return yaml.safe_dump(TINY | changes)


CHECK = ("replay", "--check", "--trace", "{file}")
ENGINE = ("engine", "--model", "m", "--profile", "{file}")

# the file's name and content, the command, and what its error says
TABLE: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "a missing column": (
        "t.csv", "TIMESTAMP,ContextTokens\n", CHECK, ("t.csv", "has the columns of no format", "GeneratedTokens"),
    ),
    "times that are not sorted": (
        "t.csv", trace(f"{FIRST},9,9", f"{SECOND},9,9", f"{FIRST},9,9"), CHECK,
        ("t.csv, row 4, TIMESTAMP", "before the row above", "sort the file by TIMESTAMP"),
    ),
    "a time before the start": (
        "t.csv", trace(f"{SECOND},9,9", f"{FIRST},9,9"), CHECK, ("t.csv, row 3, TIMESTAMP", "before the start"),
    ),
    "a negative time": (
        "t.jsonl", '{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": [1]}\n', CHECK,
        ("t.jsonl, row 1, timestamp", "before the start"),
    ),
    "no tokens": (
        "t.csv", trace(f"{FIRST},9,0"), CHECK, ("t.csv, row 2, GeneratedTokens", "a request has at least 1"),
    ),
    "a huge value": (
        "t.csv", trace(f"{FIRST},99999999999,9"), CHECK, ("t.csv, row 2, ContextTokens", "more than any model takes"),
    ),
    "a time in another unit": (
        "t.jsonl", '{"timestamp": 1e18, "input_length": 1, "output_length": 1, "hash_ids": [1]}\n', CHECK,
        ("t.jsonl, row 1, timestamp", "check the unit"),
    ),
    "half a file": ("t.csv.gz", "no gzip", CHECK, ("t.csv.gz", "not gzip at all")),
    "a profile that cannot be": (
        "p.yaml", profile(max_num_batched_tokens=8), ENGINE, ("p.yaml", "max_num_batched_tokens is 8", "max_num_seqs"),
    ),
    "a profile whose cache is too small": (
        "p.yaml", profile(kv_blocks=3), ENGINE, ("p.yaml", "kv_blocks holds 32 tokens", "max_model_len (4096)"),
    ),
    "a profile in which time stands still": (
        "p.yaml", profile(iteration=dict.fromkeys(TINY["iteration"], 0)), ENGINE, ("p.yaml", "iteration.base"),
    ),
    "a profile that takes no time at all": (
        "p.yaml", profile(iteration=TINY["iteration"] | {"base": -1}), ENGINE, ("p.yaml", "iteration.base", "-1"),
    ),
    "a pool that is none": (
        "pool.yaml", POOL, ("whatif", "-f", "{file}", "--trace", "azure-conv"), ("pool.yaml", "spec"),
    ),
    "a data folder that is not there: replay": ("x", "", ("replay", "--check", "--data", "{file}-gone"), ("x-gone",)),
    "a data folder that is not there: lab run": ("x", "", ("lab", "run", "ssjf", "--data", "{file}-gone"), ("x-gone",)),
    "a data folder that is not there: lab calibrate": (
        "x", "", ("lab", "calibrate", "--data", "{file}-gone"), ("x-gone",),
    ),
    "a data folder that is not there: predictor": (
        "x", "", ("predictor", "evaluate", "--data", "{file}-gone"), ("x-gone",),
    ),
    "a data folder that is a file": ("x", "", ("replay", "--check", "--data", "{file}"), ("x:",)),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_bad_input(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, content, command, expected = TABLE[case]
    monkeypatch.delenv("TRIMTAB_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    outcome = CliRunner().invoke(cli, [word.format(file=path) for word in command], standalone_mode=False)
    assert isinstance(outcome.exception, Problem), outcome.exception
    text = describe(outcome.exception)
    assert text is not None
    assert str(tmp_path) in text
    for part in expected:
        assert part in text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [name], "nothing was begun"
