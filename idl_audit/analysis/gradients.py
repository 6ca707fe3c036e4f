"""Gradients of linear functionals of y by the implicit model itself (paper 6.2): v = Phi (A^T v + C^T g)."""

from __future__ import annotations

import numpy as np

from idl_audit.arrays import FloatArray
from idl_audit.implicit.model import Affine, ImplicitModel


def gradient(model: ImplicitModel, inputs: FloatArray, functionals: FloatArray) -> FloatArray:
    """Return d(functionals . y)/du for each row of a batch: (m, p) and (m, q) -> (m, p).

    v = Phi (A^T v + C^T g), gradient = B^T v + D^T g, where Phi holds the slopes of phi at the state; one backward
    pass in block order for feed-forward models. Used to search for attacks, never to prove.
    """
    z = model.pre_activations(inputs)
    sums: dict[int, FloatArray] = {}
    total = push_back(model.output, functionals, sums, np.zeros_like(inputs))
    for k, block in enumerate(model.blocks):
        v = sums.pop(k, None)
        if v is not None:
            total = push_back(model.rows[k], block.pull_back(z[k], v), sums, total)
    return total


def push_back(row: Affine, v: FloatArray, sums: dict[int, FloatArray], total: FloatArray) -> FloatArray:
    """Add P_k^T v to the sums of every block that the row reads; return total + Q^T v, the inputs' sum."""
    for k in sorted(row.states):
        term = row.states[k].adjoint(v)
        sums[k] = sums[k] + term if k in sums else term
    return total if row.input is None else total + row.input.adjoint(v)
