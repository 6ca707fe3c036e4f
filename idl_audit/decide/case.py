"""A case: one query over one implicit model, and what is known of it while the rungs of the ladder are climbed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from idl_audit.decide.proofs import Recorded
from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.state_bounds import Prepared, bound_set, prepare
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.domains import why_outside
from idl_audit.proof.float_margins import SPARE, BoxErrors, FloatMargins, Slack, lowered, parted, unknown_slack
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import OutputBounds, backward_state_bounds, output_intervals, rows_at_once
from idl_audit.proof.rows import per_row, plus, row_counts, with_sums
from idl_audit.search.attacks import AttackOptions
from idl_audit.search.branching import Watch
from idl_audit.search.judge import Judge
from idl_audit.search.lp_tree.tree import LpTree
from idl_audit.search.splitting.boxes import Splitting
from idl_audit.values.arrays import Float32Array, FloatArray, IntArray
from idl_audit.values.box import SparseBall
from idl_audit.values.budget import Budget
from idl_audit.values.input_sets import NormBall
from idl_audit.values.query import Conjunction, Misclassification, Query
from idl_audit.values.verdicts import Reason

STATES_SHARE = 0.8
"""Of the time of the rung that first asks for bounds of all states; blocks that it does not reach keep intervals."""


@dataclass(eq=False)
class Case:
    """What is known of one query so far."""

    model: ImplicitModel
    query: Query
    judge: Judge
    """Holds the best point that was found."""
    centre: FloatArray
    """A point of the set, shape (p,): the sample, where there is one."""
    rng: np.random.Generator
    attack: AttackOptions = field(default_factory=AttackOptions)
    watch: Watch | None = None
    recorded: Recorded | None = None
    arithmetic: FloatMargins | None = None
    """What bounds its roundings, where the question is asked of floating-point arithmetic; None: of real arithmetic."""
    lowers: FloatArray = field(init=False)
    """For each alternative, what is proved to be below one of its rows or sums of rows at every point, (a,); in
    floating-point arithmetic, of the computed rows.

    Above 0 it is refuted; the 0 of a strict row is told as the least positive number, and so is it where exact
    arithmetic alone refutes an alternative."""
    reason: Reason = Reason.RELAXATION_GAP
    _states: StateBounds | None = None
    _splitting: tuple[tuple[int, ...], Splitting] | None = None
    """The alternatives that it is about, and the boxes as the last rung left them."""
    _slack: list[FloatArray] = field(default_factory=list)
    _proved: Query | None = None
    _sharp: tuple[StateBounds, BoxErrors] | None = None
    together: dict[int, LpTree] = field(default_factory=dict)
    """For alternatives of several rows: the tree of all rows together, as the last rung left it."""

    def __post_init__(self) -> None:
        if self.arithmetic is not None:
            self._slack = list(unknown_slack(self.query))
        self.lowers = np.full(len(self.query.alternatives), -np.inf)
        ball = isinstance(self.query.inputs, NormBall) and self.model.is_feed_forward
        self.inputs = Interval.of_set(self.query.inputs) if ball else Interval.of_boxes(self.query.box)
        """The set, where bounds know it beside boxes: loops are bounded over the box around it."""
        self.proved_model = without_self_feedback(self.model)
        """The model that proofs are about: the same function, its loops in the form that bounds are best in."""

    @property
    def sparse(self) -> SparseBall | None:
        """The set, where it is U_card and bounds know it: loops are bounded over the box around it."""
        inputs = self.query.inputs
        return inputs if isinstance(inputs, SparseBall) and self.model.is_feed_forward else None

    @property
    def states(self) -> StateBounds | None:
        """Backward bounds of all states, where a rung has asked for them."""
        return self._states

    @property
    def outside(self) -> str:
        """Which activation may leave its domain over the set, by the best bounds that were made; empty where none."""
        has_domains = any(block.activation.forbidden for block in self.proved_model.blocks)
        if not (has_domains and self.proved_model.is_feed_forward):
            return ""
        with np.errstate(all="ignore"):
            bounds = interval_bounds(self.proved_model, self.inputs) if self._states is None else self._states
        return why_outside(self.proved_model, bounds)

    @property
    def open(self) -> IntArray:
        """The alternatives that are not refuted; NaN, which an overflow may leave, refutes nothing."""
        return np.flatnonzero(~(self.lowers > 0))

    @property
    def hardest(self) -> IntArray:
        """Those that are not refuted, the most dangerous first."""
        return self.open[np.argsort(self.lowers[self.open], kind="stable")]

    @property
    def open_query(self) -> Query:
        """The query without its refuted alternatives: it has the same counterexamples."""
        return replace(self.query, alternatives=tuple(self.query.alternatives[i] for i in self.open))

    @property
    def proved(self) -> Query:
        """The query whose proof in real arithmetic decides this one: for floating-point arithmetic its offsets are
        lowered by what roundings may change in the rows, as far as that is known."""
        if self.arithmetic is None:
            return self.query
        if self._proved is None:
            self._proved = lowered(self.query, self.slack)
        return self._proved

    @property
    def open_proved(self) -> Query:
        """The query to be proved, without its refuted alternatives."""
        return replace(self.proved, alternatives=tuple(self.proved.alternatives[i] for i in self.open))

    @property
    def slack(self) -> Slack:
        """What roundings may change in the rows of each alternative; nothing in real arithmetic."""
        return tuple(self._slack)

    @property
    def splitting(self) -> Splitting:
        """The splitting of the box for the alternatives that are open, begun anew where others were open before."""
        numbers = tuple(self.open.tolist())
        if self._splitting is None or self._splitting[0] != numbers:
            self._splitting = numbers, Splitting(self.model, self.open_query, margins=self.arithmetic)
        return self._splitting[1]

    @property
    def is_decided(self) -> bool:
        """Whether there is a counterexample, or no alternative is left."""
        return self.judge.has_won or not self.open.size

    def know(self, states: StateBounds) -> None:
        """Take backward bounds of all states over the set."""
        self._states = states

    def raise_lowers(self, numbers: Iterable[int], lowers: Iterable[float]) -> None:
        """Take proved lower bounds of some alternatives."""
        for number, lower in zip(numbers, lowers, strict=True):
            self.lowers[number] = np.fmax(self.lowers[number], lower)

    def spread(self, weights: Mapping[int, Float32Array]) -> dict[int, Float32Array]:
        """Return weights of the rows of the open alternatives as those of the rows of all, in order."""
        sizes = [len(c.rows) for c in self.query.alternatives]
        is_open = np.repeat(np.isin(np.arange(len(sizes)), self.open), sizes)
        found = {}
        for node, own in weights.items():
            found[node] = np.zeros(is_open.size, np.float32)
            found[node][is_open] = own
        return found

    def raise_by_rows(self, number: int, rows: IntArray | int, lowers: FloatArray | float) -> None:
        """Take proved lower bounds of some of `rows_of` an alternative: that of a sum counts by the rows in it."""
        summed = row_counts(self.proved.alternatives[number])[np.atleast_1d(rows)]
        self.raise_lowers([number], [_greatest(per_row(np.atleast_1d(np.asarray(lowers, np.float64)), summed))])

    def rows_of(self, number: int) -> Conjunction:
        """Return the rows of an alternative with those sums of rows that are exact: any of them may refute it."""
        return with_sums(self.proved.alternatives[number])

    def bounds(self, budget: Budget) -> StateBounds:
        """Return backward bounds of all states, computed once."""
        if self._states is None:
            if self.sparse is None:
                tighten = budget.part(STATES_SHARE).check
                self._states = backward_state_bounds(
                    self.proved_model,
                    self.inputs,
                    check=budget.check,
                    tighten=tighten,
                    max_bytes=budget.max_bytes,
                )
            else:
                prepared = _prepared_for_sparse(self.model, budget.max_bytes)
                self._states = bound_set(prepared, self.sparse, budget=budget).states
        return self._states

    def bound_rows(
        self, numbers: IntArray, bounds: StateBounds, by: OutputBounds, budget: Budget, *, sums: bool = False
    ) -> None:
        """Bound the rows of some alternatives, or their sums of rows; keep the best of each."""
        inputs = self.inputs if self.sparse is None else Interval.of_set(self.sparse)
        model = self.proved_model
        found: list[tuple[list[int], FloatArray]] = []
        for group, rows in self._batches(numbers, sums=sums):
            if budget.out_of_time:
                return
            lowers = by(model, inputs, bounds, np.concatenate(rows), check=budget.check)[0]
            if sums or self.arithmetic is None:
                self._take(group, lowers, sums=sums)
            elif by is output_intervals:
                found.append((group, lowers))
            else:
                self._take_computed(group, lowers, bounds, budget)
        if found and all((lowers > 0).all() for _, lowers in self._real(found)):
            for group, lowers in found:  # others have better bounds to come
                self.learn(group, self._errors(bounds, group, sharp=False, budget=budget))
                self._take(group, lowers)

    def _real(self, found: Sequence[tuple[list[int], FloatArray]]) -> Iterator[tuple[list[int], FloatArray]]:
        """Yield groups of alternatives with lower bounds of their rows in real arithmetic, offsets and all."""
        for group, lowers in found:
            own = [self.query.alternatives[number] for number in group]
            yield group, shifted(lowers, own)

    def _take_computed(self, group: list[int], lowers: FloatArray, bounds: StateBounds, budget: Budget) -> None:
        """Take lower bounds of rows as they are computed: what roundings change is bounded coarsely first."""
        assert self.arithmetic is not None
        self.learn(group, self._errors(bounds, group, sharp=False, budget=budget))
        self._take(group, lowers)
        left = self.within_rounding(group, lowers)
        if left and self.arithmetic.can_be_sharp:
            self.learn(left, self._errors(bounds, left, sharp=True, budget=budget))
            self._take(group, lowers)

    def _take(self, group: Sequence[int], lowers: FloatArray, *, sums: bool = False) -> None:
        """Take lower bounds of the rows of some alternatives, or of their sums of rows, offsets left out."""
        rows = [self._rows(number, sums=sums) for number in group]
        found = parted(rows, shifted(lowers, rows))
        if not sums:
            self.raise_lowers(group, map(_greatest, found))
            return
        for number, own in zip(group, found, strict=True):
            first = len(self.proved.alternatives[number].rows)
            self.raise_by_rows(number, np.arange(first, first + own.size), own)

    def _rows(self, number: int, *, sums: bool) -> Conjunction:
        """Return the rows of an alternative, or its sums of rows alone."""
        own = self.proved.alternatives[number]
        return self.rows_of(number).part(slice(len(own.rows), None)) if sums else own

    def _batches(self, numbers: IntArray, *, sums: bool) -> Iterator[tuple[list[int], list[FloatArray]]]:
        """Yield alternatives that have such rows together, in batches of about as many rows as one pass takes."""
        group: list[int] = []
        batch: list[FloatArray] = []
        at_once = rows_at_once(self.proved_model)
        for number in map(int, numbers):
            rows = self._rows(number, sums=sums).rows
            if not len(rows):
                continue
            group.append(number)
            batch.append(rows)
            if sum(map(len, batch)) >= at_once:
                yield group, batch
                group, batch = [], []
        if batch:
            yield group, batch

    # --- floating-point arithmetic ------------------------------------------------------------------------------------

    def learn(self, numbers: Sequence[int], slack: Sequence[FloatArray]) -> None:
        """Take bounds of what roundings may change in the rows of some alternatives."""
        for number, own in zip(numbers, slack, strict=True):
            less = np.fmin(self._slack[number], own * SPARE)
            if not np.array_equal(less, self._slack[number]):
                self._slack[number], self._proved = less, None

    def within_rounding(self, numbers: Sequence[int], lowers: FloatArray) -> list[int]:
        """Return those of some alternatives that bounds of their rows refute in real arithmetic alone."""
        ((_, real),) = self._real([(list(numbers), lowers)])
        values = parted([self.query.alternatives[number] for number in numbers], real)
        return [
            number
            for number, value in zip(numbers, values, strict=True)
            if (value > 0).any() and not self.lowers[number] > 0
        ]

    @property
    def is_within_rounding(self) -> bool:
        """Whether all that is open is refuted in real arithmetic by the same bounds."""
        if self.arithmetic is None or not self.open.size:
            return False
        most = np.array([own[np.isfinite(own)].max(initial=0.0) for own in self._slack])
        return bool((self.lowers[self.open] + most[self.open] > 0).all())

    def _errors(self, bounds: StateBounds, numbers: Sequence[int], *, sharp: bool, budget: Budget) -> list[FloatArray]:
        """Return what roundings may change in the rows of some alternatives, by bounds of the states."""
        assert self.arithmetic is not None
        if not sharp:
            errors = self.arithmetic.over(self.inputs, bounds)
        elif self._sharp is not None and self._sharp[0] is bounds:
            errors = self._sharp[1]
        else:
            errors = self.arithmetic.over(self.inputs, bounds, sharp=True, check=budget.check)
            self._sharp = bounds, errors
        own = [self.query.alternatives[number] for number in numbers]
        ranked = isinstance(self.query, Misclassification)
        return parted(own, errors.of(np.concatenate([one.rows for one in own]), ranked=ranked)[0])

    def may_be_proved(self, budget: Budget) -> bool:
        """Return whether a search for proofs is of use: whether roundings leave a margin where the network is known.

        In floating-point arithmetic, bounds of the roundings are made as sharp as they are first.
        """
        if self.arithmetic is None or not self.open.size:
            return True
        bounds = self.bounds(budget)
        numbers = self.open.tolist()
        self.learn(numbers, self._errors(bounds, numbers, sharp=self.arithmetic.can_be_sharp, budget=budget))
        if any(np.isinf(self._slack[number]).all() for number in numbers):
            self.reason = Reason.NO_ROUNDING_BOUND
            return False
        best = [] if self.judge.best is None else [self.judge.best.point.astype(np.float64)]
        points = np.stack([self.centre, *best])
        with np.errstate(all="ignore"):
            y = self.model(points, check=budget.check)
            holds = [(one.values(y) <= 0).all(axis=1).any() for one in self.open_proved.alternatives]
        if any(holds):
            self.reason = Reason.WITHIN_ROUNDING
            return False
        return True


def shifted(lowers: FloatArray, alternatives: Sequence[Conjunction]) -> FloatArray:
    """Return lower bounds of the rows of some alternatives with their offsets, (R,): above 0 they refute."""
    offsets, strict = (np.concatenate([getattr(one, name) for one in alternatives]) for name in ("offsets", "strict"))
    return plus(lowers, offsets, strict)


def _greatest(lowers: FloatArray) -> float:
    """Return the greatest of some bounds that is a number; -inf where none is."""
    return float(np.max(lowers, where=~np.isnan(lowers), initial=-np.inf))


@lru_cache(maxsize=2)
def _prepared_for_sparse(model: ImplicitModel, max_bytes: int | None) -> Prepared:
    """Return what bounds over U_card need for every sample of a model."""
    return prepare(model, ("interval", "linear"), sparse=True, max_bytes=max_bytes)
