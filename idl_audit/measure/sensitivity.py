"""The sensitivity matrix S = |C| (I - |A|)^-1 |B| + |D| of the paper, by rows through the adjoint.

Global Lipschitz bounds, one for each output and input (docs/mathematics.md, sections 5 to 5.2).

|y(u) - y(u0)| <= S |u - u0| for all inputs u, u0. T = (I - |A|)^-1 |B| is never formed: row i of S comes from the
recursion r <- Gamma |A|^T r + |C|^T e_i, a backward pass through the network of absolute values (Gamma: Lipschitz
constants of the activations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.gradients import push_back
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.upward import multiplied, pulled, spread, weighted
from idl_audit.proof.restricted import everywhere
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.check import enough
from idl_audit.values.errors import MemoryLimitError, OptionError, UnsupportedModelError
from idl_audit.values.rounding import LOST, TINY, gamma


@dataclass(frozen=True)
class Sensitivity:
    """S, shape (q, p), in data units, with the norm bound beside it."""

    matrix: FloatArray
    norm_bound: float | None
    """rho = ||B|| ||C|| / (1 - ||A||) + ||D|| in infinity norms; None where ||A||_inf >= 1."""

    @property
    def row_sums(self) -> FloatArray:
        """How far each output moves at most when every input moves by 1, rounded upward."""
        return np.asarray(self.matrix.sum(axis=1) * (1 + 2 * gamma(self.matrix.shape[1])))

    @property
    def norm_inf(self) -> float:
        """||S||_inf, the largest row sum."""
        return float(self.row_sums.max(initial=0.0))


def sensitivity_matrix(
    model: ImplicitModel,
    method: str = "paper",
    box: Box | None = None,
    *,
    functionals: FloatArray | None = None,
    max_bytes: int | None = None,
) -> FloatArray:
    """Return a sensitivity matrix S, |y(u) - y(u0)| <= S |u - u0|, shape (q, p), rounded upward; unchanged by rescale.

    Args:
        model: the model; one with loops needs a proof that it is well-posed.
        method: "paper" for |C| (I - |A|)^-1 |B| + |D| (Thm 4.2), "centre-radius", "half-step" (both sharper,
            `centre_radius`), "monotone" (of a monotone loop), or "best" for the entrywise least of those that apply
            and fit into memory.
        box: where u and u0 lie; all inputs where it is left out. A box makes S local (`local_sensitivity`).
        functionals: rows F, shape (r, q); bounds |F (y - y0)| by the matrix of F y instead of y.
        max_bytes: what S and all that it is made from may take; None grants 4 GB to what it is made from.

    Raises:
        UnsupportedModelError: where the method does not apply to the model, or the model jumps.
        MemoryLimitError: where S does not fit.
        OptionError: for an unknown method.
    """
    from idl_audit.measure.centre_radius import LARGEST, METHODS

    model.refuse_jumps("there is no sensitivity matrix")
    n_rows = model.n_outputs if functionals is None else len(functionals)
    _refuse_too_large(n_rows, model.n_inputs, max_bytes)
    if box is not None:
        from idl_audit.measure.local_sensitivity import local_sensitivity

        return local_sensitivity(model, box, method, functionals=functionals, max_bytes=max_bytes)
    if method not in METHODS:
        raise OptionError(f"there is no method '{method}' for S; known are {', '.join(METHODS)}")
    model = everywhere(model)
    model.refuse_unbounded()
    return METHODS[method](model, functionals, LARGEST if max_bytes is None else max_bytes)


def global_or_infinite(
    model: ImplicitModel, method: str, *, functionals: FloatArray | None = None, max_bytes: int | None = None
) -> FloatArray:
    """Return S for all inputs; infinity everywhere where activations are as steep as one likes."""
    if not everywhere(model).unbounded:
        return sensitivity_matrix(model, method, functionals=functionals, max_bytes=max_bytes)
    n_rows = model.n_outputs if functionals is None else len(functionals)
    _refuse_too_large(n_rows, model.n_inputs, max_bytes)
    return np.full((n_rows, model.n_inputs), np.inf)


COPIES = 8
"""Matrices of the size of S that stand beside each other at most."""


def _refuse_too_large(n_rows: int, n_inputs: int, max_bytes: int | None) -> None:
    """Raise MemoryLimitError where S itself does not fit: it cannot be made in parts."""
    needed = COPIES * 8 * n_rows * n_inputs
    if max_bytes is not None and needed > max_bytes:
        raise MemoryLimitError(
            f"S has {n_rows:,} x {n_inputs:,} entries, and {COPIES} matrices of that size take {needed / 1e6:,.0f} MB, "
            f"above the limit of {max_bytes / 1e6:,.0f} MB; raise --max-memory to {enough(needed)}"
        )


ROWS_AT_ONCE = 2**20
"""Numbers that one array of a backward pass may hold."""


def row_parts(model: ImplicitModel, n_rows: int) -> Iterator[slice]:
    """Yield runs of rows whose backward passes take little memory."""
    widest = max([1, model.n_inputs, *(block.size for block in model.blocks)])
    at_once = max(1, ROWS_AT_ONCE // widest)
    yield from (slice(start, min(start + at_once, n_rows)) for start in range(0, n_rows, at_once))


def paper_matrix(
    model: ImplicitModel,
    functionals: FloatArray | None = None,
    steepest: Mapping[int, FloatArray] | None = None,
    *,
    uncertain: bool = True,
    behind_blocks: dict[int, FloatArray] | None = None,
) -> FloatArray:
    """Return |C| (I - Gamma |A|)^-1 Gamma |B| + |D|, shape (q, p), rounded upward (docs/mathematics.md, section 5.1).

    Gamma holds the Lipschitz constants of the activations, or the `steepest` slopes of each block where they are given.
    Without `uncertain`, what rounding did to the model's coefficients is left out: then it bounds nothing by itself.
    A loop takes part with its gain N, |dx| <= N |di|, in place of (I - Gamma |A_kk|)^-1 Gamma. `behind_blocks` takes
    how much outputs move at most when the pre-activations of a block do, summed over its states: block -> (q,).

    Raises:
        UnsupportedModelError: where nothing bounds a loop.
    """
    n_rows = model.n_outputs if functionals is None else len(functionals)
    found = np.zeros((n_rows, model.n_inputs))
    for rows in row_parts(model, n_rows):
        own = None if functionals is None else functionals[rows]
        behind: dict[int, FloatArray] = {}
        found[rows] = _paper_rows(model, rows, own, steepest, uncertain, behind)
        if behind_blocks is not None:
            for k, sums in behind.items():
                behind_blocks.setdefault(k, np.zeros(n_rows))[rows] = sums
    return found


def _paper_rows(
    model: ImplicitModel,
    rows: slice,
    functionals: FloatArray | None,
    steepest: Mapping[int, FloatArray] | None,
    uncertain: bool,
    behind_blocks: dict[int, FloatArray],
) -> FloatArray:
    """Return the paper's S of some outputs, or of functionals."""
    sums: dict[int, FloatArray] = {}
    inputs = np.zeros((rows.stop - rows.start, model.n_inputs))
    inputs = _push_output(model, rows, functionals, sums, inputs, uncertain)
    for k, block in enumerate(model.blocks):
        r = sums.pop(k, None)
        if r is None or not r.any():  # nothing moves what only bounds another block
            continue
        if k in model.loops:
            gain = model.loops[k].gain
            if gain is None:
                raise UnsupportedModelError((f"nothing bounds the loop '{block.name}' entry by entry",))
            behind = multiplied(r, gain) * (1 + gamma(len(gain) + 2))
            inputs = _push(model.loops[k].drive, behind, sums, inputs, uncertain)
            continue
        behind = spread(block.activation, r) if steepest is None else weighted(r, steepest[k])
        behind_blocks[k] = behind.sum(axis=1)
        inputs = _push(model.rows[k], behind, sums, inputs, uncertain)
    return inputs * (1 + 2 * gamma(roundings(model)))


def lost_below_range(model: ImplicitModel, worst: FloatArray, behind_blocks: Mapping[int, FloatArray]) -> FloatArray:
    """Return what products that fall below the range of float64 take, at most, from sums with cancellations, (q, p).

    Each loses less than TINY, is multiplied by how far inputs reach before it and by how far outputs lie behind it:
    TINY (1 + sum over states of their gain) (1 + sum over states of |dy| per |dz|), where anything reaches at all.

    Args:
        model: a feed-forward model.
        worst: the sums without cancellations, (q, p); 0 only where nothing reaches.
        behind_blocks: of the outputs, as `paper_matrix` gives it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        before = 1.0
        gains: dict[int, float] = {}
        for k in model.evaluation_order:
            row, steep = model.rows[k], 1.0 + float(np.max(model.blocks[k].activation.lipschitz))
            gain = sum(_norm(linear_map) * gains[j] for j, linear_map in row.states.items())
            gains[k] = steep * (gain + (0.0 if row.input is None else _norm(row.input)))
            before += model.blocks[k].size * gains[k]
        after = 1.0 + sum(behind_blocks.values())
        lost = TINY * before * np.broadcast_to(after, (len(worst),))
    return np.asarray(np.where(worst > 0, np.where(np.isnan(lost), np.inf, lost)[:, None], 0.0))


def combined(functionals: FloatArray, bounds: FloatArray) -> FloatArray:
    """Return |F| bounds, (r, q) and (q, p) -> (r, p), where 0 times an infinite bound is 0."""
    size, known = np.abs(functionals), np.isfinite(bounds)
    with np.errstate(over="ignore"):
        total = multiplied(size, np.where(known, bounds, 0.0))
    return np.asarray(np.where(size @ ~known > 0, np.inf, total))


def _norm(linear_map: LinearMap) -> float:
    return linear_map.norm_inf * (1 + linear_map.relative) + linear_map.uncertain_norm


def _push(row: Affine, r: FloatArray, sums: dict[int, FloatArray], inputs: FloatArray, uncertain: bool) -> FloatArray:
    """Add |P_k|^T r to the sums of every source of the row; return the inputs' sum."""
    for k in sorted(row.states):
        term = pulled(row.states[k], r, uncertain=uncertain)
        sums[k] = sums[k] + term if k in sums else term
    return inputs if row.input is None else inputs + pulled(row.input, r, uncertain=uncertain)


def signed_matrix(
    model: ImplicitModel, slopes: Mapping[int, FloatArray], functionals: FloatArray | None = None
) -> FloatArray:
    """Return C (I - diag(g) A)^-1 diag(g) B + D for slopes g, or F times it, shape (r, p); no bound by itself."""
    n_rows = model.n_outputs if functionals is None else len(functionals)
    found = np.zeros((n_rows, model.n_inputs))
    for rows in row_parts(model, n_rows):
        own = identity_rows(model, rows) if functionals is None else functionals[rows]
        sums: dict[int, FloatArray] = {}
        total = push_back(model.output, own, sums, np.zeros((len(own), model.n_inputs)))
        for k in range(len(model.blocks)):
            v = sums.pop(k, None)
            if v is not None:
                total = push_back(model.rows[k], v * slopes[k], sums, total)
        found[rows] = total
    return found


def identity_rows(model: ImplicitModel, rows: slice) -> FloatArray:
    """Return some rows of the identity of the outputs."""
    return np.eye(rows.stop - rows.start, model.n_outputs, rows.start)


def _push_output(
    model: ImplicitModel,
    rows: slice,
    functionals: FloatArray | None,
    sums: dict[int, FloatArray],
    inputs: FloatArray,
    uncertain: bool,
) -> FloatArray:
    """Start the recursion with |F C|^T and |F D|^T, F the identity where no functionals are asked for."""
    if functionals is None:
        return _push(model.output, identity_rows(model, rows), sums, inputs, uncertain)

    def magnitude(linear_map: LinearMap) -> FloatArray:
        rounding = gamma(linear_map.column_terms + 2) * linear_map.magnitude.adjoint(np.abs(functionals))
        uncertainty = linear_map.pull_uncertainty(np.abs(functionals)) if uncertain else 0.0
        size = np.abs(linear_map.adjoint(functionals)) + rounding + uncertainty
        return size + LOST * (pulled(linear_map, np.abs(functionals)) > 0)

    for k in sorted(model.output.states):
        sums[k] = magnitude(model.output.states[k])
    return inputs if model.output.input is None else inputs + magnitude(model.output.input)


def roundings(model: ImplicitModel) -> int:
    """Return how many roundings one product of the recursion goes through, at most, over all blocks."""
    total = 8
    for row in (*model.rows, model.output):
        total += max((linear_map.column_terms for linear_map in row.maps), default=0) + len(row.maps) + 2
    return total
