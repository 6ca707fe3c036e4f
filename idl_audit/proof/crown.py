"""Backward linear bounds (CROWN) of many functionals at once, proved as they are made; convolutions by patches.

See docs/mathematics.md, section 6.4.

Around the graph of each state over its [l, h] stand two lines, s z + L <= phi(z) <= t z + U. A functional v . x with
x = phi(z), z = A x' + B u + b is therefore at least

    lam . (A x' + B u) + sum over v_i >= 0 of v_i (L_i + s_i b_i) + sum over v_i < 0 of v_i (U_i + t_i b_i),

lam_i = s_i v_i or t_i v_i, and so on back to the inputs, over whose box the rest is bounded in closed form. This is
`dual_bound` with the multipliers of `linear_bounds.line_multipliers`, and as tight, but with each state's lines proved
once for all functionals: a row costs two products a state where the dual bound weighs every vertex. Rounding is bounded
by row and source: |computed v - exact v| <= (greatest |lam| of the row before) * (a vector of the map).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, SparseInputs, StateBounds
from idl_audit.proof.dual_bound import rounding_share, sum_downward
from idl_audit.proof.patches import (
    Gathered,
    Geometry,
    Image,
    Plan,
    Where,
    images_of,
    moved,
    plan,
    pulled_geometry,
    sources,
)
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.rounding import LEAST, LOST, TINY, down, gamma, up

NUMBERS_AT_ONCE: Final = 2**19
"""Numbers that one array of a pass may hold."""
NEVER: Final = 2**31
"""Blocks."""
WORTH_A_LOOK: Final = 0.8
"""Where a look at the signs leaves more than this share of the rows, the next look is farther away."""
ROUNDED_SUMS: Final = 1 + 2.0**-20
"""Far above what the roundings of some millions of nonnegative numbers can take from their sum."""


def lines_suit(model: ImplicitModel, inputs: Interval) -> bool:
    """Return whether this pass is for a model and a set: no loops, a box."""
    return model.is_feed_forward and not isinstance(inputs, SparseInputs)


@dataclass(frozen=True)
class Lines:
    """The lines around one block's states over each of m boxes, and what bounds the rounding; all (m, n).

    For what goes no further back, the inputs at last, they are the ends of intervals: L = lo, U = hi.
    """

    numbers: FloatArray
    """(4, m, n): s, t, then L + s b rounded downward, U + t b rounded upward; of intervals the ends alone."""
    reach: FloatArray
    """Largest |x|: what an error of v is multiplied by."""
    tilt: FloatArray
    """What is multiplied by v here and later, for |v| = 1: relative errors of all these products are paid from it."""
    spare: FloatArray
    """What products that underflow may cost."""

    @classmethod
    def of_block(cls, block: StateBlock, z: Interval, row: Affine) -> Lines:
        """Return the usual lines around phi over [l, h], with the constants of the row of blocks put in."""
        one, none = np.ones_like(z.lo), np.zeros_like(z.lo)
        with np.errstate(over="ignore", invalid="ignore"):  # what is endless proves nothing in the end
            s, t = block.relaxation_slopes(z.lo, z.hi)
            low = block.lower_support(one, none, s, z.lo, z.hi)
            high = -block.lower_support(-one, none, -t, z.lo, z.hi)
            x = Interval(*block.interval(z.lo, z.hi))
            off = np.abs(row.constant) * (1 + gamma(2)) + row.constant_error
            steep = np.maximum(np.abs(s), np.abs(t))
            slack = steep * (gamma(4) * np.abs(row.constant) + row.constant_error * (1 + gamma(4))) + TINY
            low, high = (
                down(down(low + s * row.constant) - slack),
                up(up(high + t * row.constant) + slack),
            )
            tilt = steep * (z.largest + off) + np.maximum(np.abs(low), np.abs(high))
            spare = LOST * (z.largest + off) + TINY * (x.largest + 1)
            return cls(np.stack([s, t, low, high]), x.largest, tilt * (1 + gamma(8)) + TINY, spare * (1 + gamma(8)))

    @classmethod
    def of_ends(cls, values: Interval) -> Lines:
        """Return the ends of intervals, for values that no activation is looked at of."""
        return cls(np.stack([values.lo, values.hi]), values.largest, values.largest, TINY * (values.largest + 1))


@dataclass(frozen=True)
class Targets:
    """What is bounded: signs * z of some states of a block, or rows of outputs."""

    row: Affine
    block: int | None
    """None: the outputs."""
    states: IntArray
    """(R,), where a block is named."""
    seeds: FloatArray
    """Signs, (R,); or rows of outputs, (R, q)."""
    until_settled: bool = False
    """Whether targets are pairs z_i, -z_i of which no more is asked when one is proved to be at least 0."""

    @classmethod
    def of_signs(cls, model: ImplicitModel, k: int, states: IntArray) -> Targets:
        """Return z_i and -z_i of states i of block k, (2 R,), bounded as far back as it takes to know a sign."""
        return cls(model.rows[k], k, np.repeat(states, 2), np.tile([1.0, -1.0], states.size), until_settled=True)

    @classmethod
    def of_states(cls, model: ImplicitModel, k: int, states: IntArray, signs: FloatArray) -> Targets:
        """Return signs * z_i of states i of block k."""
        return cls(model.rows[k], k, states, signs)

    @classmethod
    def of_outputs(cls, model: ImplicitModel, seeds: FloatArray) -> Targets:
        """Return seeds . y."""
        return cls(model.output, None, np.zeros(0, np.int64), seeds)

    @property
    def count(self) -> int:
        """R."""
        return len(self.seeds)

    def some(self, rows: slice) -> Targets:
        """Return some of them."""
        return Targets(self.row, self.block, self.states[rows], self.seeds[rows], self.until_settled)


class Crown:
    """Backward linear bounds over m boxes; lines are made once for each block whose bounds do not change."""

    def __init__(self, model: ImplicitModel, inputs: Interval, *, check: Check = unchecked) -> None:
        """Take a model and the boxes, (m, p), that `lines_suit`."""
        self.model, self.inputs, self.check = model, inputs, check
        self.images = images_of(model)
        self._lines: dict[int, tuple[Interval, Lines]] = {}

    def lower_bound(self, bounds: StateBounds, targets: Targets) -> FloatArray:
        """Return proved lower bounds of the targets over each box, (m, R).

        `bounds` hold every block that the targets read, over the same boxes.
        """
        m = len(self.inputs.lo)
        own = plan(self.model, targets.block)
        width = max(targets.row.size if targets.block is None else 1, self.width(own, targets.row))
        if m > 1:  # a pass over one box is cut where windows become large
            width = max([width, *(self._numbers(source, geometry) for source, geometry in own.items())])
        at_once = _pairs(NUMBERS_AT_ONCE // (m * width))
        found = [np.zeros((m, 0))]
        for start in range(0, targets.count, at_once):
            part = targets.some(slice(start, start + at_once))
            with np.errstate(over="ignore", invalid="ignore"):
                found.append(_Pass(self, bounds, part, own).run())
        return np.concatenate(found, axis=1)

    def width(self, own: Plan, row: Affine) -> int:
        """Return the most numbers that a functional of a row of blocks has of one of its sources."""
        return max((self._numbers(source, own[source]) for source, _ in sources(row)), default=1)

    def _numbers(self, source: int, geometry: Geometry | None) -> int:
        if geometry is not None:
            return self.images[source][0] * math.prod(geometry.extent)
        return self.model.n_inputs if source == INPUT else self.model.blocks[source].size

    def lines(self, k: int, bounds: StateBounds) -> Lines:
        """Return the lines of a block."""
        z = bounds.z[k]
        known = self._lines.get(k)
        if known is None or known[0] is not z:
            known = self._lines[k] = z, Lines.of_block(self.model.blocks[k], z, self.model.rows[k])
        return known[1]

    def ends(self, source: int, bounds: StateBounds) -> Lines:
        """Return the ends of the intervals of a block's states, or of the inputs."""
        return Lines.of_ends(self.inputs if source == INPUT else bounds.x[source])


class _Pass:
    """One pass back through the blocks for a batch of targets over all boxes: rows are (box, target) pairs."""

    def __init__(self, crown: Crown, bounds: StateBounds, targets: Targets, own: Plan) -> None:
        self._crown, self._bounds, self._targets, self._plan = crown, bounds, targets, own
        self._model, self._images = crown.model, crown.images
        m = len(crown.inputs.lo)
        self._shape = m, targets.count
        box, places = np.repeat(np.arange(m), targets.count), None
        if targets.block is not None and targets.block in self._images:
            self._channels, *axes = np.unravel_index(targets.states, self._images[targets.block])
            places = np.tile(np.stack(axes, axis=1), (m, 1))
        self._where = Where(box, places)
        self._rows: dict[int, FloatArray] = {}
        """Source -> v, with the windows of the plan."""
        self._errors: dict[int, list[tuple[FloatArray, FloatArray]]] = {}
        """Source -> (greatest |lam| of each row, a vector of the states): |v - exact v| is at most the sum of both."""
        self._parts: list[FloatArray] = []
        self._slack = np.zeros(box.size)
        self._alive = np.arange(box.size)
        """The rows that are still followed."""
        self._best = np.full(box.size, -np.inf)

    def run(self) -> FloatArray:
        """Return the lower bounds, (m, R)."""
        shape = self._shape
        self._begin()
        settles = self._targets.until_settled and shape[0] == 1
        self._go_back(0 if self._targets.block is None else self._targets.block + 1, 1 if settles else NEVER)
        return self._best.reshape(shape)

    def _go_back(self, first: int, wait: int) -> None:
        """Go on from a block to the inputs; look at signs when so many blocks are behind."""
        for k in range(first, len(self._model.blocks)):
            if k not in self._rows:
                continue
            if not self._alive.size:
                return
            self._crown.check()
            wait = wait - 1 if wait else self._settle()
            numbers = self._alive.size * self._crown.width(self._plan, self._model.rows[k])
            if numbers > 2 * NUMBERS_AT_ONCE and self._shape[0] == 1 and self._alive.size > 2:
                self._go_back_in_parts(k, wait + 1, _pairs(self._alive.size * NUMBERS_AT_ONCE // numbers))
                return
            if self._alive.size:
                lam = self._through_groups(k) if self._model.blocks[k].activation.coupled else self._through(k)
                self._push(self._model.rows[k], lam, self._plan[k], self._images.get(k))
        if self._alive.size:
            self._note(self._ending())

    def _go_back_in_parts(self, k: int, wait: int, at_once: int) -> None:
        """Go on with so many rows at a time: windows have become too large for all."""
        for start in range(0, self._alive.size, at_once):
            part = copy(self)
            part._keep(slice(start, start + at_once))
            part._go_back(k, wait)

    def _keep(self, rows: slice | BoolArray) -> None:
        """Follow only some of the rows; what is noted of the others stays."""
        self._alive, self._slack = self._alive[rows], self._slack[rows]
        self._where = self._where.some(rows)
        self._rows = {source: v[rows] for source, v in self._rows.items()}
        self._errors = {
            source: [(size[rows], share) for size, share in errors] for source, errors in self._errors.items()
        }
        self._parts = [part[rows] for part in self._parts]
        self._shape = 1, self._alive.size

    def _note(self, lower: FloatArray) -> None:
        self._best[self._alive] = np.fmax(self._best[self._alive], lower)

    def _settle(self) -> int:
        """Follow no further the pairs of which a sign is known; return how many blocks to wait before the next look.

        A sign is known where the bound by the intervals of what has been reached says so.
        """
        lower, before = self._ending(), self._alive.size
        self._note(lower)
        self._keep(~(lower.reshape(-1, 2) >= 0).any(axis=1).repeat(2))
        return 0 if self._alive.size < WORTH_A_LOOK * before else 2

    def _begin(self) -> None:
        """Put in the rows of the targets."""
        targets, m = self._targets, self._shape[0]
        constant = targets.row.constant
        if targets.block is None:
            part, slack = _constant(targets.row, targets.seeds)
            self._parts.append(np.tile(part, m))
            self._slack += np.tile(slack, m)
            self._push(targets.row, np.tile(targets.seeds, (m, 1)), None, None)
            return
        self._parts.append(np.tile(targets.seeds * constant[targets.states], m))
        self._slack += targets.row.constant_error + TINY
        if targets.block in self._images:
            image = self._images[targets.block]
            rank = len(image) - 1
            seeds = np.zeros((targets.count, image[0]))
            seeds[np.arange(targets.count), self._channels] = targets.seeds
            points = np.tile(seeds, (m, 1)).reshape(-1, *[1] * rank, image[0])
            self._push(targets.row, points, Geometry.point(rank), image)
            return
        for source, linear_map in sources(targets.row):
            own = _chosen_rows(linear_map, targets.states, targets.seeds)
            self._add(source, linear_map, np.tile(own, (m, 1)), None, np.ones(len(self._slack)))

    def _push(self, row: Affine, lam: FloatArray, own: Geometry | None, image: Image | None) -> None:
        """Hand lam . (sum_k P_k x_k + Q u) on to the sources."""
        greatest = np.abs(lam).reshape(len(lam), -1).max(axis=1, initial=0.0)
        for source, linear_map in sources(row):
            product, windows = self._product(linear_map, lam, own, image, self._images.get(source))
            self._add(source, linear_map, product, windows, greatest)

    def _product(
        self, linear_map: LinearMap, lam: FloatArray, own: Geometry | None, image: Image | None, source: Image | None
    ) -> tuple[FloatArray, Geometry | None]:
        """Return lam P, and the windows that it has of the source."""
        if pulled_geometry(linear_map, own, image, source) is not None:
            assert image is not None
            if isinstance(linear_map, Convolution):
                here = Geometry.whole(image) if own is None else own
                return linear_map.adjoint_patches(moved(lam, own, here, image, self._where)), here.behind(linear_map)
            assert isinstance(linear_map, Selection)
            if linear_map.weights is None:
                return lam, own
            weights = Gathered(linear_map.row_weights[None, None], image, own, self._where.of_one_box)
            return lam * weights(0), own
        return linear_map.adjoint(moved(lam, own, None, image, self._where)), None

    def _add(
        self, source: int, linear_map: LinearMap, product: FloatArray, windows: Geometry | None, greatest: FloatArray
    ) -> None:
        """Add a product to what has arrived at a source."""
        product = moved(product, windows, self._plan[source], self._images.get(source), self._where)
        self._rows[source] = self._rows[source] + product if source in self._rows else product
        share = rounding_share(self._model, source, linear_map)
        errors = self._errors.setdefault(source, [])
        errors.append((greatest, share))
        if np.ndim(linear_map.column_loss):  # whatever lam is
            errors.append((np.ones(len(greatest)), np.asarray(linear_map.column_loss)))

    def _through(self, k: int) -> FloatArray:
        """Replace the states of a block by their lines; return lam."""
        v, lines = self._rows.pop(k), self._crown.lines(k, self._bounds)
        s, t, low, high = self._seen(k, lines)
        self._slack += self._charge(k, lines, v)
        del self._errors[k]
        v = v.reshape(*self._shape, *v.shape[1:])
        rising = np.maximum(v, 0.0)
        falling = v - rising  # exact: one of both is 0
        self._parts.append(self._dot(rising, low()) + self._dot(falling, high()))
        rising *= s()
        falling *= t()
        rising += falling
        return rising.reshape(-1, *rising.shape[2:])

    def _through_groups(self, k: int) -> FloatArray:
        """Replace the groups of a coupled block by their planes, as the dual bound does; return lam."""
        block, z, row = self._model.blocks[k], self._bounds.z[k], self._model.rows[k]
        error = sum(size[:, None] * share for size, share in self._errors.pop(k)) * ROUNDED_SUMS + TINY
        v = self._rows.pop(k)
        v, error = (part.reshape(*self._shape, -1) for part in (v, np.broadcast_to(error, v.shape)))
        lo, hi = z.lo[:, None, :], z.hi[:, None, :]
        lam = block.multipliers(v, lo, hi)
        summands = block.lower_support(v, error, lam, lo, hi).reshape(len(self._slack), -1)
        lam = lam.reshape(len(self._slack), -1)
        part, slack = _constant(row, lam)
        self._parts += [summands.sum(axis=-1), part]
        self._slack += gamma(summands.shape[1] + 4) * np.abs(summands).sum(axis=-1) + slack
        return lam

    def _ending(self) -> FloatArray:
        """Return the lower bounds that intervals of all that has been reached give, rounded downward."""
        parts, slack = list(self._parts), self._slack
        for source, w in self._rows.items():
            ends = self._crown.ends(source, self._bounds)
            low, high = self._seen(source, ends)
            slack = slack + self._charge(source, ends, w)
            w = w.reshape(*self._shape, *w.shape[1:])
            rising = np.maximum(w, 0.0)
            parts.append(self._dot(rising, low()) + self._dot(w - rising, high()))
        return sum_downward([*parts, -slack * ROUNDED_SUMS])

    def _seen(self, source: int, lines: Lines) -> list[Callable[[], FloatArray]]:
        """Return what makes each array of numbers as the rows' windows see it, to be multiplied by (m, R, ...)."""
        gathered = Gathered(lines.numbers, self._images.get(source), self._plan[source], self._where)
        return [partial(gathered.by_box, i, self._shape) for i in range(len(lines.numbers))]

    def _dot(self, v: FloatArray, numbers: FloatArray) -> FloatArray:
        """Return sums of v * numbers over each row: first over channels, then over places, so that little is lost."""
        inner = np.einsum("...c,...c->...", v, numbers)
        return np.asarray(inner.reshape(len(self._slack), -1).sum(axis=1))

    def _charge(self, source: int, lines: Lines, v: FloatArray) -> FloatArray:
        """Return what rounding may have cost in v and costs in the sums over a block's states, (R,)."""
        errors = self._errors[source]
        least = np.where(lines.reach > 0, LEAST, 0.0)  # a product of both may underflow, and is multiplied by |lam|
        vectors = np.stack([lines.tilt, lines.spare, *(lines.reach * share + least for _, share in errors)])
        sums = self._window_sums(source, vectors)
        greatest = np.abs(v).reshape(len(v), -1).max(axis=1, initial=0.0)
        terms = v.shape[-1] + math.prod(v.shape[1:-1]) + 16
        slack = gamma(terms) * greatest * sums[0] + sums[1] + TINY
        for (size, _), total in zip(errors, sums[2:], strict=True):
            slack = slack + size * total
        return np.asarray(slack)

    def _window_sums(self, source: int, vectors: FloatArray) -> FloatArray:
        """Return the sums of nonnegative vectors (a, m, n) over each row's window, (a, R)."""
        geometry = self._plan[source]
        if geometry is None or geometry.is_fixed:
            return np.asarray(vectors.sum(axis=-1)[:, self._where.box])
        image = self._images[source]
        spatial = vectors.reshape(*vectors.shape[:2], image[0], -1).sum(axis=2)
        gathered = Gathered(spatial, (1, *image[1:]), geometry, self._where)
        return np.stack([gathered(i).reshape(len(self._slack), -1).sum(axis=1) for i in range(len(vectors))])


def _constant(row: Affine, lam: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return lam . r, r the constant of a row of blocks, and what rounding may have cost in it, (R,) each."""
    size = np.abs(lam)
    unsure = size.sum(axis=1) * row.constant_error
    return lam @ row.constant, gamma(row.size + 4) * (size @ np.abs(row.constant)) + unsure + TINY


def _pairs(count: int) -> int:
    """Return an even number of rows, about so many."""
    return 2 * max(1, count // 2)


def _chosen_rows(linear_map: LinearMap, states: IntArray, signs: FloatArray) -> FloatArray:
    """Return signs * (rows of the map), (R, n_in): exact."""
    if isinstance(linear_map, Dense):
        return np.asarray(linear_map.matrix[states] * signs[:, None])
    if isinstance(linear_map, Sparse):
        return np.asarray(linear_map.matrix[states].toarray() * signs[:, None])
    seeds = np.zeros((states.size, linear_map.n_out))
    seeds[np.arange(states.size), states] = signs
    return linear_map.adjoint(seeds)
