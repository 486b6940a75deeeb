"""The actuator of mode Observe: it records what would have been done and touches nothing."""

from dataclasses import dataclass

from trimtab.model.decision import Action, Applied, Outcome


@dataclass(frozen=True, slots=True)
class DryRun:
    """Implements the `Actuator` port without a world behind it."""

    async def apply(self, action: Action) -> Applied:
        """Return the action as recorded."""
        return Applied(action, Outcome.RECORDED)
