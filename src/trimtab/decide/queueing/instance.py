"""The machines that several models share, as a queue in front of them sees them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a machine serves one model.

    Attributes:
        tokens_per_second: Answer tokens per second while its batch is full and decodes (theta).
        seconds_per_prompt_token: What a token of a prompt takes of the machine's time.
        step_seconds: How long a step of the full batch takes, which a new request waits for and is part of.
    """

    tokens_per_second: float
    seconds_per_prompt_token: float = 0.0
    step_seconds: float = 0.0

    def first_token_seconds(self, input_tokens: float) -> float:
        """Return the time from the dispatch of a prompt to its first token."""
        return 1.5 * self.step_seconds + self.seconds_per_prompt_token * input_tokens

    def times(self, factor: float) -> "Speed":
        """Return the speed of a machine that is so many times as fast at everything."""
        return Speed(
            self.tokens_per_second * factor, self.seconds_per_prompt_token / factor, self.step_seconds / factor
        )


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine that holds one model at a time.

    Attributes:
        name: Unique; ties between equal machines go to the lowest name.
        slots: How many requests it carries at once, running and waiting (its target batch).
        speeds: For each model that it can hold.
        swap_seconds: The time to make a model resident, for each model that it can hold.
        resident: The model that it holds when the queue first hears of it.
    """

    name: str
    slots: int
    speeds: Mapping[str, Speed]
    swap_seconds: Mapping[str, float]
    resident: str | None = None
