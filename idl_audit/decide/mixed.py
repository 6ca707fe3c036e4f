"""Deciding over the valid rows around a sample, where some features have finitely many values.

A tree of cells. What linear bounds certify over a cell's hull is certified for its valid rows; a cell that is open is
split at the values of one feature; where one value of each is left, the hull has valid rows alone and is decided as any
other set. Only valid rows are shown to the network, so that only one of them falsifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np

from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.decide.proofs import Recorded, proof_of
from idl_audit.decide.rotated import agreeing
from idl_audit.implicit.front import with_input_rows
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.cells import beside_rules, rules_of
from idl_audit.proof.files.rows import RowsClaim
from idl_audit.proof.float_margins import Arithmetic
from idl_audit.proof.forest import LEAF, Forest
from idl_audit.proof.proof import Proof
from idl_audit.search.attacks import ATTACKS
from idl_audit.search.ensemble import MEMBERS
from idl_audit.search.judge import Found, Judge
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError
from idl_audit.values.margins import predictions
from idl_audit.values.mixed import Cell
from idl_audit.values.network import Network
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Reason, Verdict

BOUNDS: Final = ("interval", "linear")
"""What is tried over a hull that holds more than valid rows."""
OF_CLASSES: Final = frozenset({"quick", *ATTACKS, *MEMBERS})
"""Methods that are about one row of each alternative."""
FIRST_ROWS: Final = 512
"""Random valid rows that are tried before anything is proved."""
ROWS: Final = 32
"""The same in each cell that is split."""


@dataclass(eq=False)
class Rows:
    """One sample, and the cells of the valid rows around it that are open."""

    model: ImplicitModel
    network: Network
    sample: FloatArray
    """A valid row, float32 numbers."""
    label: int
    cell: Cell
    options: Options
    budget: Budget
    arithmetic: Arithmetic = None
    lowest: FloatArray | None = None
    """The least proved bound of each alternative over the cells that are closed."""
    reason: Reason | None = None
    detail: str = ""
    found: Found | None = None
    method: str | None = None
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def decide(self) -> Result:
        """Return the verdict: certified where every cell is closed, falsified by a valid row alone."""
        start = self.budget.clock()
        self._rng = np.random.default_rng(self.options.seed)
        predicted = int(predictions(self.network(self.sample[None].astype(np.float32)))[0])
        if predicted != self.label:
            result = Result(Verdict.CLEAN_WRONG, predicted)
        elif self.model.is_well_posed:
            result = replace(self._grown(), predicted=predicted)
        else:
            result = Result(Verdict.UNKNOWN, predicted, reason=Reason.NO_UNIQUENESS_PROOF)
        return replace(result, seconds=self.budget.clock() - start)

    def _query(self, cell: Cell) -> Query:
        return Query.misclassification(cell.hull, self.model.n_outputs, self.label)

    def _ruled(self, cell: Cell) -> tuple[ImplicitModel, Network, Query]:
        """Return the question with the rules among the rows of each alternative: they hold at a counterexample, too."""
        query = self._query(cell)
        if self.rules is None:
            return self.model, self.network, query
        rows, limits = self.rules

        def asked(points: Float32Array) -> FloatArray:
            return np.hstack([self.network(points), points.astype(np.float64) @ rows.T - limits])

        return self._with_rules, asked, beside_rules(query, len(limits))

    @cached_property
    def rules(self) -> tuple[FloatArray, FloatArray] | None:
        """(G, h): rows satisfy G u <= h; None where there is none, or bounds do not know them."""
        known = self.arithmetic is None and self.model.is_feed_forward
        return rules_of(self.cell) if known else None

    @cached_property
    def _with_rules(self) -> ImplicitModel:
        assert self.rules is not None
        return with_input_rows(self.model, *self.rules)

    def _grown(self) -> Result:
        try:
            return self._grown_in_time()
        except BudgetError:  # between rows that the network is asked about
            return Result(Verdict.UNKNOWN, reason=Reason.TIME_LIMIT)

    def _grown_in_time(self) -> Result:
        open_, tree = [(self.cell, 0)], _Tree()
        if self._tried(self.cell, FIRST_ROWS):
            return self._falsified()
        while open_:
            if self.budget.is_spent:
                self.reason = Reason.TIME_LIMIT if self.budget.out_of_time else Reason.NODE_LIMIT
                break
            cell, node = open_.pop()
            recorded = self._closed(cell)
            if recorded is not None:
                tree.recorded[node] = recorded
                continue
            if self.found is not None or (not cell.is_settled and self._tried(cell, ROWS)):
                return self._falsified()
            if not cell.is_settled:
                number = int(np.argmax([len(choice.values) for choice in cell.choices]))
                first = tree.split(node, cell.box.size + number, len(cell.choices[number].values) // 2)
                open_ += zip(cell.halves(number), (first, first + 1), strict=True)
        if self.reason is not None:
            return Result(Verdict.UNKNOWN, reason=self.reason, detail=self.detail)
        lowers = () if self.lowest is None else tuple(self.lowest.tolist())
        known = Result(Verdict.CERTIFIED, method=self.method, lowers=lowers)
        return replace(known, cells=tree.forest, pieces=tree.pieces) if self.options.record else known

    def _falsified(self) -> Result:
        return Result(Verdict.FALSIFIED, method=self.method, found=self.found)

    def _closed(self, cell: Cell) -> Recorded | None:
        """Return what was recorded where nothing in a cell is open; one whose rows are all known ends here anyway."""
        self.budget.spend()
        asked = self.options.methods
        names = tuple(name for name in BOUNDS if asked is None or name in asked)
        if cell.is_settled:
            found = self._decided(cell, self.options)
        elif names:
            found = self._decided(cell, replace(self.options, methods=names))
        else:
            return None
        if found.verdict is Verdict.CERTIFIED:
            lowers = np.asarray(found.lowers)  # rules are <= 0 at valid rows: what a sum is above, the margin is
            self.lowest = lowers if self.lowest is None else np.minimum(self.lowest, lowers)
            self.method = found.method if self.method in (None, *BOUNDS) else self.method
            return found.recorded or Recorded()
        if not cell.is_settled:
            return None
        if cell.rules:
            if found.found is not None and self._shown(cell, found.found.point[None]):
                return None
            self.reason = self.reason or found.reason or Reason.RELAXATION_GAP
        elif found.verdict is Verdict.FALSIFIED:
            if found.found is not None and bool(self.cell.contains(found.found.point[None])[0]):
                self.found, self.method = found.found, found.method
                return None
            self.reason = self.reason or Reason.RELAXATION_GAP
        else:
            self.reason, self.detail = self.reason or found.reason, self.detail or found.detail
        return Recorded()

    def _decided(self, cell: Cell, options: Options) -> Result:
        centre = cell.hull.centre
        model, network, query = self._ruled(cell)
        if query.alternatives and len(query.alternatives[0].rows) > 1:
            options = replace(options, methods=_of_properties(options.methods), confirm=None)
        return decide_query(
            model,
            network,
            query,
            options,
            budget=self.budget,
            centre=centre,
            arithmetic=self.arithmetic,
        )

    def _tried(self, cell: Cell, count: int) -> bool:
        """Show valid rows of a cell to the network; return whether one falsifies."""
        return self._shown(cell, self._drawn(cell, count))

    def _shown(self, cell: Cell, rows: Float32Array) -> bool:
        """Show the valid ones of some rows, and what is nearest to them by the rules; return whether one falsifies."""
        confirm = self.options.confirm if self.arithmetic is None else None
        judge = Judge.of(self.model, self.network, self._query(cell), self.budget, confirm)
        rows = cell.mended(rows)
        if judge.propose(rows[self.cell.contains(rows)]):
            self.found, self.method = judge.found, "random"
        return judge.has_won

    def _drawn(self, cell: Cell, count: int) -> Float32Array:
        """Return random valid rows, half of them at ends of the intervals."""
        box = cell.box
        share = self._rng.random((count, box.size))
        share[: count // 2] = np.round(share[: count // 2])
        picks = [self._rng.integers(len(choice.values), size=count) for choice in cell.choices]
        return cell.rows(box.lo + share * (box.hi - box.lo), picks)


@dataclass(eq=False)
class _Tree:
    """How cells were halved: nodes as `proof.forest.Forest` has them, and what was recorded of the leaves."""

    variable: list[int] = field(default_factory=lambda: [LEAF])
    cut: list[float] = field(default_factory=lambda: [0.0])
    child: list[int] = field(default_factory=lambda: [0])
    recorded: dict[int, Recorded] = field(default_factory=dict)

    def split(self, node: int, variable: int, count: int) -> int:
        """Give a leaf two children, the first with so many values of a feature; return its number."""
        first = len(self.variable)
        self.variable[node], self.cut[node], self.child[node] = variable, float(count), first
        self.variable += [LEAF] * 2
        self.cut += [0.0] * 2
        self.child += [0] * 2
        return first

    @property
    def forest(self) -> Forest:
        """The tree."""
        return Forest(np.zeros(1, np.int64), np.array(self.variable), np.array(self.cut), np.array(self.child))

    @property
    def pieces(self) -> tuple[Recorded, ...]:
        """What was recorded, leaf by leaf in the order of nodes."""
        return tuple(self.recorded[node] for node in sorted(self.recorded))


def row_proofs(
    claim: RowsClaim,
    model: ImplicitModel,
    network: Network,
    recorded: Sequence[Recorded | None],
    *,
    budget: Budget,
    arithmetic: Arithmetic,
) -> tuple[Proof, ...] | None:
    """Return a proof for each cell of a claim, checked; None where the budget does not suffice for one.

    Args:
        claim: about the rows.
        model: in the claim's units.
        network: the original network, which searches ask about their points.
        recorded: what was recorded of each cell.
        budget: what all proofs may cost.
        arithmetic: what the claim is about.
    """
    proofs = []
    for (there, query), own in zip(claim.questions(model), recorded, strict=True):
        asked = network if claim.rules is None else agreeing(there.n_outputs, claim.label)
        proof = proof_of(there, asked, query, own, budget=budget, arithmetic=arithmetic)
        if proof is None:
            return None
        proofs.append(proof)
    return tuple(proofs)


def _of_properties(methods: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return methods for alternatives with several rows: one attack in place of those on a class."""
    if methods is None:
        return None
    return tuple(dict.fromkeys("attack" if name in OF_CLASSES else name for name in methods))
