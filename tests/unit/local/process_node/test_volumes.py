from pathlib import Path
from typing import Any

import pytest

from tests.support.process_node import a_pod
from trimtab.kube import Kube, NotFound
from trimtab.kube.resources import CONFIG_MAPS, Resource
from trimtab.local.process_node import volumes
from trimtab.local.process_node.environment import ConfigError, Facts

FACTS = Facts("127.20.1.0", "127.20.0.1")
STORED: volumes.Stored = {("ConfigMap", "c"): {"k": b"v", "l": b"w"}, ("Secret", "s"): {"k": b"\xff"}}


def files(volume: dict[str, Any], tokens: dict[str, str] | None = None) -> dict[str, bytes]:
    pod = a_pod(volumes=[{"name": "v"} | volume])
    return volumes.volume_files(pod, pod.volumes[0], STORED, FACTS, tokens or {})


def test_every_key_becomes_a_file() -> None:
    assert files({"configMap": {"name": "c"}}) == {"k": b"v", "l": b"w"}


def test_items_choose_keys_and_paths() -> None:
    assert files({"secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b"}]}}) == {"a/b": b"\xff"}


def test_projections_share_one_directory() -> None:
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "c", "items": [{"key": "k", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]

    assert files({"projected": {"sources": sources}}, {"token": "t"}) == {
        "token": b"t",
        "ca.crt": b"v",
        "namespace": b"shop",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "none"}, "volume 'v': ConfigMap 'none' not found"),
        ({"name": "c", "items": [{"key": "x", "path": "x"}]}, "volume 'v': no key 'x' in ConfigMap 'c'"),
    ],
)
def test_a_missing_source_is_named_unless_it_is_optional(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        files({"configMap": source})

    assert files({"configMap": source | {"optional": True}}) == {}


def test_a_directory_holds_exactly_what_was_written_last(tmp_path: Path) -> None:
    directory = tmp_path / "v"
    volumes.write(directory, {"a": b"1", "b/c": b"2"})
    volumes.write(directory, {"a": b"3"})

    found = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    assert found == {"a": b"3"}
    assert (directory / "a").stat().st_mode & 0o777 == 0o600


def test_an_unchanged_file_is_left_alone(tmp_path: Path) -> None:
    volumes.write(tmp_path, {"a": b"1"})
    before = (tmp_path / "a").stat().st_ino
    volumes.write(tmp_path, {"a": b"1"})

    assert (tmp_path / "a").stat().st_ino == before


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x"])
def test_no_file_leaves_its_directory(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="leads out of its volume"):
        volumes.write(tmp_path / "v", {path: b""})


class _Server(Kube):
    """Holds one ConfigMap and one Secret."""

    def __init__(self) -> None:
        pass

    async def get(self, resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> Any:
        if name == "none":
            raise NotFound(404, "NotFound", "no such object")
        if resource == CONFIG_MAPS:
            return {"data": {"a": "ä"}, "binaryData": {"b": "/w=="}}
        return {"data": {"k": "/w=="}}


async def test_what_exists_is_fetched_and_what_does_not_is_absent() -> None:
    found = await volumes.fetch(_Server(), "shop", [("ConfigMap", "c"), ("Secret", "s"), ("Secret", "none")])

    assert found == {("ConfigMap", "c"): {"a": "ä".encode(), "b": b"\xff"}, ("Secret", "s"): {"k": b"\xff"}}


def test_bytes_that_are_no_text_survive_in_variables() -> None:
    assert volumes.as_text(STORED)["Secret", "s"]["k"].encode(errors="surrogateescape") == b"\xff"
