"""Claims about the valid rows of a table around a sample in proof files, and the cells that share them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from idl_audit.implicit.front import with_input_rows
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.cells import beside_rules, fault, leaves
from idl_audit.proof.files.arrays import REAL, opened_forest, pack_forest
from idl_audit.proof.files.door import Arrays, Spec
from idl_audit.proof.files.ranges import NEVER, opened_cell, pack_cell
from idl_audit.proof.files.strict_json import Damaged, Entry, below
from idl_audit.proof.forest import LEAF, Forest
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.mixed import Cell
from idl_audit.values.query import Query

ROWS: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        **NEVER,
        "centre": Spec(REAL, ("inputs",)),
        "range.rule.rows": Spec(REAL, ("rules/2", "inputs")),
        "range.rule.limits": Spec(REAL, ("rules/2",)),
    }
)
MOST_RULES: Final = 1024
"""That a claim may name."""


@dataclass(frozen=True, eq=False)
class RowsClaim:
    """Every row of a cell that satisfies the rules has y_label > y_j for every other class j."""

    cell: Cell
    """A box, and features with values of their own; its rules do not count."""
    tree: Forest
    """What shares the cell out by values of such features: each leaf is a part of the proof, about the hull there."""
    label: int
    index: int
    """Which sample of the data it is around, for people."""
    centre: FloatArray
    """The sample, a row of the cell."""
    rules: tuple[FloatArray, FloatArray] | None = None
    """(G, h), (r, p) and (r,): rows satisfy G u <= h."""

    @property
    def fault(self) -> str:
        """Why the tree does not share the cell out; empty where it does."""
        if (self.tree.variable[self.tree.variable != LEAF] < self.cell.box.size).any():
            return "it shares rows out by inputs without values of their own"
        return fault(self.cell, self.tree)

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such classes or inputs, or the cells are not all; empty where all is well."""
        if model.n_outputs < 2:
            return "it speaks of classes, and the model has one output and the file no threshold"
        if not 0 <= self.label < model.n_outputs or self.cell.box.size != model.n_inputs:
            return f"it speaks of class {self.label} and {self.cell.box.size} inputs, which the model does not have"
        if self.rules is not None and not model.is_feed_forward:
            return "it speaks of rules between inputs, and the model has loops"
        return self.fault

    def questions(self, model: ImplicitModel) -> Iterator[tuple[ImplicitModel, Query]]:
        """Yield the query of each leaf with the model that it is about: rules are more outputs of it."""
        there = model if self.rules is None else with_input_rows(model, *self.rules)
        for query in self.queries(model):
            yield there, query

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the queries that have no counterexample, if the claim holds: one for each leaf."""
        boxes = [Box.between(piece.lo, piece.hi) for _, piece in leaves(self.cell, self.tree)]
        asked = (Query.misclassification(box, model.n_outputs, self.label) for box in boxes)
        return tuple(one if self.rules is None else beside_rules(one, len(self.rules[1])) for one in asked)


def with_rules(model: ImplicitModel, entry: Entry) -> ImplicitModel:
    """Return a model of the form that proofs are about. Raises Damaged where there are too many rules."""
    if "rules" not in entry:
        return model
    count = entry.whole("rules")
    if not 0 < count <= MOST_RULES:
        raise Damaged(f"it has {count} rules; there are 1 to {MOST_RULES} where there are some")
    return with_input_rows(model, np.zeros((count, model.n_inputs)), np.zeros(count))


def pack_rows(claim: RowsClaim, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put the arrays of a claim among others and return what meta says of it."""
    pack_cell(claim.cell, arrays)
    pack_forest(claim.tree, "tree", arrays)
    arrays["centre"] = np.asarray(claim.centre, np.float64)
    of_rows = {"kind": "rows", "index": claim.index, "label": claim.label}
    if claim.rules is None:
        return of_rows
    arrays["range.rule.rows"], arrays["range.rule.limits"] = (np.asarray(own, np.float64) for own in claim.rules)
    return {**of_rows, "rules": len(claim.rules[1])}


def opened_rows(entry: Entry, arrays: Arrays, model: ImplicitModel) -> RowsClaim:
    """Return a claim about rows. Raises Misfit, Damaged where it makes no sense."""
    label = below(entry.whole("label"), max(2, model.n_outputs), "the label", "class")
    rows, limits = arrays.get("range.rule.rows"), arrays.get("range.rule.limits")
    rules = None if rows is None or limits is None else (rows, limits)
    if (rows is None) != (limits is None) or (0 if rules is None else len(rules[1])) != (
        entry.whole("rules") if "rules" in entry else 0
    ):
        raise Damaged("it has other rules than it says")
    claim = RowsClaim(
        opened_cell(arrays, model), opened_forest(arrays, "tree"), label, entry.whole("index"), arrays["centre"], rules
    )
    if claim.fault:
        raise Damaged(claim.fault)
    if not _is_row(claim):
        raise Damaged("its sample is none of its rows")
    return claim


def _is_row(claim: RowsClaim) -> bool:
    """Return whether the sample lies in the cell; rules are not looked at, which only people's word says hold there."""
    row, hull = claim.centre, claim.cell.hull
    chosen = all((choice.values == row[list(choice.columns)]).all(axis=1).any() for choice in claim.cell.choices)
    return chosen and bool(((row >= hull.lo) & (row <= hull.hi)).all())
