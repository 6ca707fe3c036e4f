"""Trees of boxes: a proof by input splitting (BaB on inputs), recorded by the search and proved again without it.

A node is a box. It has two children that share the number `cut` of one input, so that together they are the node; a
leaf is refuted by bounds over its own box: every alternative of the query has a row, or a sum of rows, with a proved
positive lower bound there or over a box that holds it. The tree holds no bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import BoxBounds, bounded
from idl_audit.proof.rows import Rows
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.query import Query

BOXES_AT_ONCE = 64
NO_INPUT = -1


@dataclass(eq=False)
class SplitTree:
    """The nodes of a tree of boxes, the first the root: one entry a node in each list."""

    inputs: list[int] = field(default_factory=lambda: [NO_INPUT])
    """The input that is split; -1 for a leaf."""
    cuts: list[float] = field(default_factory=lambda: [0.0])
    """Where: the one child has u_j <= cut, the other u_j >= cut."""
    children: list[int] = field(default_factory=lambda: [0])
    """Number of the first child; the second is the next one."""

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return sum(j == NO_INPUT for j in self.inputs)

    def split(self, node: int, j: int, cut: float) -> int:
        """Split a leaf and return its first child, that with u_j <= cut; the second has the next number."""
        first = len(self.inputs)
        self.inputs[node], self.cuts[node], self.children[node] = j, cut, first
        self.inputs += [NO_INPUT, NO_INPUT]
        self.cuts += [0.0, 0.0]
        self.children += [0, 0]
        return first

    def cut_down(self, node: int, whole: Interval, rest: Interval) -> int:
        """Cut slabs off a leaf, shape (1, p), until `rest` is left; return the leaf that is the rest."""
        for j in np.flatnonzero(rest.lo[0] > whole.lo[0]):
            node = self.split(node, int(j), float(rest.lo[0, j])) + 1
        for j in np.flatnonzero(rest.hi[0] < whole.hi[0]):
            node = self.split(node, int(j), float(rest.hi[0, j]))
        return node

    def is_tree(self, n_inputs: int) -> bool:
        """Return whether the lists are those of one tree over so many inputs: every node but the root has a parent."""
        n = len(self.inputs)
        if not n or len(self.cuts) != n or len(self.children) != n or not np.isfinite(self.cuts).all():
            return False
        inputs, children = np.asarray(self.inputs), np.asarray(self.children)
        inner = np.flatnonzero(inputs != NO_INPUT)
        first = children[inner]
        if not ((inputs[inner] >= 0) & (inputs[inner] < n_inputs) & (first > inner) & (first < n - 1)).all():
            return False
        parents = np.bincount(np.concatenate([[0], first, first + 1]), minlength=n)  # the root is nobody's child
        return bool((parents == 1).all())


class Growth(Protocol):
    """How far a search may grow a tree: a budget."""

    @property
    def is_spent(self) -> bool:
        """Whether nothing new is to be begun."""

    def check(self) -> None:
        """Raise BudgetError where the time is over."""


@dataclass(frozen=True, eq=False)
class _Box:
    node: int
    lo: FloatArray
    hi: FloatArray
    alternatives: BoolArray
    """Those that are not refuted over a larger box."""
    states: tuple[FloatArray, ...] | None = None
    """Bounds of the pre-activations over the parent, lower and upper of each block."""


def check_splits(model: ImplicitModel, query: Query, tree: SplitTree, *, grow: Growth | None = None) -> str:
    """Return why a tree does not prove that no point of the box satisfies an alternative; empty where it does.

    Args:
        model: the model.
        query: the box and the alternatives.
        tree: the proof.
        grow: split leaves that are not refuted until this is spent; None leaves the tree as it is, and takes what
            time it takes.

    Raises:
        BudgetError: where the time is over between the blocks of a pass.
    """
    if not tree.is_tree(model.n_inputs):
        return "its splits are no tree"
    rows = Rows.of(query)
    box = query.box
    widths = np.where(box.hi > box.lo, box.hi - box.lo, np.inf)
    waiting = [_Box(0, box.lo, box.hi, np.ones(len(rows.members), np.bool_))]
    while waiting:
        if grow is not None and grow.is_spent:
            return "the time is up"
        batch, waiting = waiting[-BOXES_AT_ONCE:], waiting[:-BOXES_AT_ONCE]
        with np.errstate(over="ignore", invalid="ignore"):  # after an overflow nothing is refuted
            found, is_open, best = _bounds(model, rows, batch, unchecked if grow is None else grow.check)
        for i in np.flatnonzero(is_open.any(axis=1)):
            one = batch[i]
            if tree.inputs[one.node] == NO_INPUT:
                if grow is None:
                    return f"a leaf has the lower bound {float(best[i][is_open[i]].min()):.3g}"
                j = int(np.argmax((one.hi - one.lo) / widths))
                middle = float(one.lo[j] / 2 + one.hi[j] / 2)
                if not one.lo[j] < middle < one.hi[j]:
                    return "a leaf is too small to be split"
                tree.split(one.node, j, middle)
            j, cut, first = tree.inputs[one.node], tree.cuts[one.node], tree.children[one.node]
            if not one.lo[j] <= cut <= one.hi[j]:
                return "a split lies outside its box"
            states = tuple(
                end[i] for k in range(len(model.blocks)) for end in (found.states.z[k].lo, found.states.z[k].hi)
            )
            low_hi, high_lo = one.hi.copy(), one.lo.copy()
            low_hi[j] = high_lo[j] = cut
            waiting.append(_Box(first, one.lo, low_hi, is_open[i], states))
            waiting.append(_Box(first + 1, high_lo, one.hi, is_open[i], states))
    return ""


def _bounds(
    model: ImplicitModel, rows: Rows, batch: list[_Box], check: Check
) -> tuple[BoxBounds, BoolArray, FloatArray]:
    """Return the bounds over some boxes, which alternatives stay open, and the best bound of each."""
    inputs = Interval(np.stack([one.lo for one in batch]), np.stack([one.hi for one in batch]))
    states = [one.states for one in batch if one.states is not None]
    known = None
    if len(states) == len(batch):
        ends = [np.stack([state[e] for state in states]) for e in range(2 * len(model.blocks))]
        known = {k: Interval(ends[2 * k], ends[2 * k + 1]) for k in range(len(model.blocks))}
    found = bounded(model, inputs, np.zeros(0, np.int64), known, check=check)
    best = rows.best(rows.shifted(found.outputs(rows.functionals).lower))
    return found, np.stack([one.alternatives for one in batch]) & ~(best > 0), best
