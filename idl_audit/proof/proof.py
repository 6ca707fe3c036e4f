"""Proofs: what a search chose, in the order in which it must be evaluated again to prove the same.

A proof holds no bound, only choices, and is about one query: no input of its box makes one of its alternatives hold.

    loops    for each loop, why it has one state for every input.
    stages   lemmas, bounds of hidden states, block after block, the oldest first. Each stage starts from intervals and
             backward linear bounds, intersected with what the stage before it has proved.
    kept     the states that the first stage does not prove dead: all that follows speaks of these alone.
    goals    sums of rows, weights >= 0, each positive over the whole box by a tree that relies on one stage; leaves may
             have weights of their own, where only the rows together have no solution.
    exact    refutations in rational numbers, of what holds with equality somewhere.

Every tree is checked leaf by leaf with the one inequality (`dual_bound`), whatever found it: slopes and multipliers of
a search, duals of a linear program, splits of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from idl_audit.proof.exact.refutation import Refutation
from idl_audit.proof.forest import Forest
from idl_audit.proof.sensitivity_witness import ProofWitness
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray

REST = -1
"""In place of the number of an alternative: all those that no other goal refutes."""


class Refused(Exception):
    """A proof does not hold, and why."""


@dataclass(frozen=True, eq=False)
class Lemma:
    """Lower bounds of signs * z for some states of one block, each by a tree over older states."""

    block: int
    states: IntArray
    """(g,); one may occur several times."""
    signs: IntArray
    """(g,): 1 or -1."""
    forest: Forest


@dataclass(frozen=True, eq=False)
class LeafWeights:
    """Weights of rows that some leaves have in place of their goal's."""

    leaves: IntArray
    """(t,), ascending."""
    values: Float32Array
    """(t, r) >= 0: of the rows of the goal's alternative; of the rows of all alternatives in order, for `REST`."""

    def of_leaves(self, leaves: IntArray) -> tuple[BoolArray, FloatArray]:
        """Return which of some leaves have weights of their own, (m,), and those, (m, r), zeros elsewhere."""
        place = np.searchsorted(self.leaves, leaves)
        found = place < self.leaves.size
        found[found] = self.leaves[place[found]] == leaves[found]
        weights = np.zeros((leaves.size, self.values.shape[1]))
        weights[found] = self.values[place[found]]
        return found, weights


@dataclass(frozen=True, eq=False)
class Goals:
    """Alternatives, or all that are left, and the trees that refute them."""

    stage: int
    """The stage whose bounds the trees start from."""
    alternatives: IntArray
    """(g,): `REST` stands for all that no other goal refutes, by any of their rows or exact sums of rows."""
    weights: FloatArray
    """(g, r) >= 0: sum_i weights_i (rows_i y + offsets_i) is proved positive; zeros for `REST`."""
    forest: Forest
    own: LeafWeights | None = None
    """Weights of single leaves: at every point one of the leaves' sums is positive, so that not all rows are <= 0."""


@dataclass(frozen=True, eq=False)
class Proof:
    """Everything that the proof of a query needs beside the model and the query."""

    stages: tuple[tuple[Lemma, ...], ...] = ((),)
    """At least one."""
    goals: tuple[Goals, ...] = ()
    kept: Mapping[int, IntArray] = field(default_factory=dict)
    """Block -> the states that stay after the first stage, ascending; blocks that are not named stay whole."""
    loops: Mapping[int, ProofWitness] = field(default_factory=dict)
    """Block -> the proof that its loop is well-posed."""
    slack: tuple[FloatArray, ...] = ()
    """Of a proof for floating-point arithmetic: for each alternative what roundings may change in its rows, (rows,)."""
    exact: tuple[Refutation, ...] = ()
    """Of real arithmetic: alternatives that are refuted in rational numbers."""

    def with_goals(self, goals: tuple[Goals, ...]) -> Proof:
        """Return the proof with more goals."""
        return replace(self, goals=(*goals, *self.goals))

    @property
    def has_planes(self) -> bool:
        """Whether a leaf chooses planes of states that read the inputs."""
        lemmas = [lemma.forest for stage in self.stages for lemma in stage]
        return any(forest.planes for forest in (*lemmas, *(goals.forest for goals in self.goals)))

    @property
    def n_leaves(self) -> int:
        """Leaves of all goals' trees."""
        goals = sum(goals.forest.n_leaves for goals in self.goals)
        return goals + sum(refutation.forest.n_leaves for refutation in self.exact)


def trivial(alternatives: int) -> Proof:
    """Return the proof by backward linear bounds alone."""
    if not alternatives:
        return Proof()
    return Proof(goals=(Goals(0, np.full(1, REST), np.zeros((1, 1)), Forest.of_leaves(1)),))
