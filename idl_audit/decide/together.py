"""The rung that refutes alternatives by all of their rows at once: trees of linear programs, weights leaf by leaf.

Where no row, and no sum of rows with the same weights everywhere, is positive over the whole set, each leaf of a tree
may have weights of its own (docs/mathematics.md, section 8.8). The points of the programs are tried: where all rows can
hold, one of them is a counterexample.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np

from idl_audit.decide.case import Case
from idl_audit.decide.proofs import SMALL_PROGRAM
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.lp_chain import LpChain, widened
from idl_audit.proof.sums import weighable
from idl_audit.search.lp_tree.tree import LpTree
from idl_audit.search.relaxation import program_bytes
from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.query import Query

CLOSE: Final = 1e-5
"""Distances below this share of max|y| are shown to the judge: the original network may see them otherwise."""
FIRST_NODES: Final = 16
"""After so many, and twice as many each time, it is looked at what a tree has come to."""


def several_rows(model: ImplicitModel, query: Query) -> bool:
    """Return whether an alternative has several rows that can be weighed."""
    return any(map(weighable, query.alternatives))


def small_program(model: ImplicitModel) -> bool:
    """Return whether the linear program of a model is small."""
    return program_bytes(model) <= SMALL_PROGRAM


def rows_together(case: Case, budget: Budget, *, patience: float | None = None) -> None:
    """Grow a tree for each open alternative of several rows, or go on where an earlier rung has begun.

    Args:
        case: the query and what is known of it.
        budget: what it may cost.
        patience: a tree is left that would take so many times the time that is left, by the share of it that its nodes
            so far have proved; None: none is left.
    """
    if not case.may_be_proved(budget):
        return
    bounds = widened(case.bounds(budget))
    asked = case.proved.alternatives  # less is asked later, as bounds of roundings get sharper: what is proved stays so
    left = [int(k) for k in case.hardest if weighable(asked[k]) and np.isfinite(asked[k].offsets).all()]
    for turn, number in enumerate(left):
        if number not in case.together:
            own = asked[number]
            case.together[number] = LpTree(case.proved_model, case.inputs, bounds, budget, together=own)
        tree, part = case.together[number], budget.part(1 / (len(left) - turn))
        if _grow(case, tree, part, patience) > 0:
            case.raise_lowers([number], [tree.grown.lower])
            if case.recorded is not None:
                case.recorded.lp = case.recorded.lp or LpChain(dict(bounds.z))
                case.recorded.lp.trees[number] = tree.grown.leaves
        if case.judge.has_won or budget.is_spent:
            return


def _grow(case: Case, tree: LpTree, budget: Budget, patience: float | None) -> float:
    """Return the proved lower bound over the set; -inf where leaves are open."""
    judge, began, nodes, before = case.judge.within(budget), budget.clock(), FIRST_NODES, tree.nodes

    def candidate(points: FloatArray) -> bool:
        y = case.model(points, check=budget.check)
        near = case.query.distance(y) <= CLOSE * np.abs(y).max(axis=1)
        return bool(near.any()) and judge.propose(points[near])

    while True:
        grown = tree.grow_together(candidate, most_nodes=None if patience is None else nodes, budget=budget)
        if grown.found or grown.lower > 0 or tree.is_stuck or budget.is_spent or patience is None:
            return grown.lower
        if budget.counts_nodes:
            left, spent = float(budget.affordable(sys.maxsize)), float(grown.nodes)
        else:
            left, spent = budget.left, grown.nodes * (budget.clock() - began) / max(grown.nodes - before, 1)
        if nodes > FIRST_NODES and patience * left * tree.share < (1 - tree.share) * spent:
            return -np.inf
        nodes *= 2
