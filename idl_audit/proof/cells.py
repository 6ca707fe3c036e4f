"""Trees that share a range out: boxes cut at a number, and features cut between two of their values.

A range is a box and choices, each with finitely many values (`values.mixed.Cell`). A node with variable j < p is cut at
`cut`: its first child has u_j <= cut, its second u_j >= cut; one with variable p + c shares the values of choice c that
are left in it out: its first child has the first `cut` of them, its second the others. So the leaves together are the
range, and what holds in the least box around every leaf holds at every point of the range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import bounded
from idl_audit.proof.forest import LEAF, Forest
from idl_audit.proof.rows import Rows
from idl_audit.values.arrays import FloatArray
from idl_audit.values.mixed import Cell, Choice
from idl_audit.values.query import Conjunction, Query

AT_ONCE = 64
"""Leaves that are bounded together."""
NUMBERS = 2**22
"""Of all states, times inputs, times leaves that are bounded together."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A node of such a tree: the least box around what is left in it, and the values of each choice."""

    lo: FloatArray
    hi: FloatArray
    choices: tuple[Choice, ...]

    def with_values(self, number: int, own: Choice) -> Piece:
        """Return the piece with other values of a choice."""
        lo, hi, where = self.lo.copy(), self.hi.copy(), list(own.columns)
        lo[where], hi[where] = own.values.min(axis=0), own.values.max(axis=0)
        return Piece(lo, hi, (*self.choices[:number], own, *self.choices[number + 1 :]))


def fault(cell: Cell, tree: Forest) -> str:
    """Return why a tree does not share a range out; empty where it does."""
    p, choices = cell.box.size, cell.choices
    why = tree.fault(p, len(choices))
    if why or tree.n_goals != 1 or tree.has_choices:
        return why or "it is not one tree of boxes"
    owned = [column for choice in choices for column in choice.columns]
    if np.isin(tree.variable, owned).any():
        return "it cuts an input that has values of its own"
    return ""


def leaves(cell: Cell, tree: Forest) -> Iterator[tuple[int, Piece]]:
    """Yield the leaves that have points, each with its node.

    Args:
        cell: the range.
        tree: one tree without a fault.
    """
    box = cell.hull
    pieces = {int(tree.roots[0]): Piece(box.lo, box.hi, cell.choices)}
    for node in range(tree.variable.size):  # children have greater numbers
        piece = pieces.pop(node, None)
        if piece is None:
            continue  # beyond the range
        if tree.variable[node] == LEAF:
            yield node, piece
            continue
        first = int(tree.child[node])
        for child, own in enumerate(_children(piece, int(tree.variable[node]), float(tree.cut[node]))):
            if (own.lo <= own.hi).all():
                pieces[first + child] = own


def _children(piece: Piece, variable: int, cut: float) -> tuple[Piece, Piece]:
    number = variable - piece.lo.size
    if number >= 0:
        own = piece.choices[number]
        count = min(max(int(cut), 1), len(own.values) - 1)
        if count < 1:
            return piece, piece
        halves = (replace(own, values=some) for some in (own.values[:count], own.values[count:]))
        one, other = (piece.with_values(number, half) for half in halves)
        return one, other
    below, above = piece.hi.copy(), piece.lo.copy()
    below[variable], above[variable] = min(below[variable], cut), max(above[variable], cut)
    return replace(piece, hi=below), replace(piece, lo=above)


def why_not_refuted(model: ImplicitModel, cell: Cell, query: Query, tree: Forest) -> list[str]:
    """Return why bounds over the leaves of a tree do not refute every alternative in each of them; empty where they do.

    Args:
        model: feed-forward, in the range's units.
        cell: the range.
        query: about the hull of the range.
        tree: what shares it out.
    """
    why = fault(cell, tree)
    if why:
        return [why]
    box, rows = cell.hull, Rows.of(query)
    free = np.flatnonzero(box.lo < box.hi)
    at_once = max(1, min(AT_ONCE, NUMBERS // max(1, model.n_states * max(1, free.size))))
    refused: list[str] = []
    for batch in _batches(leaves(cell, tree), at_once):
        inputs = Interval(np.stack([piece.lo for _, piece in batch]), np.stack([piece.hi for _, piece in batch]))
        lower = bounded(model, inputs, free).outputs(rows.functionals).lower
        closed = np.asarray((rows.best(rows.shifted(lower)) > 0).all(axis=1))
        refused += [f"leaf {batch[k][0]}: it may fail there" for k in np.flatnonzero(~closed)]
    return refused


def rules_of(cell: Cell) -> tuple[FloatArray, FloatArray] | None:
    """Return (G, h), (r, p) and (r,): G u <= h wherever a cell's rules hold in it, rounded outward; None without."""
    if not cell.rules:
        return None
    made = [rule.row(cell.hull) for rule in cell.rules]
    return np.stack([row for row, _ in made]), np.array([limit for _, limit in made])


def beside_rules(query: Query, count: int) -> Query:
    """Return a query with so many rules among the rows of each alternative: they hold at a counterexample, too.

    The rules are the last outputs, G u - h, of a model made by `implicit.front.with_input_rows`.
    """
    q = query.alternatives[0].rows.shape[1]
    beside = np.hstack([np.zeros((count, q)), np.eye(count)])
    alternatives = tuple(
        Conjunction(
            np.vstack([np.hstack([one.rows, np.zeros((len(one.rows), count))]), beside]),
            np.concatenate([one.offsets, np.zeros(count)]),
        )
        for one in query.alternatives
    )
    return Query(query.box, alternatives)


def _batches(every: Iterator[tuple[int, Piece]], size: int) -> Iterator[list[tuple[int, Piece]]]:
    batch: list[tuple[int, Piece]] = []
    for one in every:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
