"""A forest of decision trees as plain arrays: nothing in it can run.

Shapes: T trees, K nodes of all trees together, W windows, F features.

Trees lie one after another, each depth-first: the left child of node k is node k + 1, so that only
the way to the right is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEAF = -1
_WINDOWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees that vote on the probability that a window is good.

    `root_T` is each tree's first node; of node k, `feature_K` is what it asks for (-1 in a leaf),
    `value_K` the threshold (a leaf's probability), `right_K` how far the right child lies beyond
    it (0 in a leaf).
    """

    root_T: npt.NDArray[np.int32]
    feature_K: npt.NDArray[np.int16]
    value_K: npt.NDArray[np.float32]
    right_K: npt.NDArray[np.uint16]

    def predict(self, features_WF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Mean probability over all trees, (W,)."""
        parts = [
            self._predict(features_WF[at : at + _WINDOWS_AT_ONCE])
            for at in range(0, len(features_WF), _WINDOWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _predict(self, features_WF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        node_WT = np.repeat(self.root_T[None].astype(np.int64), len(features_WF), axis=0)
        row_W1 = np.arange(len(features_WF))[:, None]
        while True:
            feature_WT = self.feature_K[node_WT]
            inner_WT = feature_WT != LEAF
            if not inner_WT.any():
                return self.value_K[node_WT].mean(axis=1, dtype=np.float64)
            left_WT = features_WF[row_W1, feature_WT] <= self.value_K[node_WT]
            step_WT = np.where(left_WT, 1, self.right_K[node_WT])
            node_WT += np.where(inner_WT, step_WT, 0)

    def fault(self, n_features: int) -> str:
        """What is wrong with arrays that a stranger gave; empty where they are a forest.

        A forest without fault cannot read outside its arrays, and every walk in it ends.
        """
        nodes = len(self.feature_K)
        if not (nodes and len(self.root_T) and nodes == len(self.value_K) == len(self.right_K)):
            return "its arrays differ in length"
        ends = np.append(self.root_T[1:], nodes)
        if self.root_T[0] != 0 or (ends <= self.root_T).any():
            return "its trees overlap"
        leaf_K = self.feature_K == LEAF
        if (self.feature_K < LEAF).any() or (self.feature_K >= n_features).any():
            return f"it asks for features beyond the {n_features}"
        if not np.isfinite(self.value_K).all():
            return "it holds values that are no numbers"
        if (self.value_K[leaf_K] < 0).any() or (self.value_K[leaf_K] > 1).any():
            return "its probabilities are not between 0 and 1"
        end_K = np.repeat(ends, np.diff(np.append(self.root_T, nodes)))
        at_K = np.arange(nodes)
        inside_K = (self.right_K > 1) & (at_K + self.right_K < end_K)
        if not inside_K[~leaf_K].all():
            return "its branches lead nowhere"
        return ""


def from_sklearn(model: Any) -> Forest:
    """Take the trees of a fitted scikit-learn forest of two classes (0 bad, 1 good)."""
    roots, features, values, rights = [0], [], [], []
    for tree in (one.tree_ for one in model.estimators_):
        leaf_K = tree.children_left < 0
        inner = np.flatnonzero(~leaf_K)
        assert (tree.children_left[inner] == inner + 1).all(), "scikit-learn's order has changed"
        probability_K = tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1)
        right_K = np.where(leaf_K, 0, tree.children_right - np.arange(tree.node_count))
        assert right_K.max() < 1 << 16, "trees of more than 65,536 nodes need less depth"
        features.append(np.where(leaf_K, LEAF, tree.feature))
        values.append(np.where(leaf_K, probability_K, _not_above(tree.threshold)))
        rights.append(right_K)
        roots.append(roots[-1] + tree.node_count)
    return Forest(
        np.array(roots[:-1], np.int32), np.concatenate(features).astype(np.int16),
        np.concatenate(values).astype(np.float32), np.concatenate(rights).astype(np.uint16),
    )  # fmt: skip


def _not_above(threshold_K: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The largest float32 that is not above a threshold: float32 features compare the same way."""
    rounded = threshold_K.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded > threshold_K, below, rounded).astype(np.float64)
