"""What a source of programs is."""

from pathlib import Path
from typing import Protocol

from trimtab.local.catalog import Family
from trimtab.local.progress import Progress


class Unavailable(Exception):
    """A source cannot deliver; the message says why in a few words, and the next source is tried."""


class Source(Protocol):
    """Something that can put a family's programs into a folder."""

    origin: str

    def deliver(self, family: Family, into: Path, progress: Progress) -> None:
        """Put every program of the family into the folder.

        Raises:
            Unavailable: It cannot.
        """

    def tidy(self, progress: Progress) -> None:
        """Remove what was only needed while delivering."""
