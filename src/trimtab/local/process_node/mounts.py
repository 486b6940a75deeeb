"""Volumes without mounts: every mention of a mount path is replaced by the directory that stands for it.

Two processes cannot have different files at one path without a mount namespace. So the directory of a volume is
named to the process in `TRIMTAB_MOUNT_<VOLUME>`, and a mount path at the start of a path in a command, an argument or
a variable's value is rewritten: `--config=/etc/trimtab/gateway.yaml` becomes `--config=<directory>/gateway.yaml`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from trimtab.local.process_node.spec import Container

_NAME_CHARACTER = re.compile(r"[^A-Z0-9]")


def directories(container: Container, volumes: Path) -> dict[str, str]:
    """Return, for each mount path, what stands for it: `<volumes>/<name>[/<subPath>]`."""
    return {mount.path: str(volumes / mount.volume / mount.sub_path) for mount in container.mounts}


def variables(container: Container, volumes: Path) -> dict[str, str]:
    """Return `TRIMTAB_MOUNT_<VOLUME>` for each mount, and `TMPDIR` for a mount at /tmp."""
    found = {
        f"TRIMTAB_MOUNT_{_NAME_CHARACTER.sub('_', mount.volume.upper())}": str(volumes / mount.volume / mount.sub_path)
        for mount in container.mounts
    }
    by_path = directories(container, volumes)
    return found | ({"TMPDIR": by_path["/tmp"]} if "/tmp" in by_path else {})  # noqa: S108 a mount path, not a file


def rewrite(text: str, by_path: Mapping[str, str]) -> str:
    """Replace every mount path that stands at the start of a path in `text`; the longest one wins.

    A path that stands for itself protects what is below it: the state directory, when a mount path is above it.
    """
    paths = sorted((path for path in by_path if path != "/"), key=len, reverse=True)
    if not paths:
        return text
    any_path = "|".join(map(re.escape, paths))
    # A path starts at the text's start or after a separator, and a component ends at one.
    pattern = rf"(?<![^\s=:,;'\"\[({{])(?:{any_path})(?=$|[/\s:,;'\"\])}}])"
    return re.sub(pattern, lambda match: by_path[match[0]], text)
