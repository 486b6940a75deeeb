"""The command line's entry point: lazy, with one clear line and a fix for each error."""

import importlib
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from trimtab.cli import main as entry
from trimtab.kube import NotFound, Unavailable
from trimtab.model.problem import Problem


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["trimtab", *arguments])
    with pytest.raises(SystemExit) as end:
        entry.main()
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException | None]:
    """A command `try` that raises what is put under `error`."""
    holder: dict[str, BaseException | None] = {"error": None}

    @click.command()
    def try_() -> None:
        if holder["error"]:
            raise holder["error"]
        click.echo("done")

    monkeypatch.setattr(entry, "COMMANDS", {"try": ("tests.unit.cli.test_main:command_under_test", "Try it")})
    monkeypatch.setattr(sys.modules[__name__], "command_under_test", try_, raising=False)
    return holder


@pytest.mark.parametrize("name", sorted(entry.COMMANDS))
def test_every_command_exists_and_has_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: trimtab {name}")


def helps(command: click.Command, *names: str) -> Iterator[tuple[str, str]]:
    """What `--help` says, of a command and of all below it."""
    context = click.Context(command, info_name=" ".join(names))
    yield " ".join(names), command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below, *names, name)


def test_no_help_shows_marks_that_are_meant_for_click() -> None:
    said = dict(helps(entry.cli, "trimtab"))
    assert {"trimtab lab calibrate", "trimtab lab run", "trimtab cluster up"} <= set(said)
    for name, text in said.items():
        assert "\\b" not in text, name
        assert "\b" not in text, name


def test_help_lists_every_command_without_importing_any() -> None:
    program = (
        "import sys; from trimtab.cli.main import main\n"
        "sys.argv = ['trimtab', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('kubernetes', 'numpy', 'fastapi', 'matplotlib', 'httpx2', 'yaml')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for name in entry.COMMANDS:
        assert f"  {name}" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_each_line_of_the_help_agrees_with_the_command_itself() -> None:
    for name, (where, line) in entry.COMMANDS.items():
        module, _, attribute = where.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
        assert loaded.name == name
        assert line[0].isupper()
        assert not line.endswith(".")


@pytest.mark.usefixtures("command")
def test_success_is_zero(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, capsys, "try") == (0, "done\n", "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Problem("no disk", fix="buy one"), 1, "error: no disk\nfix: buy one\n"),
        (Problem("no disk"), 1, "error: no disk\n"),
        (
            PermissionError(13, "Permission denied", "/x"),
            1,
            "Permission denied: /x\nfix: see whose it is with `ls -ld`, or name another folder\n",
        ),
        (click.UsageError("--x is wrong"), 2, "Error: --x is wrong\n"),
        (click.Abort(), 130, "interrupted\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_each_kind_of_error_has_its_code_and_no_traceback(
    command: dict[str, BaseException | None],
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command["error"] = error
    found, _, err = run(monkeypatch, capsys, "try")
    assert found == code
    assert err.lstrip("\n").endswith(said)
    assert "Traceback" not in err


def test_an_api_server_that_is_away_is_said_with_its_fix() -> None:
    text = entry.describe(Unavailable(0, "Unavailable", "connection refused"))
    assert text is not None
    assert text.endswith("fix: check $KUBECONFIG, and that the cluster runs (`trimtab cluster status`)")


def test_a_refusal_of_the_api_server_is_said_as_it_is() -> None:
    error = NotFound(404, "NotFound", 'servingpools "x" not found')
    assert entry.describe(error) == str(error)


def test_a_defect_of_ours_keeps_its_traceback(
    command: dict[str, BaseException | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    command["error"] = ZeroDivisionError()
    monkeypatch.setattr(sys, "argv", ["trimtab", "try"])
    with pytest.raises(ZeroDivisionError):
        entry.main()


def test_an_unknown_command_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(monkeypatch, capsys, "clustre")
    assert code == 2
    assert "No such command 'clustre'" in err


def test_a_missing_extra_is_named_with_its_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "COMMANDS", {"try": ("no_such_package_at_all:x", "Try it")})
    code, _, err = run(monkeypatch, capsys, "try")
    assert code == 1
    assert (
        err == "error: `trimtab try` needs the Python package no_such_package_at_all\nfix: pip install 'trimtab[all]'\n"
    )
