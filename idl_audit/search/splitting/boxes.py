"""Branch and bound (BaB) over the input box: what decides properties of networks with few inputs.

Boxes are bounded in batches (`splitting.box_bounds`), every bound in float64 and rounded outward. A box is refuted
where every alternative of the query has a row, or a sum of rows, whose proved lower bound is above 0. Of the others the
parts at the faces that are refuted are cut off (`splitting.contraction`), and the rest is split at a number that both
halves share, along the input j with the largest -r_j d(bound)/d r_j. Depth first, worst bound first; halves keep their
parent's bounds. The centre of every open box and the corners where its linear bounds are least are tried as
counterexamples. See docs/mathematics.md, section 8.6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, RowBounds, bounded
from idl_audit.proof.rows import Rows
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search.splitting.contraction import contracted
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget, Pace
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import BudgetError
from idl_audit.values.network import Network
from idl_audit.values.query import Query

BOXES_AT_ONCE = 64
NUMBERS_AT_ONCE = 2**22
"""Numbers that the derivatives of all states by all inputs may be, over one batch."""
MOST_NUMBERS = 2**27
"""Numbers that the bounds kept for open boxes, or the derivatives over one box, may be (1 GB)."""
TIME_IS_UP = "the time is up"
NODES_ARE_SPENT = "no more boxes are allowed"
REPLAYS = 8
"""Points of a batch that the original network is asked about."""

Progress = Callable[[int, int], None]
"""(boxes bounded so far, boxes still open)."""


def moving_inputs(box: Box) -> IntArray:
    """Return the inputs worth splitting: wider than what rounding a decimal outward makes of a fixed one."""
    return np.flatnonzero(box.hi - box.lo > 1e-12 * (np.abs(box.lo) + np.abs(box.hi)))


@dataclass(frozen=True)
class SplitOutcome:
    """What splitting came to: a proof that there is no counterexample, or a point, or neither."""

    proved: bool
    point: FloatArray | None
    """A counterexample, shape (p,): of the network where one was given, else of the model."""
    boxes: int
    """Boxes that were bounded."""
    left: int
    """Boxes that are neither refuted nor split."""
    reason: str
    """Why there is neither a proof nor a point; empty where there is one."""


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
    network: Network | None = None,
    progress: Progress | None = None,
    record: SplitTree | None = None,
) -> SplitOutcome:
    """Return a proof that no input of the box makes an alternative of the query hold, or a point that does.

    Args:
        model: the implicit model that the bounds are proved for.
        query: the box and the alternatives.
        budget: when to stop; a box is a node.
        network: the original, float32 (m, p) -> (m, q); points are inside the exact box and replayed through it. None
            makes the model itself the judge.
        progress: called after every batch.
        record: takes the splits.
    """
    if not query.alternatives:
        return SplitOutcome(True, None, 0, 0, "")
    return _Search(model, query, network, record or SplitTree()).run(budget, progress)


@dataclass(eq=False)
class _Search:
    """The open boxes, the newest last, and what is the same for all of them."""

    model: ImplicitModel
    query: Query
    network: Network | None
    tree: SplitTree
    rows: Rows = field(init=False)
    free: IntArray = field(init=False)
    stack: list[_Open] = field(init=False)
    boxes: int = 0
    stuck: int = 0
    """Boxes that no float64 number splits."""
    check: Check = unchecked

    def __post_init__(self) -> None:
        box = self.query.box
        self.rows = Rows.of(self.query)
        self.free = moving_inputs(box)
        self.stack = [_Open(box.lo, box.hi, np.ones(len(self.rows.members), np.bool_))]

    def run(self, budget: Budget, progress: Progress | None) -> SplitOutcome:
        """Bound and split boxes until none is open, one has a counterexample, or the budget is spent."""
        self.check = budget.check
        with suppress(BudgetError):
            return self._until_spent(budget, progress)
        return self._undecided(TIME_IS_UP)

    def _until_spent(self, budget: Budget, progress: Progress | None) -> SplitOutcome:
        numbers = max(1, self.model.n_states) * max(1, self.free.size)
        most_numbers = budget.limit(8 * MOST_NUMBERS) // 8
        if 2 * numbers > most_numbers:
            return self._undecided(f"{self.free.size} inputs that move, and {self.model.n_states} states, are too many")
        at_once = max(1, min(BOXES_AT_ONCE, NUMBERS_AT_ONCE // numbers))
        most_open = most_numbers // max(1, 2 * self.model.n_states)
        pace = Pace()
        while self.stack:
            count = pace.fitting(budget.affordable(min(at_once, len(self.stack))), budget)
            if not count:
                return self._undecided(TIME_IS_UP if budget.affordable(1) else NODES_ARE_SPENT)
            if len(self.stack) > most_open:
                return self._undecided(f"more than {most_open} boxes are open")
            batch = self.stack[-count:]
            del self.stack[-len(batch) :]
            budget.spend(len(batch))
            with np.errstate(over="ignore", invalid="ignore"), pace.unit(len(batch), budget):
                point = self._bound_and_split(batch)  # after an overflow nothing is refuted
            if progress is not None:
                progress(self.boxes, len(self.stack) + self.stuck)
            if point is not None:
                return SplitOutcome(False, point, self.boxes, len(self.stack) + self.stuck, "")
        if self.stuck:
            return self._undecided("boxes without an inside stay open: the margin there is within rounding")
        return SplitOutcome(True, None, self.boxes, 0, "")

    def _undecided(self, reason: str) -> SplitOutcome:
        return SplitOutcome(False, None, self.boxes, len(self.stack) + self.stuck, reason)

    def _bound_and_split(self, batch: list[_Open]) -> FloatArray | None:
        """Bound the boxes and stack the halves of those that stay open; return a counterexample where one is met."""
        self.boxes += len(batch)
        inputs = Interval(np.stack([one.lo for one in batch]), np.stack([one.hi for one in batch]))
        found = bounded(self.model, inputs, self.free, self._known(batch), check=self.check)
        bounds = found.outputs(self.rows.functionals)
        shifted = self.rows.shifted(bounds.lower)
        best = self.rows.best(shifted)
        is_open = np.stack([one.alternatives for one in batch]) & ~(best > 0)
        if not is_open.any():
            return None
        point = self._counterexample(self._candidates(inputs, bounds, shifted, is_open))
        if point is not None:
            return point
        rest, empty = contracted(found, self.rows, bounds, is_open)
        scores = self._scores(rest, bounds, shifted, is_open)
        worst = np.where(is_open, best, np.inf).min(axis=1)
        flat = self._flat(found)
        for i in np.argsort(-worst, kind="stable"):
            if is_open[i].any() and not empty[i]:
                node = self.tree.cut_down(batch[i].node, _one(inputs, i), _one(rest, i))
                self._split(node, rest.lo[i], rest.hi[i], scores[i], is_open[i], (flat[0][i], flat[1][i]))
        return None

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

    def _counterexample(self, points: FloatArray) -> FloatArray | None:
        """Return the first of the points nearest to one that is a counterexample."""
        distance = self.query.distance(self.model(points, check=self.check))
        nearest = np.argsort(distance)[:REPLAYS]
        for point in points[nearest[distance[nearest] <= 0]]:
            if self.network is None:
                if self.query.holds(self.model(point[None]))[0]:
                    return np.asarray(point)
                continue
            replayed = self.query.box.project(point)
            if self.query.box.contains(replayed) and self.query.holds(self.network(replayed[None]))[0]:
                return replayed.astype(np.float64)
        return None

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
    ) -> None:
        """Put the two halves of a box on the stack, or count it where no float64 number lies between its ends."""
        middle = lo / 2 + hi / 2
        can = (lo < middle) & (middle < hi)
        usable = can[self.free]
        if not usable.any():
            self.stuck += 1
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
            self.stack.append(_Open(ends[0], ends[1], alternatives, child, states))


def _one(boxes: Interval, i: int) -> Interval:
    return Interval(boxes.lo[i : i + 1], boxes.hi[i : i + 1])
