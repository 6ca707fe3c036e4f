"""Trees of boxes: a proof by input splitting (BaB on inputs), as the search records it.

A node is a box. It has two children that share the number `cut` of one input, so that together they are the node; a
leaf is refuted by bounds over its own box: every alternative of the query has a row, or a sum of rows, with a proved
positive lower bound there or over a box that holds it, or rows with weights of the leaf's own. The tree holds no bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from idl_audit.proof.bounds import Interval
from idl_audit.proof.forest import Forest
from idl_audit.values.arrays import Float32Array

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
    weights: dict[int, Float32Array] = field(default_factory=dict)
    """Leaf -> weights of the rows of all alternatives in order, (r,), where no row or sum of rows alone refutes one."""

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return sum(j == NO_INPUT for j in self.inputs)

    @property
    def forest(self) -> Forest:
        """The tree, without weights."""
        return Forest(np.zeros(1, np.int64), np.asarray(self.inputs), np.asarray(self.cuts), np.asarray(self.children))

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
