"""How long answers are, per model and service level: mean and standard deviation."""

from math import sqrt


class MeanLengths:
    """Running means of answer lengths, which start from a prior.

    Args:
        prior: The mean where nothing has been seen, in tokens. The standard deviation is then as large, as it is for
            exponential lengths.
        weight: As how many answers the prior counts.
    """

    __slots__ = ("_seen", "prior", "weight")

    def __init__(self, prior: float, weight: float = 50.0) -> None:
        self.prior = prior
        self.weight = weight
        self._seen: dict[tuple[str, str], tuple[float, float, float]] = {}  # count, sum, sum of squares

    def mean(self, model: str, level: str) -> float:
        """Return the mean for a model and a level; the level "" is all of them together."""
        count, total, _ = self._seen.get((model, level), (0.0, 0.0, 0.0))
        return (self.weight * self.prior + total) / (self.weight + count)

    def deviation(self, model: str, level: str) -> float:
        """Return the standard deviation of one answer, in tokens."""
        count, _, squares = self._seen.get((model, level), (0.0, 0.0, 0.0))
        square = (self.weight * 2 * self.prior**2 + squares) / (self.weight + count)
        return sqrt(max(square - self.mean(model, level) ** 2, 0.0))

    def learn(self, model: str, level: str, tokens: int) -> None:
        """Take note of an answer."""
        for key in {(model, level), (model, "")}:
            count, total, squares = self._seen.get(key, (0.0, 0.0, 0.0))
            self._seen[key] = count + 1, total + tokens, squares + tokens**2
