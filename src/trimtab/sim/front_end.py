"""The front end of one server: what stands between a request's arrival and the engine's queue."""

from typing import Final

from trimtab.sim.profile import FrontEnd

NO_FRONT_END: Final = FrontEnd()
"""One through which requests pass at once."""


class Reception:
    """Takes requests in, one after another where each keeps it busy.

    Args:
        costs: What a request takes.
    """

    __slots__ = ("_costs", "_free_at")

    def __init__(self, costs: FrontEnd) -> None:
        self._costs = costs
        self._free_at = 0.0

    def passes_at(self, now: float, prompt_tokens: int) -> float:
        """When the engine sees a request that arrives now; to be asked once for each, in the order of arrival."""
        begins = max(now, self._free_at)
        self._free_at = begins + self._costs.busy_per_request
        return begins + self._costs.seconds(prompt_tokens)
