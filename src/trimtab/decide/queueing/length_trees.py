"""Ensembles of regression trees as plain numbers: what training leaves behind, evaluated without the training library.

The weights come from a JSON file that somebody else has read (`trimtab.learn.shipped`). Evaluation goes down all trees
of all requests of a batch at once, so that a micro-batch costs tens of microseconds per level, not per tree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

_NODE_FIELDS = ("feature", "threshold", "missing_left", "left", "right", "value")


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A sum of trees; nodes of all trees stand in the same arrays.

    Attributes:
        baseline: what the sum starts from.
        roots: the first node of each tree.
        feature: the column that a node looks at.
        threshold: a row goes left where its column is at most this.
        missing_left: whether a row without the column (NaN) goes left.
        left: the next node on the left; a leaf leads to itself.
        right: the next node on the right.
        value: what a leaf adds; 0 in other nodes.
        depth: steps after which every row stands at a leaf.
    """

    baseline: float
    roots: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: Rows
    missing_left: NDArray[np.bool_]
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    value: Rows
    depth: int

    def evaluate(self, rows: Rows) -> Rows:
        """Return the sum for each row.

        Args:
            rows: shape (requests, columns); NaN where a column is not known.

        Returns:
            Shape (requests,).
        """
        if not self.roots.size:
            return np.full(len(rows), self.baseline)
        at = np.broadcast_to(self.roots, (len(rows), self.roots.size))
        row = np.arange(len(rows))[:, None]
        missing = np.isnan(rows)
        for _ in range(self.depth):
            column = self.feature[at]
            to_left = (rows[row, column] <= self.threshold[at]) | (missing[row, column] & self.missing_left[at])
            at = np.where(to_left, self.left[at], self.right[at])
        total: Rows = self.baseline + self.value[at].sum(axis=1)
        return total


def ensemble_from(plain: Mapping[str, Any], columns: int) -> Ensemble:
    """Build an ensemble from what `plain_ensemble` of the training wrote.

    Args:
        plain: `baseline`, and `trees`: for each tree a list per field of `_NODE_FIELDS`, nodes counted from 0.
        columns: how many columns rows have.

    Raises:
        ValueError: a tree that does not end, or looks at a column that is not there; the message names it.
    """
    nodes: dict[str, list[Any]] = {name: [] for name in _NODE_FIELDS}
    roots: list[int] = []
    depth = 0
    for number, tree in enumerate(plain["trees"]):
        start = len(nodes["value"])
        depth = max(depth, _depth(tree, columns, f"tree {number}"))
        roots.append(start)
        for name in _NODE_FIELDS:
            shift = start if name in ("left", "right") else 0
            nodes[name] += [value + shift for value in tree[name]] if shift else tree[name]
    return Ensemble(
        baseline=float(plain["baseline"]),
        roots=np.array(roots, dtype=np.intp),
        feature=np.array(nodes["feature"], dtype=np.intp),
        threshold=np.array(nodes["threshold"], dtype=np.float64),
        missing_left=np.array(nodes["missing_left"], dtype=np.bool_),
        left=np.array(nodes["left"], dtype=np.intp),
        right=np.array(nodes["right"], dtype=np.intp),
        value=np.array(nodes["value"], dtype=np.float64),
        depth=depth,
    )


def _depth(tree: Mapping[str, Sequence[Any]], columns: int, name: str) -> int:
    """Return the longest way to a leaf; children come after their parents, so every way ends."""
    lengths = {len(tree[field]) for field in _NODE_FIELDS}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"{name}: its fields have {sorted(lengths)} nodes; they must have the same number, at least 1")
    depths = [0] * lengths.pop()
    for node, depth in enumerate(depths):
        left, right = tree["left"][node], tree["right"][node]
        if left == right == node:
            continue
        if not (node < left < len(depths) and node < right < len(depths)):
            raise ValueError(f"{name}: node {node} leads to {left} and {right} of {len(depths)}")
        if not 0 <= tree["feature"][node] < columns:
            raise ValueError(f"{name}: node {node} looks at column {tree['feature'][node]} of {columns}")
        depths[left] = depths[right] = depth + 1
    return max(depths)
