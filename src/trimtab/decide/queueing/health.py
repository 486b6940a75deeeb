"""When an engine that fails gets no new requests, and when it is tried again."""

from dataclasses import dataclass

_LONGEST_DOUBLING = 16  # keeps 2**n finite however long an engine fails


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How much failure is tolerated.

    Attributes:
        failures: consecutive failed answers that eject an engine; a refused connection ejects at once.
        first_backoff_seconds: how long the first ejection lasts; each further one lasts twice as long.
        longest_backoff_seconds: the bound of that growth.
    """

    failures: int = 3
    first_backoff_seconds: float = 1.0
    longest_backoff_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """What one engine's last answers say about it.

    Attributes:
        failures: consecutive failed answers since the last good one or the last ejection.
        ejections: consecutive ejections without a good answer in between.
        ejected_until: it gets no request before this time; afterwards one at a time until an answer is good.
    """

    failures: int = 0
    ejections: int = 0
    ejected_until: float = 0.0

    @property
    def on_trial(self) -> bool:
        """Whether it has to prove itself with single requests."""
        return self.ejections > 0

    def is_ejected(self, at: float) -> bool:
        """Whether it gets no request at this time."""
        return self.on_trial and at < self.ejected_until


GOOD = Health()


def after_failure(health: Health, policy: HealthPolicy, at: float, *, unreachable: bool) -> Health:
    """Return the health after a failed answer, or after a connection that could not be made (`unreachable`)."""
    if health.is_ejected(at):
        return health  # the requests that were open when it failed say nothing new
    failures = health.failures + 1
    if not unreachable and failures < policy.failures and not health.on_trial:
        return Health(failures, health.ejections, health.ejected_until)
    ejections = health.ejections + 1
    backoff = policy.first_backoff_seconds * 2 ** min(ejections - 1, _LONGEST_DOUBLING)
    return Health(0, ejections, at + min(backoff, policy.longest_backoff_seconds))
