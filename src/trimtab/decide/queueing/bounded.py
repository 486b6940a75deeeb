"""A table that forgets: names come from clients, so nothing that is kept per name may grow without bound."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """Keeps the entries that were written to last.

    Args:
        most: entries that are kept.
        make: a fresh entry.
    """

    __slots__ = ("_entries", "_make", "_most")

    def __init__(self, most: int, make: Callable[[], V]) -> None:
        self._entries: dict[K, V] = {}
        self._make = make
        self._most = most

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return an entry to look at; None where there is none."""
        return self._entries.get(key)

    def touch(self, key: K) -> V:
        """Return an entry to write to, made where there is none; the one written to longest ago makes room."""
        entry = self._entries.pop(key, None)
        if entry is None:
            entry = self._make()
            if len(self._entries) >= self._most:
                del self._entries[next(iter(self._entries))]
        self._entries[key] = entry
        return entry

    def items(self) -> list[tuple[K, V]]:
        """Return all entries, the one written to longest ago first."""
        return list(self._entries.items())
