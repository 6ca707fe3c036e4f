"""Flat models: A, B, C, D as four dense arrays over all states, for loops and for witnesses.

See docs/mathematics.md, section 5.3.

Feed-forward networks are bounded block by block. Where states feed on themselves, one dense system is solved instead,
with one change of variable a state (`implicit.wellposed.contraction`): alpha = 1 outside loops, and what the loop's own
proof uses inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.model import Affine, ImplicitModel, dense
from idl_audit.implicit.wellposed import (
    Coefficients,
    Contraction,
    Coupling,
    Monotone,
    Proof,
    contraction,
    contractions,
    group_contractions,
    joined,
    monotone_loop,
)
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError
from idl_audit.values.rounding import gamma

LARGEST = 4 * 10**9
"""Bytes that the dense arrays of a flat model may take."""
ARRAYS = 14
"""Arrays of shape (n, n) that a contraction holds at once."""

Slopes = Mapping[int, tuple[FloatArray, FloatArray]]
"""Block -> (least, greatest) slope of each state."""


@dataclass(frozen=True, eq=False)
class FlatModel:
    """A (n, n), B (n, p), C (q, n), D (q, p), states newest block first, each with its uncertainty."""

    A: Coefficients
    B: Coefficients
    C: Coefficients
    D: Coefficients


def flat_bytes(model: ImplicitModel) -> int:
    """Return the memory that a flat model and its contraction take, in bytes."""
    n, p, q = model.n_states, model.n_inputs, model.n_outputs
    return 8 * (ARRAYS * n * n + 6 * n * p + 6 * q * (n + p))


def flat_model(model: ImplicitModel, functionals: FloatArray | None = None, limit: int = LARGEST) -> FlatModel:
    """Return the flat form; with `functionals` F, (r, q), that of F y in place of y.

    Raises:
        MemoryLimitError: where it would take more bytes than the limit, or than 4 GB.
    """
    needed, limit = flat_bytes(model), min(limit, LARGEST)
    if needed > limit:
        raise MemoryLimitError(
            f"dense matrices over {model.n_states:,} states would take {needed / 1e6:,.0f} MB; at most "
            f"{limit / 1e6:,.0f} MB are used for them"
        )
    n, p = model.n_states, model.n_inputs
    rows = [_flat_row(model, row) for row in model.rows]
    a, b = ([row[part] for row in rows] for part in (0, 1))
    c, d = _flat_row(model, model.output)
    if functionals is not None:
        c, d = _combined(functionals, c), _combined(functionals, d)
    return FlatModel(_stacked(a, n), _stacked(b, p), c, d)


def _flat_row(model: ImplicitModel, row: Affine) -> tuple[Coefficients, Coefficients]:
    offsets = model.offsets
    matrix, error = np.zeros((row.size, model.n_states)), np.zeros((row.size, model.n_states))
    for k, linear_map in row.states.items():
        part = dense(linear_map)
        columns = slice(offsets[k], offsets[k + 1])
        matrix[:, columns] = part.matrix
        if part.error is not None:
            error[:, columns] = part.error
    inputs = Coefficients(np.zeros((row.size, model.n_inputs))) if row.input is None else dense(row.input)
    return Coefficients(matrix, error if error.any() else None), inputs


def _stacked(parts: list[Coefficients], columns: int) -> Coefficients:
    if not parts:
        return Coefficients(np.zeros((0, columns)))
    matrix = np.vstack([part.matrix for part in parts])
    if all(part.error is None for part in parts):
        return Coefficients(matrix)
    error = np.vstack([np.zeros_like(part.matrix) if part.error is None else part.error for part in parts])
    return Coefficients(matrix, error)


def _combined(functionals: FloatArray, rows: Coefficients) -> Coefficients:
    """Return F times the rows, with what rounding the product did to it."""
    size = np.abs(functionals)
    error = gamma(functionals.shape[1] + 4) * (size @ rows.magnitude)
    if rows.error is not None:
        error = error + size @ rows.error
    return Coefficients(functionals @ rows.matrix, error * (1 + gamma(functionals.shape[1] + 8)))


def state_vector(model: ImplicitModel, parts: Mapping[int, FloatArray]) -> FloatArray:
    """Return one number a block's state, put together in the flat order."""
    return np.concatenate([parts[k] for k in range(len(model.blocks))]) if model.blocks else np.zeros(0)


def coupling(model: ImplicitModel) -> Coupling | None:
    """Return how the states of all blocks move together; None where no block couples its states."""
    if not any(block.activation.coupled for block in model.blocks):
        return None
    return joined([block.coupling for block in model.blocks])


def flat_contractions(
    model: ImplicitModel, flat: FlatModel, slopes: Slopes, *, middle: bool = True
) -> Iterator[Contraction]:
    """Yield contractions of the whole model: one for each change of variable that its loops allow.

    Args:
        model: the model.
        flat: its flat form.
        slopes: bounds of every state's slope.
        middle: whether the centre is the middle of the slopes, or 0 as in the paper.
    """
    least = state_vector(model, {k: ends[0] for k, ends in slopes.items()})
    most = state_vector(model, {k: ends[1] for k, ends in slopes.items()})
    n = model.n_states
    coupled = coupling(model)
    middle = middle and coupled is None
    gamma_matrix = None if coupled is None else coupled.matrix
    for alphas in _changes(model) if middle else [{}]:
        alpha = np.ones(n)
        for k, own in alphas.items():
            alpha[model.offsets[k] : model.offsets[k + 1]] = own
        found = contraction(flat.A, least, most, alpha=alpha, middle=middle, coupled=gamma_matrix, name="flat")
        if found is not None:
            yield found


def _changes(model: ImplicitModel) -> Iterator[dict[int, FloatArray]]:
    """Yield loop -> alpha: ones, then each kind of change that a loop's ladder proved."""
    yield {}
    kinds: dict[str, dict[int, FloatArray]] = {}
    for k, loop in model.loops.items():
        if loop.coupling is not None:
            continue
        for proof in contractions(loop.A, *loop.block.everywhere):
            if not bool((proof.alpha == 1).all()):
                kinds.setdefault(proof.name, {})[k] = proof.alpha
    merged: dict[int, FloatArray] = {}
    for alphas in kinds.values():
        merged = {**alphas, **merged}
    if merged:
        yield merged


def flat_sensitivity(
    model: ImplicitModel,
    slopes: Slopes | None = None,
    functionals: FloatArray | None = None,
    *,
    middle: bool = True,
    limit: int = LARGEST,
) -> FloatArray:
    """Return the entrywise least of the proved S of a model with loops, shape (q, p), rounded upward.

    Coupled states have the paper's S with one norm a group beside that by entries (Thm 4.2).

    Args:
        model: the model.
        slopes: bounds of every state's slope; those over all inputs where left out.
        functionals: rows F, shape (r, q), to bound F y in place of y.
        middle: False for the paper's S = |C| (I - Gamma |A|)^-1 Gamma |B| + |D|, which needs lambda_PF < 1.
        limit: bytes that the dense arrays may take.

    Raises:
        UnsupportedModelError: where nothing proves a bound.
        MemoryLimitError: where the dense arrays would be too large.
    """
    flat = flat_model(model, functionals, limit)
    ends = {k: block.everywhere for k, block in enumerate(model.blocks)} if slopes is None else slopes
    found: list[FloatArray] = []
    coupled = coupling(model)
    proofs: list[Proof] = list(flat_contractions(model, flat, ends, middle=middle))
    proofs += () if coupled is None else group_contractions(flat.A, coupled)
    for proof in proofs:
        matrix = proof.response(flat.B, flat.C, flat.D)
        if matrix is not None:
            found.append(matrix)
    if not found:
        raise UnsupportedModelError((_why_not(model, middle),))
    return np.asarray(np.minimum.reduce(found))


def monotone_sensitivity(
    model: ImplicitModel,
    slopes: Slopes | None = None,
    functionals: FloatArray | None = None,
    *,
    limit: int = LARGEST,
) -> FloatArray:
    """Return the S of a monotone model, Q = diag(1/g) - (A + A^T) / 2 > 0, shape (q, p), rounded upward.

    S_ij = |C_i Q^-1 B_j / 2 + D_ij| + sqrt(C_i Q^-1 C_i^T) sqrt(B_j^T Q^-1 B_j) / 2, from the ellipsoid that changes
    of the state lie in (`implicit.wellposed.monotone`). Neither it nor S(c, r) is always the smaller one, and unlike
    S(c, r) it depends on the scale of the states.

    Raises:
        UnsupportedModelError: where Q is not positive definite, or slopes may be negative.
        MemoryLimitError: where the dense arrays would be too large.
    """
    flat = flat_model(model, functionals, limit)
    ends = {k: block.everywhere for k, block in enumerate(model.blocks)} if slopes is None else slopes
    found = flat_monotone(model, flat, ends)
    matrix = None if found is None else found.response(flat.B, flat.C, flat.D)
    if matrix is None:
        raise UnsupportedModelError(
            ("the model is not monotone: diag(1/g) - (A + A^T)/2 is not positive definite, or a slope may be negative",)
        )
    return matrix


def flat_monotone(model: ImplicitModel, flat: FlatModel, slopes: Slopes) -> Monotone | None:
    """Return a monotone proof of the whole model, with weights where one of its loops needs them, or None."""
    least, most = (state_vector(model, {k: pair[end] for k, pair in slopes.items()}) for end in (0, 1))
    weighs = any(isinstance(p := loop.proof, Monotone) and p.weights is not None for loop in model.loops.values())
    return monotone_loop(flat.A, least, most, coupling(model), search=weighs)


def _why_not(model: ImplicitModel, middle: bool) -> str:
    if not middle:
        return (
            "the paper's S does not exist: lambda_PF(|A|) is not below 1; use the method centre-radius, or best, which "
            "takes what exists"
        )
    open_loops = [f"'{loop.block.name}'" for loop in model.loops.values() if loop.proof is None]
    if open_loops:
        return f"no proof that the loop {', '.join(open_loops)} has one state for every input; nothing bounds S"
    return "the proofs of the loops give no bound entry by entry for this model"
