"""Branching on hidden states: is there a point of a box with one of a query's alternatives?

Branch and bound (BaB, alpha-beta-CROWN) over the phases of states (docs/mathematics.md, section 8).

Elsewhere: neuron splitting.
"""

from __future__ import annotations

from idl_audit.implicit.activations import Mixed
from idl_audit.implicit.activations.paired import Paired
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import StateBounds
from idl_audit.proof.chain import Chain
from idl_audit.search.branching.search import BranchOutcome, Search
from idl_audit.search.branching.tree import Watch
from idl_audit.search.judge import Judge
from idl_audit.values.budget import Budget
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.query import Query

__all__ = ["BranchOutcome", "Chain", "Watch", "applies", "branch"]

MOST_STATES = 60_000
"""Models with more states would spend their time at the root."""


def applies(model: ImplicitModel) -> bool:
    """Return whether a model can be searched by branching: feed-forward, not too large, groups in their own blocks.

    Pairs of states are for proofs alone: searches go through the two networks apart.
    """
    known = model.is_feed_forward and model.n_states <= MOST_STATES and not _mixes_groups(model)
    return known and not any(isinstance(block.activation, Paired) for block in model.blocks)


def _mixes_groups(model: ImplicitModel) -> bool:
    """Return whether a block has coupled states beside others."""
    return any(isinstance(block.activation, Mixed) and block.activation.coupled for block in model.blocks)


def branch(
    model: ImplicitModel,
    query: Query,
    *,
    budget: Budget,
    judge: Judge,
    record: Chain | None = None,
    watch: Watch | None = None,
    known: StateBounds | None = None,
) -> BranchOutcome:
    """Refute every alternative of a query, or find a counterexample, until the budget is spent.

    Bounds of the states with optimised slopes; optimised bounds of the alternatives' rows; a tree for each alternative
    that is still open. All refutations are the certificate's.

    Args:
        model: the implicit model in data units.
        query: the box and the alternatives.
        budget: what it may cost; a leaf is a node.
        judge: asks the original network, which has the last word on counterexamples.
        record: takes the choices that a proof is made of (`proof.convert`).
        watch: told the share of the current tree that is proved.
        known: backward bounds of all states over the box, where they have been made: it begins with the rows alone.

    Raises:
        UnsupportedModelError: where the model has loops, or a block with coupled states beside others.
    """
    if not model.is_feed_forward:
        raise UnsupportedModelError(("branching is for feed-forward models",))
    if _mixes_groups(model):
        raise UnsupportedModelError(("branching needs coupled activations in blocks of their own",))
    return Search(model, query, budget=budget, judge=judge, record=record, watch=watch, known=known).run()
