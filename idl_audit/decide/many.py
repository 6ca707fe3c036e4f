"""Many queries about one model at once: boxes that are refuted as they are need no ladder of their own.

A property over thousands of small boxes, or a table of them, costs a few passes over all boxes together. What stays
open is decided query by query, and has the time that the others have left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np

from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.decide.proofs import Recorded
from idl_audit.decide.rungs import FIRST_BOXES
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, bounded
from idl_audit.proof.float_margins import SPARE, Arithmetic, FloatMargins, Slack, Unbounded, lowered, parted
from idl_audit.proof.forms import MOST_APART, moving
from idl_audit.proof.rows import Rows
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError
from idl_audit.values.network import Network
from idl_audit.values.query import Query, alike
from idl_audit.values.verdicts import Verdict

MANY: Final = 16
"""Queries with the same rows that are worth a pass together."""
NUMBERS_AT_ONCE: Final = 2**21
"""Of the forms of all states, over the boxes of one pass."""
MOST_AT_ONCE: Final = 512


def decided_together(
    model: ImplicitModel,
    network: Network,
    queries: Sequence[Query],
    options: Options,
    budget: Budget,
    *,
    arithmetic: Arithmetic = None,
) -> Mapping[int, Result]:
    """Return what is known of some queries, by their numbers: of boxes that have many others with the same rows.

    Bounds over all whole boxes come first, then a few splits of each box that they leave open. A counterexample ends
    it, and so does the budget; what is not decided is left out.

    Args:
        model: the implicit model.
        network: the original network, which is asked about points.
        queries: boxes with alternatives.
        options: whether results carry records for proofs.
        budget: for all of them.
        arithmetic: what certified is to be proved for; None stands for real arithmetic.
    """
    found: dict[int, Result] = {}
    if not model.is_feed_forward or isinstance(arithmetic, Unbounded):
        return found
    with suppress(BudgetError):
        for numbers in alike(queries):
            if len(numbers) >= MANY and all(isinstance(queries[i].inputs, Box) for i in numbers):
                for number, result in _decided(model, network, queries, numbers, options, budget, arithmetic):
                    found[number] = result
                    if result.verdict is Verdict.FALSIFIED:
                        return found
    return found


def _decided(
    model: ImplicitModel,
    network: Network,
    queries: Sequence[Query],
    numbers: IntArray,
    options: Options,
    budget: Budget,
    arithmetic: FloatMargins | None,
) -> Iterator[tuple[int, Result]]:
    """Yield what is known of queries with the same rows."""
    is_open = []
    for some, lowers, slacks, seconds in _passes(model, queries, numbers, budget, arithmetic):
        for number, own, slack in zip(some.tolist(), lowers, slacks, strict=True):
            if (own > 0).all():
                kept = Recorded(slack=slack) if options.record else None  # the usual lines prove it
                lower = tuple(own.tolist())
                yield number, Result(Verdict.CERTIFIED, -1, "linear", lower, seconds=seconds, recorded=kept)
            else:
                is_open.append(number)
    briefly = replace(options, methods=("split",))
    for number in is_open:
        part = budget.at_most_nodes(FIRST_BOXES)
        result = decide_query(model, network, queries[number], briefly, budget=part, arithmetic=arithmetic)
        if result.verdict is not Verdict.UNKNOWN:
            yield number, result


def _passes(
    model: ImplicitModel,
    queries: Sequence[Query],
    numbers: IntArray,
    budget: Budget,
    arithmetic: FloatMargins | None,
) -> Iterator[tuple[IntArray, FloatArray, Sequence[Slack | None], float]]:
    """Yield numbers of queries with the best lower bound of each alternative, (m, a), and the seconds for each.

    In floating-point arithmetic they are those of computed rows, with what these may be off by.
    """
    boxes = Interval.of_boxes([queries[i].box for i in numbers])
    free = moving(boxes)
    if free.size > MOST_APART:
        return
    at_once = max(1, min(MOST_AT_ONCE, NUMBERS_AT_ONCE // ((2 + free.size) * max(1, model.n_states))))
    for start in range(0, numbers.size, at_once):
        some = slice(start, start + at_once)
        began = budget.clock()
        here = _Pass(model, [queries[i] for i in numbers[some]], free, budget, arithmetic)
        lowers = here.lowers(boxes.rows(some))
        yield numbers[some], lowers, here.slacks, (budget.clock() - began) / len(here.queries)


class _Pass:
    """Queries with the same rows that are bounded together."""

    def __init__(
        self,
        model: ImplicitModel,
        queries: Sequence[Query],
        free: IntArray,
        budget: Budget,
        arithmetic: FloatMargins | None,
    ) -> None:
        self.model, self.queries, self.free, self.budget, self.arithmetic = model, queries, free, budget, arithmetic
        self.rows = [Rows.of(query) for query in queries]
        self.slacks: list[Slack | None] = [None] * len(queries)

    def lowers(self, boxes: Interval) -> FloatArray:
        """Return the best lower bound of each alternative over its query's box, (m, a): forms, then lines."""
        everywhere = np.arange(len(self.queries))
        lowers = self._bounded(boxes, everywhere, by_lines=False)
        left = np.flatnonzero(~(lowers > 0).all(axis=1))
        if left.size:
            tighter = self._bounded(Interval(boxes.lo[left], boxes.hi[left]), left, by_lines=True)
            lowers[left] = np.fmax(lowers[left], tighter)
        return lowers

    def _bounded(self, inputs: Interval, places: IntArray, *, by_lines: bool) -> FloatArray:
        self.budget.spend(places.size)
        with np.errstate(over="ignore", invalid="ignore"):  # after an overflow nothing is refuted
            found = bounded(self.model, inputs, self.free, by_lines=by_lines, check=self.budget.check)
            lower = found.outputs(self.rows[0].functionals).lower
            lowers = np.concatenate([self._best(self.rows[i], own) for i, own in zip(places, lower, strict=True)])
            if self.arithmetic is not None:
                lowers = self._computed(self.arithmetic, found, inputs, places, lower, lowers)
        return lowers

    def _best(self, rows: Rows, lower: FloatArray) -> FloatArray:
        return rows.best(rows.shifted(lower[None]))

    def _computed(
        self,
        arithmetic: FloatMargins,
        found: BoxBounds,
        inputs: Interval,
        places: IntArray,
        lower: FloatArray,
        lowers: FloatArray,
    ) -> FloatArray:
        """Return the bounds less what roundings may change, of the boxes that are refuted in real arithmetic.

        That is bounded coarsely first; -inf stands for the other boxes.
        """
        alternatives = self.queries[0].alternatives
        functionals = np.concatenate([one.rows for one in alternatives])
        best = np.full_like(lowers, -np.inf)
        is_real = (lowers > 0).all(axis=1)
        for sharp in (False, True) if arithmetic.can_be_sharp else (False,):
            some = np.flatnonzero(is_real & ~(best > 0).all(axis=1))
            if not some.size:
                break
            errors = arithmetic.over(inputs.rows(some), found.states.of_boxes(some), sharp=sharp)
            for i, own in zip(some, errors.of(functionals) * SPARE, strict=True):
                slack, place = tuple(parted(alternatives, own)), places[i]
                computed = self._best(Rows.of(lowered(self.queries[place], slack)), lower[i])[0]
                if not (best[i] > 0).all():
                    best[i], self.slacks[place] = computed, slack
        return best
