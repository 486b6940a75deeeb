"""How fast a pool serves, learned from the requests that it finished."""

from dataclasses import dataclass
from math import ceil

_WEIGHT = 0.1  # of the newest request in the moving average
_LEAST_SECONDS = 1
_MOST_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Pace:
    """The moving average of the time that an engine spends on one request.

    Attributes:
        service_seconds: the average, absent until the first request has finished.
    """

    service_seconds: float | None = None

    def after(self, served_seconds: float) -> "Pace":
        """Return the pace with one more finished request."""
        if self.service_seconds is None:
            return Pace(served_seconds)
        return Pace(self.service_seconds + _WEIGHT * (served_seconds - self.service_seconds))

    def retry_after_seconds(self, waiting: int, capacity: int) -> int:
        """Estimate when a place in the line will be free for a client that was sent away.

        `capacity` slots that turn over once in `service_seconds` clear a line of `waiting` in
        `waiting * service_seconds / capacity`. Without a finished request or a ready engine there is no estimate and
        the least wait is returned.

        Returns:
            Whole seconds between 1 and 600.
        """
        if self.service_seconds is None or capacity == 0:
            return _LEAST_SECONDS
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, ceil(waiting * self.service_seconds / capacity)))
