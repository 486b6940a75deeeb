"""Commands whose modules are imported only when they run."""

import importlib

import click

from trimtab.model.problem import Problem


def load(reference: str, name: str) -> click.Command:
    """Import the command at `module:attribute`.

    Args:
        reference: Where it is.
        name: What a person types after `trimtab`.

    Raises:
        Problem: A package that this command needs is not installed.
    """
    module, _, attribute = reference.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("trimtab"):
            raise
        fix = "pip install 'trimtab[all]'"
        raise Problem(f"`trimtab {name}` needs the Python package {error.name}", fix=fix) from error
    assert isinstance(command, click.Command)
    return command
