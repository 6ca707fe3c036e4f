"""The proof: a lower bound of linear functionals over a box, or U_card, that any multipliers give.

Weak duality (docs/mathematics.md, section 7.3); other verifiers call it the dual bound.

For the functional f = seed . (C x + D u + d) and any multipliers lam, one vector a block, z = A x + B u + b gives

    f = lam.b + seed.d + (B^T lam + D^T seed).u + sum over states i of (v_i x_i - lam_i z_i),   v = A^T lam + C^T seed,

and each summand is bounded below on its own: u over the box, (z_i, x_i) over the hull of phi's graph over [l_i, h_i].
Blocks are visited newest first, so that lam of a block may depend on its v: `choose(k, v)` gives it (in a loop, v is
what arrives from other blocks, and A_kk^T lam is added to it afterwards). States that read the inputs alone may be
bounded by a plane over the box in place of lam_i z_i (`planes`). Whatever it gives
(lines of backward linear bounds, a solver's duals, noise), the result is a valid bound: it is evaluated in float64 and
rounded outward, and nothing that a solver says enters it.

Elsewhere: Lagrangian bound, Wong-Kolter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.linear_maps import Dense, LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval, SetInputs, StateBounds
from idl_audit.proof.patches import sources
from idl_audit.proof.planes import AllPlanes, PlaneSupport
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.heap import keep_freed_memory
from idl_audit.values.products import product
from idl_audit.values.rounding import LOST, TINY, down, gamma

keep_freed_memory()

Multipliers: TypeAlias = Callable[[int, FloatArray], FloatArray]
"""(block number, v of shape (m, R, n_k)) -> lam of the same shape."""


@dataclass(frozen=True)
class Functionals:
    """R linear functionals of one row of blocks: seeds . (C x + D u + d), or seeds . z_k of a block."""

    row: Affine
    seeds: FloatArray
    """(R, rows of the affine map), exact numbers; (m, R, rows) where each box has its own."""
    newest: int
    """Blocks with a number below this one do not occur in the functionals."""

    @classmethod
    def of_outputs(cls, model: ImplicitModel, seeds: FloatArray) -> Functionals:
        """Return seeds . y."""
        return cls(model.output, seeds, 0)

    @classmethod
    def of_pre_activations(
        cls, model: ImplicitModel, k: int, states: IntArray, sign: float | FloatArray
    ) -> Functionals:
        """Return sign * z_i for some states i of block k; one sign, or one a state."""
        seeds = np.zeros((states.size, model.blocks[k].size))
        seeds[np.arange(states.size), states] = sign
        return cls.of_block(model, k, seeds)

    @classmethod
    def of_block(cls, model: ImplicitModel, k: int | None, seeds: FloatArray) -> Functionals:
        """Return seeds . z_k, or seeds . y where k is None; a block in a loop reads its own states, too."""
        if k is None:
            return cls(model.output, seeds, 0)
        return cls(model.rows[k], seeds, k if k in model.rows[k].states else k + 1)


def lower_bound(
    model: ImplicitModel,
    inputs: Interval,
    bounds: StateBounds,
    functionals: Functionals,
    choose: Multipliers,
    planes: AllPlanes | None = None,
    *,
    check: Check = unchecked,
) -> FloatArray:
    """Return proved lower bounds, shape (m, R), of R functionals over each of m boxes, by the formula above.

    Args:
        model: the model; one with loops is bounded for all its equilibria that lie within `bounds`.
        inputs: the boxes, (m, p), or U_card.
        bounds: proved bounds of every block that occurs, over the same boxes.
        functionals: what to bound.
        choose: the multipliers; any are sound.
        planes: for some states, any numbers too; all boxes must then have the same ends.
        check: called before each block; what it raises ends the pass.
    """
    m, n_rows = len(inputs.lo), functionals.seeds.shape[-2]
    tally = _Tally(model, m, n_rows)
    tally.push(functionals.row, np.broadcast_to(functionals.seeds, (m, n_rows, functionals.seeds.shape[-1])))
    for k in range(functionals.newest, len(model.blocks)):
        arriving = tally.sums.get(k)
        if arriving is None:
            continue
        check()
        lam, z = choose(k, arriving), bounds.z[k]
        support = None if planes is None or k not in planes else PlaneSupport(model, k, inputs, planes[k])
        if support is not None:
            lam, on = support.without(lam, arriving, z)
        tally.push(model.rows[k], lam)  # a loop adds A_kk^T lam to the block's own v
        v, error = tally.sums.pop(k), tally.errors.pop(k)
        summands = model.blocks[k].lower_support(v, error, lam, z.lo[:, None, :], z.hi[:, None, :])
        if support is not None:
            tally.add_to_input(*support.replace(summands, v, error, on, z))
        tally.add(summands)
    if tally.sums.keys() - {INPUT}:
        raise ValueError(f"functionals of blocks from {functionals.newest} on read older ones")
    if INPUT in tally.sums:
        tally.add(_over_inputs(tally.sums[INPUT], tally.errors[INPUT], inputs))
    return tally.total()


def _over_inputs(w: FloatArray, error: FloatArray, inputs: Interval) -> FloatArray:
    """Return summands of a lower bound of w' u over the inputs for every |w' - w| <= error, (m, R, p or p + 1).

    Over U_card, w' u = w' u0 + w' (u - u0), and the second is least at minus the sum of the k largest gains of -w'.
    """
    if isinstance(inputs, SetInputs):
        centre = np.broadcast_to(inputs.ball.centre, inputs.lo.shape)
        moved = -inputs.ball.rise(-w, error)[..., None]
        return np.concatenate([_over_box(w, error, Interval(centre, centre)), moved], axis=-1)
    return _over_box(w, error, inputs)


def _over_box(w: FloatArray, error: FloatArray, inputs: Interval) -> FloatArray:
    """Return, entry by entry, a lower bound of w' u over lo <= u <= hi for every |w' - w| <= error."""
    lo, hi = inputs.lo[:, None, :], inputs.hi[:, None, :]
    least = np.minimum(w * lo, w * hi)
    doubt = error * (inputs.largest * (1 + gamma(8)))[:, None, :]
    doubt += gamma(4) * np.abs(least)
    doubt += TINY
    least -= doubt
    return least


class _Tally:
    """The running sums of one backward pass, each with a bound on its rounding error."""

    def __init__(self, model: ImplicitModel, m: int, n_rows: int) -> None:
        self.sums: dict[int, FloatArray] = {}
        """Source -> v, shape (m, R, n)."""
        self.errors: dict[int, FloatArray] = {}
        """Source -> bound on |v - exact v|, shape (m, R, n)."""
        self._model = model
        self._constants: list[FloatArray] = []
        self._shape = (m, n_rows)
        self._slack = np.zeros((m, n_rows))

    def push(self, row: Affine, lam: FloatArray) -> None:
        """Add lam . (sum_k P_k x_k + Q u + r): lam P_k to the sums, lam . r to the constant."""
        self._add_constant(row, lam)
        greatest = np.abs(lam).max(axis=-1, initial=0.0)[..., None]
        for source, linear_map in sources(row):
            product = self._adjoint(linear_map, lam)
            error = greatest * rounding_share(self._model, source, linear_map) + linear_map.column_loss + TINY
            if source in self.sums:
                self.sums[source] = self.sums[source] + product
                self.errors[source] = self.errors[source] + error
            else:
                self.sums[source], self.errors[source] = product, error

    def _add_constant(self, row: Affine, lam: FloatArray) -> None:
        self._constants.append(lam @ row.constant)
        magnitude = np.abs(lam) @ np.abs(row.constant)
        if row.constant_error:
            magnitude_error = np.abs(lam).sum(axis=-1) * row.constant_error * (1 + gamma(row.size + 4))
            self._slack += magnitude_error
        self._slack += gamma(row.size + 4) * magnitude + TINY

    def add(self, summands: FloatArray) -> None:
        """Add a sum over the last axis of lower bounds, rounded downward."""
        self._constants.append(summands.sum(axis=-1))
        self._slack += gamma(summands.shape[-1] + 4) * np.abs(summands).sum(axis=-1)

    def add_to_input(self, coefficients: FloatArray, error: FloatArray) -> None:
        """Add to the coefficients of the inputs, (m, R, p), what is known up to `error`."""
        self.sums[INPUT] = self.sums.get(INPUT, 0.0) + coefficients
        # this addition rounds, and each later one rounds these coefficients again
        rounding = gamma(4) * np.abs(self.sums[INPUT]) + gamma(len(self._model.rows) + 8) * np.abs(coefficients)
        self.errors[INPUT] = self.errors.get(INPUT, 0.0) + error + rounding

    def total(self) -> FloatArray:
        """Return the sum of everything, rounded downward, shape (m, R)."""
        return sum_downward([*self._constants, -self._slack * (1 + gamma(len(self._constants) * 64 + 64))])

    @staticmethod
    def _adjoint(linear_map: LinearMap, lam: FloatArray) -> FloatArray:
        m, n_rows, n = lam.shape
        rows = np.ascontiguousarray(lam).reshape(m * n_rows, n)
        if isinstance(linear_map, Dense):  # the rows of dead states, most of a network's, need not be multiplied
            used = np.flatnonzero(rows.any(axis=0))
            if 2 * used.size < n:
                return product(rows[:, used], linear_map.matrix[used]).reshape(m, n_rows, -1)
        return linear_map.adjoint(rows).reshape(m, n_rows, -1)


def sum_downward(parts: Sequence[FloatArray]) -> FloatArray:
    """Return the sum of some arrays, rounded downward; -inf where an overflow proves nothing."""
    every = np.stack(parts)
    result = every.sum(axis=0)
    rounding = gamma(len(every) + 4) * np.abs(every).sum(axis=0)
    lower = down(result - 2 * rounding)
    return np.where(np.isfinite(lower), lower, -np.inf)


def rounding_share(model: ImplicitModel, source: int, linear_map: LinearMap) -> FloatArray:
    """Return s, (n_in,): lam P as computed is within (greatest |lam|) s of what is exact, later sums included."""
    terms = column_terms(model)[source]
    return linear_map.column_sums * gamma(terms + 4) + linear_map.uncertain_column_sums + LOST


@lru_cache(maxsize=2)
def column_terms(model: ImplicitModel) -> Mapping[int, int]:
    """Return, for each source, how many products are added up for one entry of v, over all rows of blocks."""
    terms: dict[int, int] = {}
    for row in (*model.rows, model.output):
        for source, linear_map in sources(row):
            terms[source] = terms.get(source, 0) + linear_map.column_terms + 1
    return terms
