"""Gradients of linear functionals of y by the implicit model itself: v = Phi (A^T v + C^T g).

See docs/mathematics.md, section 9.5.

Elsewhere: implicit differentiation, adjoint.
"""

from __future__ import annotations

import numpy as np

from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import Check, unchecked


def gradient(
    model: ImplicitModel, inputs: FloatArray, functionals: FloatArray, *, check: Check = unchecked
) -> FloatArray:
    """Return d(functionals . y)/du for each row of a batch: (m, p) and (m, q) -> (m, p).

    v = Phi (A^T v + C^T g), gradient = B^T v + D^T g, where Phi holds the slopes of phi at the state; one backward
    pass in block order, and a linear system for each loop. Used to search for attacks, never to prove. `check` is
    called between small units of work.
    """
    z = model.solve(inputs, check=check).pre_activations
    sums: dict[int, FloatArray] = {}
    total = push_back(model.output, functionals, sums, np.zeros_like(inputs))
    for k, block in enumerate(model.blocks):
        v = sums.pop(k, None)
        if v is None:
            continue
        check()
        if k in model.loops:
            pulled = _through_loop(block, model.loops[k].A.matrix, z[k], v, check)
            total = push_back(model.loops[k].drive, pulled, sums, total)
        else:
            total = push_back(model.rows[k], block.pull_back(z[k], v), sums, total)
    return total


ADJOINT_STEPS = 500
SYSTEM_NUMBERS = 2**22
"""Numbers that the matrices of one batch of linear systems may hold."""


def _through_loop(block: StateBlock, A: FloatArray, z: FloatArray, v: FloatArray, check: Check) -> FloatArray:
    """Return w = Phi^T (v + A^T w) for each row: what arrives at i in x = phi(A x + i)."""
    if block.activation.coupled:  # no diagonal to solve with: iterate, which converges under the Perron-Frobenius proof
        w = block.pull_back(z, v)
        for _ in range(ADJOINT_STEPS):
            check()
            new = block.pull_back(z, v + w @ A)
            if np.allclose(new, w, rtol=1e-12, atol=0):
                break
            w = new
        return w
    slopes, found = block.derivative(z), np.zeros_like(v)
    at_once = max(1, SYSTEM_NUMBERS // len(A) ** 2)
    for start in range(0, len(v), at_once):
        check()
        rows = slice(start, start + at_once)
        systems, right = np.eye(len(A)) - slopes[rows, :, None] * A.T, slopes[rows] * v[rows]
        try:
            found[rows] = np.linalg.solve(systems, right[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:  # a loop that nothing proves may be singular on some pieces
            pairs = zip(systems, right, strict=True)
            found[rows] = [np.linalg.lstsq(system, own, rcond=None)[0] for system, own in pairs]
    return found


def push_back(row: Affine, v: FloatArray, sums: dict[int, FloatArray], total: FloatArray) -> FloatArray:
    """Add P_k^T v to the sums of every block that the row reads; return total + Q^T v, the inputs' sum."""
    for k in sorted(row.states):
        term = row.states[k].adjoint(v)
        sums[k] = sums[k] + term if k in sums else term
    return total if row.input is None else total + row.input.adjoint(v)
