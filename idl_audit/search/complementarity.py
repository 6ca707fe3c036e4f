"""The complementarity form of a model over a box (docs/mathematics.md, section 7.2), for linear programs.

Variables t, x and the slack s = x - z, with u = centre + radius t and t in [-1, 1], so that data in bytes and data in
[0, 1] give the same program. Rows (I - A) x - B diag(radius) t - s = b + B centre; every line of the activation's
relaxation over [l, h] is (1 - slope) x + slope s >= intercept (or <=): a bound of a column where the slope is 0 or 1,
which for ReLU leaves one row for each unstable state: the triangle's chord. Coupled states have the rows of planes; an
entry of a matrix product has two, with a coefficient for each of its factors.

Over U_card (at most k inputs differ from u0) u = u0 + diag(up) p - diag(down) n with p, n in [0, 1] and one row more,
sum p + sum n <= k: its convex hull, as an input that moves both ways at once only wastes what others could use.

States that are constant over the box take no part: what others read of them is a number. Case distinctions (a phase of
a kinked state, tighter bounds) change bounds of columns and rows, never the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import Coupled, Line
from idl_audit.implicit.activations.coupled import Plane
from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.box import SparseBall
from idl_audit.values.check import Check, unchecked

_SMALLEST_WIDTH = 1e-9
"""A state whose interval is narrower than this is left to its column bounds: a chord over it is all rounding."""


@dataclass
class Limits:
    """Bounds of the columns t, x, s and of the rows: equations first, then lines."""

    lo: FloatArray
    hi: FloatArray
    row_lo: FloatArray
    row_hi: FloatArray


@dataclass(frozen=True)
class _Lines:
    """Rows (1 - slope) x + slope s for some states: lower lines are >= their intercept, upper ones <=."""

    states: IntArray
    """Numbers among the live states."""
    slopes: FloatArray
    intercepts: FloatArray
    is_lower: bool


@dataclass(frozen=True)
class _Planes:
    """Rows x_i - sum over j of slopes_j (x_j - s_j) for states of coupled blocks: lower ones are >= their intercept."""

    matrix: sp.csr_array
    """(rows, p + 2 k)."""
    lo: FloatArray
    hi: FloatArray


class ComplementarityForm:
    """Matrix and limits of the relaxation over one set."""

    def __init__(
        self,
        model: ImplicitModel,
        inputs: Interval,
        bounds: StateBounds,
        *,
        sparse: SparseBall | None = None,
        many_planes: bool = True,
        check: Check = unchecked,
    ) -> None:
        """Put the form together.

        Args:
            model: the model.
            inputs: the box, arrays with a batch axis of 1.
            bounds: proved bounds of all states over the same set, likewise.
            sparse: the set, where it is U_card; `inputs` is then the box around it.
            many_planes: whether blocks that have very many planes get them; their states have their ranges anyway.
            check: called between steps that take long where the model is large.
        """
        check()
        self.model, self.bounds, self._sparse = model, bounds, sparse
        matrices = model.matrices
        box = inputs.lo[0], inputs.hi[0]
        if sparse is None:
            self.centre = (box[0] + box[1]) / 2
            self._steps = _diagonal((box[1] - box[0]) / 2)
        else:
            self.centre = sparse.centre
            self._steps = sp.csr_array(sp.hstack([_diagonal(box[1] - self.centre), -_diagonal(self.centre - box[0])]))
        self._check, self._many_planes = check, many_planes
        x = flat(model, bounds.x)
        moves = (x.lo < x.hi) | self._read_alone()
        self.live = np.flatnonzero(moves)
        """The states that are not constant, and those whose pre-activations planes read; k of them."""
        self.constant = np.where(moves, 0.0, x.lo)
        """The values of the others, 0 for the live ones, shape (n,)."""
        k = self.live.size
        self.sizes = int(self._steps.shape[1]), k
        """Columns of the inputs, and of the states."""
        check()
        own = matrices.A[self.live]
        from_input = matrices.B[self.live]
        self._equations = sp.csr_array(
            sp.hstack([-(from_input @ self._steps), sp.eye_array(k) - own[:, self.live], -sp.eye_array(k)])
        )
        check()
        self._right = matrices.b[self.live] + from_input @ self.centre + own @ self.constant
        self._lines: list[_Lines] = []
        self._planes: list[_Planes] = []
        self._limits = self._root_limits()

    @property
    def matrix(self) -> sp.csr_array:
        """The equations, then the lines, over the columns t, x, s: shape (k + lines, p + 2 k)."""
        p, k = self.sizes
        rows = [self._equations]
        for lines in self._lines:
            indices = np.stack([p + lines.states, p + k + lines.states], axis=1).reshape(-1)
            data = np.stack([1.0 - lines.slopes, lines.slopes], axis=1).reshape(-1)
            indptr = np.arange(lines.states.size + 1) * 2
            rows.append(sp.csr_array((data, indices, indptr), shape=(lines.states.size, p + 2 * k)))
        rows += [planes.matrix for planes in self._planes]
        if self._sparse is not None:
            rows.append(sp.csr_array(np.concatenate([np.ones(p), np.zeros(2 * k)])[None]))
        return sp.csr_array(sp.vstack(rows, format="csr"))

    @property
    def limits(self) -> Limits:
        """Bounds of columns and rows over the whole box; copies."""
        own = self._limits
        return Limits(own.lo.copy(), own.hi.copy(), own.row_lo.copy(), own.row_hi.copy())

    @property
    def first_basis(self) -> tuple[BoolArray, BoolArray]:
        """The columns and rows that are basic where every state has the phase of the box's centre."""
        p, _ = self.sizes
        if self.model.is_feed_forward:
            z = np.concatenate([np.zeros(0), *(own[0] for own in self.model.pre_activations(self.centre[None]))])
        else:
            known = flat(self.model, self.bounds.z)
            z = (known.lo + known.hi) / 2
        x = flat(self.model, self.bounds.x)
        is_up = (z[self.live] > 0) & (x.lo < x.hi)[self.live]
        columns = np.concatenate([np.zeros(p, np.bool_), is_up, ~is_up])
        return columns, np.arange(self._limits.row_lo.size) >= self.live.size

    def cost(self, functional: FloatArray) -> tuple[FloatArray, float]:
        """Return functional . y, (q,), as a cost of the columns and a constant."""
        matrices, k = self.model.matrices, self.live.size
        of_states, of_inputs = matrices.C.T @ functional, matrices.D.T @ functional
        cost = np.concatenate([self._steps.T @ of_inputs, of_states[self.live], np.zeros(k)])
        return cost, float(of_inputs @ self.centre + of_states @ self.constant + functional @ matrices.d)

    def inputs_of(self, columns: FloatArray) -> FloatArray:
        """Return u, shape (p,), of a point."""
        return np.asarray(self.centre + self._steps @ columns[: self.sizes[0]])

    def states_of(self, columns: FloatArray) -> FloatArray:
        """Return x, shape (n,), of a point."""
        p, k = self.sizes
        x = self.constant.copy()
        x[self.live] = columns[p : p + k]
        return x

    def multipliers_of(self, row_duals: FloatArray) -> FloatArray:
        """Return one multiplier a state, shape (n,), from the duals of all rows: that of the state's equation, or 0."""
        lam = np.zeros(self.model.n_states)
        lam[self.live] = row_duals[: self.live.size]
        return lam

    def slacks_of(self, columns: FloatArray) -> FloatArray:
        """Return s = x - z, shape (n,), of a point; 0 for the states that take no part."""
        p, k = self.sizes
        s = np.zeros(self.model.n_states)
        s[self.live] = columns[p + k :]
        return s

    def prices_of(self, row_duals: FloatArray) -> FloatArray:
        """Return the sum of |dual| over the lines of each state, shape (n,): what the bound owes to the relaxation."""
        price, at = np.zeros(self.model.n_states), self._right.size
        for lines in self._lines:
            price[self.live[lines.states]] += np.abs(row_duals[at : at + lines.states.size])
            at += lines.states.size
        return price

    def leaf_limits(self, bounds: StateBounds) -> Limits:
        """Return the limits of a part of the box in which the states have tighter bounds: the phases of a leaf.

        A kinked state that has only one slope there lies on its line, x = slope z; other states keep the lines of the
        whole box within tighter column bounds.
        """
        limits = self.limits
        slope = self._narrow(limits, bounds)
        at = self._right.size
        for lines in self._lines:
            fixed = np.flatnonzero(slope[lines.states] == lines.slopes)  # NaN, where the state bends, equals nothing
            limits.row_lo[at + fixed] = limits.row_hi[at + fixed] = 0.0
            at += lines.states.size
        return limits

    def _narrow(self, limits: Limits, bounds: StateBounds) -> FloatArray:
        """Tighten the columns; return the slope of each live state that has only one and lies on x = slope z."""
        model, (p, k) = self.model, self.sizes
        z, x = (Interval(side.lo[self.live], side.hi[self.live]) for side in _flats(model, bounds))
        only = np.full(model.n_states, np.nan)
        for number, block in enumerate(model.blocks):
            if not block.activation.piecewise_linear:
                continue
            least, most = block.slopes(bounds.z[number].lo[0], bounds.z[number].hi[0])
            only[model.offsets[number] : model.offsets[number + 1]] = np.where(least == most, most, np.nan)
        slope = only[self.live]
        for first, lo, hi in ((p, x.lo, x.hi), (p + k, x.lo - z.hi, x.hi - z.lo)):
            columns = slice(first, first + k)
            limits.lo[columns] = np.maximum(limits.lo[columns], lo)
            limits.hi[columns] = np.minimum(limits.hi[columns], hi)
        for value, first in ((0.0, p), (1.0, p + k)):
            flat = first + np.flatnonzero(slope == value)
            limits.lo[flat] = limits.hi[flat] = 0.0
        return slope

    def _root_limits(self) -> Limits:
        model, (p, k) = self.model, self.sizes
        z, x = (Interval(side.lo[self.live], side.hi[self.live]) for side in _flats(model, self.bounds))
        least = -1.0 if self._sparse is None else 0.0
        lo = np.concatenate([np.full(p, least), x.lo, x.lo - z.hi])
        hi = np.concatenate([np.full(p, 1.0), x.hi, x.hi - z.lo])
        number = np.full(model.n_states, -1, np.int64)
        number[self.live] = np.arange(k)
        for at, block in enumerate(model.blocks):
            own = number[model.offsets[at] : model.offsets[at + 1]]
            known = self.bounds.z[at]
            wide = (known.hi[0] - known.lo[0]) > _SMALLEST_WIDTH
            if isinstance(block.activation, Coupled):
                self._add_planes(block, known, own)
            below, above = block.lines(known.lo[0], known.hi[0])
            for side, is_lower in ((below, True), (above, False)):
                for position, line in enumerate(side):  # a hull with fewer lines than places for them repeats some
                    is_new = ~np.any([_same(line, other) for other in side[:position]], axis=0)
                    self._add_line(line, is_lower, own, wide & is_new, lo, hi)
        infinite = np.inf
        row_lo = [
            lines.intercepts if lines.is_lower else np.full(lines.states.size, -infinite) for lines in self._lines
        ]
        row_hi = [np.full(lines.states.size, infinite) if lines.is_lower else lines.intercepts for lines in self._lines]
        row_lo += [planes.lo for planes in self._planes]
        row_hi += [planes.hi for planes in self._planes]
        if self._sparse is not None:
            row_lo.append(np.full(1, -infinite))
            row_hi.append(np.full(1, float(self._sparse.k)))
        return Limits(lo, hi, np.concatenate([self._right, *row_lo]), np.concatenate([self._right, *row_hi]))

    def _add_planes(self, block: StateBlock, z: Interval, own: IntArray) -> None:
        """Add the planes of every group of a coupled block, where the states that they read are live."""
        assert isinstance(block.activation, Coupled)
        (p, k), live = self.sizes, own.reshape(-1, block.activation.width)
        for plane in self._planes_of(block, z):
            reads = plane.slopes != 0
            known = np.isfinite(plane.slopes).all(axis=1) & np.isfinite(plane.intercept)
            groups = np.flatnonzero((live[:, plane.state] >= 0) & ((live >= 0) | ~reads).all(axis=1) & known)
            at, j = np.nonzero(reads[groups])
            states, slopes = live[groups[at], j], plane.slopes[groups[at], j]
            rows = np.concatenate([np.arange(groups.size), at, at])
            columns = np.concatenate([p + live[groups, plane.state], p + states, p + k + states])
            data = np.concatenate([np.ones(groups.size), -slopes, slopes])
            matrix = sp.csr_array((data, (rows, columns)), shape=(groups.size, p + 2 * k))
            ends = plane.intercept[groups], np.full(groups.size, np.inf if plane.is_lower else -np.inf)
            self._planes.append(_Planes(matrix, *(ends if plane.is_lower else ends[::-1])))

    def _planes_of(self, block: StateBlock, z: Interval) -> Iterator[Plane]:
        assert isinstance(block.activation, Coupled)
        if self._many_planes or not block.activation.plane_entries(block.size):
            for plane in block.planes(z.lo[0], z.hi[0]):
                self._check()
                yield plane

    def _read_alone(self) -> BoolArray:
        """Return the states whose pre-activations have columns though they may be constant themselves, (n,)."""
        found = np.zeros(self.model.n_states, np.bool_)
        for at, block in zip(self.model.offsets, self.model.blocks, strict=False):
            if self._many_planes and isinstance(block.activation, Coupled):
                found[at : at + block.size] = np.tile(
                    block.activation.read_alone(), block.size // block.activation.width
                )
        return found

    def _add_line(
        self, line: Line, is_lower: bool, own: IntArray, wide: BoolArray, lo: FloatArray, hi: FloatArray
    ) -> None:
        """Add x >= slope z + intercept (or <=) for every live state of a block, z = x - s."""
        p, k = self.sizes
        slope, intercept = (np.broadcast_to(part, own.shape) for part in line)
        limits, tighten = (lo, np.maximum) if is_lower else (hi, np.minimum)
        for value, first in ((0.0, p), (1.0, p + k)):
            flat = (slope == value) & (own >= 0)
            columns = first + own[flat]
            limits[columns] = tighten(limits[columns], intercept[flat])
        rows = np.flatnonzero((slope != 0.0) & (slope != 1.0) & wide & (own >= 0))
        if rows.size:
            self._lines.append(_Lines(own[rows], slope[rows], intercept[rows], is_lower))


def _same(line: Line, other: Line) -> BoolArray:
    return np.asarray((line[0] == other[0]) & (line[1] == other[1]))


def _diagonal(entries: FloatArray) -> sp.csr_array:
    n = entries.size
    return sp.csr_array((entries, (np.arange(n), np.arange(n))), shape=(n, n))


def flat(model: ImplicitModel, parts: Mapping[int, Interval]) -> Interval:
    """Return the intervals of all blocks over one box as two vectors over all states."""
    numbers = range(len(model.blocks))
    return Interval(
        np.concatenate([np.zeros(0), *(parts[k].lo[0] for k in numbers)]),
        np.concatenate([np.zeros(0), *(parts[k].hi[0] for k in numbers)]),
    )


def _flats(model: ImplicitModel, bounds: StateBounds) -> tuple[Interval, Interval]:
    """Return the bounds of z and of x over one box."""
    return flat(model, bounds.z), flat(model, bounds.x)
