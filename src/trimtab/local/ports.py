"""Ports on loopback: finding free ones, and seeing who listens where."""

import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from trimtab.model.problem import Problem

DEFAULT_RANGE: Final = range(21000, 32000)  # below Linux's ephemeral ports, so no client connection is in the way
_LISTEN = "0A"


class Listener(NamedTuple):
    """A listening TCP socket."""

    pid: int
    address: str
    port: int


def port_range(text: str) -> range:
    """Parse `FIRST-LAST`, both included.

    Raises:
        Problem: It is not two ports in order.
    """
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) < 2**16):
        raise Problem(
            f"TRIMTAB_PORTS: {text!r} is not a range of ports", fix="write it as FIRST-LAST, e.g. 21000-21999"
        )
    return range(int(first), int(last) + 1)


def free(count: int, taken: Collection[int], within: range = DEFAULT_RANGE, first_choice: int = 0) -> list[int]:
    """The first `count` ports of a range that nothing listens on and that are not in `taken`.

    Args:
        count: How many.
        taken: Ports that are spoken for although nothing listens on them.
        within: Which ports may be chosen.
        first_choice: Where in the range to begin; any number. Launchers that do not know of each other begin in
            different places, so that neither takes a port that the other has for a component that is down.

    Raises:
        Problem: There are not so many.
    """
    found: list[int] = []
    begin = first_choice % len(within)
    for port in (*within[begin:], *within[:begin]):
        if len(found) == count:
            break
        if port not in taken and _is_free(port):
            found.append(port)
    if len(found) < count:
        what = f"only {len(found)} of {count} ports that a cluster needs are free in {within.start}-{within.stop - 1}"
        raise Problem(
            what, fix="stop a cluster (`trimtab cluster list`), or name other ports: TRIMTAB_PORTS=FIRST-LAST"
        )
    return found


def listeners(pids: Iterable[int]) -> list[Listener]:
    """Every listening TCP socket of these processes."""
    sockets = dict(_listening())
    return [Listener(pid, *sockets[inode]) for pid in pids for inode in _inodes(pid) if inode in sockets]


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a socket bound to `address`."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no hindrance
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _listening() -> Iterator[tuple[str, tuple[str, int]]]:
    """Inode, address and port of every listening TCP socket, IPv4 and IPv6."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == _LISTEN:
                address, _, port = fields[1].partition(":")
                yield fields[9], (_address(address), int(port, 16))


def _address(text: str) -> str:
    """The kernel prints addresses as 32-bit words in host order."""
    raw = bytes.fromhex(text)
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return str(ipaddress.ip_address(words))


def _inodes(pid: int) -> Iterator[str]:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, PermissionError):
        return
    for descriptor in descriptors:
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]
