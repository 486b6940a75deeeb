"""Requests that are planned as one: same model, like deadlines, very long prompts apart.

A planner that orders thousands of requests one by one is too slow, and the wait behind a group is better known than the
wait behind one request. So requests join groups where they wait, groups are placed, and members leave in order of
arrival.

Source: QLM (SoCC 2024) groups by model, objective and token distribution; its released code by model and
objective. Buckets, sizes and closing are [design].
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf, log2
from typing import Generic, Protocol, TypeVar

_SLACK = 64  # outdated deadlines tolerated in a heap before it is rebuilt
_LATE = -(2**31)  # the bucket of those who have no time left


class Waiting(Protocol):
    """What is known of a request that waits.

    Attributes:
        key: Unique; grows with arrival.
        model: What it needs resident.
        deadline: When its first token is due, on the caller's clock.
        input_tokens: The length of its prompt.
    """

    @property
    def key(self) -> int: ...  # noqa: D102 - see the attributes
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def deadline(self) -> float: ...  # noqa: D102
    @property
    def input_tokens(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Grouping:
    """What makes requests alike.

    Attributes:
        most: A group has at most this many members; at least one.
        mega_tokens: Longer prompts are kept apart: they distort the rate of their neighbors and their first tokens.
    """

    most: int = 128
    mega_tokens: int = 3000

    def kind(self, request: Waiting, at: float) -> "Kind":
        """Return which requests this one may be grouped with, judged once, when it is placed."""
        return Kind(request.model, slack_bucket(request.deadline - at), request.input_tokens > self.mega_tokens)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the members of a group have in common."""

    model: str
    slack_bucket: int
    mega: bool


def slack_bucket(slack_seconds: float) -> int:
    """Return the power of two that is nearest to a slack, so that 15 s and 20 s wait together and 1 s and 1 h do not.

    Nearest, not next below: objectives are round numbers, and a request that was a millisecond on its way must not fall
    into another bucket than its neighbor.
    """
    return round(log2(slack_seconds)) if slack_seconds > 0 else _LATE


class Group(Generic[R]):
    """Members that wait or run; it is open until the first one starts.

    Attributes:
        key: Unique; grows with creation.
        kind: What the members have in common.
        closed: Whether it takes no more members.
    """

    __slots__ = ("_deadlines", "_running", "_waiting", "closed", "key", "kind")

    def __init__(self, key: int, kind: Kind) -> None:
        self.key = key
        self.kind = kind
        self.closed = False
        self._waiting: OrderedDict[int, R] = OrderedDict()
        self._running: dict[int, R] = {}
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def waiting(self) -> int:
        """How many members wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many members run."""
        return len(self._running)

    @property
    def deadline(self) -> float:
        """The earliest deadline of a member that waits; infinite when none does."""
        while self._deadlines and not self._is_due(*self._deadlines[0]):
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else inf

    def _is_due(self, deadline: float, key: int) -> bool:
        """Whether an entry tells the truth: its member may run, or wait again with a later deadline."""
        member = self._waiting.get(key)
        return member is not None and member.deadline == deadline

    def members(self) -> Iterator[R]:
        """Yield the members that wait, in the order in which they are served."""
        return iter(self._waiting.values())

    def first(self) -> R | None:
        """Return the member that is served next."""
        return next(iter(self._waiting.values()), None)

    def _enter(self, request: R, *, ahead: bool = False) -> None:
        self._waiting[request.key] = request
        if ahead:
            self._waiting.move_to_end(request.key, last=False)
        heappush(self._deadlines, (request.deadline, request.key))
        if len(self._deadlines) > 2 * len(self._waiting) + _SLACK:
            self._deadlines = [(member.deadline, key) for key, member in self._waiting.items()]
            heapify(self._deadlines)


class Groups(Generic[R]):
    """All groups of a queue; each step costs O(log n) amortized.

    A request is in exactly one group from `place` to `remove`. A group without members is gone: nothing can join it.

    Args:
        grouping: What makes requests alike.
    """

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._groups: dict[int, Group[R]] = {}
        self._open: dict[Kind, Group[R]] = {}
        self._home: dict[int, Group[R]] = {}
        self._created = 0

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group[R]]:
        return iter(self._groups.values())

    def __contains__(self, key: int) -> bool:
        return key in self._home

    def __getitem__(self, group: int) -> Group[R]:
        return self._groups[group]

    def of(self, key: int) -> Group[R]:
        """Return the group of a request."""
        return self._home[key]

    def place(self, request: R, at: float) -> Group[R]:
        """Let a request join the open group of its kind, or one that is made for it."""
        assert request.key not in self._home, "a request waits once"
        kind = self._grouping.kind(request, at)
        group = self._open.get(kind)
        if group is None:
            group = self._open[kind] = self._groups[self._created] = Group(self._created, kind)
            self._created += 1
        group._enter(request)  # noqa: SLF001 - the two classes are one structure
        self._home[request.key] = group
        if len(group) >= self._grouping.most:
            self.close(group)
        return group

    def close(self, group: Group[R]) -> None:
        """Let a group take no more members."""
        group.closed = True
        if self._open.get(group.kind) is group:
            del self._open[group.kind]

    def start(self, key: int) -> R:
        """Let a member run; its group is closed from then on."""
        group = self._home[key]
        self.close(group)
        request = group._waiting.pop(key)  # noqa: SLF001
        group._running[key] = request  # noqa: SLF001
        return request

    def evict(self, key: int) -> None:
        """Put a member that runs back to the front of its group."""
        group = self._home[key]
        group._enter(group._running.pop(key), ahead=True)  # noqa: SLF001

    def remove(self, key: int) -> None:
        """Forget a request that has ended, or whose client is gone; with the last member its group goes."""
        group = self._home.pop(key)
        group._waiting.pop(key, None)  # noqa: SLF001
        group._running.pop(key, None)  # noqa: SLF001
        if not len(group):
            self.close(group)
            del self._groups[group.key]
