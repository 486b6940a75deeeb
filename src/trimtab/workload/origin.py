"""Where a data file comes from, as the folder around it says."""

import re
from pathlib import Path

_LICENCE = re.compile(r"^Licen[cs]e:\s*(.+?)\s*$", re.MULTILINE)
_SOURCE = re.compile(r"^Source\b[^\n]*:\s*\n+-\s*(.+?)\s*$", re.MULTILINE)
_MOST_CHARACTERS = 20_000


def origin_of(path: Path) -> dict[str, str]:
    """Return the file's name, and source and licence where a README.md beside it states them in the usual way."""
    readme = path.with_name("README.md")
    try:
        text = readme.read_text(encoding="utf-8")[:_MOST_CHARACTERS]
    except (OSError, UnicodeDecodeError):
        text = ""
    stated = {"source": _SOURCE.search(text), "licence": _LICENCE.search(text)}
    return {"file": path.name, **{key: found[1] if found else "not stated" for key, found in stated.items()}}
