"""Writes the generated files, or with `--check` says which of them differ from what would be written."""

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import install_manifest
import reference

from trimtab.api import crd

ROOT = Path(__file__).resolve().parent.parent


def generated() -> Iterator[tuple[Path, str]]:
    """Yield each generated file, relative to the checkout, with its content."""
    for name, text in crd.files().items():
        yield Path("crds") / name, text
        yield Path("helm/trimtab/crds") / name, text
    yield Path("src/trimtab/api/schema_hashes.py"), crd.hashes_module()
    manifest = install_manifest.text(ROOT)
    if manifest is None:
        print("manifests/install.yaml is left as it is: `trimtab cluster programs fetch helm` gets what renders it")
    else:
        yield Path("manifests/install.yaml"), manifest
    for name, text in reference.pages().items():
        yield Path("docs/reference") / name, text


def main() -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    check = parser.parse_args().check
    stale = 0
    for path, text in generated():
        before = (ROOT / path).read_text() if (ROOT / path).exists() else ""
        if before == text:
            continue
        stale += 1
        if check:
            old, new = before.splitlines(keepends=True), text.splitlines(keepends=True)
            sys.stdout.writelines(list(difflib.unified_diff(old, new, str(path), "generated"))[:40])
        else:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(text)
            print(f"wrote {path}")
    if check and stale:
        print(f"{stale} generated files are out of date: run `make gen` and commit the result")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
