"""Gets the programs of a local cluster: `TRIMTAB_ASSETS`, the cache, official releases, a build from pinned modules.

The first that has a program wins. The first two are only looked at; the others fill the cache.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.local import paths
from trimtab.local.builds import Build
from trimtab.local.catalog import FAMILIES, PROGRAMS, Family
from trimtab.local.progress import Progress, Silent
from trimtab.local.releases import Releases
from trimtab.local.sources import Source, Unavailable
from trimtab.local.store import Store
from trimtab.model.problem import Problem


@dataclass(frozen=True, slots=True)
class Found:
    """A program that is ready to run.

    Attributes:
        path: The executable.
        origin: `assets`, or how it came into the cache.
    """

    path: Path
    origin: str


class Programs:
    """Third-party programs by name.

    Args:
        store: The cache.
        assets: A folder whose programs come before all others; None for none.
        sources: What fills the cache, first choice first.
        progress: Who is told about slow work.
    """

    def __init__(
        self, store: Store, assets: Path | None, sources: Sequence[Source], progress: Progress | None = None
    ) -> None:
        self._store = store
        self._assets = assets
        self._sources = sources
        self._progress = progress or Silent()

    @classmethod
    def standard(cls, progress: Progress | None = None, environ: Mapping[str, str] = os.environ) -> "Programs":
        """The programs as the environment asks for them.

        Raises:
            Problem: `TRIMTAB_ASSETS` names no folder.
        """
        root = paths.cache(environ)
        assets = Path(environ["TRIMTAB_ASSETS"]).expanduser() if environ.get("TRIMTAB_ASSETS") else None
        if assets and not assets.is_dir():
            raise Problem(
                f"TRIMTAB_ASSETS: {assets} is not a folder", fix="name the folder that holds kube-apiserver, etcd, ..."
            )
        sources = (Releases.standard(environ), Build.standard(root / "build", environ))
        return cls(Store(root / "programs"), assets, sources, progress)

    def path(self, name: str) -> Path:
        """The executable `name`, fetched or built when it is not here yet.

        Raises:
            Problem: It is not one of ours, or no source has it.
        """
        return self.ensure([name])[name]

    def ensure(self, names: Iterable[str]) -> dict[str, Path]:
        """The executables of these names, fetched or built when they are not here yet.

        Raises:
            Problem: One is not ours, or no source has it.
        """
        names = list(names)
        self._announce({_family(name).name: _family(name) for name in names if not self._locate(name)}.values())
        located = {name: self._locate(name) or self._fetch(name) for name in names}
        for source in self._sources:
            source.tidy(self._progress)
        return located

    def found(self, name: str) -> Found | None:
        """Where a program is now, without fetching anything."""
        if asset := self._asset(name):
            return Found(asset, "assets")
        family = _family(name)
        if self._store.holds(family):
            return Found(self._store.entry(family) / name, self._store.origin(family))
        return None

    def verify(self) -> list[str]:
        """Hash every cached program; one line for each entry that is damaged and will be replaced on next use."""
        kept = [family for family in FAMILIES if self._store.entry(family).exists()]
        return [f"{family.name}: {fault}" for family in kept for fault in self._store.faults(family, thorough=True)]

    def _announce(self, missing: Collection[Family]) -> None:
        if missing:
            which = ", ".join(family.name for family in missing)
            minutes = sum(family.build_minutes for family in missing)
            building = (
                f"a build from source about {minutes:.0f} minutes on two cores" if minutes >= 1 else "a build less"
            )
            self._progress.say(f"not here yet: {which}. A download takes about a minute, {building}")

    def _locate(self, name: str) -> Path | None:
        found = self.found(name)
        return found.path if found else None

    def _asset(self, name: str) -> Path | None:
        """A program in the assets folder itself or in one of its folders."""
        if self._assets is None:
            return None
        for path in (self._assets / name, *sorted(self._assets.glob(f"*/{name}"))):
            if path.is_file() and os.access(path, os.X_OK):
                return path
        return None

    def _fetch(self, name: str) -> Path:
        family = _family(name)
        with self._store.alone(family, self._progress):
            if not self._store.holds(family):  # another launcher may have filled it while we waited for the lock
                self._fill(family)
        return self._store.entry(family) / name

    def _fill(self, family: Family) -> None:
        if self._store.entry(family).exists():
            faults = "; ".join(self._store.faults(family))
            self._progress.say(f"cached {family.name} is damaged ({faults}): replacing it")
        tried = []
        for source in self._sources:
            try:
                with self._store.filling(family, source.origin) as folder:
                    source.deliver(family, folder, self._progress)
            except Unavailable as reason:
                tried.append(f"{source.origin}: {reason}")
                self._progress.say(f"{family.name} {family.version}: no {source.origin} ({reason})")
            else:
                return
        fix = "put the programs into a folder and name it: TRIMTAB_ASSETS=FOLDER"
        raise Problem(f"cannot get {family.name} {family.version}: {'; '.join(tried)}", fix=fix)


def _family(name: str) -> Family:
    if name not in PROGRAMS:
        raise Problem(f"no program is called {name!r}", fix=f"choose from {', '.join(sorted(PROGRAMS))}")
    return PROGRAMS[name]
