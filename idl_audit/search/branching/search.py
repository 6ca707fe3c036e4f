"""The course of a search: bounds of states, rows, trees, then tighter bounds of states and the trees again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Chain, Leaves, StateTrees, rows_of, with_phases
from idl_audit.proof.leaves import prove_leaves
from idl_audit.proof.linear_bounds import rows_at_once
from idl_audit.proof.restriction import living_states, restricted, restricted_bounds
from idl_audit.proof.sums import weighable
from idl_audit.proof.wanted import to_tighten
from idl_audit.search.branching.ascent import ascend
from idl_audit.search.branching.hidden import tree_bounds
from idl_audit.search.branching.network import SearchNet, state_tensors
from idl_audit.search.branching.root import root_bounds
from idl_audit.search.branching.tree import MOST_LEAVES, Tree, Watch
from idl_audit.search.device import arrays, tensor
from idl_audit.search.judge import Found, Judge, inside_of
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.check import Check
from idl_audit.values.errors import BudgetError
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.rounding import down

OUTPUT_STEPS = 40
STAGES = ((0, 0.2), (1, 0.2), (16, 0.3), (96, 1.0))
"""Leaves that a hidden state's tree may have, and the share of the time left that the outputs' trees then get.

A round of one leaf is for planes, where there are some.
"""
HIDDEN_SHARE = 0.5
"""Of the time left, for the trees of hidden states."""
LARGEST_GAP = -1.0
"""Below this lower bound the states' bounds come first."""
NEAR = 0.15
"""Of the way from a row's bound to its value at the centre: where less is missing, few leaves may do."""
FIRST_LEAVES = 32
"""Of trees on the bounds of the states that are known."""
COSTLY_ROOT = 2**27
"""Rows of states times states: about a hundred times that many operations for each step of their ascent."""
SOON = 2048
"""Nodes up to which a tree whose worst leaves get better goes on before the states get tighter bounds."""
FIRST_NODES = 128
"""After so many, and twice as many each time, it is looked at what a tree has come to."""
BETTER = 0.75
"""Times the worst bound before: where the worst leaf is still below that, more leaves help little."""
FEW_LEAVES = 32
"""That a tree without hope may have: its corners may be counterexamples."""


@dataclass(frozen=True)
class BranchOutcome:
    """What branching came to."""

    proved: bool
    """Whether no point of the box satisfies any alternative."""
    found: Found | None
    """A counterexample, by the original network's word."""
    leaves: int
    """Leaves that were closed by a proof."""
    open: int
    """Leaves, or alternatives, that are still open."""
    lowers: tuple[float, ...]
    """For each alternative, the largest proved lower bound of one of its rows (with its offset)."""

    @property
    def point(self) -> Float32Array | None:
        """The counterexample's point, shape (p,)."""
        return None if self.found is None else self.found.point


class Search:
    """Refutes the alternatives of one query, or finds a counterexample."""

    def __init__(
        self,
        model: ImplicitModel,
        query: Query,
        *,
        budget: Budget,
        judge: Judge,
        record: Chain | None,
        watch: Watch | None,
        known: StateBounds | None = None,
    ) -> None:
        """Take the question; only `record` keeps what is chosen; `known` are plain backward bounds of all states."""
        self._known = known
        self._model, self._query, self._budget = model, query, budget
        self._judge, self._record, self._watch = judge.within(budget), record, watch
        self._rounds = 0
        """Rounds of trees of hidden states so far."""
        self._inputs = Interval.of_set(query.inputs)
        self._lowers = [np.full(len(alternative.rows), -np.inf) for alternative in query.alternatives]
        self._forest: dict[int, Tree] = {}
        """Alternative -> the tree that is being grown, on the bounds as they are."""
        self._closed = 0

    @property
    def _left(self) -> list[int]:
        """The alternatives that are not refuted, the hardest first: it may have the counterexample."""
        worst = {number: float(rows.max(initial=-np.inf)) for number, rows in enumerate(self._lowers)}
        return sorted((number for number, lower in worst.items() if not lower > 0), key=lambda number: worst[number])

    def run(self) -> BranchOutcome:
        """Go through the stages until all alternatives are refuted, one holds, or the budget is spent."""
        with suppress(BudgetError):
            self._net = SearchNet(self._model, self._query.inputs, self._budget)
            self._begin()
            if self._left:
                self._plant()
                self._go_on()
        left = self._left
        waiting = max(len(left), sum(tree.open for tree in self._forest.values()))
        lowers = tuple(float(rows.max(initial=-np.inf)) for rows in self._lowers)
        found = self._judge.found
        return BranchOutcome(not left and found is None, found, self._closed, waiting, lowers)

    def _begin(self) -> None:
        """Raise slopes of the rows alone over the bounds of the states that are known, and grow small trees on them.

        Where bounds of the states with optimised slopes cost much, trees get half of the time.
        """
        if self._known is None:
            return
        self._bounds = self._known
        self._bound_rows()
        if self._left and self._is_near():
            rows = sum(int(to_tighten(self._model, k, self._known).sum()) for k in self._known.z)
            is_costly = rows * self._model.n_states > COSTLY_ROOT
            self._grow(self._budget.part(0.5) if is_costly else self._budget.at_most_nodes(FIRST_LEAVES), last=False)
        self._forest = {}
        if self._left and self._record is not None:  # the bounds of the states belong to all alternatives of a proof
            self._lowers = [np.full_like(lower, -np.inf) for lower in self._lowers]
            self._record.trees.clear()
            self._closed = 0

    def _is_near(self) -> bool:
        """Return whether little is missing in every alternative, beside what lies between its bound and a value."""
        y = self._model(self._query.box.centre[None])[0]
        for number in self._left:
            alternative, lowers = self._query.alternatives[number], self._lowers[number]
            row = int(lowers.argmax())
            with np.errstate(invalid="ignore", over="ignore"):
                missing = -lowers[row] / (float(alternative.rows[row] @ y + alternative.offsets[row]) - lowers[row])
            if not missing < NEAR:  # NaN, where nothing is known
                return False
        return True

    def _plant(self) -> None:
        """Bound the states, and leave out those that are dead over the box."""
        model, record = self._model, self._record
        steps = None if record is None else record.steps
        self._bounds = root_bounds(self._net, self._inputs, budget=self._budget, share=0.5, record=steps)
        kept = living_states(model, self._bounds)
        if record is not None:
            record.kept = kept
        if kept:
            self._net = SearchNet(restricted(model, kept), self._query.inputs, self._budget)
            self._bounds = restricted_bounds(self._bounds, kept)

    def _go_on(self) -> None:
        pays = True
        for most, share in STAGES:
            if most and pays:
                pays = self._tighten(most) or most == 1
            if not self._forest:
                self._bound_rows()
            is_last = most == STAGES[-1][0]
            self._grow(self._budget.part(share), last=is_last)
            if not is_last:
                self._grow_while_better()
            if self._judge.has_won or not self._left or self._budget.is_spent:
                break

    def _grow_while_better(self) -> None:
        """Let trees go on, twice as far each time, as long as their worst leaves get better."""
        nodes = FIRST_NODES
        while self._forest and nodes <= SOON and not (self._judge.has_won or self._budget.is_spent):
            before = {number: tree.worst for number, tree in self._forest.items()}
            self._grow(self._budget.part(0.5).at_most_nodes(nodes), last=False, most_open=MOST_LEAVES)
            if any(tree.worst <= BETTER * before.get(number, -np.inf) for number, tree in self._forest.items()):
                return
            nodes *= 2

    def _tighten(self, most: int) -> bool:
        """Bound the states by trees of their own; return whether that changed anything."""
        trees: list[StateTrees] | None = None if self._record is None else []
        tighter, grew = tree_bounds(
            self._net, self._inputs, self._bounds, most, budget=self._budget, share=HIDDEN_SHARE, record=trees
        )
        if not grew:
            return False
        self._bounds, self._forest = tighter, {}
        self._rounds += 1
        if self._record is not None and trees is not None:
            self._record.rounds.append(trees)
        return True

    def _bound_rows(self) -> None:
        """Bound the rows of what is left, without a split."""
        for group in _groups(self._query, self._left, rows_at_once(self._model)):
            alternatives = [self._query.alternatives[number] for number in group]
            bounds = _row_bounds(self._net, self._inputs, self._bounds, alternatives, self._budget.check)
            self._note_rows(group, bounds)

    def _note_rows(self, numbers: list[int], bounds: list[tuple[FloatArray, Leaves]]) -> None:
        """Keep what was proved of the rows of some alternatives."""
        for number, (proved, leaf) in zip(numbers, bounds, strict=True):
            self._lowers[number] = np.fmax(self._lowers[number], proved)
            if proved.max() > 0:
                self._closed += 1
                if self._record is not None:
                    leaf.after = self._rounds
                    self._record.trees[number] = leaf

    def _grow(self, share: Budget, *, last: bool, most_open: int | None = None) -> None:
        """Grow a tree for each alternative that is left; only the last time beyond the first that stays open."""
        left = self._left
        gap = min((float(self._lowers[number].max()) for number in left), default=0.0)
        if most_open is None:
            most_open = FEW_LEAVES if not last and gap < LARGEST_GAP else MOST_LEAVES
        for number in left:
            if share.is_spent:
                return
            if number not in self._forest:
                self._forest[number] = self._tree(number)
            tree = self._forest[number]
            outcome = tree.grow(share, check=self._budget.check, most_open=most_open)
            if outcome.proved or self._judge.has_won:
                self._closed += outcome.leaves
            if self._judge.has_won:
                return
            if outcome.proved:
                del self._forest[number]
                self._lowers[number] = np.array([outcome.lower])
                if self._record is not None and tree.record is not None:
                    self._record.trees[number] = tree.record
            elif not last:
                return  # tighter bounds of the states serve all alternatives

    def _tree(self, number: int) -> Tree:
        alternative = self._query.alternatives[number]
        row = int(self._lowers[number].argmax())
        several = weighable(alternative)
        return Tree(
            self._net,
            self._inputs,
            self._bounds,
            alternative if several else Conjunction(alternative.rows[[row]], alternative.offsets[[row]]),
            row if several else 0,
            self._try,
            None if self._record is None else Leaves(row, after=self._rounds),
            self._watch,
        )

    def _try(self, points: FloatArray) -> bool:
        """Propose the most promising points to the judge."""
        inside = inside_of(self._query.inputs, points)
        if not len(inside):
            return False
        promising = self._query.distance(self._model(inside.astype(np.float64), check=self._budget.check))
        return self._judge.propose(inside[np.argsort(promising)[:4]])


def _groups(query: Query, numbers: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Yield alternatives together, as long as they have no more than so many rows."""
    group: list[int] = []
    count = 0
    for number in numbers:
        own = len(query.alternatives[number].rows)
        if group and count + own > at_once:
            yield group
            group, count = [], 0
        group.append(number)
        count += own
    if group:
        yield group


def _row_bounds(
    net: SearchNet, inputs: Interval, bounds: StateBounds, alternatives: Sequence[Conjunction], check: Check
) -> list[tuple[FloatArray, Leaves]]:
    """Return for each alternative the proved lower bounds of its rows, offsets added, and the best row's only leaf."""
    rows = np.concatenate([alternative.rows for alternative in alternatives])
    offsets = np.concatenate([alternative.offsets for alternative in alternatives])
    tensors = state_tensors(bounds)
    lines = {k: net.lines(k, *tensors[k]) for k in tensors}
    seeds, enough = tensor(rows), tensor(1e-4 - offsets)
    found = ascend(net, net.output, 0, seeds, lines, steps=OUTPUT_STEPS, enough=enough, check=check)
    m = len(rows)
    slopes = arrays(found.slopes)
    leaves = with_phases(net.model, bounds, {}, m)
    proved = prove_leaves(net.model, inputs.repeated(m), leaves, rows, slopes, {}, check=check)
    lower = down(proved + offsets)
    result = []
    start = 0
    for alternative in alternatives:
        own = lower[start : start + len(alternative.rows)]
        best = np.array([start + int(own.argmax())])
        result.append((own, Leaves(int(best[0]) - start, [{}], [rows_of(slopes, best)], [{}], [1], [{}])))
        start += len(alternative.rows)
    return result
