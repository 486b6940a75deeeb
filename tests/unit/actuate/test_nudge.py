from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from trimtab.actuate import nudge
from trimtab.api import keys
from trimtab.kube import Event, EventType, KubeError, NotFound, Unavailable


class FakeKube:
    """Nodes by name, and what was patched."""

    def __init__(self, *nodes: str, refuses: KubeError | None = None) -> None:
        self.annotations: dict[str, dict[str, str]] = {name: {} for name in nodes}
        self.patches: list[tuple[str, str]] = []
        self.refuses = refuses

    async def get(self, _: object, name: str) -> dict[str, Any]:
        if name not in self.annotations:
            raise NotFound(404, "NotFound", f"nodes {name} not found")
        return {"metadata": {"name": name, "annotations": self.annotations[name]}}

    async def merge_patch(self, _: object, name: str, patch: dict[str, Any]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.annotations[name] |= patch["metadata"]["annotations"]
        self.patches.append((name, patch["metadata"]["annotations"][keys.PLACEMENT_EPOCH]))


def wish(node: str, epoch: str, kind: EventType = EventType.MODIFIED) -> Event:
    return Event(kind, {"metadata": {"annotations": {keys.PLACEMENT_NODE: node, keys.PLACEMENT_EPOCH: epoch}}})


async def carried(kube: FakeKube, monkeypatch: pytest.MonkeyPatch, *events: Event) -> list[tuple[str, str]]:
    async def watched(*_: object, field_selector: str) -> AsyncIterator[Event]:
        assert field_selector == "metadata.name=trimtab-placement"
        for event in events:
            yield event

    monkeypatch.setattr(nudge, "list_then_watch", watched)
    await nudge.carry_nudges(kube, "power")  # type: ignore[arg-type]
    return kube.patches


async def test_each_epoch_is_carried_to_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    events = wish("n1", "7", EventType.ADDED), Event(EventType.SYNCED, {}), wish("n2", "8")
    assert await carried(FakeKube("n1", "n2"), monkeypatch, *events) == [("n1", "7"), ("n2", "8")]


async def test_a_wish_that_was_carried_before_a_restart_is_not_carried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = FakeKube("n1")
    await carried(kube, monkeypatch, wish("n1", "7"))
    assert await carried(kube, monkeypatch, wish("n1", "7", EventType.ADDED)) == [("n1", "7")]


@pytest.mark.parametrize(
    "event",
    [
        Event(EventType.MODIFIED, {"metadata": {}}),
        wish("", "7"),
        wish("n1", ""),
        wish("n1", "7", EventType.DELETED),
        wish("gone", "7"),
    ],
)
async def test_no_wish_and_no_node_patch_nothing(event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await carried(FakeKube("n1"), monkeypatch, event) == []


async def test_a_failed_patch_is_said_and_the_next_wish_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = FakeKube("n1", refuses=Unavailable(0, "Timeout", "silence"))
    with capture_logs() as logs:
        assert await carried(kube, monkeypatch, wish("n1", "7")) == []
    assert logs[0]["log_level"] == "warning"
    kube.refuses = None
    assert await carried(kube, monkeypatch, wish("n1", "8")) == [("n1", "8")]
