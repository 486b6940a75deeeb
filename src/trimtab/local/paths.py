"""Where local clusters keep their state, where programs are cached, where shipped files are found."""

import os
from collections.abc import Mapping
from pathlib import Path

from trimtab.model.problem import Problem

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parents[2]


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """State of local clusters: `$TRIMTAB_HOME`, else `trimtab` under the XDG state folder."""
    return _folder(environ, "TRIMTAB_HOME", "XDG_STATE_HOME", ".local/state")


def cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Programs that can be had again: `$TRIMTAB_CACHE`, else `trimtab` under the XDG cache folder."""
    return _folder(environ, "TRIMTAB_CACHE", "XDG_CACHE_HOME", ".cache")


def shipped(name: str) -> Path:
    """A file or folder that comes with Trimtab: beside this module in a wheel, at the top of a source checkout.

    Raises:
        Problem: It is in neither place.
    """
    for path in (_PACKAGE / name, _CHECKOUT / name):
        if path.exists():
            return path
    raise Problem(f"{name} is not part of this installation of Trimtab", fix="run from a source checkout")


def _folder(environ: Mapping[str, str], own: str, xdg: str, fallback: str) -> Path:
    if environ.get(own):
        return Path(environ[own]).expanduser().absolute()
    base = Path(environ[xdg]) if environ.get(xdg) else Path.home() / fallback
    return base.absolute() / "trimtab"
