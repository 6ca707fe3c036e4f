"""Deciding over the valid rows around a sample, where some features have finitely many values.

A tree of cells. What linear bounds certify over a cell's hull is certified for its valid rows; a cell that is open is
split at the values of one feature; where one value of each is left, the hull has valid rows alone and is decided as any
other set. Only valid rows are shown to the network, so that only one of them falsifies.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.implicit.front import with_input_rows
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.float_margins import Arithmetic
from idl_audit.search.judge import Found, Judge
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError
from idl_audit.values.margins import predictions
from idl_audit.values.mixed import Cell
from idl_audit.values.network import Network
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Reason, Verdict

BOUNDS: Final = ("interval", "linear")
"""What is tried over a hull that holds more than valid rows."""
OF_CLASSES: Final = ("quick", "random", "sign", "pgd", "gradient", "sensitivity", "minimum", "square", "apgd")
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
        if not cell.rules or self.arithmetic is not None or not self.model.is_feed_forward:
            return self.model, self.network, query
        made = [rule.row(query.box) for rule in cell.rules]
        rows, limits = np.stack([row for row, _ in made]), np.array([limit for _, limit in made])
        model, network = with_input_rows(self.model, rows, limits), self.network

        def asked(points: Float32Array) -> FloatArray:
            return np.hstack([network(points), points.astype(np.float64) @ rows.T - limits])

        r, q = rows.shape[0], self.model.n_outputs
        beside = np.hstack([np.zeros((r, q)), np.eye(r)])
        alternatives = tuple(
            Conjunction(np.vstack([np.hstack([one.rows, np.zeros((1, r))]), beside]), np.zeros(1 + r))
            for one in query.alternatives
        )
        return model, asked, Query(query.box, alternatives)

    def _grown(self) -> Result:
        try:
            return self._grown_in_time()
        except BudgetError:  # between rows that the network is asked about
            return Result(Verdict.UNKNOWN, reason=Reason.TIME_LIMIT)

    def _grown_in_time(self) -> Result:
        open_ = [self.cell]
        if self._tried(self.cell, FIRST_ROWS):
            return self._falsified()
        while open_:
            if self.budget.is_spent:
                self.reason = Reason.TIME_LIMIT if self.budget.out_of_time else Reason.NODE_LIMIT
                break
            cell = open_.pop()
            if self._closed(cell):
                continue
            if self.found is not None or (not cell.is_settled and self._tried(cell, ROWS)):
                return self._falsified()
            if not cell.is_settled:
                open_ += cell.halves(int(np.argmax([len(choice.values) for choice in cell.choices])))
        if self.reason is not None:
            return Result(Verdict.UNKNOWN, reason=self.reason, detail=self.detail)
        lowers = () if self.lowest is None else tuple(self.lowest.tolist())
        return Result(Verdict.CERTIFIED, method=self.method, lowers=lowers)

    def _falsified(self) -> Result:
        return Result(Verdict.FALSIFIED, method=self.method, found=self.found)

    def _closed(self, cell: Cell) -> bool:
        """Whether nothing in a cell is open; one whose rows are all known ends here in any case."""
        self.budget.spend()
        asked = self.options.methods
        names = tuple(name for name in BOUNDS if asked is None or name in asked)
        if cell.is_settled:
            found = self._decided(cell, self.options)
        elif names:
            found = self._decided(cell, replace(self.options, methods=names))
        else:
            return False
        if found.verdict is Verdict.CERTIFIED:
            lowers = np.asarray(found.lowers)  # rules are <= 0 at valid rows: what a sum is above, the margin is
            self.lowest = lowers if self.lowest is None else np.minimum(self.lowest, lowers)
            self.method = found.method if self.method in (None, *BOUNDS) else self.method
            return True
        if cell.is_settled and cell.rules:
            if found.found is not None and self._shown(cell, found.found.point[None]):
                return False
            self.reason = self.reason or found.reason or Reason.RELAXATION_GAP
            return True
        if cell.is_settled and found.verdict is Verdict.FALSIFIED:
            if found.found is not None and bool(self.cell.contains(found.found.point[None])[0]):
                self.found, self.method = found.found, found.method
                return False
            self.reason = self.reason or Reason.RELAXATION_GAP
            return True
        if cell.is_settled:
            self.reason, self.detail = self.reason or found.reason, self.detail or found.detail
        return cell.is_settled

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


def _of_properties(methods: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return methods for alternatives with several rows: one attack in place of those on a class."""
    if methods is None:
        return None
    return tuple(dict.fromkeys("attack" if name in OF_CLASSES else name for name in methods))
