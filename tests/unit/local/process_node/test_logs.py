import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.local.process_node import logs
from trimtab.local.process_node.logs import LogFile, LogQuery, last_lines, read

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


def ticking() -> Callable[[], int]:
    """A clock that moves on by one second with each look."""
    seconds = count()
    return lambda: START + next(seconds) * SECOND


async def everything(path: Path, live: LogFile | None = None, **query: Any) -> bytes:
    return b"".join([chunk async for chunk in read(path, LogQuery(**query), live)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.log"


@pytest.fixture
def three(path: Path) -> Path:
    """A log of three lines, one second apart."""
    log = LogFile(path, ticking())
    for line in (b"one\n", b"two\n", b"three\n"):
        log.write("stdout", line)
    log.close()
    return path


async def test_lines_are_stored_as_the_container_runtime_interface_has_them(three: Path) -> None:
    assert three.read_bytes().splitlines()[0] == b"2027-01-15T08:00:00.000000000Z stdout F one"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, b"one\ntwo\nthree\n"),
        ({"tail": 2}, b"two\nthree\n"),
        ({"tail": 0}, b""),
        ({"since_ns": START + SECOND}, b"two\nthree\n"),
        ({"since_ns": START + 9 * SECOND}, b""),
        ({"limit_bytes": 6}, b"one\ntw"),
        ({"tail": 1, "timestamps": True}, b"2027-01-15T08:00:02.000000000Z three\n"),
    ],
)
async def test_a_query_selects_lines(three: Path, query: dict[str, int], shown: bytes) -> None:
    assert await everything(three, **query) == shown


async def test_an_unfinished_line_waits_for_its_rest_and_streams_do_not_mix(path: Path) -> None:
    log = LogFile(path, ticking())
    log.write("stdout", b"hel")
    log.write("stderr", b"warning\n")
    log.write("stdout", b"lo\nrest")

    assert await everything(path) == b"warning\nhello\n"

    log.close()
    assert await everything(path) == b"warning\nhello\nrest\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60_000), max_size=5), st.integers(1, 40_000))
def test_output_survives_whatever_its_pieces(tmp_path: Path, parts: list[bytes], piece: int) -> None:
    path = tmp_path / "any.log"
    path.unlink(missing_ok=True)
    output = b"\n".join(parts)
    log = LogFile(path, ticking())
    for start in range(0, len(output), piece):
        log.write("stdout", output[start : start + piece])
    log.close()

    with pytest.raises(StopIteration) as end:  # nothing that is not followed ever waits, so no event loop is needed
        everything(path).send(None)
    assert end.value.value.removesuffix(b"\n") == output.removesuffix(b"\n")


async def test_following_goes_on_until_the_container_ends(path: Path) -> None:
    log = LogFile(path, ticking())
    log.write("stdout", b"one\n")
    following = asyncio.create_task(everything(path, log, follow=True))
    await asyncio.sleep(0)
    log.write("stdout", b"two\n")
    await asyncio.sleep(0)
    log.write("stdout", b"three")
    log.close()

    assert await following == b"one\ntwo\nthree\n"


async def test_two_followers_both_get_every_line(path: Path) -> None:
    log = LogFile(path, ticking())
    followers = [asyncio.create_task(everything(path, log, follow=True)) for _ in range(2)]
    for number in range(20):
        log.write("stdout", b"%d\n" % number)
        await asyncio.sleep(0)
    log.close()

    assert await asyncio.gather(*followers) == [b"".join(b"%d\n" % number for number in range(20))] * 2


async def test_a_finished_log_is_not_followed(three: Path) -> None:
    assert await everything(three, None, follow=True) == b"one\ntwo\nthree\n"


async def test_a_follower_stays_with_a_log_that_is_rotated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ROTATE_BYTES", 100)
    log = LogFile(path, ticking())
    log.write("stdout", b"first\n")
    following = asyncio.create_task(everything(path, log, follow=True))
    for number in range(10):
        await asyncio.sleep(0)
        log.write("stdout", b"line %d\n" % number)
    await asyncio.sleep(0)
    log.close()

    assert await following == b"first\n" + b"".join(b"line %d\n" % number for number in range(10))
    assert path.with_suffix(".rotated").exists()


async def test_a_full_disk_costs_lines_and_counts_them() -> None:
    log = LogFile(Path("/dev/full"), ticking())
    log.write("stdout", b"one\ntwo\n")
    log.close()

    assert log.dropped_lines == 2


async def test_a_missing_log_is_an_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await everything(path)


async def test_the_end_of_a_log_as_a_message(path: Path) -> None:
    log = LogFile(path, ticking())
    log.write("stderr", b"".join(b"line %d\n" % number for number in range(100)))
    log.close()

    assert last_lines(path, lines=2, limit_bytes=100) == "line 98\nline 99\n"
    assert last_lines(path, lines=80, limit_bytes=5) == "e 99\n"
    assert last_lines(path.with_name("none"), lines=1, limit_bytes=1) == ""
