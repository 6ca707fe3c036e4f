"""Proved bounds over a batch of boxes, and how each would move if the interval of one input were wider.

A lower bound that goes backwards, v arriving at the states of a block and w at the inputs, is

    bound = sum of (v_i times the line below where v_i >= 0, above elsewhere) + w . centre - |w| . r + constants,

r the radii of the box, so that its total derivative, through the bounds [l, h] of all states on the way, is

    d bound / d r_j = -|w_j| + sum_i v_i (dT_i/dl_i dl_i/dr_j + dT_i/dh_i dh_i/dr_j),

T_i the height of the line taken in the middle of [l_i, h_i]; dl/dr and dh/dr are such derivatives themselves. Only the
bounds are proved: the derivatives say where to split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.forms import Form, Forms
from idl_audit.proof.intervals import centre_and_radius, with_interval
from idl_audit.proof.linear_bounds import line_multipliers
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.check import Check, unchecked

IN_CACHE = 2**14
"""Numbers of an array of one backward pass that stay in a core's cache: larger batches are slower a box."""
ROWS_AT_ONCE = 2**20
"""Numbers that one such array may hold where a single box has more."""
STEP = 1e-4
"""Of an interval's width: how far its ends move for the derivatives of lines."""


@dataclass(frozen=True)
class Lines:
    """Derivatives of the heights of a block's lines in the middle of [l, h], and of l and h by the radii.

    Heights: shape (m, n), by l and by h. Ends: shape (m, n, f), by the radius of each free input.
    """

    above: tuple[FloatArray, FloatArray]
    below: tuple[FloatArray, FloatArray]
    ends: tuple[FloatArray, FloatArray]

    def heights(self, which: tuple[FloatArray, FloatArray]) -> FloatArray:
        """Return d height / d r, shape (m, n, f)."""
        return which[0][:, :, None] * self.ends[0] + which[1][:, :, None] * self.ends[1]

    def part(self, boxes: slice | IntArray) -> Lines:
        """Return those of some boxes."""
        pairs = [(pair[0][boxes], pair[1][boxes]) for pair in (self.above, self.below, self.ends)]
        return Lines(*pairs)


@dataclass(frozen=True)
class RowBounds:
    """Of R functionals over each of m boxes."""

    lower: FloatArray
    """Proved lower bounds, (m, R)."""
    normals: FloatArray
    """w of the linear lower bound w . u + c whose least value is about `lower`, (m, R, p)."""
    rates: FloatArray
    """d lower / d r_j of each free input j, (m, R, f)."""


@dataclass(frozen=True, eq=False)
class BoxBounds:
    """Proved bounds of all states over each of m boxes, as `bounded` finds them."""

    model: ImplicitModel
    inputs: Interval
    free: IntArray
    """The inputs that derivatives are taken for, f of them."""
    states: StateBounds = field(default_factory=StateBounds)
    lines: Mapping[int, Lines] = field(default_factory=dict)
    forms: Forms | None = None
    """Where there are no lines for states that bend: the forms, whose slopes the rates are made of."""
    check: Check = unchecked
    """Called between small units of work."""

    def rows(self, functionals: Functionals) -> RowBounds:
        """Return the bounds of functionals, each with its plane and derivatives."""
        seen: dict[int, tuple[FloatArray, FloatArray]] = {}
        by_lines = line_multipliers(self.model, self.states)

        def choose(k: int, v: FloatArray) -> FloatArray:
            lam = by_lines(k, v)
            seen[k] = v, lam
            return lam

        lower = lower_bound(self.model, self.inputs, self.states, functionals, choose, check=self.check)
        normals = np.zeros((*lower.shape, self.model.n_inputs))
        normals += _input_part(functionals.row, np.broadcast_to(functionals.seeds, (1, *functionals.seeds.shape)))
        for k, (_, lam) in seen.items():
            self.check()
            normals += _input_part(self.model.rows[k], lam)
        rates = -np.abs(normals[:, :, self.free])
        for k, (v, _) in seen.items():
            self.check()
            if k in self.lines:  # a loop's own lines are not known yet while its bounds are made
                lines = self.lines[k]
                rates += np.minimum(v, 0.0) @ lines.heights(lines.above)
                if any(np.any(change) for change in lines.below):
                    rates += np.maximum(v, 0.0) @ lines.heights(lines.below)
        if self.forms is not None:
            rates -= sum(self._losses(form, k, *seen[k]) for k, form in self.forms.z.items() if k in seen)
        return RowBounds(lower, normals, rates)

    def _losses(self, form: Form, k: int, v: FloatArray, lam: FloatArray) -> FloatArray:
        """Return what the lines of block k lose in the middle of [l, h], by each input's share of h - l, (m, R, f)."""
        block, z = self.model.blocks[k], self.states.z[k]
        middle = z.lo + 0.5 * (z.hi - z.lo)
        least = block.lower_support(v, np.zeros_like(v), lam, z.lo[:, None], z.hi[:, None])
        loss = v * block(middle)[:, None] - lam * middle[:, None] - least
        share = _ratio(2 * np.abs(form.slopes), (z.hi - z.lo)[:, :, None])
        _, radii = centre_and_radius(self.inputs)
        return _ratio(loss @ share, radii[:, None, self.free])

    def outputs(self, functionals: FloatArray) -> RowBounds:
        """Return the bounds of functionals . y, (R, q)."""
        return self.rows(Functionals.of_outputs(self.model, functionals))

    def over(self, boxes: IntArray, inputs: Interval, functionals: FloatArray) -> FloatArray:
        """Return proved lower bounds of functionals . y, shape (s, R), over s boxes, each part of one that was bounded.

        The bounds of the states over a whole box hold over its parts.

        Args:
            boxes: the number of the whole box of each part, shape (s,).
            inputs: the parts.
            functionals: shape (R, q).
        """
        states = StateBounds(_taken(self.states.z, boxes), _taken(self.states.x, boxes))
        seeds = Functionals.of_outputs(self.model, functionals)
        choose = line_multipliers(self.model, states)
        return lower_bound(self.model, inputs, states, seeds, choose, check=self.check)

    def own_outputs(self, boxes: IntArray, seeds: FloatArray) -> FloatArray:
        """Return proved lower bounds of functionals of y over some of the boxes, each its own: (s, R, q) -> (s, R)."""
        states = self.states.of_boxes(boxes)
        functionals, choose = Functionals.of_outputs(self.model, seeds), line_multipliers(self.model, states)
        return lower_bound(self.model, _some(self.inputs, boxes), states, functionals, choose, check=self.check)

    def part(self, boxes: slice | IntArray) -> BoxBounds:
        """Return what is known of some boxes."""
        states = StateBounds(_taken(self.states.z, boxes), _taken(self.states.x, boxes))
        lines = {k: lines.part(boxes) for k, lines in self.lines.items()}
        forms = None if self.forms is None else self.forms.part(boxes)
        return replace(self, inputs=_some(self.inputs, boxes), states=states, lines=lines, forms=forms)

    def with_block(self, k: int, z: Interval, ends: tuple[FloatArray, FloatArray]) -> BoxBounds:
        """Return the bounds with narrower ones of block k, and its lines."""
        block = self.model.blocks[k]
        states = self.states.with_block(k, block, z, self.states.x[k])
        lines = Lines(*_height_changes(block, z), ends)
        return replace(self, states=states, lines={**self.lines, k: lines})


def bounded(
    model: ImplicitModel,
    inputs: Interval,
    free: IntArray,
    known: Mapping[int, Interval] | None = None,
    *,
    by_lines: bool = True,
    check: Check = unchecked,
) -> BoxBounds:
    """Return bounds of all states over each of m boxes: intervals, affine forms, then lines backwards for what bends.

    Args:
        model: the model.
        inputs: the boxes, (m, p).
        free: the inputs that forms tell apart, and that derivatives are taken for.
        known: proved bounds of every block's pre-activations over larger boxes, one a box.
        by_lines: whether there are lines; forms alone cost much less where many states bend.
        check: called between small units of work, here and by the bounds that are returned.
    """
    found, forms = BoxBounds(model, inputs, free, check=check), Forms.over(inputs, free)
    for k in model.evaluation_order:
        block = model.blocks[k]
        states = with_interval(model, k, found.states, inputs, check=check)
        z, form = states.z[k], forms.of_block(model, k)
        z = z if form is None else z.intersected(form.interval)
        z = z if known is None else z.intersected(known[k])
        found = replace(found, states=states.with_block(k, block, z, states.x[k]))
        if by_lines:
            found = found.with_block(k, *_tightened(found, k))
        forms = forms.with_block(k, block, form, found.states.z[k], found.states.x[k])
    return found if by_lines else replace(found, forms=forms)


def _tightened(found: BoxBounds, k: int) -> tuple[Interval, tuple[FloatArray, FloatArray]]:
    """Return bounds of the pre-activations of block k, backwards, and their derivatives (zero where stable)."""
    model, z = found.model, found.states.z[k]
    m, n = z.lo.shape
    ends = np.zeros((m, n, found.free.size)), np.zeros((m, n, found.free.size))
    row = model.rows[k]
    if not row.states:  # an affine map of the box: the interval is exact
        if row.input is not None:
            for moved, reach in _reaches(row.input, found.free, found.check):
                ends[0][:, :, moved], ends[1][:, :, moved] = -reach, reach
        return z, ends
    lo, hi = z.lo.copy(), z.hi.copy()
    unstable = found.states.unstable(k, model.blocks[k])
    for boxes in _batches(model, unstable.sum(axis=1)):
        part, bending = found.part(boxes), np.flatnonzero(unstable[boxes].any(axis=0))
        at_once = max(1, ROWS_AT_ONCE // (2 * _widest(model) * (boxes.stop - boxes.start)))
        for start in range(0, bending.size, at_once):
            some = bending[start : start + at_once]
            plus, minus = (Functionals.of_pre_activations(model, k, some, sign) for sign in (1.0, -1.0))
            seeds = np.concatenate([plus.seeds, minus.seeds])
            bounds = part.rows(Functionals(plus.row, seeds, plus.newest))
            r = some.size
            lo[boxes, some] = np.fmax(lo[boxes, some], bounds.lower[:, :r])
            hi[boxes, some] = np.fmin(hi[boxes, some], -bounds.lower[:, r:])
            ends[0][boxes, some], ends[1][boxes, some] = bounds.rates[:, :r], -bounds.rates[:, r:]
    # whatever boxes are bounded beside it, as the checker has it
    return Interval(np.where(unstable, lo, z.lo), np.where(unstable, hi, z.hi)), ends


def _reaches(linear_map: LinearMap, free: IntArray, check: Check) -> Iterator[tuple[slice, FloatArray]]:
    """Yield the columns of |W| of some of the free inputs, (n, s), with which of them they are."""
    at_once = max(1, ROWS_AT_ONCE // max(1, linear_map.n_out))
    for start in range(0, free.size, at_once):
        check()
        some = slice(start, min(start + at_once, free.size))
        unit = np.zeros((some.stop - start, linear_map.n_in))
        unit[np.arange(len(unit)), free[some]] = 1.0
        yield some, linear_map.magnitude.apply(unit).T


def _batches(model: ImplicitModel, unstable: IntArray) -> Iterator[slice]:
    """Yield runs of boxes whose backward passes fit the cache; neighbours share most of their unstable states."""
    numbers = 2 * _widest(model) * max(1.0, float(unstable.mean()))
    at_once = max(1, int(IN_CACHE / numbers))
    for start in range(0, len(unstable), at_once):
        yield slice(start, min(start + at_once, len(unstable)))


def _widest(model: ImplicitModel) -> int:
    return max([model.n_inputs, *(block.size for block in model.blocks)])


def _height_changes(
    block: StateBlock, z: Interval
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Return the derivatives by l and by h of the heights of the lines above and below in the middle of [l, h]."""
    middle = z.lo + 0.5 * (z.hi - z.lo)
    step = STEP * (z.hi - z.lo)

    def heights(lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        below, above = block.relaxation_slopes(lo, hi)
        one, zero = np.ones_like(lo), np.zeros_like(lo)
        over = above * middle - block.lower_support(-one, zero, -above, lo, hi)
        return over, below * middle + block.lower_support(one, zero, below, lo, hi)

    at, lower, higher = heights(z.lo, z.hi), heights(z.lo - step, z.hi), heights(z.lo, z.hi + step)

    def by_ends(side: int) -> tuple[FloatArray, FloatArray]:
        return _ratio(at[side] - lower[side], step), _ratio(higher[side] - at[side], step)

    return by_ends(0), by_ends(1)


def _ratio(change: FloatArray, step: FloatArray) -> FloatArray:
    usable = (step > 0) & np.isfinite(step) & np.isfinite(change)
    step = np.broadcast_to(step, change.shape)
    return np.divide(change, step, out=np.zeros_like(change), where=usable)


def _input_part(row: Affine, lam: FloatArray) -> FloatArray:
    """Return lam Q, (m, R, size) -> (m, R, p), Q what the row reads of the input."""
    if row.input is None:
        return np.zeros((1, 1, 1))
    m, n_rows, n = lam.shape
    return row.input.adjoint(np.ascontiguousarray(lam).reshape(m * n_rows, n)).reshape(m, n_rows, -1)


def _some(interval: Interval, boxes: slice | IntArray) -> Interval:
    return Interval(interval.lo[boxes], interval.hi[boxes])


def _taken(bounds: Mapping[int, Interval], boxes: slice | IntArray) -> dict[int, Interval]:
    return {k: _some(interval, boxes) for k, interval in bounds.items()}
