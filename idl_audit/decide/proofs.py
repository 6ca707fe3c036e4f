"""Proofs of what was decided: from what the searches recorded, completed where that is not enough, and checked.

`proof_of` returns what `verify` accepts, or nothing: every proof that it returns has passed the one checker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Chain
from idl_audit.proof.check import check, examined, proved_stages
from idl_audit.proof.convert import goals_of_lp, of_chain, of_splits
from idl_audit.proof.float_check import check_computed, slack_over
from idl_audit.proof.float_margins import SPARE, Arithmetic, FloatMargins, Slack, Unbounded, lowered
from idl_audit.proof.float_parts import FloatParts
from idl_audit.proof.forest import Choices, Forest
from idl_audit.proof.lp_chain import LpChain, LpLeaves, widened
from idl_audit.proof.proof import REST, Goals, Proof, Refused, trivial
from idl_audit.proof.rows import groups, weights_of, with_sums
from idl_audit.proof.sensitivity_witness import loop_witnesses
from idl_audit.proof.split_tree import SplitTree
from idl_audit.proof.sums import weighable
from idl_audit.search import branching
from idl_audit.search.judge import Judge
from idl_audit.search.linprog import Outcome
from idl_audit.search.lp_tree.tree import LpTree
from idl_audit.search.relaxation import TriangleRelaxation
from idl_audit.search.splitting.boxes import moving_inputs, split_inputs
from idl_audit.search.splitting.growth import grown
from idl_audit.values.arrays import BoolArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, MemoryLimitError, SolverError
from idl_audit.values.network import Network
from idl_audit.values.query import Conjunction, Query

FEW_INPUTS: Final = 20
"""Up to so many inputs that can move, splitting their box pays."""
GROWTH: Final = 0.2
"""Of the time, for the growth of a recorded tree of boxes."""
LOOSE: Final = 16.0
"""A proof for floating-point arithmetic leaves roundings so many times more room than they are known to need, where its
margins allow it: whoever checks it may have coarser bounds of them."""


@dataclass(eq=False)
class Recorded:
    """What the searches chose for a proof: any of it may be missing, or more than is needed.

    Alternatives have the numbers that they have in the query.
    """

    splits: SplitTree | None = None
    """Of the input box, for the alternatives that nothing else refuted."""
    chain: Chain | None = None
    lp: LpChain | None = None
    slack: Slack | None = None
    """In floating-point arithmetic: what the offsets of the query were lowered by."""


def proof_of(
    model: ImplicitModel,
    network: Network,
    query: Query,
    recorded: Recorded | None,
    *,
    budget: Budget,
    arithmetic: Arithmetic = None,
) -> Proof | None:
    """Return a proof that a query has no counterexample, checked; None where what the budget allows proves nothing.

    What was recorded comes first; what is open then is proved again by the multipliers 0 (intervals), by splitting a
    box of few inputs, by branching, or by linear programs.

    Args:
        model: the model, in the query's units.
        network: the original network, which searches ask about their points.
        query: the set and the alternatives.
        recorded: what the searches left.
        budget: what it may cost beyond the check of what was recorded.
        arithmetic: what the proof is to be about; None stands for real arithmetic.
    """
    if isinstance(arithmetic, Unbounded):
        return None
    recorded = recorded or Recorded()
    try:
        if arithmetic is None:
            return _Making(model, network, plain(query), budget).proof(recorded)
        return _computed(model, network, query, recorded, budget, arithmetic)
    except (BudgetError, MemoryLimitError, SolverError):
        return None


def _computed(
    model: ImplicitModel,
    network: Network,
    query: Query,
    recorded: Recorded,
    budget: Budget,
    arithmetic: FloatMargins,
) -> Proof | None:
    """Return a proof for floating-point arithmetic: of the query with lower offsets, and what they are lowered by."""
    query = replace(query, inputs=plain(query).inputs, alternatives=plain(query).alternatives)
    slack = recorded.slack
    if slack is None or not all(np.isfinite(own).all() for own in slack):
        slack = tuple(own * SPARE for own in slack_over(model, query, trivial(len(query.alternatives)), arithmetic))
    parts, loose = FloatParts(arithmetic, query), tuple(own * LOOSE for own in slack)
    first = _Making(model, network, lowered(query, loose), budget, parts).of_recorded(recorded)
    if not check_computed(model, query, replace(first, slack=loose), arithmetic):
        return replace(first, slack=loose)
    found = _Making(model, network, lowered(query, slack), budget, parts).proof(recorded)
    if found is None:
        return None
    found = replace(found, slack=slack)
    return None if check_computed(model, query, found, arithmetic) else found


def plain(query: Query) -> Query:
    """Return the query as a file holds it: a box of numbers, offsets rounded downward."""
    if query.sparse is not None:
        return query
    alternatives = tuple(Conjunction(c.rows, c.offsets, (), c.strict) for c in query.alternatives)
    return Query(Box.between(query.box.lo, query.box.hi), alternatives)


@dataclass
class _Making:
    """One query, and what it may cost to prove it."""

    model: ImplicitModel
    network: Network
    query: Query
    budget: Budget
    parts: FloatParts | None = None
    """For floating-point arithmetic, whose query has lower offsets: what these need be over parts of the box."""

    def proof(self, recorded: Recorded) -> Proof | None:
        """Return the first proof that holds; None where none does."""
        first = self.of_recorded(recorded)
        refused, is_open = examined(self.model, self.query, first, self.parts)
        if not refused:
            return first
        for attempt in (self._with_intervals, self._by_splits, self._by_branching, self._by_programs):
            if self.budget.is_spent:
                return None
            found = attempt(first, is_open, recorded)
            if found is not None and not check(self.model, self.query, found, self.parts):
                return found
        return None

    def of_recorded(self, recorded: Recorded) -> Proof:
        """Return what was recorded as a proof; alternatives that it does not speak of are left to the usual lines."""
        if recorded.chain is not None and self.model.is_feed_forward:
            proof = of_chain(self.model, self.query, recorded.chain)
        else:
            proof = replace(trivial(len(self.query.alternatives)), loops=loop_witnesses(self.model))
        if recorded.lp is not None and not proof.kept:
            proof = proof.with_goals(goals_of_lp(self.model, self.query, recorded.lp))
        if recorded.splits is not None:
            rest = [goals for goals in proof.goals if not (goals.alternatives == REST).any()]
            (split,) = of_splits(recorded.splits).goals
            proof = replace(proof, goals=(*rest, replace(split, stage=len(proof.stages) - 1)))
        return proof

    def _with_intervals(self, first: Proof, is_open: BoolArray, recorded: Recorded) -> Proof | None:
        """Prove by the intervals of the states what intervals proved: multipliers 0, for each row."""
        last = len(first.stages) - 1
        try:
            there, _ = proved_stages(self._there, self._inputs, first)
        except Refused:
            return None
        zeros = {
            k: Choices(np.arange(1), np.zeros((1, block.size), np.float32)) for k, block in enumerate(there.blocks)
        }
        one = Forest.of_leaves(1)
        forest = Forest(one.roots, one.variable, one.cut, one.child, {}, {}, zeros)
        extra = []
        for number in np.flatnonzero(is_open):
            alternative = self.query.alternatives[number]
            for members in groups(alternative):
                goals = Goals(last, np.asarray([number]), weights_of(alternative, members)[None], forest)
                part = replace(first, goals=(goals,))
                if not examined(self.model, self.query, part)[1][number]:
                    extra.append(goals)
                    break
        return first.with_goals(tuple(extra)) if extra else None

    def _by_splits(self, first: Proof, is_open: BoolArray, recorded: Recorded) -> Proof | None:
        """Split the box of few moving inputs, further than what was recorded."""
        if self.query.sparse is not None or not 0 < moving_inputs(self.query.box).size <= FEW_INPUTS:
            return None
        tree = recorded.splits and self._grown(recorded.splits, GROWTH)
        if tree is None:  # bounds over one box do not refute a part of it that bounds over the whole did
            tree, judge = SplitTree(), Judge.of(self.model, self.network, self._asked)
            done = split_inputs(
                self.model,
                self._asked,
                budget=self.budget,
                judge=judge,
                record=tree,
                cut_slabs=False,
                margins=self._margins,
            )
            tree = None if done.found else self._grown(tree, 1.0)
        return None if tree is None else replace(of_splits(tree), loops=first.loops)

    def _grown(self, tree: SplitTree, share: float) -> SplitTree | None:
        with suppress(BudgetError):
            return grown(self.model, self._asked, tree, self.budget.part(share), self._margins)
        return None

    @property
    def _asked(self) -> Query:
        """The query as it is asked, for what bounds roundings over each part."""
        return self.query if self.parts is None else self.parts.query

    @property
    def _margins(self) -> FloatMargins | None:
        return None if self.parts is None else self.parts.margins

    def _by_branching(self, first: Proof, is_open: BoolArray, recorded: Recorded) -> Proof | None:
        """Branch on hidden states, for all alternatives anew."""
        if self.query.sparse is not None or not branching.applies(self.model):
            return None
        chain, summed = Chain(), with_sums_of_rows(self.query)
        judge = Judge.of(self.model, self.network, summed)
        branching.branch(self.model, summed, budget=self.budget, judge=judge, record=chain)
        return of_chain(self.model, self.query, chain)

    def _by_programs(self, first: Proof, is_open: BoolArray, recorded: Recorded) -> Proof | None:
        """Prove by linear programs what is open: trees of them for loops, the relaxation of the whole set elsewhere."""
        base = replace(first, stages=first.stages[:1], kept={}, goals=tuple(g for g in first.goals if g.stage == 0))
        base = base if not first.kept else replace(trivial(len(self.query.alternatives)), loops=first.loops)
        is_open = examined(self.model, self.query, base)[1]
        there, stages = proved_stages(self._there, self._inputs, replace(base, goals=()))
        grow = self._leaves_of_trees if self.model.loops else self._leaves_of_one
        chain = LpChain(dict(stages[0].z))
        for number, row, leaves in grow(there, stages[0], np.flatnonzero(is_open)):
            chain.trees[number] = replace(leaves, row=row)
        return base.with_goals(goals_of_lp(self.model, self.query, chain))

    def _leaves_of_trees(
        self, there: ImplicitModel, bounds: StateBounds, numbers: Sequence[int] | IntArray
    ) -> Iterator[tuple[int, int, LpLeaves]]:
        tree = LpTree(there, self._inputs, widened(bounds), self.budget)
        for number in numbers:
            asked = with_sums(self.query.alternatives[number])
            for row in range(len(asked.rows)):
                grown_ = tree.grow(asked.rows[row], lambda u: False, offset=float(asked.offsets[row]))
                if grown_.lower > 0:
                    yield int(number), row, grown_.leaves
                    break
            else:
                yield from self._leaves_together(there, bounds, int(number))

    def _leaves_of_one(
        self, there: ImplicitModel, bounds: StateBounds, numbers: Sequence[int] | IntArray
    ) -> Iterator[tuple[int, int, LpLeaves]]:
        relaxation = TriangleRelaxation(there, self._inputs, bounds, sparse=self.query.sparse, budget=self.budget)
        for number in numbers:
            asked = with_sums(self.query.alternatives[number])
            for row in range(len(asked.rows)):
                answer = relaxation.minimise(asked.rows[row], budget=self.budget)
                if answer.outcome is Outcome.OPTIMAL and answer.lower + asked.offsets[row] > 0:
                    assert answer.multipliers is not None
                    phases = np.zeros((1, there.n_states), np.int8)
                    yield int(number), row, LpLeaves(phases, answer.multipliers[None].astype(np.float32))
                    break
            else:
                yield from self._leaves_together(there, bounds, int(number))

    def _leaves_together(
        self, there: ImplicitModel, bounds: StateBounds, number: int
    ) -> Iterator[tuple[int, int, LpLeaves]]:
        """Yield the leaves of a tree of all rows of an alternative together, where that has an end."""
        alternative = self.query.alternatives[number]
        if weighable(alternative) and self.query.sparse is None:
            tree = LpTree(there, self._inputs, widened(bounds), self.budget, together=alternative)
            grown_ = tree.grow_together(lambda u: False)
            if grown_.lower > 0:
                yield number, 0, grown_.leaves

    @property
    def _there(self) -> ImplicitModel:
        return without_self_feedback(self.model)

    @property
    def _inputs(self) -> Interval:
        return Interval.of_set(self.query.inputs)


def with_sums_of_rows(query: Query) -> Query:
    """Return the query with sums of rows added to each alternative: it has the same counterexamples."""
    alternatives = tuple(with_sums(alternative) for alternative in query.alternatives)
    return replace(query, alternatives=alternatives)
