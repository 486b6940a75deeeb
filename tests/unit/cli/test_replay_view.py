"""How replays and the demo look in a terminal."""

import math

import pytest
from rich.console import Console, RenderableType

from trimtab.cli.demo_view import demo_view
from trimtab.cli.replay_view import live_view, scale_note, seconds_text, share_text, status_line, summary_view
from trimtab.local.demo import Seen
from trimtab.workload.answer import Outcome
from trimtab.workload.histogram import LogHistogram
from trimtab.workload.level import ServiceLevel
from trimtab.workload.record import RequestRecord
from trimtab.workload.replay import Replay, ReplaySettings
from trimtab.workload.request import Trace, TraceRequest
from trimtab.workload.summary import summarize
from trimtab.workload.wire import Client, parse_target

CHAT = ServiceLevel("chat", ttft_seconds=1.0)


def a_record(outcome: Outcome = Outcome.OK) -> RequestRecord:
    return RequestRecord(
        *(0, CHAT, outcome, 200, 0.0, 0.001, 0.25, 2.5, 0.02, 0.03, 100, 100, 25, 101, 101, "", outcome is Outcome.OK)
    )


def a_replay(*outcomes: Outcome) -> Replay:
    trace = Trace("t", "f", (TraceRequest(0.0, 1, 1), TraceRequest(600.0, 1, 1)), 600.0)
    replay = Replay(trace, Client(parse_target("http://127.0.0.1:1")), ReplaySettings("m", levels=(CHAT,)))
    replay.records.extend(a_record(outcome) for outcome in outcomes)
    return replay


def shown(view: RenderableType) -> str:
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(view)
    return console.export_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (math.nan, "-"),
        (0.0005, "0.5 ms"),
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (12.34, "12.3 s"),
        (125.0, "2 min 5 s"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("share", "text", "style"), [(1.0, "100.0%", "green"), (0.95, "95.0%", "yellow"), (0.5, "50.0%", "red")]
)
def test_shares(share: float, text: str, style: str) -> None:
    assert (share_text(share).plain, share_text(share).style) == (text, style)


def test_a_replay_that_has_not_begun_can_be_shown() -> None:
    assert "0 of 2 requests" in shown(live_view(a_replay()))
    assert "none yet" in status_line(a_replay())


def test_live_view_counts_outcomes_and_attainment() -> None:
    text = shown(live_view(a_replay(Outcome.OK, Outcome.OK, Outcome.REJECTED)))
    assert "outcomes: 2 ok, 1 rejected" in text
    assert "66.7%" in text
    assert "250 ms" in text


def test_summary_names_targets_and_warnings() -> None:
    records = [a_record()] * 3
    summary = summarize(records, (CHAT,), offered_seconds=10, gaps=LogHistogram())
    text = shown(summary_view(summary))
    assert "chat: TTFT ≤ 1 s" in text
    assert "outcomes: 3 ok" in text
    assert "prefix cache: 25.0% of prompt tokens" in text
    assert "warning" not in text


@pytest.mark.parametrize(
    ("speed", "scale", "text"),
    [(2, 1, "wall seconds; the trace ran at 2 x"), (5, 5, "an engine 5 x as fast"), (5, 2, "wall seconds x 2")],
)
def test_seconds_are_explained(speed: float, scale: float, text: str) -> None:
    assert text in scale_note(speed, scale)


def test_demo_shows_pools_placement_and_events() -> None:
    ready = {"type": "Ready", "status": "True", "message": "2 of 2 replicas are ready"}
    pool = {"spec": {"replicas": 2, "mode": "Enforce"}, "status": {"readyReplicas": 2, "conditions": [ready]}}
    pod = {"metadata": {"labels": {"trimtab.dev/pool": "chat"}}, "spec": {"nodeName": "n1"}}
    event = {
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "reason": "ReplicasSet",
        "message": "replicas set from 2 to 3",
        "involvedObject": {"kind": "ServingPool", "name": "chat"},
    }
    seen = Seen(pools={"ai/chat": pool}, pods={"p": pod}, events={"e": event}, waiting={"ai/chat": 7.0})
    text = shown(demo_view(a_replay(Outcome.OK), seen, ["at 210 s: scaled"]))
    assert "2/2" in text
    assert "2 of 2 replicas are ready" in text
    assert "this machine: n1" in text
    assert "ReplicasSet servingpool/chat: replicas set from 2 to 3" in text
    assert "at 210 s: scaled" in text
    row = next(line for line in text.splitlines() if "ai/chat" in line)
    assert " 7 " in row
