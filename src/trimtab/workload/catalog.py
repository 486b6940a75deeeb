"""Which traces there are: found by their columns, in the shipped data and in a folder of the user's."""

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trimtab.workload import azure, mooncake, servegen
from trimtab.workload.fault import TraceError
from trimtab.workload.generated import SYNTAX, Generated, is_generated, parse_generated
from trimtab.workload.request import Trace
from trimtab.workload.textfile import COMPRESSIONS, bare_name, lines

SHIPPED = Path(__file__).parent / "data"
"""The data that comes with the package."""

DATA_VARIABLE = "TRIMTAB_DATA"
"""The environment variable that names a folder with more data."""

_ENDINGS = tuple(f"{kind}{packed}" for kind in (".csv", ".jsonl") for packed in COMPRESSIONS)
_DEPTH = 3
_USUAL = "azure-conv"
_DRAWN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of trace file that can be read.

    Attributes:
        name: the first part of its traces' names.
        columns: what the header or the first record must hold.
        affixes: parts of file names that say nothing.
        what: one line for people.
    """

    name: str
    columns: frozenset[str]
    affixes: tuple[str, ...]
    what: str


FORMATS = (
    Format("azure", frozenset(azure.COLUMNS), ("AzureLLMInferenceTrace",), "arrivals and token counts, CSV"),
    Format("mooncake", frozenset(mooncake.KEYS), ("trace",), "arrivals, token counts and prefix blocks, JSON lines"),
    Format("servegen", frozenset(servegen.COLUMNS), ("rates",), "mixtures of clients from which requests are drawn"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One trace that was found.

    Attributes:
        name: what to ask for.
        format: how it is read.
        path: its file.
    """

    name: str
    format: Format
    path: Path

    @property
    def drawn(self) -> bool:
        """Whether requests are drawn, others for every seed, and not recorded."""
        return self.format.name == "servegen"

    def load(self, *, seed: int, start_seconds: float, duration_seconds: float, rate_scale: float = 1.0) -> Trace:
        """Read, or draw, the stretch of the trace that begins at `start_seconds`.

        Args:
            seed: for traces that are drawn; a recording is the same for every seed.
            start_seconds: where the stretch begins; time 0 of what is returned.
            duration_seconds: how long it is.
            rate_scale: factor on the rate of traces that are drawn.

        Raises:
            TraceError: a fault in the file, or no request in that stretch.
        """
        if self.drawn:
            service = servegen.read_servegen(self.path, name=self.name)
            return service.generate(
                seed=seed, start_seconds=start_seconds, duration_seconds=duration_seconds, rate_scale=rate_scale
            )
        if rate_scale != 1.0:
            raise TraceError(self.path, "a recording has its own rate; replay it at another speed instead")
        recording = _RECORDINGS[self.format.name](self.path, name=self.name)
        stretch = recording.window(start_seconds, duration_seconds)
        if not stretch.requests:
            end_seconds = start_seconds + duration_seconds
            raise TraceError(
                self.path,
                f"no requests from {start_seconds:g} s to {end_seconds:g} s; it lasts {recording.duration_seconds:g} s",
            )
        return stretch


_RECORDINGS: Mapping[str, Callable[..., Trace]] = {"azure": azure.read_azure, "mooncake": mooncake.read_mooncake}


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every trace that was found, and what could not be used.

    Attributes:
        entries: by name; those of the user's folder hide shipped ones of the same name.
        problems: one sentence for each file that looks like a trace and cannot be used, and for a missing folder.
        missing: formats of which nothing was found.
    """

    entries: Mapping[str, Entry]
    problems: tuple[str, ...]
    missing: tuple[Format, ...]

    def resolve(self, name: str) -> Entry | Generated:
        """Return what `find` does, or a law to draw from, such as `poisson:rate=5`.

        Raises:
            TraceError: there is neither, or the law is not well put.
        """
        return parse_generated(name, self._whole) if is_generated(name) else self.find(name)

    def find(self, name_or_file: str) -> Entry:
        """Return the entry with this name, or the file at this path.

        Raises:
            TraceError: there is neither; the message lists the names that are known.
        """
        if name_or_file in self.entries:
            return self.entries[name_or_file]
        path = Path(name_or_file)
        if path.is_file():
            found = identify(path)
            if found is None:
                known = "; ".join(f"{known.name}: {', '.join(sorted(known.columns))}" for known in FORMATS)
                raise TraceError(path, f"has the columns of no format that can be read ({known})")
            return found
        names = ", ".join(sorted(self.entries)) or "none"
        hint = f"; point --data or {DATA_VARIABLE} at a folder with more" if len(self.entries) <= 1 else ""
        hint += "".join(f"; not usable: {problem}" for problem in self.problems)
        raise TraceError(name_or_file, f"neither a file nor a known trace; known: {names}{hint}; drawn: {SYNTAX}")

    def _whole(self, name_or_file: str) -> Trace:
        """Read all of a trace, of one that is drawn an hour; by default the one that comes with the package."""
        found = self.resolve(name_or_file or _USUAL)
        duration_seconds = _DRAWN_SECONDS if found.drawn else math.inf
        return found.load(seed=0, start_seconds=0.0, duration_seconds=duration_seconds)


def data_folder(data: Path | None = None) -> Path | None:
    """The folder with more data: `data`, else the one that `TRIMTAB_DATA` names, else none.

    Raises:
        TraceError: `data` is not a folder. One that the environment names may be missing: not every command needs it.
    """
    if data is not None and not data.is_dir():
        raise TraceError(data, "there is no such folder of data; correct --data, or leave it out")
    named = os.environ.get(DATA_VARIABLE)
    return data or (Path(named) if named else None)


def find_traces(data: Path | None = None) -> Catalog:
    """Look through the shipped data and through `data_folder`.

    Raises:
        TraceError: `data` is not a folder.
    """
    folder = data_folder(data)
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    for root in (SHIPPED, folder):
        if root is not None:
            _collect(root, entries, problems)
    missing = tuple(known for known in FORMATS if not any(entry.format is known for entry in entries.values()))
    return Catalog(dict(sorted(entries.items())), tuple(problems), missing)


def _collect(root: Path, entries: dict[str, Entry], problems: list[str]) -> None:
    if not root.is_dir():
        problems.append(f"{root}: no such folder")
        return
    found: dict[str, Entry] = {}
    for path in _candidates(root):
        try:
            entry = identify(path)
        except TraceError as error:
            problems.append(str(error))
            continue
        if entry is None:
            continue
        if entry.name in found:
            problems.append(
                f"{path}: {found[entry.name].path} has the same name, {entry.name}; ask for this one by its file"
            )
            continue
        found[entry.name] = entry
    entries.update(found)


def _candidates(root: Path) -> Iterator[Path]:
    """Yield files that could be traces, sorted, down to a few folders deep."""
    for folder, folders, files in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = sorted(folders) if depth < _DEPTH else []
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(_ENDINGS))


def identify(path: Path) -> Entry | None:
    """Return what kind of trace a file is by its first line, or None where it is none.

    Raises:
        TraceError: the first line cannot be read.
    """
    columns = _columns(path)
    for known in FORMATS:
        if known.columns <= columns:
            return Entry(_name(known, path), known, path)
    return None


def _columns(path: Path) -> frozenset[str]:
    rows = lines(path)
    try:
        _, first = next(rows, (0, ""))
    finally:
        rows.close()
    if ".jsonl" in path.name:
        try:
            record = json.loads(first or "{}")
        except (ValueError, RecursionError):
            return frozenset()
        return frozenset(record) if isinstance(record, dict) else frozenset()
    try:
        return frozenset(cell.strip() for cell in next(csv.reader([first]), []))
    except csv.Error:
        return frozenset()


def _name(known: Format, path: Path) -> str:
    """Make `azure-conv` of `AzureLLMInferenceTrace_conv.csv.gz`: the format, and what the file name adds to it."""
    stem = bare_name(path).rsplit(".", 1)[0]
    for affix in known.affixes:
        stem = stem.removeprefix(f"{affix}_").removesuffix(f"_{affix}")
    return f"{known.name}-{re.sub(r'[^a-z0-9]+', '-', stem.lower()).strip('-')}"
