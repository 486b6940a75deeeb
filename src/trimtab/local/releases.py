"""Official releases: downloaded, checked against SHA-256 sums, given up within seconds where there is no way out."""

import shutil
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from trimtab.local.catalog import Family, Program, architecture
from trimtab.local.progress import Progress
from trimtab.local.sources import Unavailable
from trimtab.local.store import sha256
from trimtab.model.problem import Problem

CONTACT_SECONDS: Final = 4.0  # name resolution, connection and first byte together
STALL_SECONDS: Final = 10.0
SLOWEST_BYTES_PER_SECOND: Final = 50_000


class Releases:
    """The official download sites, or a mirror of them.

    Args:
        mirror: Address that holds `HOST/PATH` for each `https://HOST/PATH`; empty for the official sites.
        off: Do not download at all.
        contact_seconds: How long a site may take to answer at first.
        stall_seconds: How long a download may stand still.
    """

    origin = "release"

    def __init__(
        self,
        mirror: str = "",
        *,
        off: bool = False,
        contact_seconds: float = CONTACT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._mirror = mirror.rstrip("/")
        self._off = off
        self._contact_seconds = contact_seconds
        self._stall_seconds = stall_seconds
        self._silent: dict[str, str] = {}  # site -> why it is not asked again

    @classmethod
    def standard(cls, environ: Mapping[str, str]) -> "Releases":
        """Releases as `$TRIMTAB_RELEASES` asks for them: unset, `off`, or the address of a mirror.

        Raises:
            Problem: It is none of these.
        """
        setting = environ.get("TRIMTAB_RELEASES", "")
        if setting in {"", "off"}:
            return cls(off=setting == "off")
        if not setting.startswith(("http://", "https://")):
            raise Problem(f"TRIMTAB_RELEASES: {setting!r} is no address", fix="set it to `off` or to http(s)://MIRROR")
        return cls(setting)

    def deliver(self, family: Family, into: Path, progress: Progress) -> None:
        """Download, check and unpack the family's programs.

        Raises:
            Unavailable: A site does not answer, has no such file, or sent something else than was published.
        """
        if self._off:
            raise Unavailable("switched off by TRIMTAB_RELEASES")
        limits = httpx2.Timeout(self._stall_seconds, connect=self._contact_seconds)
        with httpx2.Client(timeout=limits, follow_redirects=True, headers={"Accept-Encoding": "identity"}) as client:
            try:
                self._deliver(client, family, into, progress)
            except httpx2.HTTPError as error:
                raise Unavailable(f"{type(error).__name__}: {error}") from error

    def tidy(self, progress: Progress) -> None:
        """Nothing is left over."""

    def _deliver(self, client: httpx2.Client, family: Family, into: Path, progress: Progress) -> None:
        downloads: dict[str, Path] = {}
        for program in family.programs:
            address = self._address(program.release)
            if address not in downloads:
                expected = self._checksum(client, program)
                self._contact(client, address)
                downloads[address] = into / f"download-{len(downloads)}"
                self._download(client, address, downloads[address], progress)
                _check(downloads[address], expected, address)
            _unpack(downloads[address], program, into / program.name)
        for path in downloads.values():
            path.unlink()

    def _address(self, official: str) -> str:
        address = official.format(arch=architecture())
        if not self._mirror:
            return address
        parts = urlsplit(address)
        return f"{self._mirror}/{parts.netloc}{parts.path}"

    def _checksum(self, client: httpx2.Client, program: Program) -> str:
        """The published SHA-256 of a program's release."""
        if not program.checksums:
            pinned = dict(program.pinned)
            if architecture() not in pinned:
                raise Unavailable(f"upstream publishes no checksum of {program.name} for {architecture()}")
            return pinned[architecture()]
        address = self._address(program.checksums)
        self._contact(client, address)
        response = client.get(address)
        response.raise_for_status()
        return listed_checksum(response.text, self._address(program.release).rpartition("/")[2])

    def _contact(self, client: httpx2.Client, address: str) -> None:
        """Make sure that a site answers; one that did not is not asked again."""
        site = urlsplit(address).netloc
        if site not in self._silent:
            self._silent[site] = _within(self._contact_seconds, lambda: client.head(address))
        if self._silent[site]:
            raise Unavailable(f"{site} {self._silent[site]}")

    def _download(self, client: httpx2.Client, address: str, to: Path, progress: Progress) -> None:
        name = address.rpartition("/")[2]
        started, done = time.monotonic(), 0
        with client.stream("GET", address) as response, to.open("wb") as file:
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0))
            for chunk in response.iter_raw():
                file.write(chunk)
                done += len(chunk)
                progress.advance(f"download {name}", done, total)
                elapsed = time.monotonic() - started
                if elapsed > self._stall_seconds and done < elapsed * SLOWEST_BYTES_PER_SECOND:
                    raise Unavailable(f"{urlsplit(address).netloc} is too slow: {done / elapsed / 1000:.0f} kB/s")
        progress.advance(f"download {name}", done, done)


def listed_checksum(text: str, file: str) -> str:
    """The SHA-256 of `file` in a published list: a bare sum, or lines of `SUM  FILE`.

    Raises:
        Unavailable: The list does not have it.
    """
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if len(rows) == 1 and len(rows[0]) == 1:
        return rows[0][0].lower()
    for row in rows:
        if len(row) > 1 and row[1].lstrip("*").rpartition("/")[2] == file:
            return row[0].lower()
    raise Unavailable(f"the published list of checksums does not have {file}")


def _within(seconds: float, call: Callable[[], object]) -> str:
    """Empty when the call answered in time, else why not. Name resolution obeys no time-out, hence the thread."""
    outcome = [f"does not answer within {seconds:g} s"]

    def run() -> None:
        try:
            call()
        except httpx2.HTTPError as error:
            outcome[0] = f"cannot be reached ({error})"
        else:
            outcome[0] = ""

    thread = threading.Thread(target=run, daemon=True, name="contact")
    thread.start()
    thread.join(seconds)
    return outcome[0]


def _check(path: Path, expected: str, address: str) -> None:
    actual = sha256(path)
    if actual != expected:
        raise Unavailable(f"{address} has SHA-256 {actual}, published is {expected}: not used")


def _unpack(download: Path, program: Program, to: Path) -> None:
    if not program.member:
        shutil.copyfile(download, to)
        return
    member = program.member.format(arch=architecture())
    try:
        with tarfile.open(download) as archive:
            source = archive.extractfile(member)
            if source is None:
                raise Unavailable(f"{member} in the archive is not a file")
            with source, to.open("wb") as file:
                shutil.copyfileobj(source, file)
    except (KeyError, EOFError, tarfile.TarError, zlib.error) as error:
        raise Unavailable(f"the archive has no readable {member}") from error
