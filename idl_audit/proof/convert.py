"""Proofs from what searches record: chains of trees over phases, trees of linear programs, trees of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Chain, Leaves, StateStep, StateTrees, cut_points, retightened
from idl_audit.proof.check import proved_lemma, proved_stage
from idl_audit.proof.cover import LeafPhases, Phases
from idl_audit.proof.forest import LEAF, Choices, Forest, Shares
from idl_audit.proof.lp_chain import LpChain, LpLeaves
from idl_audit.proof.planes import Planes
from idl_audit.proof.proof import REST, Goals, LeafWeights, Lemma, Proof, trivial
from idl_audit.proof.restriction import restricted, restricted_bounds
from idl_audit.proof.rows import groups, weights_of
from idl_audit.proof.split_tree import SplitTree
from idl_audit.proof.zonotopes import zonotopes_over
from idl_audit.values.arrays import ByteArray, Float32Array, FloatArray, IntArray
from idl_audit.values.query import Conjunction, Query


@dataclass(eq=False)
class Grower:
    """A forest while it is made."""

    roots: list[int] = field(default_factory=list)
    variable: list[int] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)
    child: list[int] = field(default_factory=list)

    def plant(self) -> int:
        """Add a tree of one leaf; return it."""
        self.roots.append(len(self.variable))
        return self._leaf()

    def split(self, node: int, variable: int, cut: float) -> int:
        """Split a leaf; return its first child, that with value <= cut; the second has the next number."""
        self.variable[node], self.cut[node], self.child[node] = variable, cut, len(self.variable)
        first = self._leaf()
        self._leaf()
        return first

    def _leaf(self) -> int:
        self.variable.append(LEAF)
        self.cut.append(0.0)
        self.child.append(0)
        return len(self.variable) - 1

    @property
    def forest(self) -> Forest:
        """The forest, without choices."""
        return Forest(
            np.asarray(self.roots, np.int64),
            np.asarray(self.variable, np.int64),
            np.asarray(self.cut, np.float64),
            np.asarray(self.child, np.int64),
        )

    def by_phases(self, phases: Phases, cuts: FloatArray, offset: int) -> IntArray:
        """Plant a tree whose leaves have some phases; return the node of each, -1 where the leaf is needless.

        Args:
            phases: (m, n): 1 above the cut, -1 below it, 0 for both, of leaves that cover everything.
            cuts: where the two phases of each state meet, (n,).
            offset: the number of the first state among variables.

        Raises:
            ValueError: where the leaves do not cover everything.
        """
        found = LeafPhases.of([(0, 0, phases)], len(phases))
        needed = None if found is None else found.covering(np.arange(len(phases)))
        if needed is None:
            raise ValueError("its leaves do not cover the box")
        node_of = np.full(len(phases), -1)
        waiting = [(self.plant(), needed, np.flatnonzero((phases[needed] != 0).any(axis=0)))]
        while waiting:
            node, rows, left = waiting.pop()
            here = phases[np.ix_(rows, left)]
            bare = np.flatnonzero(~here.any(axis=1))
            if bare.size:
                node_of[rows[bare[0]]] = node
                continue
            split = np.flatnonzero((here != 0).all(axis=0))
            state, rest = left[split[0]], np.delete(left, split[0])
            first = self.split(node, offset + int(state), float(cuts[state]))
            above = here[:, split[0]] > 0
            waiting += [(first, rows[~above], rest), (first + 1, rows[above], rest)]
        return node_of


# --- chains ----------------------------------------------------------------------------------------------------------


def of_chain(model: ImplicitModel, query: Query, chain: Chain) -> Proof:
    """Return the proof that a chain is, for a feed-forward model; alternatives without leaves are left to the lines.

    Raises:
        ValueError: where leaves do not cover the box.
    """
    inputs = Interval.of_boxes(query.box)
    first = tuple(_of_step(step) for step in chain.steps)
    smaller = restricted(model, chain.kept)
    smooth = any(not isinstance(block.activation, Kinked) for block in smaller.blocks)
    known = [restricted_bounds(proved_stage(model, inputs, None, first), chain.kept)] if smooth else []
    stages = [first]
    for trees in chain.rounds:
        lemmas, bounds = _of_round(smaller, inputs, known[-1] if smooth else None, trees)
        stages.append(lemmas)
        known += [bounds] if smooth else []
    bare = {a: leaves for a, leaves in chain.trees.items() if _is_bare(leaves)}
    goals = [
        _of_bare(query, {a: leaves for a, leaves in bare.items() if leaves.after == stage}, stage)
        for stage in sorted({leaves.after for leaves in bare.values()})
    ]
    goals += [
        _of_leaves(smaller, query.alternatives[a], a, leaves, known[leaves.after] if smooth else None)
        for a, leaves in chain.trees.items()
        if a not in bare
    ]
    if len(chain.trees) < len(query.alternatives):
        goals.append(Goals(len(chain.rounds), np.full(1, REST), np.zeros((1, 1)), Forest.of_leaves(1)))
    return Proof(tuple(stages), tuple(goals), dict(chain.kept))


def _of_step(step: StateStep) -> Lemma:
    count = step.states.size
    plain = Forest.of_leaves(count)
    slopes = {k: Choices(np.arange(count), values) for k, values in step.slopes.items()}
    forest = Forest(plain.roots, plain.variable, plain.cut, plain.child, slopes)
    return Lemma(step.block, step.states, np.full(count, int(step.sign)), forest)


def _of_round(
    model: ImplicitModel, inputs: Interval, known: StateBounds | None, trees: Sequence[StateTrees]
) -> tuple[tuple[Lemma, ...], StateBounds]:
    """Return the lemmas of one round and, where cuts depend on it, what they prove."""
    lemmas, bounds, zonotopes = [], StateBounds(), zonotopes_over(model, inputs)
    for k in model.evaluation_order:
        if known is not None:
            bounds = retightened(model, k, bounds, known, inputs, zonotopes=zonotopes)
        for own in (one for one in trees if one.block == k):
            lemmas.append(_of_trees(model, own, None if known is None else bounds))
            if known is not None:
                z = proved_lemma(model, inputs, bounds, lemmas[-1])
                bounds = bounds.with_block(k, model.blocks[k], z, bounds.x[k])
    return tuple(lemmas), bounds


def _of_trees(model: ImplicitModel, trees: StateTrees, bounds: StateBounds | None) -> Lemma:
    phases, cuts = _flat_phases(model, trees.phases, trees.owner.size), _cuts(model, bounds)
    grower, node = Grower(), np.full(trees.owner.size, -1)
    for goal in range(trees.states.size):
        rows = np.flatnonzero(trees.owner == goal)
        node[rows] = grower.by_phases(phases[rows], cuts, model.n_inputs)
    batch = trees.slopes, trees.multipliers, trees.planes
    forest = _with_choices(grower.forest, node, [(*batch, trees.owner.size)])
    return Lemma(trees.block, trees.states, trees.signs.astype(np.int64), forest)


def _is_bare(leaves: Leaves) -> bool:
    """Return whether the usual lines alone prove a row, without splits or choices."""
    return (
        leaves.sizes == [1]
        and not leaves.weights
        and not (leaves.phases[0] or leaves.slopes[0] or leaves.multipliers[0] or leaves.planes[0])
    )


def _of_bare(query: Query, trees: Mapping[int, Leaves], stage: int) -> Goals:
    numbers = np.asarray(list(trees), np.int64)
    weights = np.zeros((numbers.size, max(len(query.alternatives[a].rows) for a in trees)))
    for i, (a, leaves) in enumerate(trees.items()):
        alternative = query.alternatives[a]
        own = weights_of(alternative, groups(alternative)[leaves.row])
        weights[i, : own.size] = own
    return Goals(stage, numbers, weights, Forest.of_leaves(numbers.size))


def _of_leaves(
    model: ImplicitModel, alternative: Conjunction, number: int, leaves: Leaves, bounds: StateBounds | None
) -> Goals:
    phases = [_flat_phases(model, own, m) for own, m in zip(leaves.phases, leaves.sizes, strict=True)]
    grower = Grower()
    node = grower.by_phases(np.concatenate(phases), _cuts(model, bounds), model.n_inputs)
    batches = list(zip(leaves.slopes, leaves.multipliers, leaves.planes, leaves.sizes, strict=True))
    forest = _with_choices(grower.forest, node, batches)
    if leaves.weights:
        own, count = np.concatenate(leaves.weights), len(alternative.rows)
        if own.shape[1] != count:  # of rows and sums of rows
            members = np.stack([weights_of(alternative, group) for group in groups(alternative)])
            own = (own @ members).astype(np.float32)
        rows = np.flatnonzero(node >= 0)
        numbers = forest.leaf_number[node[rows]]
        order = np.argsort(numbers)
        weighed = LeafWeights(numbers[order], own[rows[order]])
        return Goals(leaves.after, np.asarray([number]), np.zeros((1, count)), forest, weighed)
    weights = weights_of(alternative, groups(alternative)[leaves.row])[None]
    return Goals(leaves.after, np.asarray([number]), weights, forest)


def _flat_phases(model: ImplicitModel, phases: Mapping[int, Phases], m: int) -> Phases:
    whole = np.zeros((m, model.n_states), np.int8)
    for k, own in phases.items():
        whole[:, model.offsets[k] : model.offsets[k + 1]] = own
    return whole


def _cuts(model: ImplicitModel, bounds: StateBounds | None) -> FloatArray:
    cuts = np.zeros(model.n_states)
    for k in () if bounds is None else bounds.z:
        cuts[model.offsets[k] : model.offsets[k + 1]] = cut_points(model.blocks[k], bounds.z[k])  # type: ignore[union-attr]
    return cuts


Values = TypeVar("Values", Float32Array, ByteArray)

_Batch = tuple[Mapping[int, Float32Array], Mapping[int, Float32Array], Mapping[int, Planes], int]
"""Slopes, multipliers and planes of so many leaves."""


def _with_choices(forest: Forest, node: IntArray, batches: Sequence[_Batch]) -> Forest:
    """Return the forest with the choices of recorded leaves, in batches; node[i] is that of leaf i, -1 for none."""
    starts = np.cumsum([0, *(size for *_, size in batches)])
    kinds: list[dict[int, Choices]] = []
    for chosen in ([batch[0] for batch in batches], [batch[1] for batch in batches]):
        blocks = sorted({k for values in chosen for k in values})
        parts = {k: [(b, values[k]) for b, values in enumerate(chosen) if k in values] for k in blocks}
        kinds.append({k: Choices(*_in_order(forest, node, starts, own)) for k, own in parts.items()})
    planes = {}
    for k in sorted({k for batch in batches for k in batch[2]}):
        own = [(b, batch[2][k]) for b, batch in enumerate(batches) if k in batch[2]]
        states = own[0][1].states
        if any(not np.array_equal(one.states, states) for _, one in own):
            raise ValueError("planes of one tree are for the same states")
        leaves, shares = _in_order(forest, node, starts, [(b, one.shares) for b, one in own])
        planes[k] = Shares(states, leaves, shares)
    return Forest(forest.roots, forest.variable, forest.cut, forest.child, kinds[0], kinds[1], {}, planes)


def _in_order(
    forest: Forest, node: IntArray, starts: IntArray, parts: Sequence[tuple[int, Values]]
) -> tuple[IntArray, Values]:
    """Return the numbers of the leaves that have choices, ascending, and the choices."""
    rows = np.concatenate([np.arange(starts[b], starts[b + 1]) for b, _ in parts])
    values = np.concatenate([own for _, own in parts])
    used = node[rows] >= 0
    leaves = forest.leaf_number[node[rows[used]]]
    order = np.argsort(leaves)
    return leaves[order], cast(Values, np.ascontiguousarray(values[used][order]))


# --- trees of linear programs, trees of boxes ------------------------------------------------------------------------


def of_lp_chain(model: ImplicitModel, query: Query, chain: LpChain) -> Proof:
    """Return the proof that a chain of LP trees is; alternatives without a tree are left to the lines.

    Raises:
        ValueError: where leaves do not cover everything.
    """
    goals = goals_of_lp(model, query, chain)
    return replace(trivial(len(query.alternatives)), loops=dict(chain.proofs)).with_goals(goals)


def goals_of_lp(model: ImplicitModel, query: Query, chain: LpChain) -> tuple[Goals, ...]:
    """Return the goals that trees of linear programs prove, by their duals. Raises ValueError as `of_chain`."""
    there, bounds = without_self_feedback(model), StateBounds(dict(chain.z))
    return tuple(
        _of_lp_leaves(there, query.alternatives[number], number, leaves, bounds)
        for number, leaves in chain.trees.items()
    )


def _of_lp_leaves(
    model: ImplicitModel, alternative: Conjunction, number: int, leaves: LpLeaves, bounds: StateBounds
) -> Goals:
    grower = Grower()
    node = grower.by_phases(leaves.phases, _cuts(model, bounds), model.n_inputs)
    plain = grower.forest
    numbers = plain.leaf_number[node[node >= 0]]
    order, rows = np.argsort(numbers), np.flatnonzero(node >= 0)
    duals = {
        k: Choices(numbers[order], leaves.multipliers[rows[order], model.offsets[k] : model.offsets[k + 1]])
        for k in range(len(model.blocks))
    }
    forest = Forest(plain.roots, plain.variable, plain.cut, plain.child, {}, {}, duals)
    if leaves.weights is not None:
        own = LeafWeights(numbers[order], leaves.weights[rows[order]])
        return Goals(0, np.asarray([number]), np.zeros((1, len(alternative.rows))), forest, own)
    return Goals(0, np.asarray([number]), weights_of(alternative, groups(alternative)[leaves.row])[None], forest)


def of_splits(tree: SplitTree) -> Proof:
    """Return the proof that a tree of boxes is: every alternative refuted in every leaf, by the lines."""
    variable = np.asarray(tree.inputs, np.int64)
    forest = Forest(
        np.zeros(1, np.int64), variable, np.asarray(tree.cuts, np.float64), np.asarray(tree.children, np.int64)
    )
    own = None
    if tree.weights:
        nodes = np.asarray(sorted(tree.weights), np.int64)
        own = LeafWeights(forest.leaf_number[nodes], np.stack([tree.weights[node] for node in nodes.tolist()]))
    return Proof(goals=(Goals(0, np.full(1, REST), np.zeros((1, 1)), forest, own),))
