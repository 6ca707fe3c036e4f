"""Statements over a whole range of inputs: where they are proved, where they fail, and what is open.

The range is cut into parts, the largest first: a statement holds everywhere in a part by proved bounds over it, or
fails everywhere in it by proved bounds as well, or the part is cut in two, at the middle of an input's interval or
between the values of a feature that has finitely many. What is left when the budget ends is open. A part's share of
the volume is halved with each cut of an interval, and goes by the number of values otherwise.

Elsewhere: global specification, quantitative verification, preimage approximation, input splitting.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from idl_audit.decide.ladder import Options, decide_query
from idl_audit.decide.monotone import GRID, Fall, Question, fall_on
from idl_audit.decide.proofs import Recorded
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, RowBounds, bounded
from idl_audit.proof.forest import LEAF, Forest
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.monotone import Rise
from idl_audit.proof.rows import Rows
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search.judge import Found, Judge
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.box import is_whole
from idl_audit.values.budget import Budget
from idl_audit.values.check import Check
from idl_audit.values.errors import BudgetError, UnsupportedModelError
from idl_audit.values.mixed import Cell, Choice
from idl_audit.values.network import Network
from idl_audit.values.query import Query
from idl_audit.values.rounding import float_above, up
from idl_audit.values.verdicts import Reason, Verdict

AT_ONCE: Final = 64
"""Parts that are bounded together."""
NUMBERS: Final = 2**22
"""Of all states, times inputs, times parts that are bounded together."""
KEPT: Final = 2**27
"""Bytes of parts that are kept; beyond it nothing is cut any more."""
FINE: Final = 0.01
"""Once it is known to fail, a statement's open share of the volume is cut no further than down to this."""
FIRST_ROWS: Final = 512
"""Random rows of the range that are tried first."""
WAYS: Final = 48
"""Random places from which the input of a monotone statement is moved through its range."""
LADDER: Final = 0.5
"""Share of the budget that the ladder has for a whole statement before the range is cut."""


@dataclass(frozen=True, eq=False)
class Part:
    """A box, and which values of each choice are left in it."""

    lo: FloatArray
    hi: FloatArray
    choices: tuple[Choice, ...]
    share: float = 1.0
    """Of the volume of the whole range."""
    node: int = 0
    """Of the tree that shares the range out."""
    came: tuple[int, float] = (LEAF, 0.0)
    """What cut it off: an input and where, or p + the number of a choice and how many values its first half has."""


@dataclass(frozen=True)
class Settled:
    """What bounds say of m parts."""

    holds: BoolArray
    fails: BoolArray
    """At every point of the part."""
    scores: FloatArray
    """How much a narrower interval of each input would help, (m, p)."""


class Statement(Protocol):
    """What is to hold everywhere, as a cover asks it."""

    @property
    def has_failed(self) -> bool:
        """Whether a point is known at which it does not hold."""

    def settle(self, inputs: Interval, check: Check) -> Settled:
        """Return what is proved of some parts."""

    def look(self, parts: Sequence[Part]) -> None:
        """Look for a point of the parts at which it does not hold."""


@dataclass(frozen=True, eq=False)
class Everywhere:
    """What is known of one statement over the whole range."""

    verdict: Verdict
    reason: Reason | None = None
    method: str | None = None
    found: Found | None = None
    """For falsified: where it does not hold."""
    fall: Fall | None = None
    """The same of a score that is not monotone."""
    open: tuple[Part, ...] = ()
    failing: tuple[Part, ...] = ()
    """Parts at every point of which it does not hold."""
    n_parts: int = 0
    """That were bounded."""
    recorded: Recorded | None = None
    """Of a range that the ladder certified: what was recorded."""
    tree: Forest | None = None
    """Of one that was cut and is certified: its parts."""
    seconds: float = 0.0

    @property
    def open_share(self) -> float:
        """Share of the volume that is open, rounded upward; 0 where nothing is."""
        return _total(self.open)

    @property
    def failing_share(self) -> float:
        """Share of the volume where it is proved to fail at every point."""
        return _total(self.failing)

    @property
    def holding_share(self) -> float:
        """Share of the volume where it is proved, rounded downward."""
        left = 1.0 - self.open_share - self.failing_share
        exact = not (self.open or self.failing)
        return 1.0 if exact else max(0.0, min(left, 1.0 - 2.0**-53))


def _total(parts: Sequence[Part]) -> float:
    return math.fsum(part.share for part in parts)


@dataclass(eq=False)
class Cover:
    """The parts of one range, in the making."""

    statement: Statement
    root: Part
    budget: Budget
    size: int
    """Numbers that one part takes while it is bounded."""
    waiting: list[tuple[float, int, Part]] = field(default_factory=list)
    failing: list[Part] = field(default_factory=list)
    stuck: list[Part] = field(default_factory=list)
    """Open, and nothing of them can be cut."""
    n_parts: int = 0
    tree: SplitTree = field(default_factory=SplitTree)
    _made: int = 0

    def grow(self) -> Reason | None:
        """Bound parts and cut them until none is open or the budget is spent; return why some are left open."""
        self._add(self.root)
        reason: Reason | None = None
        while self.waiting and reason is None:
            reason = self._ended()
            if reason is None and not self._is_fine():
                try:
                    with np.errstate(over="ignore", invalid="ignore"):  # after an overflow nothing is settled
                        self._step()
                except BudgetError:
                    reason = Reason.TIME_LIMIT
            elif reason is None:
                break
        return reason or (Reason.RELAXATION_GAP if self.open else None)

    @property
    def open(self) -> tuple[Part, ...]:
        """The parts that are not settled, the largest first."""
        left = (*(part for *_, part in self.waiting), *self.stuck)
        return tuple(sorted(left, key=lambda part: -part.share))

    def _add(self, part: Part) -> None:
        heapq.heappush(self.waiting, (-part.share, self._made, part))
        self._made += 1

    def _ended(self) -> Reason | None:
        if self.budget.is_spent:
            return Reason.TIME_LIMIT if self.budget.out_of_time else Reason.NODE_LIMIT
        kept = (len(self.waiting) + len(self.failing) + len(self.stuck)) * 16 * self.root.lo.size
        return Reason.MEMORY_LIMIT if kept > self.budget.limit(KEPT) else None

    def _is_fine(self) -> bool:
        return self.statement.has_failed and _total(self.open) <= FINE

    def _step(self) -> None:
        count = min(len(self.waiting), self.budget.affordable(max(1, min(AT_ONCE, NUMBERS // max(1, self.size)))))
        taken = [heapq.heappop(self.waiting) for _ in range(count)]
        batch = [part for *_, part in taken]
        try:
            self.budget.spend(count)
            inputs = Interval(np.stack([part.lo for part in batch]), np.stack([part.hi for part in batch]))
            settled = self.statement.settle(inputs, self.budget.check)
            left = np.flatnonzero(~(settled.holds | settled.fails))
            if not self.statement.has_failed:
                self.statement.look([batch[i] for i in np.flatnonzero(~settled.holds)])
        except BudgetError:
            for entry in taken:
                heapq.heappush(self.waiting, entry)
            raise
        self.n_parts += count
        self.failing += [batch[i] for i in np.flatnonzero(settled.fails & ~settled.holds)]
        for i in left:
            halves = cut(batch[i], settled.scores[i], self.root)
            self.stuck += [] if halves else [batch[i]]
            first = self.tree.split(batch[i].node, *halves[0].came) if halves else 0
            for k, half in enumerate(halves):
                self._add(replace(half, node=first + k))


def cut(part: Part, scores: FloatArray, whole: Part) -> tuple[Part, ...]:
    """Return the two halves of a part, cut where it helps most; none where nothing is left to cut."""
    middle = part.lo / 2 + part.hi / 2
    can = (part.lo < middle) & (middle < part.hi)
    width = (part.hi - part.lo) / np.maximum(whole.hi - whole.lo, np.finfo(np.float64).tiny)
    places = [list(choice.columns) for choice in part.choices]
    for columns in places:
        can[columns] = False
    open_ = [k for k, choice in enumerate(part.choices) if len(choice.values) > 1]
    usable = np.concatenate([np.flatnonzero(can), *(places[k] for k in open_)]).astype(np.int64)
    if not usable.size:
        return ()
    ranking = scores if (scores[usable] > 0).any() else width
    by_choice = {k: float(ranking[places[k]].sum()) for k in open_}
    best = max(by_choice, key=lambda k: by_choice[k], default=None)
    j = int(np.argmax(np.where(can, ranking, -np.inf)))
    if best is not None and not (can.any() and ranking[j] > by_choice[best]):
        return _values_cut(part, best)
    return tuple(_interval_cut(part, j, float(middle[j])))


def _values_cut(part: Part, number: int) -> tuple[Part, ...]:
    made, own = [], part.choices[number]
    came = part.lo.size + number, float(len(own.half(True).values))
    for first in (True, False):
        half = own.half(first)
        lo, hi, where = part.lo.copy(), part.hi.copy(), list(own.columns)
        lo[where], hi[where] = half.values.min(axis=0), half.values.max(axis=0)
        choices = (*part.choices[:number], half, *part.choices[number + 1 :])
        made.append(Part(lo, hi, choices, part.share * len(half.values) / len(own.values), came=came))
    return tuple(made)


def _interval_cut(part: Part, j: int, middle: float) -> tuple[Part, Part]:
    lower, upper = part.hi.copy(), part.lo.copy()
    lower[j] = upper[j] = middle
    return (
        replace(part, hi=lower, share=part.share / 2, came=(j, middle)),
        replace(part, lo=upper, share=part.share / 2, came=(j, middle)),
    )


# --- what is asked of outputs ----------------------------------------------------------------------------------------


class Ruled:
    """A query that is to have no counterexample anywhere."""

    def __init__(self, model: ImplicitModel, cell: Cell, judge: Judge, seed: int) -> None:
        """Take the model, the range, and the judge of the query over the range's hull."""
        self._model, self._cell, self.judge = model, cell, judge
        self._query, self._rng = judge.query, np.random.default_rng(seed)
        self.is_known_to_fail = False
        self._rows = Rows.of(self._query)
        box = cell.hull
        self._free: IntArray = np.flatnonzero(box.lo < box.hi)
        owned = [(c.rows, c.exactly, c.strict) for c in self._query.alternatives]
        self._single = np.concatenate([rows for rows, _, _ in owned])
        self._tops = np.array([float_above(value) for _, exactly, _ in owned for value in exactly])
        self._strict = np.concatenate([strict for *_, strict in owned])
        self._of = np.repeat(np.arange(len(owned)), [len(rows) for rows, _, _ in owned])

    @property
    def has_failed(self) -> bool:
        """Whether the network has shown a counterexample."""
        return self.is_known_to_fail or self.judge.has_won

    def settle(self, inputs: Interval, check: Check) -> Settled:
        """Return where every alternative is refuted, and where one holds at every point."""
        found = bounded(self._model, inputs, self._free, check=check)
        bounds = found.outputs(np.concatenate([self._rows.functionals, -self._single]))
        count = len(self._rows.functionals)
        shifted = self._rows.shifted(bounds.lower[:, :count])
        best = self._rows.best(shifted)
        with np.errstate(over="ignore", invalid="ignore"):
            most = -bounds.lower[:, count:]
            most = np.where(self._tops == 0, most, up(most + self._tops))
            below = np.where(self._strict, most < 0, most <= 0)
        fails = np.stack([below[:, self._of == a].all(axis=1) for a in range(best.shape[1])], axis=1).any(axis=1)
        is_open = ~(best > 0)
        scores = self._scores(found, bounds, shifted, is_open, below)
        return Settled(np.asarray(~is_open.any(axis=1)), np.asarray(fails), scores)

    def _scores(
        self, found: BoxBounds, bounds: RowBounds, shifted: FloatArray, is_open: BoolArray, below: BoolArray
    ) -> FloatArray:
        """Return -r_j d(bound)/d r_j: of the best row of each open alternative or, where the middle fails, of its rows.

        A part whose middle fails is settled by bounds that all of it does.
        """
        radii = found.inputs.hi / 2 - found.inputs.lo / 2
        middles = found.inputs.lo / 2 + found.inputs.hi / 2
        fails = self._query.distance(self._model(middles)) <= 0
        rates, count = bounds.rates, len(self._rows.functionals)
        gains = np.zeros((len(radii), self._free.size))
        for a, members in enumerate(self._rows.members):
            some = np.flatnonzero(is_open[:, a] & ~fails)
            rows = members[shifted[some][:, members].argmax(axis=1)]
            gains[some] -= rates[some, rows]
        for row in range(len(self._single)):
            some = np.flatnonzero(fails & ~below[:, row])
            gains[some] -= rates[some, count + row]
        gains = np.nan_to_num(gains * radii[:, self._free], nan=0.0, posinf=0.0, neginf=0.0)
        scores = np.zeros_like(radii)
        scores[:, self._free] = gains
        return scores

    def look(self, parts: Sequence[Part]) -> None:
        """Show the middles of the parts to the network."""
        for choices, own in _alike(parts):
            middles = np.stack([part.lo / 2 + part.hi / 2 for part in own])
            self._show(replace(self._cell, choices=choices).nearest(middles))

    def look_first(self) -> None:
        """Show random rows of the range to the network, half of them at its ends."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._show(drawn(self._cell, FIRST_ROWS, self._rng))

    def _show(self, rows: Float32Array) -> None:
        inside = rows[self._cell.contains(rows)]
        near = self._query.distance(self._model(inside.astype(np.float64))) <= 0
        if near.any():
            self.judge.propose(inside[near])


def drawn(cell: Cell, count: int, rng: np.random.Generator) -> Float32Array:
    """Return random rows of a cell, half of them at ends of the intervals."""
    box, share = cell.box, rng.random((count, cell.box.size))
    share[: count // 2] = np.round(share[: count // 2])
    picks = [rng.integers(len(choice.values), size=count) for choice in cell.choices]
    return cell.rows(box.lo + share * (box.hi - box.lo), picks)


def _alike(parts: Sequence[Part]) -> list[tuple[tuple[Choice, ...], list[Part]]]:
    """Return the parts that have the same choices together."""
    groups: dict[tuple[int, ...], tuple[tuple[Choice, ...], list[Part]]] = {}
    for part in parts:
        key = tuple(map(id, part.choices))
        groups.setdefault(key, (part.choices, []))[1].append(part)
    return list(groups.values())


def decide_everywhere(
    model: ImplicitModel,
    network: Network,
    cell: Cell,
    query: Query,
    options: Options,
    budget: Budget,
) -> Everywhere:
    """Return whether a query has no counterexample in a whole range; where it is open, and where it fails.

    Args:
        model: the implicit model in data units, feed-forward.
        network: the original network in data units.
        cell: the range: a box, or the rows of a table.
        query: over its hull.
        options: of the ladder, which is climbed first where the range is a box; what confirms counterexamples.
        budget: what all may cost; a part is a node.

    Raises:
        UnsupportedModelError: where the model has loops.
    """
    _refuse_loops(model)
    start = budget.clock()
    judge = Judge.of(model, network, query, budget, options.confirm)
    ruled = Ruled(model, cell, judge, options.seed)
    found: Found | None = None
    method = "parts"
    try:
        ruled.look_first()
        if not (ruled.has_failed or cell.choices or cell.rules):
            with np.errstate(over="ignore", invalid="ignore"):
                result = decide_query(model, network, query, options, budget=budget.part(LADDER))
            if result.verdict is Verdict.CERTIFIED:
                seconds = budget.clock() - start
                known = Everywhere(Verdict.CERTIFIED, method=result.method, n_parts=1, seconds=seconds)
                return replace(known, recorded=result.recorded)
            if result.verdict is Verdict.FALSIFIED and result.found is not None:
                found, method = result.found, result.method or method
                ruled.is_known_to_fail = True
    except BudgetError:
        pass
    cover = _cover(model, ruled, cell, budget)
    reason = cover.grow()
    found = judge.found or found
    seconds = budget.clock() - start
    return replace(_told(cover, reason, failed=found is not None), method=method, found=found, seconds=seconds)


def _cover(model: ImplicitModel, statement: Statement, cell: Cell, budget: Budget) -> Cover:
    box = cell.hull
    moving = int((box.lo < box.hi).sum())
    return Cover(statement, Part(box.lo, box.hi, cell.choices), budget, max(1, model.n_states) * max(1, moving))


def _told(cover: Cover, reason: Reason | None, *, failed: bool) -> Everywhere:
    open_, failing = cover.open, tuple(cover.failing)
    known = Everywhere(Verdict.UNKNOWN, open=open_, failing=failing, n_parts=cover.n_parts)
    if failed:
        return replace(known, verdict=Verdict.FALSIFIED)
    if open_ or failing:  # fails by proof, though no float32 point of it was shown
        return replace(known, reason=reason or Reason.RELAXATION_GAP)
    return replace(known, verdict=Verdict.CERTIFIED, tree=cover.tree.forest)


def _refuse_loops(model: ImplicitModel) -> None:
    if not model.is_feed_forward:
        raise UnsupportedModelError(
            ["--everywhere is for networks without loops, and this one has one; ask about samples with -d and -e"]
        )


# --- scores that rise -------------------------------------------------------------------------------------------------


class Rising:
    """A score that is never to fall while one input rises."""

    def __init__(self, model: ImplicitModel, network: Network, question: Question, cell: Cell, seed: int) -> None:
        """Take the model, its network, what must not fall, and the range, in which the input is an interval or whole.

        Raises:
            UnsupportedModelError: where the model is none that such proofs are known of.
        """
        self._model, self._network, self._question, self._cell = model, network, question, cell
        self._rise, self._rng = Rise(model, question.feature), np.random.default_rng(seed)
        self._reach = np.zeros(model.n_inputs)
        for row in (*model.rows, model.output):
            if row.input is not None:
                self._reach += row.input.column_sums
        self._looks = 0
        self.fall: Fall | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the network has shown a fall."""
        return self.fall is not None

    def settle(self, inputs: Interval, check: Check) -> Settled:
        """Return where no row falls, and where the only one falls everywhere."""
        holds, fails = np.zeros(len(inputs.lo), np.bool_), np.zeros(len(inputs.lo), np.bool_)
        rows = self._question.rows
        asked = np.concatenate([rows, -rows]) if len(rows) == 1 else rows
        for i in range(len(inputs.lo)):
            part = Interval(inputs.lo[i : i + 1], inputs.hi[i : i + 1])
            try:
                bounds = backward_state_bounds(self._model, part, check=check)
                least = self._rise.least(part, bounds, asked, check=check)
                holds[i] = least.is_at_least_zero[: len(rows)].all()
                if len(rows) == 1 and not holds[i]:
                    fails[i] = least.rounded(-np.inf)[1] > 0
            except UnsupportedModelError:  # a bound that is no finite number
                continue
        return Settled(holds, fails, (inputs.hi - inputs.lo) * self._reach)

    def look(self, parts: Sequence[Part]) -> None:
        """Now and then, move the input through its range from places in the first of the parts."""
        self._looks += 1
        if parts and not self._looks & (self._looks - 1):
            cell = replace(self._cell, choices=self._own_choices(parts[0]))
            self.fall = self._fall_from(cell, parts[0])

    def _own_choices(self, part: Part) -> tuple[Choice, ...]:
        """Return the choices of a part, with those of the input, which parts do not cut."""
        left = {choice.columns: choice for choice in part.choices}
        return tuple(left.get(choice.columns, choice) for choice in self._cell.choices)

    def _fall_from(self, cell: Cell, part: Part) -> Fall | None:
        f = self._question.feature
        share = self._rng.random((2 * WAYS, cell.box.size))
        share[:WAYS] = np.round(share[:WAYS])
        share[0] = 0.5
        places = part.lo + share * (part.hi - part.lo)
        picks = [self._rng.integers(len(one.values), size=len(places)) for one in cell.choices]
        starts = cell.rows(places, picks)
        values = self._values(part)
        ways = np.repeat(starts[:, None], len(values), axis=1)
        ways[:, :, f] = values
        usable = [way for way in ways if self._cell.contains(way).all()]
        return fall_on(self._model, self._network, self._question, usable)

    def _values(self, part: Part) -> Float32Array:
        """Return values of the input on a way: whole ones where it has such, and some of its interval elsewhere."""
        f = self._question.feature
        own = [one for one in self._cell.choices if f in one.columns]
        if own:
            values = own[0].values[:, 0]
            values = values[(values >= part.lo[f]) & (values <= part.hi[f])]
            chosen = values[np.unique(np.linspace(0, len(values) - 1, GRID).astype(int))] if len(values) else values
            return np.asarray(chosen, np.float32)
        lo, hi = self._cell.hull.float32_bounds()
        grid = np.linspace(part.lo[f], part.hi[f], GRID)
        if is_whole(self._cell.box.point_type):
            grid = np.unique(np.rint(grid))
        return np.clip(grid.astype(np.float32), lo[f], hi[f])


def as_interval(cell: Cell, feature: int) -> Cell:
    """Return a range with an input as an interval: what never falls on all of it never falls on its whole numbers.

    A way along the input would cross the gap between two parts that share its values out.
    """
    return Cell(cell.hull, tuple(one for one in cell.choices if feature not in one.columns))


def decide_rising(
    model: ImplicitModel, network: Network, question: Question, cell: Cell, budget: Budget, seed: int = 0
) -> Everywhere:
    """Return whether a score never falls anywhere in a range while one input rises.

    Args: as those of `Rising`.

    Raises:
        UnsupportedModelError: where the model has loops, or is none that such proofs are known of.
    """
    _refuse_loops(model)
    start = budget.clock()
    rising = Rising(model, network, question, cell, seed)
    cover = _cover(model, rising, as_interval(cell, question.feature), budget)
    reason = cover.grow()
    known = _told(cover, reason, failed=rising.has_failed)
    return replace(known, method="parts", fall=rising.fall, seconds=budget.clock() - start)
