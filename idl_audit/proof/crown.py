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
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, SetInputs, StateBounds
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
    summed,
)
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.rounding import LEAST, TINY, down, gamma, up

NUMBERS_AT_ONCE: Final = 2**19
"""Numbers that one array of a pass may hold."""
BOXES_AT_ONCE: Final = 2**18
"""Numbers that one array of a pass over several boxes may hold: what stays near the cache."""
NEVER: Final = 2**31
"""Blocks."""
WORTH_A_LOOK: Final = 0.8
"""Where a look at the signs leaves more than this share of the rows, the next look is farther away."""
ROUNDED_SUMS: Final = 1 + 2.0**-20
"""Far above what the roundings of some millions of nonnegative numbers can take from their sum."""


def lines_suit(model: ImplicitModel, inputs: Interval) -> bool:
    """Return whether this pass is for a model and a set: no loops, a box."""
    return model.is_feed_forward and not isinstance(inputs, SetInputs)


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
            spare = TINY * (2.0**-60 * (z.largest + off) + x.largest + 1)  # LOST times z
            return cls(np.stack([s, t, low, high]), x.largest, tilt * (1 + gamma(8)) + TINY, spare * (1 + gamma(8)))

    @cached_property
    def whole(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Sums of tilt and of spare, and what underflows in products of reach, over all states, (m,) each."""
        return self.tilt.sum(axis=1), self.spare.sum(axis=1), LEAST * np.count_nonzero(self.reach, axis=1)

    @classmethod
    def of_ends(cls, values: Interval) -> Lines:
        """Return the ends of intervals, for values that no activation is looked at of."""
        return cls(np.stack([values.lo, values.hi]), values.largest, values.largest, TINY * (values.largest + 1))


@dataclass(frozen=True)
class Targets:
    """What is bounded: signs * z of some states of a block, or rows of outputs, each over every box or over one."""

    row: Affine
    block: int | None
    """None: the outputs."""
    states: IntArray
    """(R,), where a block is named."""
    seeds: FloatArray
    """Signs, (R,); or rows of outputs, (R, q)."""
    until_settled: bool = False
    """Whether targets are pairs z_i, -z_i of which no more is asked when one is proved to be at least 0."""
    box: IntArray | None = None
    """Over which box each is bounded, (R,), in order; None: each over every box."""

    @classmethod
    def of_signs(cls, model: ImplicitModel, k: int, bending: BoolArray) -> Targets:
        """Return z_i and -z_i of the states i of block k that bend, (m, n_k), each over its own boxes.

        They are bounded as far back as it takes to know a sign.
        """
        box, states = np.nonzero(bending)
        signs = np.tile([1.0, -1.0], states.size)
        return cls(model.rows[k], k, np.repeat(states, 2), signs, until_settled=True, box=np.repeat(box, 2))

    @classmethod
    def of_states(
        cls, model: ImplicitModel, k: int, states: IntArray, signs: FloatArray, box: IntArray | None = None
    ) -> Targets:
        """Return signs * z_i of states i of block k."""
        return cls(model.rows[k], k, states, signs, box=box)

    @classmethod
    def of_outputs(cls, model: ImplicitModel, seeds: FloatArray) -> Targets:
        """Return seeds . y, (R, q); or (m, R, q), rows of its own for each box."""
        if seeds.ndim == 2:
            return cls(model.output, None, np.zeros(0, np.int64), seeds)
        box = np.repeat(np.arange(len(seeds)), seeds.shape[1])
        return cls(model.output, None, np.zeros(0, np.int64), seeds.reshape(-1, seeds.shape[2]), box=box)

    @property
    def count(self) -> int:
        """R."""
        return len(self.seeds)

    def some(self, rows: slice) -> Targets:
        """Return some of them."""
        box = None if self.box is None else self.box[rows]
        return Targets(self.row, self.block, self.states[rows], self.seeds[rows], self.until_settled, box)

    def over(self, m: int) -> Targets:
        """Return them with a box each: those of every box, box after box, over m boxes."""
        if self.box is not None:
            return self
        seeds = np.tile(self.seeds, (m, *[1] * (self.seeds.ndim - 1)))
        box = np.repeat(np.arange(m), self.count)
        return Targets(self.row, self.block, np.tile(self.states, m), seeds, self.until_settled, box)


class Crown:
    """Backward linear bounds over m boxes; lines are made once for each block whose bounds do not change."""

    def __init__(self, model: ImplicitModel, inputs: Interval, *, check: Check = unchecked) -> None:
        """Take a model and the boxes, (m, p), that `lines_suit`."""
        self.model, self.inputs, self.check = model, inputs, check
        self.images = images_of(model)
        self._made = _lines_made(model)

    def lower_bound(self, bounds: StateBounds, targets: Targets) -> FloatArray:
        """Return proved lower bounds of the targets: over each box, (m, R), or of those with a box of their own, (R,).

        `bounds` hold every block that the targets read, over the same boxes. No bound depends on other boxes.
        """
        m = len(self.inputs.lo)
        own, each = plan(self.model, targets.block), targets.over(m)
        found = [np.zeros(0)]
        for rows in self._parts(each, own):
            with np.errstate(over="ignore", invalid="ignore"):
                found.append(_Pass(self, bounds, each.some(rows), own).run())
        lower = np.concatenate(found)
        return lower if targets.box is not None else lower.reshape(m, targets.count)

    def _parts(self, targets: Targets, own: Plan) -> Iterator[slice]:
        """Yield the targets of one pass at a time: some of one box, as many as if it were the only one, or all of some.

        A pass over one box is cut where windows become large, one over several may hold what is largest on its way.
        """
        assert targets.box is not None
        row = targets.row
        width = max(row.size if targets.block is None else 1, self.width(own, row))
        widest = max([width, *(self._numbers(source, geometry) for source, geometry in own.items())])
        alone, several = _pairs(NUMBERS_AT_ONCE // width), max(1, BOXES_AT_ONCE // widest)
        ends = np.flatnonzero(np.diff(targets.box, append=-1)) + 1
        start = 0
        for end, following in zip(ends.tolist(), [*ends[1:].tolist(), None], strict=True):
            if following is not None and following - start <= several:
                continue
            last = ends[np.searchsorted(ends, start, side="right")]
            step = alone if last == end else end - start
            yield from (slice(first, min(first + step, end)) for first in range(start, end, step))
            start = end

    def width(self, own: Plan, row: Affine) -> int:
        """Return the most numbers that a functional of a row of blocks has of one of its sources."""
        return max((self._numbers(source, own[source]) for source, _ in sources(row)), default=1)

    def _numbers(self, source: int, geometry: Geometry | None) -> int:
        if geometry is not None:
            return self.images[source][0] * math.prod(geometry.extent)
        return self.model.n_inputs if source == INPUT else self.model.blocks[source].size

    def lines(self, k: int, bounds: StateBounds) -> Lines:
        """Return the lines of a block."""
        return self._once((k, True), bounds.z[k], lambda z: Lines.of_block(self.model.blocks[k], z, self.model.rows[k]))

    def ends(self, source: int, bounds: StateBounds) -> Lines:
        """Return the ends of the intervals of a block's states, or of the inputs."""
        return self._once((source, False), self.inputs if source == INPUT else bounds.x[source], Lines.of_ends)

    def _once(self, key: tuple[int, bool], values: Interval, make: Callable[[Interval], Lines]) -> Lines:
        """Return what is made of the values, unless that was made last for the same block."""
        known = self._made.get(key)
        if known is None or known[0] is not values:
            known = self._made[key] = values, make(values)
        return known[1]


@lru_cache(maxsize=1)
def _lines_made(model: ImplicitModel) -> dict[tuple[int, bool], tuple[Interval, Lines]]:
    """Return the lines and ends that were made last: block after block is bounded by those of the blocks before it."""
    return {}


class _Pass:
    """One pass back through the blocks for a batch of targets, a row each, sorted by their boxes."""

    def __init__(self, crown: Crown, bounds: StateBounds, targets: Targets, own: Plan) -> None:
        assert targets.box is not None
        self._crown, self._bounds, self._targets, self._plan = crown, bounds, targets, own
        self._model, self._images = crown.model, crown.images
        box, places = targets.box, None
        if targets.block is not None and targets.block in self._images:
            self._channels, *axes = np.unravel_index(targets.states, self._images[targets.block])
            places = np.stack(axes, axis=1)
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
        self._wait = np.full(box.size, 1 if targets.until_settled else NEVER)
        """How many blocks go by before the next look at the row's sign: the same for all rows of a box."""

    def run(self) -> FloatArray:
        """Return the lower bounds, (R,)."""
        self._begin()
        self._go_back(0 if self._targets.block is None else self._targets.block + 1)
        return self._best

    def _go_back(self, first: int) -> None:
        """Go on from a block to the inputs; look at signs where it is time to."""
        for k in range(first, len(self._model.blocks)):
            if k not in self._rows:
                continue
            if not self._alive.size:
                return
            self._crown.check()
            self._settle()
            numbers = self._alive.size * self._crown.width(self._plan, self._model.rows[k])
            if numbers > 2 * NUMBERS_AT_ONCE and self._is_of_one_box and self._alive.size > 2:
                self._go_back_in_parts(k, _pairs(self._alive.size * NUMBERS_AT_ONCE // numbers))
                return
            if self._alive.size:
                lam = self._through_groups(k) if self._model.blocks[k].activation.coupled else self._through(k)
                self._push(self._model.rows[k], lam, self._plan[k], self._images.get(k))
        if self._alive.size:
            self._note(self._ending())

    @property
    def _is_of_one_box(self) -> bool:
        return bool(self._where.box[0] == self._where.box[-1])

    def _go_back_in_parts(self, k: int, at_once: int) -> None:
        """Go on with so many rows at a time: windows have become too large for all."""
        self._wait += 1  # what was looked at now is not looked at again
        for start in range(0, self._alive.size, at_once):
            part = self._of(slice(start, start + at_once))
            part._go_back(k)

    def _of(self, rows: slice | BoolArray) -> _Pass:
        """Return the pass for some of the rows alone; what it notes is noted here."""
        part = copy(self)
        part._keep(rows)
        return part

    def _keep(self, rows: slice | BoolArray) -> None:
        """Follow only some of the rows; what is noted of the others stays."""
        self._alive, self._slack, self._wait = self._alive[rows], self._slack[rows], self._wait[rows]
        self._where = self._where.some(rows)
        self._rows = {source: v[rows] for source, v in self._rows.items()}
        self._errors = {
            source: [(size[rows], share) for size, share in errors] for source, errors in self._errors.items()
        }
        self._parts = [part[rows] for part in self._parts]

    def _note(self, lower: FloatArray) -> None:
        self._best[self._alive] = np.fmax(self._best[self._alive], lower)

    def _settle(self) -> None:
        """Follow no further the pairs of which a sign is known, in the boxes whose turn it is; say when the next is.

        A sign is known where the bound by the intervals of what has been reached says so.
        """
        due = self._wait == 0
        self._wait = self._wait - 1
        if not due.any():
            return
        looked = self if due.all() else self._of(due)
        lower = looked._ending()
        looked._note(lower)
        stays = np.ones(due.size, np.bool_)
        stays[due] = ~(lower.reshape(-1, 2) >= 0).any(axis=1).repeat(2)
        box = self._where.box
        before, after = (np.bincount(box[rows], minlength=box[-1] + 1) for rows in (due, due & stays))
        pays = after < WORTH_A_LOOK * before
        self._wait[due] = np.where(pays, 0, 2)[box[due]]
        if not stays.all():
            self._keep(stays)

    def _begin(self) -> None:
        """Put in the rows of the targets."""
        targets = self._targets
        constant = targets.row.constant
        if targets.block is None:
            part, slack = _constant(targets.row, targets.seeds)
            self._parts.append(part)
            self._slack += slack
            self._push(targets.row, targets.seeds, None, None)
            return
        self._parts.append(targets.seeds * constant[targets.states])
        self._slack += targets.row.constant_error + TINY
        if targets.block in self._images:
            image = self._images[targets.block]
            rank = len(image) - 1
            seeds = np.zeros((targets.count, image[0]))
            seeds[np.arange(targets.count), self._channels] = targets.seeds
            self._push(targets.row, seeds.reshape(-1, *[1] * rank, image[0]), Geometry.point(rank), image)
            return
        for source, linear_map in sources(targets.row):
            own = _chosen_rows(linear_map, targets.states, targets.seeds)
            self._add(source, linear_map, own, None, np.ones(len(self._slack)))

    def _push(self, row: Affine, lam: FloatArray, own: Geometry | None, image: Image | None) -> None:
        """Hand lam . (sum_k P_k x_k + Q u) on to the sources."""
        greatest = _greatest(lam)
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
        s, t, low, high = range(4)
        seen = self._seen(k, lines)
        self._slack += self._charge(k, lines, v)
        del self._errors[k]
        rising = np.maximum(v, 0.0)
        falling = v - rising  # exact: one of both is 0
        self._parts.append(seen.dot(rising, low) + seen.dot(falling, high))
        seen.scale(rising, s)
        seen.scale(falling, t)
        rising += falling
        return rising

    def _through_groups(self, k: int) -> FloatArray:
        """Replace the groups of a coupled block by their planes, as the dual bound does; return lam."""
        block, z, row = self._model.blocks[k], self._bounds.z[k], self._model.rows[k]
        error = sum(size[:, None] * share for size, share in self._errors.pop(k)) * ROUNDED_SUMS + TINY
        v = self._rows.pop(k)
        error, lam, summands = np.broadcast_to(error, v.shape), np.empty_like(v), []
        for box, rows in self._where.runs:
            lo, hi = z.lo[box], z.hi[box]
            lam[rows] = block.multipliers(v[None, rows], lo[None, None], hi[None, None])[0]
            own = block.lower_support(v[None, rows], error[None, rows], lam[None, rows], lo[None, None], hi[None, None])
            summands.append(own[0].reshape(rows.stop - rows.start, -1))
        each = np.concatenate(summands)
        part, slack = _constant(row, lam)
        self._parts += [each.sum(axis=-1), part]
        self._slack += gamma(each.shape[1] + 4) * np.abs(each).sum(axis=-1) + slack
        return lam

    def _ending(self) -> FloatArray:
        """Return the lower bounds that intervals of all that has been reached give, rounded downward."""
        parts, slack = list(self._parts), self._slack
        for source, w in self._rows.items():
            ends = self._crown.ends(source, self._bounds)
            seen = self._seen(source, ends)
            slack = slack + self._charge(source, ends, w)
            rising = np.maximum(w, 0.0)
            parts.append(seen.dot(rising, 0) + seen.dot(w - rising, 1))
        return sum_downward([*parts, -slack * ROUNDED_SUMS])

    def _seen(self, source: int, lines: Lines) -> Gathered:
        """Return the lines' numbers as the rows' windows see them."""
        return Gathered(lines.numbers, self._images.get(source), self._plan[source], self._where)

    def _charge(self, source: int, lines: Lines, v: FloatArray) -> FloatArray:
        """Return what rounding may have cost in v and costs in the sums over a block's states, (R,)."""
        errors = self._errors[source]
        tilt, spare, own = self._window_sums(source, lines, [share for _, share in errors])
        greatest = _greatest(v)
        slack = gamma(summed(v) + 16) * greatest * tilt + spare + TINY
        for (size, _), total in zip(errors, own, strict=True):
            slack = slack + size * total
        return np.asarray(slack)

    def _window_sums(
        self, source: int, lines: Lines, shares: list[FloatArray]
    ) -> tuple[FloatArray, FloatArray, list[FloatArray]]:
        """Return the sums over each row's window of tilt, spare and reach * share + what underflows in it, (R,) each.

        A product of reach and share may underflow, and its sum is multiplied by |lam| afterwards.
        """
        geometry = self._plan[source]
        if geometry is None or geometry.is_fixed:
            tilt, spare, least = lines.whole
            sums = [tilt, spare, *(lines.reach @ share + least for share in shares)]
            box = self._where.box
            tilt, spare, *own = (one if len(one) == 1 else one[box] for one in sums)
            return tilt, spare, own
        least = np.where(lines.reach > 0, LEAST, 0.0)
        vectors = np.stack([lines.tilt, lines.spare, *(lines.reach * share + least for share in shares)])
        image = self._images[source]
        spatial = vectors.reshape(*vectors.shape[:2], image[0], -1).sum(axis=2)
        gathered = Gathered(spatial, (1, *image[1:]), geometry, self._where)
        tilt, spare, *own = (gathered(i).reshape(len(self._slack), -1).sum(axis=1) for i in range(len(vectors)))
        return tilt, spare, own


def _greatest(v: FloatArray) -> FloatArray:
    """Return the greatest |v| of each row, (R,); NaN where one is no number."""
    flat = v.reshape(len(v), -1)
    return np.asarray(np.maximum(flat.max(axis=1, initial=0.0), -flat.min(axis=1, initial=0.0)))


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
