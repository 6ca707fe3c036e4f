"""Branching on hidden states: is there a point of a box with one of a query's alternatives? (mathematics 8)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.analysis.branching.ascent import ascend
from idl_audit.analysis.branching.chain import Chain, Leaves, check_chain, repeated, rows_of, with_phases
from idl_audit.analysis.branching.hidden import tree_bounds
from idl_audit.analysis.branching.network import SearchNet, state_tensors
from idl_audit.analysis.branching.proof import prove_leaves
from idl_audit.analysis.branching.restriction import living_states, restricted, restricted_bounds
from idl_audit.analysis.branching.root import root_bounds
from idl_audit.analysis.branching.tree import MOST_LEAVES, Tree, Watch
from idl_audit.analysis.query import Conjunction, Query
from idl_audit.arrays import Float32Array, FloatArray
from idl_audit.errors import UnsupportedModelError
from idl_audit.implicit.model import ImplicitModel

__all__ = ["BranchOutcome", "Chain", "Watch", "applies", "branch", "check_chain"]

Network = Callable[[Float32Array], FloatArray]

OUTPUT_STEPS = 40
STAGES = ((0, 0.2), (16, 0.3), (96, 1.0))
"""Leaves that a hidden state's tree may have, and the share of the time left that the outputs' trees then get."""
HIDDEN_SHARE = 0.5
"""Of the time left, for the trees of hidden states."""
LARGEST_GAP = -1.0
"""Below this lower bound the states' bounds come first."""
FEW_LEAVES = 32
"""That a tree without hope may have: its corners may be counterexamples."""
MOST_STATES = 60_000
"""Models with more states would spend their time at the root."""


@dataclass(frozen=True)
class BranchOutcome:
    """What branching came to."""

    proved: bool
    """Whether no point of the box satisfies any alternative."""
    point: Float32Array | None
    """A counterexample, by the original network's word."""
    leaves: int
    """Leaves that were closed by a proof."""
    open: int
    """Leaves, or alternatives, that are still open."""
    lowers: tuple[float, ...]
    """For each alternative, the largest proved lower bound of one of its rows (with its offset)."""


def applies(model: ImplicitModel) -> bool:
    """Return whether a model can be searched by branching: feed-forward, and not too large."""
    return model.is_feed_forward and model.n_states <= MOST_STATES


def branch(
    model: ImplicitModel,
    query: Query,
    *,
    deadline: float,
    network: Network,
    record: Chain | None = None,
    watch: Watch | None = None,
) -> BranchOutcome:
    """Refute every alternative of a query, or find a counterexample, until the deadline.

    Bounds of the states with optimised slopes; optimised bounds of the alternatives' rows; a tree for each alternative
    that is still open. All refutations are the certificate's.

    Args:
        model: the implicit model in data units.
        query: the box and the alternatives.
        deadline: on the clock of `time.monotonic`.
        network: the original network in data units, which has the last word on counterexamples.
        record: takes the choices that `check_chain` evaluates again.
        watch: told the share of the current tree that is proved.

    Raises:
        UnsupportedModelError: where the model has loops.
    """
    if not model.is_feed_forward:
        raise UnsupportedModelError(("branching is for feed-forward models",))
    found: list[Float32Array] = []

    def candidate(points: FloatArray) -> bool:
        inside = query.box.project(points)
        inside = inside[query.box.contains(inside)]
        if not len(inside):
            return False
        promising = query.distance(model(inside.astype(np.float64)))
        best = inside[np.argsort(promising)[:4]]
        hits = np.flatnonzero(query.holds(network(best)))
        found.extend(best[hits[:1]])
        return bool(hits.size)

    net = SearchNet(model, query.box)
    inputs = Interval.of_boxes(query.box)
    chain = Chain() if record is None else record
    halfway = time.monotonic() + 0.5 * (deadline - time.monotonic())
    bounds = root_bounds(net, inputs, deadline=halfway, record=None if record is None else chain.steps)
    chain.kept = living_states(model, bounds)
    if chain.kept:
        net = SearchNet(restricted(model, chain.kept), query.box)
        bounds = restricted_bounds(bounds, chain.kept)
    lowers = [np.full(len(alternative.rows), -np.inf) for alternative in query.alternatives]
    left = list(range(len(lowers)))
    forest: dict[int, Tree] = {}
    closed = 0
    pays = True
    for most, share in STAGES:
        if most and pays:
            until = time.monotonic() + HIDDEN_SHARE * (deadline - time.monotonic())
            tighter, trees = tree_bounds(net, inputs, bounds, most, deadline=until)
            if trees:
                bounds, forest = tighter, {}
                chain.rounds.append(trees)
            pays = bool(trees)
        if not forest:
            found_rows = _row_bounds(net, inputs, bounds, [query.alternatives[number] for number in left])
            for number, (proved, leaf) in zip(left, found_rows, strict=True):
                lowers[number] = np.fmax(lowers[number], proved)
                if proved.max() > 0:
                    leaf.after = len(chain.rounds)
                    chain.trees[number] = leaf
                    closed += 1
            left = [number for number in left if not lowers[number].max() > 0]
        last = most == STAGES[-1][0]
        hopeless = not last and min((lowers[number].max() for number in left), default=0.0) < LARGEST_GAP
        until = time.monotonic() + share * (deadline - time.monotonic())
        for number in sorted(left, key=lambda n: float(lowers[n].max())):  # the hardest may have the counterexample
            if time.monotonic() > until:
                break
            alternative = query.alternatives[number]
            row = int(lowers[number].argmax())
            if number not in forest:
                kept = None if record is None else Leaves(row, after=len(chain.rounds))
                forest[number] = Tree(
                    net, inputs, bounds, alternative.rows[row], float(alternative.offsets[row]), candidate, kept, watch
                )
            outcome = forest[number].grow(deadline=until, most_open=FEW_LEAVES if hopeless else MOST_LEAVES)
            if found:
                return BranchOutcome(False, found[0], closed + outcome.leaves, outcome.open, tuple(_best(lowers)))
            if outcome.proved:
                closed += outcome.leaves
                lowers[number] = np.array([outcome.lower])
                kept = forest.pop(number).record
                if kept is not None:
                    chain.trees[number] = kept
            elif not last:
                break  # tighter bounds of the states serve all alternatives
        left = [number for number in left if not lowers[number].max() > 0]
        if not left or time.monotonic() > deadline:
            break
    waiting = sum(tree.open for tree in forest.values())
    return BranchOutcome(not left, None, closed, max(waiting, len(left)), tuple(_best(lowers)))


def _best(lowers: list[FloatArray]) -> Iterator[float]:
    return (float(rows.max()) for rows in lowers)


def _row_bounds(
    net: SearchNet, inputs: Interval, bounds: StateBounds, alternatives: Sequence[Conjunction]
) -> list[tuple[FloatArray, Leaves]]:
    """Return for each alternative the proved lower bounds of its rows, offsets added, and the best row's only leaf."""
    import torch

    if not alternatives:
        return []
    rows = np.concatenate([alternative.rows for alternative in alternatives])
    offsets = np.concatenate([alternative.offsets for alternative in alternatives])
    tensors = state_tensors(bounds)
    lines = {k: net.lines(k, *tensors[k]) for k in tensors}
    seeds, enough = (torch.from_numpy(values.astype(np.float32)) for values in (rows, 1e-4 - offsets))
    found = ascend(net, net.output, 0, seeds, lines, steps=OUTPUT_STEPS, enough=enough)
    m = len(rows)
    slopes = {k: value.numpy() for k, value in found.slopes.items()}
    proved = prove_leaves(net.model, repeated(inputs, m), with_phases(net.model, bounds, {}, m), rows, slopes, {})
    lower = np.nextafter(proved + offsets, -np.inf)
    result = []
    start = 0
    for alternative in alternatives:
        own = lower[start : start + len(alternative.rows)]
        best = np.array([start + int(own.argmax())])
        result.append((own, Leaves(int(best[0]) - start, [{}], [rows_of(slopes, best)], [{}], [1])))
        start += len(alternative.rows)
    return result
