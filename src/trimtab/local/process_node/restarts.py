"""When a container that ended starts again."""

from dataclasses import dataclass

from trimtab.local.process_node.spec import Container


@dataclass(frozen=True, slots=True)
class BackOff:
    """The delays between restarts, doubling from the first to the longest.

    Attributes:
        first_seconds: delay before the second restart; the first one is immediate.
        longest_seconds: delays stop growing here. A container that ran for twice as long starts afresh.
    """

    first_seconds: float = 10.0
    longest_seconds: float = 300.0

    def crashes(self, before: int, ran_seconds: float) -> int:
        """Return how many ends in a row count, this one included."""
        return 1 if ran_seconds > 2 * self.longest_seconds else before + 1

    def delay_seconds(self, crashes: int) -> float:
        """Return how long to wait after the given number of ends in a row."""
        if crashes <= 1:
            return 0.0
        return float(min(self.longest_seconds, self.first_seconds * 2.0 ** min(crashes - 2, 30)))


def restarts(policy: str, container: Container, exit_code: int, *, init: bool) -> bool:
    """Return whether a container that ended runs again under the pod's restart policy.

    An init container that succeeded is done; one that failed is tried again unless the policy is `Never`. A sidecar
    always runs again.
    """
    if container.sidecar:
        return True
    if init:
        return exit_code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)
