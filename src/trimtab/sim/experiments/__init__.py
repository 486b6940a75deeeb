"""The experiments of the lab, one file each: a module here with an attribute `EXPERIMENT` is one."""

import importlib
import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches

from trimtab.model.problem import Problem
from trimtab.sim.experiment import Experiment


def experiments() -> Mapping[str, Experiment]:
    """Import every experiment; by name, in alphabetical order.

    Raises:
        Problem: A package that one of them needs is not installed.
    """
    found = [_experiment(module.name) for module in pkgutil.iter_modules(__path__)]
    return {experiment.name: experiment for experiment in sorted(filter(None, found), key=lambda one: one.name)}


def find(name: str) -> Experiment:
    """Return the experiment with this name.

    Raises:
        Problem: There is none; the fix names the one that was probably meant, or all.
    """
    known = experiments()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=2, cutoff=0.5)
    fix = f"did you mean {' or '.join(near)}?" if near else f"name one of {', '.join(known) or 'none'}"
    raise Problem(f"there is no experiment {name!r}", fix=f"{fix} (`trimtab lab list` shows all)")


def _experiment(module: str) -> Experiment | None:
    try:
        found: Experiment | None = getattr(importlib.import_module(f"{__name__}.{module}"), "EXPERIMENT", None)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("trimtab"):
            raise
        fix = "pip install 'trimtab[lab]'"
        raise Problem(f"the experiment {module} needs the Python package {error.name}", fix=fix) from error
    return found
