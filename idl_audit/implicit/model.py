"""The implicit model x = phi(A x + B u + b), y = C x + D u + d as blocks of states and linear maps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from idl_audit.arrays import FloatArray, IntArray
from idl_audit.implicit.activations import Activation, Line
from idl_audit.implicit.linear_maps import LinearMap


@dataclass(frozen=True, eq=False)
class PoolWindows:
    """A block whose states are maxima of another block's: what intervals know and its linear form has forgotten.

    State i is the largest of `source`'s states at windows[i] (-1 stands for none).
    """

    source: int
    windows: IntArray


@dataclass(frozen=True, eq=False)
class StateBlock:
    """States that share one activation, with the operator of the network that made them.

    `exponent` e is the kept scale of a block whose activation is not positively homogeneous: x = 2^-e phi(2^e z).
    """

    name: str
    op: str
    activation: Activation
    shape: tuple[int, ...]
    maximum: PoolWindows | None = None
    exponent: int = 0

    @property
    def size(self) -> int:
        """Number of states."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        if not self.exponent:
            return self.activation(z)
        return np.ldexp(self.activation(np.ldexp(z, self.exponent)), -self.exponent)

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return Phi^T v, Phi the Jacobian of phi at z; a kept scale does not change slopes."""
        return self.activation.pull_back(np.ldexp(z, self.exponent) if self.exponent else z, v)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest slope of phi on [lo, hi]; a kept scale does not change slopes."""
        return self.activation.slopes(*self._unscaled(lo, hi))

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of phi on [lo, hi], rounded outward."""
        low, high = self.activation.interval(*self._unscaled(lo, hi))
        return (np.ldexp(low, -self.exponent), np.ldexp(high, -self.exponent)) if self.exponent else (low, high)

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return slopes for a line below and a line above phi on [lo, hi]."""
        return self.activation.relaxation_slopes(*self._unscaled(lo, hi))

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the lines below and above the relaxation of phi on [lo, hi]; a kept scale divides intercepts."""
        below, above = self.activation.lines(*self._unscaled(lo, hi))
        if not self.exponent:
            return below, above
        unscaled = [[(slope, np.ldexp(cut, -self.exponent)) for slope, cut in side] for side in (below, above)]
        return unscaled[0], unscaled[1]

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return a proved lower bound of min over z in [lo, hi] of (v' phi(z) - lam z), |v' - v| <= v_error."""
        least = self.activation.lower_support(v, v_error, lam, *self._unscaled(lo, hi))
        return np.ldexp(least, -self.exponent) if self.exponent else least

    def _unscaled(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        if not self.exponent:
            return lo, hi
        return np.ldexp(lo, self.exponent), np.ldexp(hi, self.exponent)


@dataclass(frozen=True, eq=False)
class Affine:
    """z = sum over blocks of states[k] x_k + input u + constant: one row of blocks of (A, B, b) or (C, D, d)."""

    states: Mapping[int, LinearMap]
    input: LinearMap | None
    constant: FloatArray
    constant_error: float = 0.0

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.constant.size)

    @property
    def maps(self) -> list[LinearMap]:
        """Every linear map of the row, that of the input last."""
        return [*self.states.values(), *([] if self.input is None else [self.input])]

    def __call__(self, states: Mapping[int, FloatArray], inputs: FloatArray) -> FloatArray:
        """Return the values for each row of a batch, shape (m, size)."""
        total: FloatArray | None = None
        for k in sorted(self.states, reverse=True):
            term = self.states[k].apply(states[k])
            total = term if total is None else total + term
        if self.input is not None:
            term = self.input.apply(inputs)
            total = term if total is None else total + term
        if total is None:
            return np.broadcast_to(self.constant, (len(inputs), self.size)).copy()
        return total + self.constant


@dataclass(frozen=True)
class Scaling:
    """What `rescale` did: x = diag(2^exponents) x', block by block, and the norms before and after."""

    kappa: float
    norm_before: float
    norm_after: float | None
    exponents: Mapping[int, IntArray] = field(default_factory=lambda: MappingProxyType({}))
    reason: str = ""
    """Why there is no `norm_after`; empty where there is one."""


class Matrices(NamedTuple):
    """The paper's four matrices and the two vectors, states in the paper's order."""

    A: sp.csr_array
    B: sp.csr_array
    C: sp.csr_array
    D: sp.csr_array
    b: FloatArray
    d: FloatArray


@dataclass(frozen=True, eq=False)
class ImplicitModel:
    """x = phi(A x + B u + b), y = C x + D u + d (paper section 1, with vectors b, d of their own).

    `blocks` stand in the paper's order, newest first, so that A is strictly upper block triangular for a feed-forward
    network: rows[i].states only has keys k > i. Vectors are flat; a batch is an array of rows.
    """

    blocks: tuple[StateBlock, ...]
    rows: tuple[Affine, ...]
    """Row of blocks of (A, B, b) for every block of states."""
    output: Affine
    """(C, D, d)."""
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    scaling: Scaling | None = None
    stripped_output: str = ""
    """The trailing operator that this model leaves out, where it does ("Softmax")."""

    @property
    def n_inputs(self) -> int:
        """p."""
        return int(np.prod(self.input_shape, dtype=np.int64))

    @property
    def n_outputs(self) -> int:
        """q."""
        return self.output.size

    @property
    def n_states(self) -> int:
        """n."""
        return sum(block.size for block in self.blocks)

    @property
    def evaluation_order(self) -> range:
        """Block numbers, oldest first: each reads only those before it."""
        return range(len(self.blocks) - 1, -1, -1)

    @cached_property
    def is_feed_forward(self) -> bool:
        """Whether A is strictly upper block triangular."""
        return all(k > i for i, row in enumerate(self.rows) for k in row.states)

    @property
    def structure(self) -> str:
        """The word for it in reports."""
        return "strictly block triangular" if self.is_feed_forward else "cyclic"

    def pre_activations(self, inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Return z = A x + B u + b for each row of `inputs`, shape (m, p): one (m, n_k) array a block."""
        states: dict[int, FloatArray] = {}
        result: dict[int, FloatArray] = {}
        for k in self.evaluation_order:
            result[k] = self.rows[k](states, inputs)
            states[k] = self.blocks[k](result[k])
        return tuple(result[k] for k in range(len(self.blocks)))

    def state(self, inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Return the equilibrium x for each row of `inputs`, shape (m, p): one (m, n_k) array a block."""
        return tuple(block(z) for block, z in zip(self.blocks, self.pre_activations(inputs), strict=True))

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Return y = C x + D u + d for each row of `inputs`, shape (m, p) -> (m, q)."""
        inputs = np.asarray(inputs, np.float64)
        return self.output(dict(enumerate(self.state(inputs))), inputs)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each block starts in the flat state, the paper's order; the last entry is n."""
        return tuple(int(s) for s in np.concatenate([[0], np.cumsum([block.size for block in self.blocks])]))

    @cached_property
    def matrices(self) -> Matrices:
        """A, B, C, D (CSR), b, d over the flat state, newest block first; made once."""
        rows = [self._sparse_row(row, block.size) for row, block in zip(self.rows, self.blocks, strict=True)]
        c, d_matrix = self._sparse_row(self.output, self.n_outputs)
        return Matrices(
            sp.csr_array(sp.vstack([row[0] for row in rows])) if rows else sp.csr_array((0, 0)),
            sp.csr_array(sp.vstack([row[1] for row in rows])) if rows else sp.csr_array((0, self.n_inputs)),
            c,
            d_matrix,
            np.concatenate([row.constant for row in self.rows]) if rows else np.zeros(0),
            self.output.constant,
        )

    def _sparse_row(self, row: Affine, size: int) -> tuple[sp.csr_array, sp.csr_array]:
        parts = [
            row.states[k].to_sparse() if k in row.states else sp.csr_array((size, block.size))
            for k, block in enumerate(self.blocks)
        ]
        states = sp.csr_array(sp.hstack(parts)) if parts else sp.csr_array((size, 0))
        return states, row.input.to_sparse() if row.input is not None else sp.csr_array((size, self.n_inputs))
