"""A cache on a disk that is too small, for real: a file-size limit, and a small tmpfs where root can mount one."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FILL = """
import sys
from pathlib import Path
from trimtab.local.catalog import PROGRAMS
from trimtab.local.programs import Programs
from trimtab.local.store import Store
from trimtab.model.problem import Problem

class Big:
    origin = "big"
    def deliver(self, family, into, progress):
        for program in family.programs:
            (into / program.name).write_bytes(bytes(1_000_000))
    def tidy(self, progress):
        pass

try:
    Programs(Store(Path(sys.argv[1])), None, [Big()]).path("etcd")
except Problem as problem:
    print(problem)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(cache: Path, *, largest_file: int = 0) -> str:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = [sys.executable, "-c", FILL, str(cache)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=limit if largest_file else None
    )
    return done.stdout


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != "etcd.lock")


def test_a_full_disk_is_said_and_nothing_half_done_is_left(small_disk: Path) -> None:
    said = fill(small_disk)
    assert said.startswith(f"the disk that holds {small_disk} is full (")
    assert "fix: free some space, or name a folder on another disk: TRIMTAB_CACHE=FOLDER" in said
    assert left_over(small_disk) == []


def test_a_file_size_limit_is_said_too(tmp_path: Path) -> None:
    assert "TRIMTAB_CACHE=FOLDER" in fill(tmp_path, largest_file=100_000)
    assert left_over(tmp_path) == []
