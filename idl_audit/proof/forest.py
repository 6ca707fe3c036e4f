"""Forests: binary trees that split an input at a number, or a state's pre-activation at a number.

A forest has one tree for each of its goals. Its nodes are numbered so that children have greater numbers than their
parent, the two children of a node numbers that follow each other: the first has value <= cut, the second value >= cut,
so that together they are their parent. Leaves are counted in the order of their numbers, and what a search chose for
them (slopes, split multipliers, shares of planes) is kept block by block, for the leaves that have such choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from idl_audit.values.arrays import BoolArray, ByteArray, Float32Array, FloatArray, IntArray

LEAF = -1
"""In place of the number of a split variable."""


@dataclass(frozen=True, eq=False)
class Choices:
    """Numbers of one kind for the states of one block, one row for each leaf that has them."""

    leaves: IntArray
    """(t,), ascending."""
    values: Float32Array
    """(t, n_k)."""

    def of_leaves(self, leaves: IntArray, otherwise: float) -> FloatArray:
        """Return the rows of some leaves, (m, n_k), float64; `otherwise` where a leaf has none."""
        place = np.searchsorted(self.leaves, leaves)
        found = place < self.leaves.size
        found[found] = self.leaves[place[found]] == leaves[found]
        rows = np.full((leaves.size, self.values.shape[1]), otherwise)
        rows[found] = self.values[place[found]]
        return rows


@dataclass(frozen=True, eq=False)
class Shares:
    """Planes of some states of one block, one row of shares for each leaf that has them."""

    states: IntArray
    """(s,), ascending."""
    leaves: IntArray
    """(t,), ascending."""
    values: ByteArray
    """(t, s, inputs read): in 255ths."""


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees, one a goal, and the choices of their leaves."""

    roots: IntArray
    """(g,): the node of each goal."""
    variable: IntArray
    """(N,): j < p for input j, p + i for state i in the flat order, -1 for a leaf."""
    cut: FloatArray
    """(N,): where a node is split; 0 for a leaf."""
    child: IntArray
    """(N,): the first child of a node, the second is the next one; 0 for a leaf."""
    slopes: Mapping[int, Choices] = field(default_factory=dict)
    """Block -> slopes, lower ones of kinked states; the usual ones elsewhere."""
    multipliers: Mapping[int, Choices] = field(default_factory=dict)
    """Block -> what is taken from lam; 0 elsewhere."""
    duals: Mapping[int, Choices] = field(default_factory=dict)
    """Block -> lam itself, in place of slopes and multipliers."""
    planes: Mapping[int, Shares] = field(default_factory=dict)
    """Block -> planes over the box in place of chords."""

    @classmethod
    def of_leaves(cls, count: int) -> Forest:
        """Return so many goals, each proved without splits or choices."""
        numbers = np.arange(count)
        return cls(numbers, np.full(count, LEAF), np.zeros(count), np.zeros(count, np.int64))

    @property
    def n_goals(self) -> int:
        """How many trees there are."""
        return int(self.roots.size)

    @cached_property
    def is_leaf(self) -> BoolArray:
        """Which nodes are leaves, (N,)."""
        return np.asarray(self.variable == LEAF)

    @cached_property
    def n_leaves(self) -> int:
        """How many nodes are leaves."""
        return int(self.is_leaf.sum())

    @cached_property
    def has_choices(self) -> bool:
        """Whether any leaf has choices."""
        return bool(self.slopes or self.multipliers or self.duals or self.planes)

    def chosen(self, leaves: IntArray) -> tuple[dict[int, FloatArray], dict[int, FloatArray], dict[int, FloatArray]]:
        """Return slopes, multipliers and duals of some leaves, block -> (m, n_k); NaN or 0 where there are none."""
        kinds = ((self.slopes, np.nan), (self.multipliers, 0.0), (self.duals, np.nan))
        found = [{k: own.of_leaves(leaves, otherwise) for k, own in kind.items()} for kind, otherwise in kinds]
        return found[0], found[1], found[2]

    def fault(self, n_inputs: int, n_states: int) -> str:
        """Return why the nodes are not one tree a goal over so many inputs and states; empty where they are."""
        n = self.variable.size
        if not (self.cut.shape == self.child.shape == self.variable.shape == (n,)) or not np.isfinite(self.cut).all():
            return "its nodes are not whole"
        if not ((self.variable >= LEAF) & (self.variable < n_inputs + n_states)).all():
            return "it splits an input or a state that the model does not have"
        inner = np.flatnonzero(~self.is_leaf)
        if self.child[self.is_leaf].any() or self.cut[self.is_leaf].any():
            return "its leaves are split"
        if not ((self.child[inner] > inner) & (self.child[inner] < n - 1)).all():
            return "its nodes are no trees"
        children = self.child[inner]
        if not np.array_equal(np.sort(np.concatenate([self.roots, children, children + 1])), np.arange(n)):
            return "its nodes are no trees"
        return ""

    @cached_property
    def parents(self) -> tuple[IntArray, BoolArray]:
        """The parent of each node (-1 for a root), and whether it is the second child (value >= cut)."""
        parent, second = np.full(self.variable.size, -1), np.zeros(self.variable.size, np.bool_)
        inner = np.flatnonzero(~self.is_leaf)
        parent[self.child[inner]] = parent[self.child[inner] + 1] = inner
        second[self.child[inner] + 1] = True
        return parent, second

    @cached_property
    def goal_of(self) -> IntArray:
        """The goal that each node belongs to, (N,)."""
        goal = np.full(self.variable.size, -1)
        goal[self.roots] = np.arange(self.n_goals)
        here = self.roots
        while here.size:
            inner = here[~self.is_leaf[here]]
            goal[self.child[inner]] = goal[self.child[inner] + 1] = goal[inner]
            here = np.concatenate([self.child[inner], self.child[inner] + 1])
        return goal

    def splits_inputs(self, n_inputs: int) -> BoolArray:
        """Return for each node whether an input is split at it or below it, (N,)."""
        below = (self.variable >= 0) & (self.variable < n_inputs)
        parent, _ = self.parents
        here = np.flatnonzero(below)
        while here.size:
            above = parent[here]
            here = np.unique(above[above >= 0])
            here = here[~below[here]]
            below[here] = True
        return np.asarray(below)

    def steps(self, n_inputs: int) -> int:
        """Return how many splits of states are above leaves, below the last split of an input, all leaves together."""
        inputs, total, here = self.splits_inputs(n_inputs), 0, self.roots
        depths = np.zeros(here.size, np.int64)
        while here.size:
            leaf = self.is_leaf[here]
            total += int(depths[leaf].sum())
            inner, depth_of = here[~leaf], depths[~leaf]
            first, below = self.child[inner], np.where(inputs[inner], 0, depth_of + 1)
            here, depths = np.concatenate([first, first + 1]), np.concatenate([below, below])
        return total

    def leaves_below(self, node: int) -> IntArray:
        """Return the nodes of the leaves at or below a node, ascending."""
        found, here = [], np.asarray([node])
        while here.size:
            leaf = self.is_leaf[here]
            found.append(here[leaf])
            first = self.child[here[~leaf]]
            here = np.concatenate([first, first + 1])
        return np.sort(np.concatenate(found))

    @cached_property
    def leaf_number(self) -> IntArray:
        """The count of each leaf among all leaves, (N,); of no meaning for other nodes."""
        return np.cumsum(self.is_leaf) - 1

    def steps_up(self, nodes: IntArray, top: int | None = None) -> Iterator[tuple[IntArray, IntArray, BoolArray]]:
        """Yield what the splits above some nodes say, level by level: (which of the nodes, parent, second child).

        Args:
            nodes: where to start, (m,).
            top: the node above which nothing is told; None for the roots.
        """
        parent, second = self.parents
        who, here = np.arange(nodes.size), nodes
        while who.size:
            going = (parent[here] >= 0) if top is None else (here != top)
            who, here = who[going], here[going]
            if who.size:
                yield who, parent[here], second[here]
                here = parent[here]
