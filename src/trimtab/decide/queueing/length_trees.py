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
class Forest:
    """Several sums of trees over the same rows; nodes of all trees stand in the same arrays.

    Attributes:
        baselines: what each sum starts from; shape (sums,).
        starts: the place in `roots` of each sum's first tree; every sum has at least one.
        roots: the first node of each tree.
        feature: the column that a node looks at.
        threshold: a row goes left where its column is at most this.
        missing_left: whether a row without the column (NaN) goes left.
        left: the next node on the left; a leaf leads to itself.
        right: the next node on the right.
        value: what a leaf adds; 0 in other nodes.
        depth: steps after which every row stands at a leaf.
    """

    baselines: Rows
    starts: NDArray[np.intp]
    roots: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: Rows
    missing_left: NDArray[np.bool_]
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    value: Rows
    depth: int

    def evaluate(self, rows: Rows) -> Rows:
        """Return the sums for each row.

        Args:
            rows: shape (requests, columns); NaN where a column is not known.

        Returns:
            Shape (requests, sums).
        """
        at = np.broadcast_to(self.roots, (len(rows), self.roots.size))
        row = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            seen = rows[row, self.feature[at]]
            to_left = (seen <= self.threshold[at]) | (np.isnan(seen) & self.missing_left[at])
            at = np.where(to_left, self.left[at], self.right[at])
        sums: Rows = self.baselines + np.add.reduceat(self.value[at], self.starts, axis=1)
        return sums


_EMPTY: Mapping[str, Sequence[Any]] = {
    "feature": [0],
    "threshold": [0.0],
    "missing_left": [0],
    "left": [0],
    "right": [0],
    "value": [0.0],
}


def forest_from(sums: Sequence[Mapping[str, Any]], columns: int) -> Forest:
    """Build a forest from what `plain_ensemble` of the training wrote.

    Args:
        sums: each with `baseline`, and `trees`: for each tree a list per field, nodes counted from 0.
        columns: how many columns rows have.

    Raises:
        ValueError: a tree that does not end, or looks at a column that is not there; the message names it.
    """
    nodes: dict[str, list[Any]] = {name: [] for name in _NODE_FIELDS}
    roots: list[int] = []
    starts: list[int] = []
    depth = 0
    for plain in sums:
        starts.append(len(roots))
        for number, tree in enumerate(plain["trees"] or [_EMPTY]):
            depth = max(depth, _depth(tree, columns, f"tree {number}"))
            roots.append(len(nodes["value"]))
            _append(nodes, tree)
    return Forest(
        baselines=np.array([float(plain["baseline"]) for plain in sums]),
        starts=np.array(starts, dtype=np.intp),
        roots=np.array(roots, dtype=np.intp),
        feature=np.array(nodes["feature"], dtype=np.intp),
        threshold=np.array(nodes["threshold"], dtype=np.float64),
        missing_left=np.array(nodes["missing_left"], dtype=np.bool_),
        left=np.array(nodes["left"], dtype=np.intp),
        right=np.array(nodes["right"], dtype=np.intp),
        value=np.array(nodes["value"], dtype=np.float64),
        depth=depth,
    )


def _append(nodes: Mapping[str, list[Any]], tree: Mapping[str, Sequence[Any]]) -> None:
    first = len(nodes["value"])
    for name in _NODE_FIELDS:
        shift = first if name in ("left", "right") else 0
        nodes[name].extend([value + shift for value in tree[name]] if shift else tree[name])


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
