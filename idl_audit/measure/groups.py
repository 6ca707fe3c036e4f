"""Sensitivity to groups of inputs (sensors, patches, channels): what they do to an output when they move together."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.rounding import gamma


def group_sums(matrix: FloatArray, labels: IntArray, n_groups: int | None = None) -> FloatArray:
    """Return sum over the inputs j of group g of S_ij, shape (q, n_groups), rounded upward.

    It bounds |y_i - y0_i| where all inputs of group g move by at most 1, and no others do.

    Args:
        matrix: a sensitivity matrix S >= 0, shape (q, p).
        labels: the group of each input, 0, 1, ..., shape (p,).
        n_groups: how many groups there are; one more than the largest label where it is not given.

    Raises:
        ValueError: where there is not one label from 0 to n_groups - 1 for each input.
    """
    p = matrix.shape[1]
    count = int(labels.max(initial=-1)) + 1 if n_groups is None else n_groups
    if labels.shape != (p,) or (labels < 0).any() or (labels >= count).any():
        raise ValueError(f"{p} inputs in {count} groups need {p} labels from 0 to {count - 1}")
    members = sp.csr_array((np.ones(p), labels, np.arange(p + 1)), shape=(p, count))
    largest = int(np.bincount(labels, minlength=1).max())
    return np.asarray((members.T @ matrix.T).T * (1 + 2 * gamma(largest + 2)))
