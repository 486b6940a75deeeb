"""How long answers are on average, per model and service level."""


class MeanLengths:
    """Running means of answer lengths, which start from a prior.

    Args:
        prior: The mean where nothing has been seen, in tokens.
        weight: As how many answers the prior counts.
    """

    __slots__ = ("_means", "prior", "weight")

    def __init__(self, prior: float, weight: float = 50.0) -> None:
        self.prior = prior
        self.weight = weight
        self._means: dict[tuple[str, str], tuple[float, float]] = {}

    def mean(self, model: str, level: str) -> float:
        """Return the mean for a model and a level; the level "" is all of them together."""
        count, total = self._means.get((model, level), (0.0, 0.0))
        return (self.weight * self.prior + total) / (self.weight + count)

    def learn(self, model: str, level: str, tokens: int) -> None:
        """Take note of an answer."""
        for key in {(model, level), (model, "")}:
            count, total = self._means.get(key, (0.0, 0.0))
            self._means[key] = count + 1, total + tokens
