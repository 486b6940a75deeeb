"""The endpoints file: what it may say, and what a mistake in it is called."""

import os
from pathlib import Path

import pytest

from trimtab.decide.queueing import Bounds
from trimtab.model.problem import Problem
from trimtab_gateway.endpoint_file import WatchedFile, read, split_address
from trimtab_gateway.pools import BEST_EFFORT, EngineAddress, Level, PoolConfig


def parse(tmp_path: Path, text: str) -> tuple[PoolConfig, ...]:
    path = tmp_path / "endpoints.yaml"
    path.write_text(text)
    return read(path, default_concurrency=64, without_endpoint_seconds=10.0)


def test_the_least_that_works(tmp_path: Path) -> None:
    (pool,) = parse(tmp_path, "pools: [{name: chat, models: [llama], engines: ['127.0.0.1:8001']}]")
    assert pool == PoolConfig(
        "chat",
        ("llama",),
        (),
        BEST_EFFORT,
        Bounds(5000, 600.0, 10.0),
        (EngineAddress("127.0.0.1:8001", "127.0.0.1", 8001, 64),),
    )


def test_everything_at_once(tmp_path: Path) -> None:
    text = """
        pools:
        - name: ai/chat
          models: [llama, support-bot]
          concurrency: 8
          engines: [http://10.0.0.1:8000/, {address: "[::1]:8000", concurrency: 2}]
          serviceLevels: [{name: batch}, {name: interactive, default: true, ttftMilliseconds: 2000}]
          queue: {maxRequests: 10, maxWaitingSeconds: 5}
    """
    (pool,) = parse(tmp_path, text)
    assert [(each.host, each.port, each.concurrency) for each in pool.engines] == [
        ("10.0.0.1", 8000, 8),
        ("::1", 8000, 2),
    ]
    assert pool.levels == (Level("batch"), Level("interactive", 2.0))
    assert pool.default_level == Level("interactive", 2.0)
    assert pool.bounds == Bounds(10, 5.0, 10.0)
    assert (pool.subject.namespace, pool.subject.name) == ("ai", "chat")


def test_without_a_default_the_first_level_is_it(tmp_path: Path) -> None:
    (pool,) = parse(tmp_path, "pools: [{name: a, models: [m], serviceLevels: [{name: x}, {name: y}]}]")
    assert pool.default_level == Level("x")
    assert (pool.level("y"), pool.level(""), pool.level("z")) == (Level("y"), Level("x"), None)


MISTAKES = {
    "no YAML": ("pools: [", "not YAML"),
    "nothing": ("", "valid dictionary"),
    "no pools": ("pools: []", "pools"),
    "unknown field": ("pools: [{name: a, models: [m], replicas: 3}]", "pools.0.replicas"),
    "no models": ("pools: [{name: a, models: []}]", "pools.0.models"),
    "bad address": ("pools: [{name: a, models: [m], engines: [localhost]}]", "host:port"),
    "bad port": ("pools: [{name: a, models: [m], engines: ['h:99999']}]", "host:port"),
    "TLS": ("pools: [{name: a, models: [m], engines: ['https://h:443']}]", "plain HTTP"),
    "engine twice": (
        "pools: [{name: a, models: [m], engines: ['h:1', 'h:1']}]",
        "engines: 'h:1' appears more than once",
    ),
    "pool twice": ("pools: [{name: a, models: [m]}, {name: a, models: [n]}]", "pools: 'a' appears more than once"),
    "model twice": ("pools: [{name: a, models: [m]}, {name: b, models: [m]}]", "models: 'm' appears more than once"),
    "two defaults": (
        "pools: [{name: a, models: [m], serviceLevels: [{name: x, default: true}, {name: y, default: true}]}]",
        "at most one level is the default",
    ),
    "zero concurrency": ("pools: [{name: a, models: [m], concurrency: 0}]", "pools.0.concurrency"),
    "negative wait": ("pools: [{name: a, models: [m], queue: {maxWaitingSeconds: -1}}]", "maxWaitingSeconds"),
    "bad name": ("pools: [{name: 'a b', models: [m]}]", "pools.0.name"),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named_with_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(tmp_path, text)
    assert said in caught.value.what
    assert str(tmp_path / "endpoints.yaml") in caught.value.what
    assert caught.value.fix


def test_a_missing_file_and_one_that_is_no_text_are_problems(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="No such file"):
        read(tmp_path / "missing", 1, 1.0)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Problem, match="not YAML"):
        read(tmp_path / "binary", 1, 1.0)


@pytest.mark.parametrize("address", ["h:0", "h:x", ":80", "h", "h:80/path", "h:-1", "h:٣", ""])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match="no engine address"):
        split_address(address)


def test_a_file_is_watched_by_time_and_size(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("pools: [{name: a, models: [m]}]")
    file = WatchedFile(path, lambda where: read(where, 1, 1.0))
    assert [pool.name for pool in file.load()] == ["a"]
    assert not file.changed()
    path.write_text("pools: [{name: bb, models: [m]}]")
    assert file.changed()
    assert [pool.name for pool in file.load()] == ["bb"]
    os.utime(path, ns=(1, 1))
    assert file.changed()
    path.unlink()
    assert file.changed()
    with pytest.raises(Problem):
        file.load()
    assert not file.changed()  # reported once, not every second
