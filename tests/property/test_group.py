"""Groups under arbitrary sequences of events: no request is lost, no group is orphaned, none grows once closed."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trimtab.decide.queueing.group import Grouping, Groups


@dataclass(frozen=True, slots=True)
class Request:
    key: int
    model: str
    deadline: float
    input_tokens: int


class Events(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.groups: Groups[Request] = Groups(Grouping(3))
        self.waiting: dict[int, Request] = {}
        self.running: dict[int, Request] = {}
        self.sizes: dict[int, int] = {}
        self.at = 0.0
        self.created = 0

    @rule(
        model=st.sampled_from("ab"),
        slack=st.sampled_from((-1.0, 1.0, 20.0, 25.0, 3600.0)),
        tokens=st.sampled_from((1, 500, 600, 5000)),
    )
    def arrive(self, model: str, slack: float, tokens: int) -> None:
        self.created += 1
        self.at += 1.0
        request = Request(self.created, model, self.at + slack, tokens)
        closed = {group.key for group in self.groups if group.closed}
        assert self.groups.place(request, self.at).key not in closed
        self.waiting[request.key] = request

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100))
    def start(self, which: int) -> None:
        key = sorted(self.waiting)[which % len(self.waiting)]
        self.running[key] = self.groups.start(key)
        assert self.running[key] == self.waiting.pop(key)
        assert self.groups.of(key).closed

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100))
    def evict(self, which: int) -> None:
        key = sorted(self.running)[which % len(self.running)]
        self.groups.evict(key)
        self.waiting[key] = self.running.pop(key)
        assert self.groups.of(key).first() == self.waiting[key]

    @precondition(lambda self: self.waiting or self.running)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        keys = sorted({**self.waiting, **self.running})
        key = keys[which % len(keys)]
        self.groups.remove(key)
        self.waiting.pop(key, None)
        self.running.pop(key, None)

    @invariant()
    def every_request_is_in_one_group(self) -> None:
        listed = sorted(member.key for group in self.groups for member in group.members())
        assert listed == sorted(self.waiting)
        assert sum(group.running for group in self.groups) == len(self.running)

    @invariant()
    def no_group_is_empty_too_large_or_mixed(self) -> None:
        for group in self.groups:
            assert 0 < len(group) <= 3
            assert all(self.groups.of(member.key) is group for member in group.members())
            assert {member.model for member in group.members()} <= {group.kind.model}

    @invariant()
    def a_deadline_is_the_minimum_over_who_waits(self) -> None:
        for group in self.groups:
            assert group.deadline == min((member.deadline for member in group.members()), default=float("inf"))

    @invariant()
    def a_closed_group_does_not_grow(self) -> None:
        for group in self.groups:
            if group.closed:
                assert len(group) <= self.sizes.setdefault(group.key, len(group))
                self.sizes[group.key] = len(group)


Events.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_groups_keep_their_promises = Events.TestCase
