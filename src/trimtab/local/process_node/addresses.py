"""Loopback addresses: one /16 of 127.0.0.0/8 for the node, in it one address per pod and one per Service.

The node claims its network by listening on `127.X.0.1`: the kernel lets one process do that, so that nodes of several
clusters on one machine never share an address, whoever runs them.
"""

import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from trimtab.model.problem import Problem

_FIRST_NETWORK: Final = 16  # people and other programs like 127.0.x and 127.1.x
_LAST_NETWORK: Final = 254
_PER_NETWORK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Network:
    """The network `127.<second>.0.0/16`."""

    second: int

    @property
    def node(self) -> str:
        """Return the node's own address."""
        return self._at(1)

    def pods(self) -> "Pool":
        """Return the addresses of pods: 127.X.1.0 to 127.X.127.255."""
        return Pool(self._at(1 << 8), self._at((128 << 8) - 1))

    def services(self) -> "Pool":
        """Return the addresses of Services: 127.X.128.0 to 127.X.254.255."""
        return Pool(self._at(128 << 8), self._at((255 << 8) - 1))

    def _at(self, host: int) -> str:
        return str(IPv4Address((127 << 24) + self.second * _PER_NETWORK + host))


class Pool:
    """A range of addresses, each lent to one owner. Freed ones come last again, so that none is reused at once."""

    def __init__(self, first: str, last: str) -> None:
        self._first, self._last = int(IPv4Address(first)), int(IPv4Address(last))
        self._next = self._first
        self._owned: dict[str, int] = {}
        self._taken: set[int] = set()

    def take(self, owner: str, wanted: str = "") -> str:
        """Return the owner's address; a new owner gets the wanted one if it is free.

        Raises:
            Problem: none is left.
        """
        if owner not in self._owned:
            number = self._free(int(IPv4Address(wanted)) if wanted else 0)
            self._owned[owner] = number
            self._taken.add(number)
        return str(IPv4Address(self._owned[owner]))

    def release(self, owner: str) -> None:
        """Take back the owner's address, if it has one."""
        self._taken.discard(self._owned.pop(owner, 0))

    def _free(self, wanted: int) -> int:
        if self._first <= wanted <= self._last and wanted not in self._taken:
            return wanted
        size = self._last - self._first + 1
        for step in range(size):
            number = self._first + (self._next - self._first + step) % size
            if number not in self._taken:
                self._next = number + 1
                return number
        raise Problem("no loopback address is left for one more pod or Service", fix="start a second process node")


def candidates(seed: str, preferred: int | None = None) -> Iterator[int]:
    """Yield every network number, starting with the preferred one or one that the seed determines."""
    count = _LAST_NETWORK - _FIRST_NETWORK + 1
    start = zlib.crc32(seed.encode()) % count if preferred is None else preferred - _FIRST_NETWORK
    for step in range(count):
        yield _FIRST_NETWORK + (start + step) % count


def claim(seed: str, port: int, preferred: int | None = None) -> tuple[Network, socket.socket]:
    """Return a network that no other node has, and the socket at its node address that keeps it ours.

    Raises:
        Problem: all networks are taken, or something listens on this port at every address.
    """
    for second in candidates(seed, preferred):
        network = Network(second)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((network.node, port))
            listener.listen()
        except OSError:
            listener.close()
            continue
        listener.setblocking(False)  # noqa: FBT003
        return network, listener
    raise Problem(
        f"port {port} is taken at every address of 127.0.0.0/8, perhaps by a kubelet that listens on 0.0.0.0",
        fix="choose another port with --kubelet-port",
    )
