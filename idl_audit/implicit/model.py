"""The implicit model x = phi(A x + B u + b), y = C x + D u + d as blocks of states and linear maps between them.

Elsewhere: layer, neuron, pre-activation, post-activation, deep equilibrium model, implicit layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import Activation, Coupled, Line, Mixed
from idl_audit.implicit.activations.analytic import Analytic
from idl_audit.implicit.activations.base import FAR
from idl_audit.implicit.activations.coupled import Plane
from idl_audit.implicit.activations.curved import Curved
from idl_audit.implicit.activations.jumping import Jumping, sides
from idl_audit.implicit.activations.parts import group_of
from idl_audit.implicit.equilibrium import Equilibrium, Iteration, iteration_of, solve
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed
from idl_audit.implicit.wellposed import (
    NORMS,
    Coefficients,
    Coupling,
    GroupContraction,
    Proof,
    gain,
    group_contractions,
    prove,
)
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import LOST, gamma

MOST_NAMED = 3
"""Blocks that a sentence names."""

NUMBERS_AT_ONCE = 2**22
"""States and inputs that one evaluation holds."""

LARGEST_RESIDUAL = 1e-6
"""Of the state's size: an equilibrium with a larger residual is no answer."""


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

    `exponent` e is the kept scale of a block whose activation is not positively homogeneous: x = 2^-e phi(2^e z); one
    number, or one a state.
    """

    name: str
    op: str
    activation: Activation
    shape: tuple[int, ...]
    maximum: PoolWindows | None = None
    exponent: int | IntArray = 0

    @property
    def size(self) -> int:
        """Number of states."""
        return int(np.prod(self.shape, dtype=np.int64))

    @cached_property
    def _is_scaled(self) -> bool:
        return bool(np.any(self.exponent))

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        if not self._is_scaled:
            return self.activation(z)
        return np.ldexp(self.activation(np.ldexp(z, self.exponent)), -self.exponent)

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return a slope of phi at z; used to search, never to prove."""
        return self.activation.derivative(np.ldexp(z, self.exponent) if self._is_scaled else z)

    @property
    def jumps(self) -> bool:
        """Whether the activation jumps."""
        return isinstance(self.activation, Jumping)

    @cached_property
    def coupling(self) -> Coupling:
        """How the states move together: one group a state, unless the activation couples them."""
        phi = self.activation
        exponent = np.broadcast_to(self.exponent, self.size)
        found = Coupling(
            phi.spread(np.eye(self.size)),
            np.bincount(group_of(phi, self.size)),
            {norm: phi.norm_constants(self.size, norm) for norm in NORMS},
            phi.gradient_steepness(self.size),
        )
        if not bool((exponent == exponent[found.starts][found.group]).all()):
            raise UnsupportedModelError((f"the coupled states of '{self.name}' have different scales",))
        return found

    @cached_property
    def everywhere(self) -> tuple[FloatArray, FloatArray]:
        """The least and greatest slope of each state over all z."""
        return self.activation.slopes(np.full(self.size, -FAR), np.full(self.size, FAR))

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return Phi^T v, Phi the Jacobian of phi at z; a kept scale does not change slopes."""
        return self.activation.pull_back(np.ldexp(z, self.exponent) if self._is_scaled else z, v)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest slope of phi on [lo, hi]; a kept scale does not change slopes."""
        return self.activation.slopes(*self.unscaled(lo, hi))

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of phi on [lo, hi], rounded outward."""
        low, high = self.activation.interval(*self.unscaled(lo, hi))
        if not self._is_scaled:
            return low, high
        return _times_power(low, -self.exponent, -np.inf), _times_power(high, -self.exponent, np.inf)

    def preimage(
        self, x_lo: FloatArray, x_hi: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return bounds within [lo, hi] of every z there with phi(z) in [x_lo, x_hi]."""
        return (lo, hi) if self._is_scaled else self.activation.preimage(x_lo, x_hi, lo, hi)

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return slopes for a line below and a line above phi on [lo, hi]."""
        return self.activation.relaxation_slopes(*self.unscaled(lo, hi))

    @property
    def has_lines_of_any_slope(self) -> bool:
        """Whether the lines around the graph may be raised on both sides by the choice of their slopes."""
        return isinstance(self.activation, (Curved, Jumping))

    def touched(
        self, side: FloatArray | float, k: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return about the (z, x) where side (x - k z) is least on [lo, hi]; used to search, never to prove."""
        ends = self.unscaled(lo, hi)
        if isinstance(self.activation, Jumping):
            z, x = self.activation.touched(side, k, *ends)
        else:
            assert isinstance(self.activation, Curved)
            z = self.activation.farthest(side, k, *ends)
            x = self.activation(z)
        return (np.ldexp(z, -self.exponent), np.ldexp(x, -self.exponent)) if self._is_scaled else (z, x)

    def line_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest slope that a line around the graph over [lo, hi] is worth trying with."""
        ends = self.unscaled(lo, hi)
        if isinstance(self.activation, Jumping):
            return self.activation.line_slopes(*ends)
        assert isinstance(self.activation, Curved)
        return self.activation.tried_slopes(*ends)

    def threshold(self, lo: FloatArray, hi: FloatArray) -> FloatArray | None:
        """Return where a state that jumps is to be cut, in the middle of [lo, hi]; None where none does."""
        if not isinstance(self.activation, Jumping):
            return None
        cut = self.activation.cut(*self.unscaled(lo, hi))
        return np.ldexp(cut, -self.exponent) if self._is_scaled else cut

    def sides(self, cut: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the greatest z below a cut and the least above it; both the cut itself, unless the activation jumps.

        Where it does, the value at the cut belongs to one side alone (`activations.jumping`).
        """
        return sides(cut, self.exponent) if self.jumps else (cut, cut)

    def inside(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return whether phi is a number at every z in [lo, hi]."""
        return self.activation.inside(*self.unscaled(lo, hi))

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam that suits v over [lo, hi]; a kept scale does not change slopes."""
        return self.activation.multipliers(v, *self.unscaled(lo, hi), chosen)

    def bends(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return which states have more than one slope within [lo, hi]."""
        return self.activation.bends(*self.unscaled(lo, hi))

    def planes(self, lo: FloatArray, hi: FloatArray) -> Iterator[Plane]:
        """Yield the planes of a coupled block over one box; a kept scale divides intercepts."""
        assert isinstance(self.activation, Coupled)
        exponent = self.activation.grouped(np.broadcast_to(self.exponent, self.size))
        for plane in self.activation.planes(*self.unscaled(lo, hi)):
            yield replace(plane, intercept=np.ldexp(plane.intercept, -exponent[:, plane.state]))

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the lines below and above the relaxation of phi on [lo, hi]; a kept scale divides intercepts."""
        below, above = self.activation.lines(*self.unscaled(lo, hi))
        if not self._is_scaled:
            return below, above
        unscaled = [[(slope, np.ldexp(cut, -self.exponent)) for slope, cut in side] for side in (below, above)]
        return unscaled[0], unscaled[1]

    def alone(self) -> StateBlock:
        """Return the block that relies on nothing that other blocks do, as where their rows are changed."""
        activation = self.activation.unaided() if isinstance(self.activation, Coupled) else self.activation
        return replace(self, maximum=None, activation=activation)

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return a proved lower bound of min over z in [lo, hi] of (v' phi(z) - lam z), |v' - v| <= v_error."""
        least = self.activation.lower_support(v, v_error, lam, *self.unscaled(lo, hi))
        return _times_power(least, -self.exponent, -np.inf) if self._is_scaled else least

    def unscaled(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of what the activation itself reads, rounded outward."""
        if not self._is_scaled:
            return lo, hi
        return _times_power(lo, self.exponent, -np.inf), _times_power(hi, self.exponent, np.inf)


def _times_power(values: FloatArray, exponent: int | IntArray, direction: float) -> FloatArray:
    """Return values 2^exponent, rounded in that direction where the range of float64 ends."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        moved = np.ldexp(values, exponent)
        is_exact = np.ldexp(moved, -exponent) == values
    return np.asarray(np.where(is_exact, moved, np.nextafter(moved, direction)))


@dataclass(frozen=True)
class InputPart:
    """One of several inputs of a network: a part of the implicit model's."""

    name: str
    shape: tuple[int, ...]
    """For one sample."""

    @property
    def size(self) -> int:
        """How many numbers of the input vector it is."""
        return math.prod(self.shape)


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

    def without(self, k: int) -> Affine:
        """Return the row without what it reads of block k."""
        return replace(self, states={j: linear_map for j, linear_map in self.states.items() if j != k})

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
    """What `rescale` did: x = diag(2^exponents weights) x', block by block, and the norms before and after."""

    kappa: float
    norm_before: float
    norm_after: float | None
    exponents: Mapping[int, IntArray] = field(default_factory=lambda: MappingProxyType({}))
    reason: str = ""
    """Why there is no `norm_after`; empty where there is one."""
    weights: Mapping[int, FloatArray] = field(default_factory=lambda: MappingProxyType({}))
    """Factors in [1, 2) of the loops that no powers of two suit; ones elsewhere."""


def dense(linear_map: LinearMap) -> Coefficients:
    """Return a map's entries as a dense array, with the bounds of what rounding did to them."""
    matrix = linear_map.matrix if isinstance(linear_map, Dense) else linear_map.to_sparse().toarray()
    relative = linear_map.relative + (gamma(4) if isinstance(linear_map, Reindexed) else 0.0)  # entries are products
    error = None if not relative else relative * np.abs(matrix)
    if linear_map.slack is not None:
        slack = dense(linear_map.slack).matrix
        error = slack if error is None else error + slack
    if error is None:
        return Coefficients(matrix)
    return Coefficients(matrix, error * (1 + gamma(4)) + LOST * ((matrix != 0) | (error > 0)))


def _read_by(row: Affine, some: BoolArray, seen: Mapping[int, BoolArray]) -> None:
    """Note the states that some rows of an affine map read."""
    ones = some.astype(np.float64)[None]  # products of coefficients with ones do not underflow to 0
    for k, linear_map in row.states.items():
        for part in (linear_map.magnitude, linear_map.slack):
            if part is not None:
                np.logical_or(seen[k], part.adjoint(ones)[0] > 0, out=seen[k])


class Matrices(NamedTuple):
    """The paper's four matrices and the two vectors, states in the paper's order."""

    A: sp.csr_array
    B: sp.csr_array
    C: sp.csr_array
    D: sp.csr_array
    b: FloatArray
    d: FloatArray


@dataclass(frozen=True, eq=False)
class Loop:
    """A block that reads its own states: x = phi(A x + i), i everything else that its row reads."""

    block: StateBlock
    A: Coefficients
    """Dense, (n, n)."""
    drive: Affine
    """i, as a row of blocks."""
    weights: FloatArray | None = None
    """D > 0 of the monotone proof, (n,); ones where left out."""

    @cached_property
    def coupling(self) -> Coupling | None:
        """How its states move together, where the activation couples them; None otherwise."""
        return self.block.coupling if self.block.activation.coupled else None

    @cached_property
    def proof(self) -> Proof | None:
        """The first proof of the ladder that there is one x for every i (docs/mathematics.md, section 3.3), or None."""
        if not np.isfinite(self.block.activation.lipschitz).all():  # products of states
            return None
        return prove(self.A, *self.block.everywhere, self.coupling, self.weights)

    @cached_property
    def gain(self) -> FloatArray | None:
        """N, (n, n), with |dx| <= N |di| for all i, rounded upward; None where nothing proves one."""
        if not np.isfinite(self.block.activation.lipschitz).all():
            return None
        return gain(self.A, *self.block.everywhere, self.coupling, weights=self.weights)

    @cached_property
    def _group_proofs(self) -> tuple[GroupContraction, ...]:
        return () if self.coupling is None else tuple(group_contractions(self.A, self.coupling))

    def reach(self, radius: FloatArray) -> FloatArray | None:
        """Return how far x moves at most where |di| <= radius, (m, n), rounded upward; None as for `gain`."""
        if self.gain is None:
            return None
        rounding = 1 + gamma(4 * len(self.gain) + 16)
        moved = radius @ self.gain.T * rounding
        if self.coupling is not None:
            for proof in self._group_proofs:
                moved = np.minimum(moved, proof.reach(radius))
            size = self.A.magnitude if self.A.error is None else self.A.magnitude + self.A.error
            again = (radius + moved @ size.T * rounding) @ self.coupling.matrix.T * rounding
            moved = np.minimum(moved, again)
        return np.asarray(moved)

    def solve(self, drive: FloatArray, *, check: Check = unchecked) -> Equilibrium:
        """Return x = phi(A x + i) for each row i, shape (m, n); `check` is called between steps."""
        coupled = self.block.activation.coupled
        return solve(self.block, self.A.matrix, drive, self._iteration, coupled=coupled, check=check)

    @cached_property
    def _iteration(self) -> Iteration:
        homogeneous = self.block.activation.positively_homogeneous
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # without a proof it may run away
            return iteration_of(self.block, self.A.matrix, self.proof, homogeneous=homogeneous)


def _refuse_in_loop(block: StateBlock) -> None:
    """Refuse activations of loops that no proof of well-posedness was made for."""
    parts = block.activation.parts if isinstance(block.activation, Mixed) else (block.activation,)
    names = sorted({part.name for part in parts if isinstance(part, Analytic)})
    if names:
        raise UnsupportedModelError(
            (
                f"the loop '{block.name}' has the activation {' and '.join(names)}, which is read in feed-forward "
                "models alone: no proof that a loop has one state is known for it here",
            )
        )


@dataclass(frozen=True)
class Solution:
    """The states for a batch of inputs, and how they were found."""

    pre_activations: tuple[FloatArray, ...]
    """z, one (m, n_k) array a block."""
    states: tuple[FloatArray, ...]
    """x, likewise."""
    iterations: int = 0
    """Steps of the longest iteration; 0 where one pass gives the states."""
    residual: float = 0.0
    """max |x - phi(A x + B u + b)| over all loops."""


@dataclass(frozen=True, eq=False)
class ImplicitModel:
    """x = phi(A x + B u + b), y = C x + D u + d (docs/mathematics.md, section 1.1).

    `blocks` stand in the paper's order, newest first: rows[i].states has keys k > i, so that A is strictly upper block
    triangular for a feed-forward network. In a cyclic model some blocks also read themselves (k = i): their loops are
    within a block, never between blocks. Vectors are flat; a batch is an array of rows.
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
    loop_weights: Mapping[int, FloatArray] = field(default_factory=lambda: MappingProxyType({}))
    """Weights D that are known to suit the monotone proof of a loop; others are ones."""
    input_parts: tuple[InputPart, ...] = ()
    """What the network calls parts of its input, one behind the other: p numbers in all; empty where it has one input.
    """

    def __repr__(self) -> str:
        """Return the sizes, and how many blocks there are."""
        sizes = f"{self.n_inputs} inputs, {self.n_states} states in {len(self.blocks)} blocks, {self.n_outputs} outputs"
        return f"<ImplicitModel: {sizes}>"

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
    def maps(self) -> list[LinearMap]:
        """Every linear map of A, B, C and D, those of the outputs last."""
        return [linear_map for row in (*self.rows, self.output) for linear_map in row.maps]

    @property
    def nnz(self) -> int:
        """Coefficients of A, B, C and D that are not zero: the products of one evaluation."""
        return sum(linear_map.nnz for linear_map in self.maps)

    @cached_property
    def unbounded(self) -> str:
        """Why no number bounds how far outputs move for all inputs: activations as steep as one likes; else empty."""
        steep = [b for b in self.blocks if not np.isfinite(np.max(b.activation.lipschitz, initial=0.0))]
        if steep and any(block.activation.coupled for block in self.blocks):
            felt = self._felt_blocks()
            steep = [b for k, b in enumerate(self.blocks) if b in steep and k in felt]
        if not steep:
            return ""
        names = ", ".join(f"'{block.name}' ({block.op})" for block in steep[:MOST_NAMED])
        more = f" and {len(steep) - MOST_NAMED} more" if len(steep) > MOST_NAMED else ""
        return (
            f"no number bounds the slope of {names}{more} for all inputs, and so none how far the outputs move; within "
            "boxes of inputs there may be one: ask for those around samples"
        )

    def _felt_blocks(self) -> set[int]:
        """Return the blocks whose states the outputs depend on as functions of all states.

        The factor of a norm (docs/mathematics.md, section 6.10) is there for bounds: what computes it moves nothing.
        """
        seen = {k: np.zeros(block.size, np.bool_) for k, block in enumerate(self.blocks)}
        _read_by(self.output, np.ones(self.n_outputs, np.bool_), seen)
        for k, (block, row) in enumerate(zip(self.blocks, self.rows, strict=True)):
            if seen[k].any():
                _read_by(row, np.ones_like(seen[k]) if k in row.states else block.activation.felt(seen[k]), seen)
        return {k for k, states in seen.items() if states.any()}

    def refuse_unbounded(self) -> None:
        """Raise UnsupportedModelError where nothing that holds for all inputs bounds how far outputs move."""
        if self.unbounded:
            raise UnsupportedModelError((self.unbounded,))

    @property
    def evaluation_order(self) -> range:
        """Block numbers, oldest first: each reads only those before it."""
        return range(len(self.blocks) - 1, -1, -1)

    @cached_property
    def has_jumps(self) -> bool:
        """Whether a block jumps, so that no number bounds its slope for all inputs."""
        return any(block.jumps for block in self.blocks)

    @cached_property
    def _jumping_states(self) -> tuple[BoolArray, IntArray]:
        """Which states jump, and the exponents of all, (n,), in the flat order."""
        jumps = [np.full(block.size, block.jumps) for block in self.blocks]
        exponents = [np.broadcast_to(block.exponent, block.size) for block in self.blocks]
        return np.concatenate(jumps), np.concatenate(exponents)

    def sides(self, states: IntArray, cuts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the greatest z below a cut of each of some states, and the least above it (`StateBlock.sides`).

        Numbers below 0 stand for no state; there both are the cut.
        """
        if not self.has_jumps:
            return cuts, cuts
        jumping, exponents = self._jumping_states
        at = np.maximum(states, 0)
        below, above = sides(cuts, exponents[at])
        jumps = jumping[at] & (states >= 0)
        return np.where(jumps, below, cuts), np.where(jumps, above, cuts)

    def refuse_jumps(self, what: str) -> None:
        """Refuse what needs a bound on every slope.

        Raises:
            UnsupportedModelError: where a block jumps.
        """
        block = next((block for block in self.blocks if block.jumps), None)
        if block is not None:
            raise UnsupportedModelError(
                (
                    f"the network jumps at {block.op} node '{block.name}', so that no number bounds its slope for all "
                    f"inputs, and S is infinite: {what}; verdicts (certify), attacks and bounds by interval and linear "
                    "can be had",
                ),
                code="IDL306",
            )

    @cached_property
    def is_feed_forward(self) -> bool:
        """Whether A is strictly upper block triangular."""
        return all(k > i for i, row in enumerate(self.rows) for k in row.states)

    @property
    def structure(self) -> str:
        """The word for it in reports."""
        return "strictly block triangular" if self.is_feed_forward else "cyclic"

    @cached_property
    def loops(self) -> Mapping[int, Loop]:
        """The blocks that read themselves; empty for a feed-forward model."""
        found: dict[int, Loop] = {}
        for k, row in enumerate(self.rows):
            if k in row.states:
                _refuse_in_loop(self.blocks[k])
                found[k] = Loop(self.blocks[k], dense(row.states[k]), row.without(k), self.loop_weights.get(k))
        return MappingProxyType(found)

    @property
    def is_well_posed(self) -> bool:
        """Whether it is proved that there is exactly one state for every input."""
        return all(loop.proof is not None for loop in self.loops.values())

    def solve(self, inputs: FloatArray, *, check: Check = unchecked) -> Solution:
        """Return z = A x + B u + b and x = phi(z) for each row of `inputs`, shape (m, p).

        `check` is called between blocks and between the steps of a loop.

        Raises:
            UnsupportedModelError: where no equilibrium of a loop was found.
        """
        states: dict[int, FloatArray] = {}
        z: dict[int, FloatArray] = {}
        iterations, residual = 0, 0.0
        for k in self.evaluation_order:
            check()
            if k not in self.loops:
                z[k] = self.rows[k](states, inputs)
                states[k] = self.blocks[k](z[k])
                continue
            found = self.loops[k].solve(self.loops[k].drive(states, inputs), check=check)
            size = 1e-3 + float(np.abs(found.x).max(initial=0.0))
            if not found.residual <= LARGEST_RESIDUAL * size:
                raise UnsupportedModelError(
                    (
                        f"no equilibrium of '{self.blocks[k].name}' was found: after {found.iterations} steps the "
                        f"residual is still {found.residual:.1e}",
                    )
                )
            z[k], states[k] = found.z, found.x
            iterations, residual = max(iterations, found.iterations), max(residual, found.residual)
        order = range(len(self.blocks))
        return Solution(tuple(z[k] for k in order), tuple(states[k] for k in order), iterations, residual)

    def pre_activations(self, inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Return z = A x + B u + b for each row of `inputs`, shape (m, p): one (m, n_k) array a block."""
        return self.solve(inputs).pre_activations

    def state(self, inputs: FloatArray, *, check: Check = unchecked) -> tuple[FloatArray, ...]:
        """Return the equilibrium x for each row of `inputs`, shape (m, p): one (m, n_k) array a block."""
        return self.solve(inputs, check=check).states

    def __call__(self, inputs: FloatArray, *, check: Check = unchecked) -> FloatArray:
        """Return y = C x + D u + d for each row of `inputs`, shape (m, p) -> (m, q), a few rows at a time."""
        inputs = np.asarray(inputs, np.float64)
        at_once = max(1, NUMBERS_AT_ONCE // max(1, self.n_states + self.n_inputs))
        parts = [inputs[start : start + at_once] for start in range(0, len(inputs), at_once)] or [inputs]
        with np.errstate(over="ignore", invalid="ignore"):  # what is outside a domain has no outputs
            return np.concatenate([self.output(dict(enumerate(self.state(u, check=check))), u) for u in parts])

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each block starts in the flat state, the paper's order; the last entry is n."""
        return tuple(int(s) for s in np.concatenate([[0], np.cumsum([block.size for block in self.blocks])]))

    @cached_property
    def matrices(self) -> Matrices:
        """A, B, C, D (CSR), b, d over the flat state, newest block first; made once."""
        c, d_matrix = self._sparse_row(self.output)
        rows = [self._sparse_row(row) for row in self.rows]
        a = sp.csr_array(sp.vstack([row[0] for row in rows])) if rows else sp.csr_array((0, 0))
        b = sp.csr_array(sp.vstack([row[1] for row in rows])) if rows else sp.csr_array((0, self.n_inputs))
        constants = np.concatenate([np.zeros(0), *(row.constant for row in self.rows)])
        return Matrices(a, b, c, d_matrix, constants, self.output.constant)

    def _sparse_row(self, row: Affine) -> tuple[sp.csr_array, sp.csr_array]:
        """Return a row of blocks over the flat state, and over the input."""
        inputs = row.input.to_sparse() if row.input is not None else sp.csr_array((row.size, self.n_inputs))
        if not row.states:
            return sp.csr_array((row.size, self.n_states)), inputs
        parts: list[sp.csr_array] = []
        reached = 0
        for k in sorted(row.states):  # blocks that are not read become columns of zeros
            parts += [sp.csr_array((row.size, self.offsets[k] - reached)), row.states[k].to_sparse()]
            reached = self.offsets[k + 1]
        parts.append(sp.csr_array((row.size, self.n_states - reached)))
        return sp.csr_array(sp.hstack(parts)), inputs
