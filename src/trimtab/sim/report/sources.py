"""Where the data of a run come from, as the folders of the data sets say themselves."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TITLE = re.compile(r"^#\s+(.+)$", re.MULTILINE)
_LICENSE = re.compile(r"^licen[cs]e:\s*(.+)$", re.MULTILINE | re.IGNORECASE)
_SOURCE = re.compile(r"^source\b[^\n]*\n((?:\s*-[^\n]*\n)+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """A data set.

    Attributes:
        name: Of its folder.
        title: What its README calls it.
        origin: Where its README says that it comes from.
        license: What its README says of it.
    """

    name: str
    title: str
    origin: str
    license: str


def sources_of(data: Path | None, names: Iterable[str]) -> list[Source]:
    """Read the README of each data set; those that are not there are left out."""
    folders = [] if data is None else [data / name for name in sorted(set(names))]
    return [_source(folder) for folder in folders if folder.is_dir()]


def _source(folder: Path) -> Source:
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    origin = _SOURCE.search(text)
    lines = [line.strip().removeprefix("-").strip() for line in origin.group(1).splitlines()] if origin else []
    return Source(
        folder.name,
        _first(_TITLE, text, "no README says what this is"),
        "; ".join(lines).replace("`", ""),
        _first(_LICENSE, text, "not stated in the folder: ask whoever gave it to you"),
    )


def _first(pattern: re.Pattern[str], text: str, otherwise: str) -> str:
    found = pattern.search(text)
    return found.group(1).strip() if found else otherwise
