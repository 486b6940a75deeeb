"""Volumes as directories under the state directory, written whole files at a time and renewed while the pod lives."""

import asyncio
import base64
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from trimtab.kube import Kube, NotFound
from trimtab.kube.resources import CONFIG_MAPS, SECRETS
from trimtab.local.process_node.environment import ConfigError, Facts, Source, downward
from trimtab.local.process_node.spec import Container, FieldFiles, Files, KeyFiles, Pod, Volume

Stored = Mapping[Source, Mapping[str, bytes]]

_ASKING: Final = Container("")  # a volume's resourceFieldRef names its container


async def fetch(kube: Kube, namespace: str, sources: Iterable[Source]) -> dict[Source, dict[str, bytes]]:
    """Return the contents of those ConfigMaps and Secrets that exist."""
    wanted = sorted(sources)
    found = await asyncio.gather(*(_fetch_one(kube, namespace, source) for source in wanted))
    return {source: keys for source, keys in zip(wanted, found, strict=True) if keys is not None}


async def _fetch_one(kube: Kube, namespace: str, source: Source) -> dict[str, bytes] | None:
    kind, name = source
    try:
        obj = await kube.get(CONFIG_MAPS if kind == "ConfigMap" else SECRETS, name, namespace)
    except NotFound:
        return None
    return _contents(kind, obj)


def _contents(kind: str, obj: Mapping[str, Any]) -> dict[str, bytes]:
    data = obj.get("data") or {}
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in data.items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in data.items()} | binary


def as_text(stored: Stored) -> dict[Source, dict[str, str]]:
    """Return the contents as values of variables; bytes that are not UTF-8 survive."""
    return {source: {key: os.fsdecode(value) for key, value in keys.items()} for source, keys in stored.items()}


def volume_files(pod: Pod, volume: Volume, stored: Stored, facts: Facts, tokens: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a volume: path in it, content.

    Args:
        pod: its pod.
        volume: the volume.
        stored: the ConfigMaps and Secrets that exist.
        facts: what the node knows.
        tokens: service account tokens by path in the volume.

    Raises:
        ConfigError: a source that is not optional is missing.
    """
    files: dict[str, bytes] = {}
    for source in volume.sources:
        files |= _source_files(pod, volume, source, stored, facts, tokens)
    return files


def _source_files(
    pod: Pod, volume: Volume, source: Files, stored: Stored, facts: Facts, tokens: Mapping[str, str]
) -> dict[str, bytes]:
    if isinstance(source, FieldFiles):
        return {path: downward(pod, _ASKING, ref, facts).encode() for path, ref in source.items}
    if isinstance(source, KeyFiles):
        return _key_files(volume, source, stored)
    return {source.path: tokens[source.path].encode()}


def _key_files(volume: Volume, source: KeyFiles, stored: Stored) -> dict[str, bytes]:
    keys = stored.get((source.kind, source.name))
    if keys is None:
        if source.optional:
            return {}
        raise ConfigError(f"volume {volume.name!r}: {source.kind} {source.name!r} not found")
    if not source.items:
        return dict(keys)
    missing = [key for key, _ in source.items if key not in keys]
    if missing and not source.optional:
        raise ConfigError(f"volume {volume.name!r}: no key {missing[0]!r} in {source.kind} {source.name!r}")
    return {path: keys[key] for key, path in source.items if key in keys}


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory hold exactly these files. A reader sees each file either as it was or as it is.

    Raises:
        OSError: it could not be written; the message names the file.
        ConfigError: a path leads out of the directory.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, content in files.items():
        if ".." in PurePosixPath(path).parts or path.startswith("/"):
            raise ConfigError(f"path {path!r} leads out of its volume")
        _write_file(directory / path, content)
    for file in directory.rglob("*"):
        if file.is_file() and str(file.relative_to(directory)) not in files:
            file.unlink()


def _write_file(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.replace(path)


def remove(directory: Path) -> None:
    """Remove a directory with all it holds; one that is gone is no error."""
    shutil.rmtree(directory, ignore_errors=True)
