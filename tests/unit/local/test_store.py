"""The cache of programs: whole or absent, and damage is noticed."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from trimtab.local.catalog import PROGRAMS
from trimtab.local.progress import Silent
from trimtab.local.store import Store, full_disk_explained
from trimtab.model.problem import Problem

FAMILY = PROGRAMS["etcd"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def fill(store: Store, content: bytes = b"program") -> Path:
    with store.alone(FAMILY, Silent()), store.filling(FAMILY, "test") as folder:
        for program in FAMILY.programs:
            (folder / program.name).write_bytes(content)
    return store.entry(FAMILY)


def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert store.faults(FAMILY) == ["not cached"]


def test_a_filled_entry_is_held_executable_and_knows_where_it_came_from(store: Store) -> None:
    entry = fill(store)
    assert store.holds(FAMILY)
    assert store.holds(FAMILY, thorough=True)
    assert os.access(entry / "etcd", os.X_OK)
    assert store.origin(FAMILY) == "test"


def test_a_changed_byte_is_found(store: Store) -> None:
    entry = fill(store)
    (entry / "etcd").write_bytes(b"progrbm")
    assert store.faults(FAMILY) == ["etcd: its SHA-256 is not the recorded one"]


def test_a_changed_byte_under_the_old_time_is_found_by_a_thorough_look(store: Store) -> None:
    entry = fill(store)
    before = (entry / "etcd").stat()
    (entry / "etcd").write_bytes(b"progrbm")
    os.utime(entry / "etcd", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.faults(FAMILY, thorough=True) == ["etcd: its SHA-256 is not the recorded one"]


def test_a_copied_entry_with_other_times_is_good(store: Store) -> None:
    entry = fill(store)
    os.utime(entry / "etcd", ns=(1, 1))
    assert store.holds(FAMILY)


def test_a_truncated_a_missing_and_a_plain_file_are_found(store: Store) -> None:
    entry = fill(store)
    (entry / "etcd").write_bytes(b"prog")
    (entry / "etcdctl").unlink()
    assert store.faults(FAMILY) == ["etcd: 4 bytes instead of 7", "etcdctl: missing"]
    fill(store)
    (entry / "etcd").chmod(0o600)
    (entry / "etcd").touch()
    assert store.faults(FAMILY) == ["etcd: not executable"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"files": {}}', '{"files": {"etcd": 1, "etcdctl": 2}}'])
def test_a_damaged_manifest_is_damage(store: Store, text: str) -> None:
    (fill(store) / "manifest.json").write_text(text)
    assert "manifest.json is unreadable" in store.faults(FAMILY)[0]


def test_a_new_fill_replaces_a_damaged_entry(store: Store) -> None:
    entry = fill(store)
    (entry / "etcd").write_bytes(b"")
    fill(store, b"another")
    assert (entry / "etcd").read_bytes() == b"another"
    assert store.holds(FAMILY)


def test_a_failed_fill_leaves_the_old_entry_and_no_other_file(store: Store, tmp_path: Path) -> None:
    fill(store)

    def fail() -> None:
        with store.filling(FAMILY, "test") as folder:
            (folder / "etcd").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.holds(FAMILY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etcd-v3.7.3-linux-amd64", "etcd.lock"]


def test_what_a_killed_launcher_left_half_done_is_cleared_away(store: Store, tmp_path: Path) -> None:
    half = tmp_path / ".etcd-killed"
    half.mkdir(parents=True)
    (half / "etcd").write_bytes(b"half")
    fill(store)
    assert not half.exists()


def test_an_entry_is_filled_by_one_launcher_while_the_other_waits(store: Store) -> None:
    said: list[str] = []
    waiting = threading.Event()

    class Watcher(Silent):
        def say(self, text: str) -> None:
            said.append(text)
            waiting.set()

    order: list[str] = []

    def second() -> None:
        with store.alone(FAMILY, Watcher()):
            order.append("second")

    with store.alone(FAMILY, Silent()):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert said == [f"another trimtab (pid {os.getpid()}) is fetching etcd: waiting for it"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(Problem, match=r"the disk that holds .* is full \(\d+ MiB free\)\nfix: .*TRIMTAB_CACHE"),
        full_disk_explained(tmp_path),
    ):
        raise OSError(number, os.strerror(number))


def test_another_error_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_explained(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_the_manifest_can_be_read_by_people(store: Store) -> None:
    manifest = json.loads((fill(store) / "manifest.json").read_text())
    assert manifest["family"] == "etcd"
    assert manifest["version"] == "v3.7.3"
    assert set(manifest["files"]) == {"etcd", "etcdctl"}
