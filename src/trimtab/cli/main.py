"""`trimtab`, also installed as `kubectl-trimtab`: one group whose commands are imported only when they run.

Exit codes: 0 done, 1 it failed (one line says what, one how to fix it), 2 wrong usage, 130 interrupted.
"""

import sys
from importlib.metadata import version
from typing import Final

import click

from trimtab.cli.lazy import load
from trimtab.model.problem import Problem

# name -> (module:attribute of a click command, the line shown by `trimtab --help`)
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("trimtab.cli.demo:demo", "Show everything at work on this machine, in about three minutes"),
    "engine": ("trimtab.cli.engine:engine", "Simulate an LLM engine behind vLLM's HTTP API"),
    "cluster": ("trimtab.cli.cluster:cluster", "Start, inspect and stop local Kubernetes clusters"),
    "lab": ("trimtab.cli.lab:lab", "Run experiments on the calibrated simulator, and hold it against measurements"),
    "predictor": ("trimtab.cli.predictor:predictor", "Train and judge predictors of how long an answer will be"),
    "replay": ("trimtab.cli.replay:replay", "Replay a recorded trace against an OpenAI-compatible endpoint"),
    "profile": ("trimtab.cli.profile:profile", "Measure an OpenAI-compatible engine and write a profile of it"),
    "whatif": (
        "trimtab.cli.whatif:whatif",
        "Say how many replicas a pool needs under a recorded load, and how sure that is",
    ),
    "explain": ("trimtab.cli.explain:explain", "Show the last decisions about an object, why, and what happened since"),
    "approve": ("trimtab.cli.approve:approve", "Let proposals of an object be carried out"),
    "resume": ("trimtab.cli.resume:resume", "Take a contested knob back"),
    "release": ("trimtab.cli.release:release", "Give back every knob that is held"),
    "top": ("trimtab.cli.top:top", "Show the live numbers of all pools"),
    "process-node": ("trimtab.cli.process_node:process_node", "Serve a Node whose pods are local processes"),
}

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A click group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command.

        Raises:
            Problem: A package that this command needs is not installed.
        """
        del ctx
        if cmd_name not in COMMANDS:
            return None
        return load(COMMANDS[cmd_name][0], cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from `COMMANDS` alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`trimtab COMMAND --help` says more about each. As a kubectl plug-in: `kubectl trimtab COMMAND`.",
)
@click.version_option(version("trimtab"), prog_name="trimtab")
def cli() -> None:
    """Keep AI serving and microservices within their objectives and inside the limits of the machines."""


def describe(error: Exception) -> str | None:
    """Two lines for an error that a person can act on, None for a defect of ours that needs its traceback."""
    if isinstance(error, Problem):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{error.strerror}: {error.filename}\nfix: see whose it is with `ls -ld`, or name another folder"
    from trimtab.kube import errors as kube  # noqa: PLC0415 - importing the client takes longer than most commands

    if isinstance(error, kube.Unavailable):
        return f"{error}\nfix: check $KUBECONFIG, and that the cluster runs (`trimtab cluster status`)"
    return str(error) if isinstance(error, kube.KubeError) else None


def main() -> None:
    """Run the command line and exit."""
    try:
        code = cli.main(prog_name="trimtab", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:  # the process edge
        text = describe(error)
        if text is None:
            raise
        click.secho(f"error: {text}", fg="red", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
