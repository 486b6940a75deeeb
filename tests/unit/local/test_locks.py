"""Locks between launchers."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trimtab.local.locks import locked


def never(holder: str) -> None:
    pytest.fail(f"waited for {holder}")


def test_a_free_lock_is_taken_at_once_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "a" / "lock", never):
            assert (tmp_path / "a" / "lock").exists()


def test_a_lock_ends_with_its_block_even_when_that_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "lock", never):
        raise RuntimeError
    with locked(tmp_path / "lock", never):
        pass


def test_who_waits_takes_the_new_file_when_the_holder_deletes_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    waiting, taken = threading.Event(), threading.Event()

    def second() -> None:
        with locked(path, lambda _: waiting.set()):
            with locked(tmp_path / "other", never):
                pass
            assert path.exists()
            taken.set()

    thread = threading.Thread(target=second)
    with locked(path, never):
        thread.start()
        assert waiting.wait(10)
        path.unlink()
        path.parent.rmdir()
    thread.join(10)
    assert taken.is_set()


def test_a_killed_holder_leaves_the_lock_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys, pathlib, time; from trimtab.local.locks import locked\n"
        f"with locked(pathlib.Path({str(path)!r}), print):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert path.read_text() == str(holder.pid)
        holder.kill()
        holder.wait()
    with locked(path, never):
        pass
