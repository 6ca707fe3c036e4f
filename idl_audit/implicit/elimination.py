"""Self-feedback of single states, eliminated: the same states from a loop whose matrix has a zero diagonal.

See docs/mathematics.md, section 3.4.

A ReLU state x = max(z, 0) with z = A_ii x + (the rest) and A_ii < 1 has the same value as max(z', 0) with

    z' = (z - A_ii x) / (1 - A_ii),     A' = (A - diag a) / (1 - a),   B' = B / (1 - a),   b' = b / (1 - a):

z' = z where z >= 0, and z / (1 - a) has the sign of z elsewhere. Strong negative feedback (equilibrium models have
A_ii of -20 and less) leaves a pre-activation that hardly gets below 0, over which relaxations are much tighter.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.composition import compose
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, gamma

STRONGEST = 2.0**900
"""Beyond such a feedback 1 / (1 - a) leaves the range of float64."""


@lru_cache(maxsize=4)
def without_self_feedback(model: ImplicitModel) -> ImplicitModel:
    """Return the model with z' in place of z in every loop of ReLU states; its states and outputs are the same.

    A loop keeps its form where a diagonal entry is 1 or more, where its matrix is not known exactly, or where nothing
    is to be eliminated. What rounding does to A', B', b' is part of the model. `loop_weights` 1 - A_ii carry a monotone
    proof over: D (I - A') = I - A.
    """
    rows, weights = list(model.rows), dict(model.loop_weights)
    for k, loop in model.loops.items():
        own = model.rows[k].states[k]
        diagonal = np.diagonal(loop.A.matrix)
        if not is_relu(model.blocks[k]) or own.relative or own.slack is not None or k in weights:
            continue
        if not (diagonal < 1).all() or not diagonal.any() or not (diagonal > -STRONGEST).all():
            continue
        rows[k] = _eliminated(model.rows[k], k, loop.A.matrix)
        weights[k] = 1.0 - diagonal
    if weights == dict(model.loop_weights):
        return model
    return replace(model, rows=tuple(rows), loop_weights=weights)


def is_relu(block: StateBlock) -> bool:
    """Return whether a block's activation is max(z, 0)."""
    phi = block.activation
    if not isinstance(phi, Kinked):
        return False
    return bool((np.asarray(phi.below) == 0).all() and (np.asarray(phi.above) == 1).all())


def _eliminated(row: Affine, k: int, A: FloatArray) -> Affine:
    diagonal = np.diagonal(A)
    factor = 1.0 / (1.0 - diagonal)
    scale = Selection.diagonal(factor).uncertain(gamma(3))
    rest = A - np.diag(diagonal)
    states: dict[int, LinearMap] = {j: compose(scale, source) for j, source in row.states.items() if j != k}
    if rest.any():
        states[k] = compose(scale, Dense(matrix=rest))
    constant = row.constant * factor
    error = (gamma(4) * np.abs(constant) + row.constant_error * factor * (1 + gamma(4)) + TINY).max(initial=0.0)
    return Affine(states, None if row.input is None else compose(scale, row.input), constant, float(error))
