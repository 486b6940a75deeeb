"""The cache of programs: one folder a family, with a manifest of SHA-256 sums; written atomically, checked on use."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab.local.catalog import Family, architecture
from trimtab.local.locks import locked
from trimtab.local.progress import Progress
from trimtab.model.problem import Problem

_MANIFEST = "manifest.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MEBIBYTE = 2**20


class Store:
    """The cache of programs below one folder.

    An entry is complete or absent: it is filled in a temporary folder beside it and renamed into place. A reader
    compares each program's size and time of change with the manifest, and hashes it when they differ or when told to
    be thorough; an entry that does not match counts as absent and is replaced.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, family: Family) -> Path:
        """The folder of a family, which may not exist."""
        return self.root / f"{family.name}-{family.version}-linux-{architecture()}"

    def holds(self, family: Family, *, thorough: bool = False) -> bool:
        """Whether every program of the family is there and intact.

        Args:
            family: Which programs.
            thorough: Hash every program, also those whose size and time are as recorded.
        """
        return not self.faults(family, thorough=thorough)

    def faults(self, family: Family, *, thorough: bool = False) -> list[str]:
        """What is wrong with the entry of a family, one line each; empty when it is good."""
        folder = self.entry(family)
        if not folder.exists():
            return ["not cached"]
        try:
            files: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())["files"]
            names = [program.name for program in family.programs]
            return [f"{name}: {fault}" for name in names if (fault := _fault(folder / name, files[name], thorough))]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return [f"{folder / _MANIFEST} is unreadable ({type(error).__name__})"]

    def origin(self, family: Family) -> str:
        """Where the cached programs of a family came from, e.g. `release`; empty when that is not known."""
        try:
            return str(json.loads((self.entry(family) / _MANIFEST).read_text())["origin"])
        except (OSError, ValueError, KeyError):
            return ""

    @contextmanager
    def alone(self, family: Family, progress: Progress) -> Iterator[None]:
        """Keep other launchers from filling the same entry, and clear away what a killed one left half done."""
        waiting = f"another trimtab (pid {{}}) is fetching {family.name}: waiting for it"
        with locked(self.root / f"{family.name}.lock", lambda holder: progress.say(waiting.format(holder))):
            for leftover in self.root.glob(f".{family.name}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    @contextmanager
    def filling(self, family: Family, origin: str) -> Iterator[Path]:
        """Yield an empty folder; when the block ends without an error its programs become the family's entry.

        Args:
            family: What is being stored. The caller holds `alone`.
            origin: Where the programs come from, for the manifest.

        Raises:
            Problem: The disk is full.
        """
        with full_disk_explained(self.root):
            folder = Path(tempfile.mkdtemp(prefix=f".{family.name}-", dir=self.root))
        try:
            with full_disk_explained(self.root):
                yield folder
                _seal(folder, family, origin)
                self._swap_in(folder, family)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _swap_in(self, folder: Path, family: Family) -> None:
        final = self.entry(family)
        if final.exists():
            replaced = self.root / f".{family.name}-replaced"
            final.rename(replaced)
            shutil.rmtree(replaced)
        folder.chmod(0o755)
        folder.rename(final)


@contextmanager
def full_disk_explained(folder: Path, setting: str = "TRIMTAB_CACHE") -> Iterator[None]:
    """Turn "no space left" into a message that says where, how much is left and what to do.

    Args:
        folder: Where the block writes.
        setting: The variable that names another place.

    Raises:
        Problem: The block ran out of disk space or quota.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise full_disk(folder, setting) from error


def full_disk(folder: Path, setting: str = "TRIMTAB_CACHE") -> Problem:
    """The problem of a disk that is full."""
    free = shutil.disk_usage(folder).free // _MEBIBYTE
    fix = f"free some space, or name a folder on another disk: {setting}=FOLDER"
    return Problem(f"the disk that holds {folder} is full ({free} MiB free)", fix=fix)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(folder: Path, family: Family, origin: str) -> None:
    """Make the programs executable, put them on disk for good, and write the manifest."""
    files = {}
    for program in family.programs:
        path = folder / program.name
        path.chmod(0o755)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        status = path.stat()
        files[program.name] = {"sha256": sha256(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    manifest = {"family": family.name, "version": family.version, "origin": origin, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _fault(path: Path, recorded: dict[str, Any], thorough: bool) -> str:  # noqa: FBT001 - private
    if not path.exists():
        return "missing"
    status = path.stat()
    if status.st_size != recorded["size"]:
        return f"{status.st_size} bytes instead of {recorded['size']}"
    untouched = status.st_mtime_ns == recorded["mtime_ns"] and os.access(path, os.X_OK)
    if untouched and not thorough:
        return ""
    if sha256(path) != recorded["sha256"]:
        return "its SHA-256 is not the recorded one"
    return "" if os.access(path, os.X_OK) else "not executable"
