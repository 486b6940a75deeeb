"""Where programs come from, and in which order."""

import threading
from pathlib import Path

import pytest

from trimtab.local.catalog import Family
from trimtab.local.programs import Programs
from trimtab.local.progress import Progress, Silent
from trimtab.local.sources import Unavailable
from trimtab.local.store import Store
from trimtab.model.problem import Problem


class Shelf:
    """A source that delivers, or says why not."""

    def __init__(self, origin: str, excuse: str = "") -> None:
        self.origin = origin
        self.excuse = excuse
        self.asked: list[str] = []
        self.tidied = 0

    def deliver(self, family: Family, into: Path, progress: Progress) -> None:
        self.asked.append(family.name)
        if self.excuse:
            raise Unavailable(self.excuse)
        for program in family.programs:
            (into / program.name).write_text(self.origin)

    def tidy(self, progress: Progress) -> None:
        self.tidied += 1


class Watcher(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def programs(tmp_path: Path, *sources: Shelf, assets: Path | None = None, watcher: Watcher | None = None) -> Programs:
    return Programs(Store(tmp_path / "cache"), assets, sources, watcher)


def asset(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("asset")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("below", ["", "etcd"])
def test_assets_come_before_everything(tmp_path: Path, below: str) -> None:
    release = Shelf("release")
    expected = asset(tmp_path / "assets" / below, "etcd")
    assert programs(tmp_path, release, assets=tmp_path / "assets").path("etcd") == expected
    assert not release.asked


def test_what_is_not_among_the_assets_comes_from_elsewhere(tmp_path: Path) -> None:
    asset(tmp_path / "assets", "etcd")
    found = programs(tmp_path, Shelf("release"), assets=tmp_path / "assets").ensure(["etcd", "helm"])
    assert found["helm"].read_text() == "release"


def test_an_asset_that_is_not_executable_is_passed_over(tmp_path: Path) -> None:
    asset(tmp_path / "assets", "etcd").chmod(0o644)
    assert programs(tmp_path, Shelf("release"), assets=tmp_path / "assets").path("etcd").read_text() == "release"


def test_the_cache_comes_before_the_sources(tmp_path: Path) -> None:
    first, second = Shelf("release"), Shelf("release")
    programs(tmp_path, first).path("etcd")
    programs(tmp_path, second).ensure(["etcd", "etcdctl"])
    assert first.asked == ["etcd"]
    assert not second.asked


def test_sources_are_tried_in_order_and_each_failure_is_told(tmp_path: Path) -> None:
    release, build, watcher = Shelf("release", "no way out"), Shelf("build"), Watcher()
    assert programs(tmp_path, release, build, watcher=watcher).path("etcd").read_text() == "build"
    assert watcher.said == [
        "not here yet: etcd. A download takes about a minute, a build less",
        "etcd v3.7.3: no release (no way out)",
    ]


def test_what_is_missing_is_announced_once_with_the_time_it_takes(tmp_path: Path) -> None:
    watcher = Watcher()
    known = programs(tmp_path, Shelf("release"), watcher=watcher)
    known.ensure(["kube-apiserver", "kubectl", "etcd"])
    known.ensure(["kube-apiserver", "kubectl", "etcd"])
    announced = "not here yet: kubernetes, etcd. A download takes about a minute, a build from source about 6 minutes"
    assert watcher.said == [f"{announced} on two cores"]


def test_when_no_source_has_it_every_reason_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        Problem, match=r"cannot get helm v4\.3\.1: release: no way out; build: no Go\nfix: .*TRIMTAB_ASSETS"
    ):
        programs(tmp_path, Shelf("release", "no way out"), Shelf("build", "no Go")).path("helm")


def test_a_damaged_program_is_found_told_and_replaced(tmp_path: Path) -> None:
    path = programs(tmp_path, Shelf("release")).path("etcd")
    path.write_text("#")
    watcher, release = Watcher(), Shelf("release")
    assert programs(tmp_path, release, watcher=watcher).path("etcd").read_text() == "release"
    assert watcher.said[-1] == "cached etcd is damaged (etcd: 1 bytes instead of 7): replacing it"
    assert release.asked == ["etcd"]


def test_verify_names_damage_that_a_quick_look_would_miss(tmp_path: Path) -> None:
    known = programs(tmp_path, Shelf("release"))
    known.ensure(["etcd", "helm"])
    assert known.verify() == []
    known.path("helm").write_text("RELEASE")
    assert known.verify() == ["helm: helm: its SHA-256 is not the recorded one"]


def test_a_missing_family_is_no_damage(tmp_path: Path) -> None:
    assert programs(tmp_path).verify() == []


def test_what_is_here_can_be_asked_without_fetching(tmp_path: Path) -> None:
    release = Shelf("release")
    known = programs(tmp_path, release)
    assert known.found("etcd") is None
    known.path("etcd")
    found = known.found("etcd")
    assert found is not None
    assert found.origin == "release"


def test_an_unknown_program_is_refused_with_the_names_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"no program is called 'kubelet'\nfix: choose from etcd, "):
        programs(tmp_path).path("kubelet")


def test_assets_that_are_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"TRIMTAB_ASSETS: .*/none is not a folder\nfix: "):
        Programs.standard(environ={"TRIMTAB_ASSETS": str(tmp_path / "none"), "TRIMTAB_CACHE": str(tmp_path)})


def test_two_launchers_at_once_fetch_a_family_once(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Shelf):
        def deliver(self, family: Family, into: Path, progress: Progress) -> None:
            inside.set()
            assert go_on.wait(10)
            super().deliver(family, into, progress)

    waiting = threading.Event()

    class Waiter(Silent):
        def say(self, text: str) -> None:
            waiting.set()

    slow, second = Slow("release"), Shelf("release")
    threads = [
        threading.Thread(target=lambda: programs(tmp_path, slow).path("etcd")),
        threading.Thread(target=lambda: Programs(Store(tmp_path / "cache"), None, [second], Waiter()).path("etcd")),
    ]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert waiting.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (slow.asked, second.asked) == (["etcd"], [])


def test_sources_are_tidied_when_all_is_there(tmp_path: Path) -> None:
    build = Shelf("build")
    programs(tmp_path, build).ensure(["etcd", "helm"])
    assert build.tidied == 1
