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
from idl_audit.proof.box_bounds import bounded
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
    model: ImplicitModel, network: Network, queries: Sequence[Query], options: Options, budget: Budget
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
    """
    found: dict[int, Result] = {}
    if not model.is_feed_forward:
        return found
    with suppress(BudgetError):
        for numbers in alike(queries):
            if len(numbers) >= MANY and all(isinstance(queries[i].inputs, Box) for i in numbers):
                for number, result in _decided(model, network, queries, numbers, options, budget):
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
) -> Iterator[tuple[int, Result]]:
    """Yield what is known of queries with the same rows."""
    is_open = []
    for some, lowers, seconds in _passes(model, queries, numbers, budget):
        for number, own in zip(some.tolist(), lowers, strict=True):
            if (own > 0).all():
                kept = Recorded() if options.record else None  # the usual lines prove it
                lower = tuple(own.tolist())
                yield number, Result(Verdict.CERTIFIED, -1, "linear", lower, seconds=seconds, recorded=kept)
            else:
                is_open.append(number)
    briefly = replace(options, methods=("split",))
    for number in is_open:
        result = decide_query(model, network, queries[number], briefly, budget=budget.at_most_nodes(FIRST_BOXES))
        if result.verdict is not Verdict.UNKNOWN:
            yield number, result


def _passes(
    model: ImplicitModel, queries: Sequence[Query], numbers: IntArray, budget: Budget
) -> Iterator[tuple[IntArray, FloatArray, float]]:
    """Yield numbers of queries with the best lower bound of each alternative, (m, a), and the seconds for each."""
    boxes = Interval.of_boxes([queries[i].box for i in numbers])
    free = moving(boxes)
    if free.size > MOST_APART:
        return
    at_once = max(1, min(MOST_AT_ONCE, NUMBERS_AT_ONCE // ((2 + free.size) * max(1, model.n_states))))
    for start in range(0, numbers.size, at_once):
        some = slice(start, start + at_once)
        began = budget.clock()
        rows = [Rows.of(queries[i]) for i in numbers[some]]
        lowers = _lowers(model, boxes.rows(some), free, rows, budget, by_lines=False)
        left = np.flatnonzero(~(lowers > 0).all(axis=1))
        if left.size:
            parts = Interval(boxes.lo[some][left], boxes.hi[some][left])
            tighter = _lowers(model, parts, free, [rows[i] for i in left], budget, by_lines=True)
            lowers[left] = np.fmax(lowers[left], tighter)
        yield numbers[some], lowers, (budget.clock() - began) / len(rows)


def _lowers(
    model: ImplicitModel, inputs: Interval, free: IntArray, rows: Sequence[Rows], budget: Budget, *, by_lines: bool
) -> FloatArray:
    """Return the best lower bound of each alternative over its query's box, (m, a)."""
    budget.spend(len(rows))
    with np.errstate(over="ignore", invalid="ignore"):  # after an overflow nothing is refuted
        found = bounded(model, inputs, free, by_lines=by_lines, check=budget.check)
        lower = found.outputs(rows[0].functionals).lower
        return np.concatenate([own.best(own.shifted(one[None])) for own, one in zip(rows, lower, strict=True)])
