"""What the node has given to whom."""

from decimal import Decimal

from trimtab.local.process_node.resize import Amounts, Judged, ResizeVerdict, amounts, judge, shortage


class Ledger:
    """Requests of the pods on the node against what it can give.

    Args:
        allocatable: resources as a Node states them; `pods` bounds the number of pods.
    """

    def __init__(self, allocatable: dict[str, str]) -> None:
        self.written = allocatable
        self._allocatable = amounts(allocatable)
        self._taken: dict[str, Amounts] = {}

    def admit(self, uid: str, wanted: Amounts) -> str | None:
        """Charge a new pod, or return the resource that it lacks."""
        one_pod = {**wanted, "pods": Decimal(1)}
        lacking = shortage(self._allocatable, self._others(uid), one_pod)
        if lacking is None:
            self._taken[uid] = one_pod
        return lacking

    def resize(self, uid: str, wanted: Amounts) -> Judged:
        """Judge a resize and charge it if it is accepted."""
        judged = judge(self._allocatable, self._others(uid), wanted)
        if judged.verdict is ResizeVerdict.ACCEPTED and uid in self._taken:
            self._taken[uid] = {**wanted, "pods": Decimal(1)}
        return judged

    def release(self, uid: str) -> bool:
        """Give back what a pod had; return whether it had anything."""
        return self._taken.pop(uid, None) is not None

    def _others(self, uid: str) -> list[Amounts]:
        return [taken for owner, taken in self._taken.items() if owner != uid]
