"""What a replay leaves behind: a table, figures as CSV and JSON, a picture."""

import json
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from trimtab.cli.replay_view import scale_note, summary_view
from trimtab.model.problem import Problem
from trimtab.workload.replay import Replay
from trimtab.workload.report import (
    PLOT_FILE,
    REQUESTS_FILE,
    SUMMARY_FILE,
    summary_fields,
    write_requests,
    write_summary,
)
from trimtab.workload.summary import Summary, summarize


def make_folder(folder: Path) -> Path:
    """Make the folder before anything is sent: a replay whose figures cannot be kept is better not begun.

    Raises:
        Problem: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REQUESTS_FILE).touch()
    except OSError as error:
        raise Problem(f"cannot write to {folder}: {error.strerror}", fix="pass --out with another folder") from error
    return folder


def allow_many_connections() -> None:
    """Raise the limit of open files to what the system allows: every request under way has a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def finish(finished: Replay, folder: Path, console: Console, *, url: str, complete: bool, as_json: bool) -> Summary:
    """Print what a replay amounts to, then write its files; returns the summary.

    Args:
        finished: the replay, over.
        folder: where the files go.
        console: where remarks go.
        url: where the requests went.
        complete: whether it ran to its end.
        as_json: print JSON instead of a table.

    Raises:
        Problem: the files cannot be written, after all has been printed.
    """
    summary = summarize(
        finished.records, finished.settings.levels, offered_seconds=finished.offered_seconds, gaps=finished.gaps
    )
    record = summary_fields(summary, _about(finished, complete=complete, url=url))
    if as_json:
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        _print_summary(finished, summary)
    _write(folder, finished, summary, record, console)
    return summary


def _about(finished: Replay, *, complete: bool, url: str) -> dict[str, Any]:
    settings = finished.settings
    return {
        "trace": finished.trace.name,
        "source": Path(finished.trace.source).name,
        "notes": list(finished.trace.notes),
        "url": url,
        "model": settings.model,
        "speed": settings.speed,
        "timeScale": settings.time_scale,
        "seed": settings.seed,
        "traceSeconds": finished.trace.duration_seconds,
        "plannedRequests": len(finished.trace.requests),
        "complete": complete,
        "versions": {"trimtab": version("trimtab"), "python": platform.python_version()},
    }


def _print_summary(finished: Replay, summary: Summary) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(summary_view(summary), highlight=False, soft_wrap=True)
    console.print(scale_note(finished.settings.speed, finished.settings.time_scale), style="dim", highlight=False)


def _write(folder: Path, finished: Replay, summary: Summary, record: dict[str, Any], console: Console) -> None:
    try:
        write_requests(folder / REQUESTS_FILE, finished.records)
        write_summary(folder / SUMMARY_FILE, record)
        if finished.records:
            # Importing matplotlib takes a second, which would delay the first requests.
            from trimtab.workload.plot import draw_replay  # noqa: PLC0415

            draw_replay(folder / PLOT_FILE, finished.records, summary, _title(finished, summary))
    except OSError as error:
        raise Problem(
            f"cannot write to {folder}: {error.strerror}", fix="free some space, or pass --out with another folder"
        ) from error
    names = [REQUESTS_FILE, SUMMARY_FILE, *([PLOT_FILE] if finished.records else [])]
    console.print(f"written: {folder}/ ({', '.join(names)})", highlight=False, soft_wrap=True)


def _title(finished: Replay, summary: Summary) -> str:
    settings = finished.settings
    return (
        f"{finished.trace.name} on {settings.model}: {summary.total.offered} requests, speed {settings.speed:g}"
        + (f", times x {settings.time_scale:g}" if settings.time_scale != 1 else "")
        + f", {summary.total.attainment:.1%} within their level"
    )
