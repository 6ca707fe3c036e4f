"""Proofs of what was decided: from what the searches recorded, completed where that is not enough, and checked.

`proof_of` returns what `verify` accepts, or nothing: every proof that it returns has passed the one checker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Chain
from idl_audit.proof.check import examined, hold_by_lines, proved_stages
from idl_audit.proof.convert import goals_of_lp, of_chain, of_splits
from idl_audit.proof.exact.point import ExactNetwork
from idl_audit.proof.exact.refutation import ExactQuery, Refutation
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
from idl_audit.search.relaxation import TriangleRelaxation, program_bytes
from idl_audit.search.splitting.boxes import moving_inputs, split_inputs
from idl_audit.search.splitting.growth import grown
from idl_audit.values.arrays import BoolArray, IntArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, MemoryLimitError, SolverError
from idl_audit.values.network import Network
from idl_audit.values.query import Query, plain

FEW_INPUTS: Final = 20
"""Up to so many inputs that can move, splitting their box pays."""
GROWTH: Final = 0.2
"""Of the time, for the growth of a recorded tree of boxes."""
TOGETHER: Final = 0.25
"""Of the time, for all rows of an alternative together, before a box is split."""
MANY_LEAVES: Final = 512
"""A proof with more of them is worth a look for a smaller one."""
FEWER: Final = 8
"""So many times smaller it must be."""
SMALL_PROGRAM: Final = 2**28
"""Bytes of a linear program that is quick enough to begin with."""
LOOSE: Final = 16.0
"""A proof for floating-point arithmetic leaves roundings so many times more room than they are known to need, where its
margins allow it: whoever checks it may have coarser bounds of them."""


Grow: TypeAlias = Callable[[ImplicitModel, StateBounds, IntArray], Iterator[tuple[int, int, LpLeaves]]]
"""(model, bounds of its states, alternatives) -> number, row and leaves of trees that refute them."""


@dataclass(eq=False)
class Recorded:
    """What the searches chose for a proof: any of it may be missing, or more than is needed.

    Alternatives have the numbers that they have in the query.
    """

    splits: SplitTree | None = None
    """Of the input box, for the alternatives that nothing else refuted."""
    chain: Chain | None = None
    lp: LpChain | None = None
    exact: dict[int, Refutation] = field(default_factory=dict)
    """By the numbers of the alternatives."""
    slack: Slack | None = None
    """In floating-point arithmetic: what the offsets of the query were lowered by."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded."""
        return self.splits is None and self.chain is None and self.lp is None and not self.exact


def proof_of(
    model: ImplicitModel,
    network: Network,
    query: Query,
    recorded: Recorded | None,
    *,
    budget: Budget,
    arithmetic: Arithmetic = None,
    exact: ExactNetwork | None = None,
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
        exact: the network in exact arithmetic, for what was refuted in rational numbers.
    """
    if isinstance(arithmetic, Unbounded):
        return None
    recorded = recorded or Recorded()
    try:
        if arithmetic is None:
            own = None if exact is None else ExactQuery(query, exact)
            return _Making(model, network, plain(query), budget, exact=own).proof(recorded)
        return _computed(model, network, query, recorded, budget, arithmetic)
    except (BudgetError, MemoryLimitError, SolverError):
        return None


def by_lines_alone(model: ImplicitModel, queries: Sequence[Query], recorded: Sequence[Recorded | None]) -> list[bool]:
    """Return which queries the proof by backward linear bounds alone is enough for, that `proof_of` begins with.

    In real arithmetic; they are looked at together, and those for which more was recorded are left to `proof_of`.
    """
    plain_ones = [one is None or one.is_empty for one in recorded]
    holds = hold_by_lines(model, [plain(query) for query in queries])
    return [bool(a and b) for a, b in zip(plain_ones, holds, strict=True)]


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


@dataclass
class _Making:
    """One query, and what it may cost to prove it."""

    model: ImplicitModel
    network: Network
    query: Query
    budget: Budget
    parts: FloatParts | None = None
    """For floating-point arithmetic, whose query has lower offsets: what these need be over parts of the box."""
    exact: ExactQuery | None = None
    """What refutations in rational numbers are about."""

    def proof(self, recorded: Recorded) -> Proof | None:
        """Return the first proof that holds; None where none does."""
        first = self.of_recorded(recorded)
        refused, is_open = self._examined(first)
        if not refused:
            return self._smaller(first)
        attempts = (self._with_intervals, self._together, self._by_splits, self._by_branching, self._by_programs)
        for attempt in attempts:
            if self.budget.is_spent:
                return None
            found = attempt(first, is_open, recorded)
            if found is not None and not self._examined(found)[0]:
                return found
        return None

    def _examined(self, proof: Proof) -> tuple[list[str], BoolArray]:
        return examined(self.model, self.query, proof, self.parts, self.exact)

    def _smaller(self, first: Proof) -> Proof:
        """Return a proof by all rows together, where one is found soon and has far fewer leaves than the first one."""
        if first.n_leaves <= MANY_LEAVES:
            return first
        with suppress(BudgetError, MemoryLimitError, SolverError):
            budget = self.budget.part(TOGETHER).at_most_nodes(first.n_leaves // FEWER)
            base = replace(trivial(len(self.query.alternatives)), loops=first.loops, exact=first.exact)
            is_open = self._examined(replace(base, goals=()))[1]
            found = replace(self, budget=budget)._together(base, is_open, Recorded())
            if found is not None and found.n_leaves * FEWER <= first.n_leaves and not self._examined(found)[0]:
                return found
        return first

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
        return replace(proof, exact=tuple(recorded.exact.values()))

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
                if not self._examined(part)[1][number]:
                    extra.append(goals)
                    break
        return first.with_goals(tuple(extra)) if extra else None

    def _by_splits(self, first: Proof, is_open: BoolArray, recorded: Recorded) -> Proof | None:
        """Split the box of few moving inputs, further than what was recorded."""
        if not self.query.is_box or not 0 < moving_inputs(self.query.box).size <= FEW_INPUTS:
            return None
        if first.exact:  # small, and what is left of it is branched
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
        numbers = [k for k in range(len(self.query.alternatives)) if k not in recorded.exact]
        asked = replace(self.query, alternatives=tuple(self.query.alternatives[k] for k in numbers))
        chain, summed = Chain(), with_sums_of_rows(asked)
        judge = Judge.of(self.model, self.network, summed)
        branching.branch(self.model, summed, budget=self.budget, judge=judge, record=chain)
        chain = replace(chain, trees={numbers[k]: leaves for k, leaves in chain.trees.items()})
        return replace(of_chain(self.model, self.query, chain), exact=first.exact)

    def _by_programs(self, first: Proof, is_open: BoolArray, recorded: Recorded) -> Proof | None:
        """Prove by linear programs what is open: trees of them for loops, the relaxation of the whole set elsewhere."""
        grow = self._leaves_of_trees if self.model.loops else self._leaves_of_one
        return self._with_programs(first, grow)

    def _together(self, first: Proof, is_open: BoolArray, recorded: Recorded) -> Proof | None:
        """Prove what is open by all rows of an alternative together, where several rows and a small program allow it.

        A tree of linear programs may have a few leaves where one of boxes has thousands.
        """
        weighed = all(weighable(self.query.alternatives[number]) for number in np.flatnonzero(is_open))
        if not weighed or not self.query.is_box or program_bytes(self.model) > SMALL_PROGRAM:
            return None

        def grow(there: ImplicitModel, bounds: StateBounds, numbers: IntArray) -> Iterator[tuple[int, int, LpLeaves]]:
            for number in numbers:
                yield from self._leaves_together(there, bounds, int(number))

        proved = tuple(goals for goals in first.goals if not is_open[goals.alternatives].any())
        proved = tuple(goals for goals in proved if not (goals.alternatives == REST).any())
        (rest,) = trivial(len(self.query.alternatives)).goals
        with suppress(BudgetError):
            part = replace(self, budget=self.budget.part(TOGETHER))
            return part._with_programs(replace(first, goals=(*proved, rest)), grow)
        return None

    def _with_programs(self, first: Proof, grow: Grow) -> Proof:
        """Return a proof with trees of linear programs for what is open, from the bounds of the first stage."""
        base = replace(first, stages=first.stages[:1], kept={}, goals=tuple(g for g in first.goals if g.stage == 0))
        if first.kept:
            base = replace(trivial(len(self.query.alternatives)), loops=first.loops, exact=first.exact)
        is_open = self._examined(base)[1]
        there, stages = proved_stages(self._there, self._inputs, replace(base, goals=()))
        chain = LpChain(dict(stages[0].z))
        for number, row, leaves in grow(there, stages[0], np.flatnonzero(is_open)):
            chain.trees[number] = replace(leaves, row=row)
        return base.with_goals(goals_of_lp(self.model, self.query, chain))

    def _leaves_of_trees(
        self, there: ImplicitModel, bounds: StateBounds, numbers: IntArray
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
        self, there: ImplicitModel, bounds: StateBounds, numbers: IntArray
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
        if weighable(alternative) and self.query.is_box:
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
