"""Margins: the functionals y_label - y_j whose signs decide a classification.

Elsewhere: logit difference.
"""

from __future__ import annotations

import numpy as np

from idl_audit.values.arrays import FloatArray, IntArray


def margin_functionals(n_outputs: int, label: int) -> FloatArray:
    """Return the rows e_label - e_j for every j <> label, shape (q - 1, q)."""
    rows = np.zeros((n_outputs - 1, n_outputs))
    rows[:, label] = 1.0
    rows[np.arange(n_outputs - 1), rivals(n_outputs, label)] = -1.0
    return rows


def rivals(n_outputs: int, label: int) -> IntArray:
    """Return every class but the label, in order."""
    return np.delete(np.arange(n_outputs), label)


def predictions(outputs: FloatArray) -> IntArray:
    """Return the class with the largest output for each row, shape (m, q) -> (m,); -1 where an output is no number."""
    return np.asarray(np.where(np.isfinite(outputs).all(axis=-1), outputs.argmax(axis=-1), -1), np.int64)


def margins(outputs: FloatArray, label: int) -> FloatArray:
    """Return min over j <> label of y_label - y_j for each row of outputs, shape (m, q) -> (m,)."""
    others = np.delete(outputs, label, axis=-1)
    return np.asarray(outputs[..., label] - others.max(axis=-1))
