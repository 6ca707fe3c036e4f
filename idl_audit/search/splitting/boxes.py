"""Branch and bound (BaB) over the input box: what decides properties of networks with few inputs.

Boxes are bounded in batches (`splitting.box_bounds`), every bound in float64 and rounded outward. A box is refuted
where every alternative of the query has a row, or a sum of rows, whose proved lower bound is above 0. Of the others the
parts at the faces that are refuted are cut off (`splitting.contraction`), and the rest is split at a number that both
halves share, along the input j with the largest -r_j d(bound)/d r_j. Depth first, worst bound first; halves keep their
parent's bounds. The centre of every open box and the corners where its linear bounds are least are tried as
counterexamples. A box that is level with a tie (its centre is a counterexample of the model, of rounding's size, and no
point of it is a larger one) is left as it is: no part of it can be refuted. See docs/mathematics.md, section 8.6.

Bounds are by affine forms alone where these pay, and by lines for each state that bends as well elsewhere
(`splitting.bounding`).

Elsewhere: input splitting, input-space BaB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, RowBounds
from idl_audit.proof.float_margins import FloatMargins
from idl_audit.proof.float_parts import FloatParts
from idl_audit.proof.forms import moving
from idl_audit.proof.rows import Rows
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search.frontier import Ending, Frontier, NewestFirst, Step
from idl_audit.search.judge import Found, Judge
from idl_audit.search.splitting.bounding import Bounding
from idl_audit.search.splitting.contraction import contracted
from idl_audit.search.splitting.together import Weighing
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.query import Query
from idl_audit.values.rounding import TINY

BOXES_AT_ONCE = 64
NUMBERS_AT_ONCE = 2**22
"""Numbers that the derivatives of all states by all inputs may be, over one batch."""
MOST_NUMBERS = 2**27
"""Numbers that the bounds kept for open boxes, or the derivatives over one box, may be (1 GB)."""
REPLAYS = 8
"""Points of a batch that the original network is asked about."""
LEVEL = 2.0**-40
"""Share of the outputs that is taken for rounding where a box is given up."""


def moving_inputs(box: Box) -> IntArray:
    """Return the inputs worth splitting."""
    return moving(Interval.of_boxes(box))


@dataclass(frozen=True)
class SplitOutcome:
    """What splitting came to: a proof that there is no counterexample, or a point, or neither."""

    proved: bool
    found: Found | None
    """A counterexample, by the judge's word."""
    boxes: int
    """Boxes that were bounded."""
    left: int
    """Boxes that are neither refuted nor split."""
    reason: str
    """Why there is neither a proof nor a point; empty where there is one."""
    lowers: tuple[float, ...] = ()
    """Where it is proved: for each alternative, what one of its rows or sums of rows is above at every point."""

    @property
    def point(self) -> Float32Array | None:
        """The counterexample's point, shape (p,)."""
        return None if self.found is None else self.found.point


@dataclass(frozen=True, eq=False)
class _Open:
    """A box that is still to be bounded, and what its parent's bounds say."""

    lo: FloatArray
    hi: FloatArray
    alternatives: BoolArray
    """Those that are not refuted yet, shape (a,)."""
    node: int = 0
    """Its number in the recorded tree."""
    states: tuple[FloatArray, FloatArray] | None = None
    """Bounds of all pre-activations over the parent, flat, in the model's order; None for the first box."""


def split_inputs(
    model: ImplicitModel,
    query: Query,
    *,
    budget: Budget,
    judge: Judge | None = None,
    record: SplitTree | None = None,
    cut_slabs: bool = True,
    margins: FloatMargins | None = None,
) -> SplitOutcome:
    """Return a proof that no input of the box makes an alternative of the query hold, or a point that does.

    Args: as those of `Splitting` and its `run`.
    """
    return Splitting(model, query, record, cut_slabs, margins).run(budget, judge)


class Splitting:
    """The boxes of one query: how they are bounded and split. A search that ended with its budget can go on."""

    def __init__(
        self,
        model: ImplicitModel,
        query: Query,
        record: SplitTree | None = None,
        cut_slabs: bool = True,
        margins: FloatMargins | None = None,
    ) -> None:
        """Begin with the whole box.

        Args:
            model: the implicit model that the bounds are proved for.
            query: the box and the alternatives.
            record: takes the splits.
            cut_slabs: whether parts at the faces of a box are cut off by the bounds over the whole box. Without it
                there are more boxes, each refuted by bounds over itself, as whoever checks the record makes them.
            margins: for floating-point arithmetic, what bounds its roundings over each box.
        """
        box = query.box
        self.model, self.query, self.cut_slabs = model, query, cut_slabs and margins is None
        self.parts = None if margins is None else FloatParts(margins, query)
        self.tree = SplitTree() if record is None else record
        self.free = moving_inputs(box)
        self.boxes = 0
        self.budget = UNLIMITED
        self.judge = Judge.of_model(model, query)
        self.bounding = Bounding(model, self.free)
        if not query.alternatives:
            return
        self.rows = Rows.of(query)
        self.weighing = Weighing(query, self.rows)
        whole = _Open(box.lo, box.hi, np.ones(len(self.rows.members), np.bool_))
        self.frontier: Frontier[_Open] = Frontier(NewestFirst([whole]), self._propose)
        self.lowers = np.full(len(self.rows.members), np.inf)
        """Least proved bound of each alternative over the boxes and slabs where it was refuted, shape (a,)."""
        self._numbers = max(1, model.n_states) * max(1, self.free.size)

    def run(self, budget: Budget, judge: Judge | None = None) -> SplitOutcome:
        """Bound and split boxes until none is open, one has a counterexample, or the budget is spent.

        Args:
            budget: when to stop; a box is a node.
            judge: asks the original network about points. None makes the model itself the network.
        """
        if not self.query.alternatives:
            return SplitOutcome(True, None, 0, 0, "")
        self.budget = budget
        self.judge = (judge or Judge.of_model(self.model, self.query)).within(budget)
        self._most_numbers = budget.limit(8 * MOST_NUMBERS) // 8
        self._most_open = self._most_numbers // max(1, 2 * self.model.n_states)
        if 2 * self._numbers > self._most_numbers:
            reason = f"{self.free.size} inputs that move, and {self.model.n_states} states, are too many"
            return SplitOutcome(False, None, 0, 1, reason)
        with np.errstate(over="ignore", invalid="ignore"):  # after an overflow nothing is refuted
            ending = self.frontier.grow(self, self.budget)
        reason = {
            Ending.TIME: "the time is up",
            Ending.NODES: "no more boxes are allowed",
            Ending.MANY: f"more than {self._most_open} boxes are open",
            Ending.STUCK: "boxes stay open, level with a tie or without an inside: the margin there is within rounding",
        }.get(ending, "")
        if ending is Ending.CLOSED:
            return SplitOutcome(True, None, self.boxes, 0, "", tuple(self.lowers.tolist()))
        return SplitOutcome(False, self.judge.found, self.boxes, self.frontier.open, reason)

    def at_once(self, waiting: int) -> int:
        """Return how many boxes to bound at a time; 0 where too many are open."""
        at_once = max(1, min(BOXES_AT_ONCE, NUMBERS_AT_ONCE // self._numbers))
        return min(at_once, waiting) if waiting <= self._most_open else 0

    def step(self, batch: list[_Open]) -> Step[_Open]:
        """Bound boxes; hand on where they may have counterexamples, and the halves of those that stay open."""
        self.budget.spend(len(batch))
        self.boxes += len(batch)
        inputs = Interval(np.stack([one.lo for one in batch]), np.stack([one.hi for one in batch]))
        found = self.bounding.over(inputs, self._known(batch), self.budget.check)
        bounds = found.outputs(self.rows.functionals)
        shifted = self.rows.shifted(bounds.lower)
        best = self.rows.best(shifted)
        asked = np.stack([one.alternatives for one in batch])
        if self.parts is not None:
            best = self.parts.best(bounds.lower, asked, found.inputs, found.states, check=self.budget.check)
        is_open = asked & ~(best > 0)
        if self.parts is None:  # weights are found for exact rows
            self._close_together(batch, found, bounds, shifted, is_open)
        self.lowers = np.minimum(self.lowers, np.where(asked & (best > 0), best, np.inf).min(axis=0))
        if not is_open.any():
            return Step()
        self._try_otherwise(batch, found, best, is_open)
        points = self._candidates(inputs, bounds, shifted, is_open)
        worst = np.where(is_open, best, np.inf).min(axis=1)
        return Step(self._halves(batch, found, bounds, is_open, worst), points)

    def _close_together(
        self, batch: list[_Open], found: BoxBounds, bounds: RowBounds, shifted: FloatArray, is_open: BoolArray
    ) -> None:
        """Close boxes whose alternatives are refuted by their rows together; record the weights."""
        closed, lower = self.weighing.closed(found, bounds, shifted, is_open)
        for box, weights in closed.items():
            self.tree.weights[batch[box].node] = weights
            self.lowers = np.minimum(self.lowers, np.where(is_open[box], lower[box], np.inf))
            is_open[box] = False

    @cached_property
    def _level(self) -> float:
        """LEVEL max over rows of |row| (|C| |x| + |D| |u| + |d|) + |offset|, at the centre: taken for rounding."""
        u, output = self.query.box.centre[None], self.model.output
        x = self.model.state(u, check=self.budget.check)
        sizes = Affine(
            {k: linear_map.magnitude for k, linear_map in output.states.items()},
            None if output.input is None else output.input.magnitude,
            np.abs(output.constant),
        )({k: np.abs(x[k]) for k in output.states}, np.abs(u))[0]
        level = LEVEL * float((np.abs(self.rows.functionals) @ sizes + np.abs(self.rows.offsets)).max())
        return level + TINY / LEVEL if np.isfinite(level) else 0.0

    def _are_hopeless(self, inputs: Interval, is_open: BoolArray, worst: FloatArray) -> BoolArray:
        """Return which boxes are not worth splitting, shape (m,): no point is a counterexample beyond rounding.

        Those whose centre is one by the model cannot be refuted; with one such box there is no proof, and the others
        without a greater counterexample need no bounds any more.
        """
        level = is_open.any(axis=1) & (worst >= -self._level)
        some = np.flatnonzero(level)
        if some.size and not self.frontier.stuck:
            middle = inputs.lo[some] / 2 + inputs.hi[some] / 2
            level[some] = self.query.distance(self.model(middle, check=self.budget.check)) <= 0
        return level

    def _try_otherwise(self, batch: list[_Open], found: BoxBounds, best: FloatArray, is_open: BoolArray) -> None:
        """Now and then, bound a few of the open boxes the other way too, and go on with what pays."""
        some = np.flatnonzero(is_open.any(axis=1))[: self.bounding.to_try(self.boxes, found.states)]
        if not some.size:
            return
        own, known = found.part(some), self._known([batch[i] for i in some])
        other = self.bounding.otherwise(own.inputs, known, self.budget.check)
        lower = self.rows.best(self.rows.shifted(other.outputs(self.rows.functionals).lower))
        middle = own.inputs.lo / 2 + own.inputs.hi / 2
        truth = self.rows.best(self.model(middle) @ self.rows.functionals.T + self.rows.offsets)
        worst = np.arange(some.size), np.where(is_open[some], best[some], np.inf).argmin(axis=1)
        self.bounding.choose(own, other, best[some][worst], lower[worst], truth[worst])

    def _halves(
        self, batch: list[_Open], found: BoxBounds, bounds: RowBounds, is_open: BoolArray, worst: FloatArray
    ) -> Iterator[_Open]:
        """Cut off what is refuted at the faces; yield the halves of what stays open, the worst box last."""
        rest, empty = found.inputs, np.zeros(len(batch), np.bool_)
        if self.cut_slabs and found.forms is None:  # forms gain too little by it
            rest, empty, slabs = contracted(found, self.rows, bounds, is_open)
            self.lowers = np.minimum(self.lowers, slabs)
        scores = self._scores(rest, bounds, self.rows.shifted(bounds.lower), is_open)
        flat, hopeless = self._flat(found), self._are_hopeless(found.inputs, is_open, worst)
        self.frontier.stuck += int(hopeless.sum())
        for i in np.argsort(-worst, kind="stable"):
            if is_open[i].any() and not (empty[i] or hopeless[i]):
                node = self.tree.cut_down(batch[i].node, _one(found.inputs, i), _one(rest, i))
                yield from self._split(node, rest.lo[i], rest.hi[i], scores[i], is_open[i], (flat[0][i], flat[1][i]))

    def _known(self, batch: list[_Open]) -> Mapping[int, Interval] | None:
        """Return the parents' bounds, block by block; None for the first box."""
        lo = [one.states[0] for one in batch if one.states is not None]
        hi = [one.states[1] for one in batch if one.states is not None]
        if len(lo) < len(batch):
            return None
        lows, highs = np.stack(lo), np.stack(hi)
        ends = self.model.offsets
        parts = [slice(ends[k], ends[k + 1]) for k in range(len(self.model.blocks))]
        return {k: Interval(lows[:, part], highs[:, part]) for k, part in enumerate(parts)}

    def _flat(self, found: BoxBounds) -> tuple[FloatArray, FloatArray]:
        z = [found.states.z[k] for k in range(len(self.model.blocks))]
        none = np.zeros((len(found.inputs.lo), 0))
        low, high = ([none, *(part.lo for part in z)], [none, *(part.hi for part in z)])
        return np.concatenate(low, axis=1), np.concatenate(high, axis=1)

    def _best_rows(self, shifted: FloatArray, is_open: BoolArray) -> list[tuple[IntArray, IntArray]]:
        """Return for every alternative the boxes where it is open, and the row nearest to refuting it there."""
        pairs = []
        for a, members in enumerate(self.rows.members):
            some = np.flatnonzero(is_open[:, a])
            if members.size and some.size:
                pairs.append((some, members[shifted[some][:, members].argmax(axis=1)]))
        return pairs

    def _candidates(self, inputs: Interval, bounds: RowBounds, shifted: FloatArray, is_open: BoolArray) -> FloatArray:
        """Return the centres of the open boxes, and the corners where the best row's linear bound is least."""
        some = np.flatnonzero(is_open.any(axis=1))
        points = [inputs.lo[some] / 2 + inputs.hi[some] / 2]
        for boxes, rows in self._best_rows(shifted, is_open):
            points.append(np.where(bounds.normals[boxes, rows] >= 0, inputs.lo[boxes], inputs.hi[boxes]))
        return np.concatenate(points)

    def _propose(self, points: FloatArray) -> bool:
        """Ask the judge about the points that the model makes counterexamples; return whether one is.

        In floating-point arithmetic, others may be counterexamples, too: the nearest are asked about.
        """
        distance = self.query.distance(self.model(points, check=self.budget.check))
        nearest = np.argsort(distance)[:REPLAYS]
        hits = nearest if self.parts is not None else nearest[distance[nearest] <= 0]
        return bool(hits.size) and self.judge.propose(points[hits])

    def _scores(self, rest: Interval, bounds: RowBounds, shifted: FloatArray, is_open: BoolArray) -> FloatArray:
        """Return -r_j d(bound)/d r_j, summed over the open alternatives' best rows, shape (m, f)."""
        radii = (rest.hi / 2 - rest.lo / 2)[:, self.free]
        scores = np.zeros_like(radii)
        for boxes, rows in self._best_rows(shifted, is_open):
            scores[boxes] += np.nan_to_num(-bounds.rates[boxes, rows] * radii[boxes], posinf=0.0, neginf=0.0)
        return scores

    def _split(
        self,
        node: int,
        lo: FloatArray,
        hi: FloatArray,
        scores: FloatArray,
        alternatives: BoolArray,
        states: tuple[FloatArray, FloatArray],
    ) -> Iterator[_Open]:
        """Yield the two halves of a box, or count it where no float64 number lies between its ends."""
        middle = lo / 2 + hi / 2
        can = (lo < middle) & (middle < hi)
        usable = can[self.free]
        if not usable.any():
            self.frontier.stuck += 1
            return
        whole = self.query.box
        widths = ((hi - lo) / np.maximum(whole.hi - whole.lo, np.finfo(float).tiny))[self.free]
        ranking = scores if (scores[usable] > 0).any() else widths
        j = self.free[np.argmax(np.where(usable, ranking, -np.inf))]
        first = self.tree.split(node, int(j), float(middle[j]))
        for keep_low in (True, False):
            ends = lo.copy(), hi.copy()
            ends[1 if keep_low else 0][j] = middle[j]
            child = first if keep_low else first + 1
            yield _Open(ends[0], ends[1], alternatives, child, states)


def _one(boxes: Interval, i: int) -> Interval:
    return Interval(boxes.lo[i : i + 1], boxes.hi[i : i + 1])
