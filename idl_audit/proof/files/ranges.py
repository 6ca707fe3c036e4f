"""Claims about whole ranges in proof files: what holds at every point of a box, or at every row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.cells import why_not_refuted
from idl_audit.proof.files.arrays import PROOF, REAL, WHOLE, tree_of
from idl_audit.proof.files.door import Arrays, Spec
from idl_audit.proof.files.strict_json import Damaged, Entry, Misfit, below
from idl_audit.proof.forest import Forest
from idl_audit.proof.monotone import never_falls, score_rows
from idl_audit.values.arrays import AnyArray
from idl_audit.values.box import Box
from idl_audit.values.demand import MOST_IN_A_CLAIM, Limits
from idl_audit.values.mixed import Cell, Choice
from idl_audit.values.query import Query

_RANGE: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        "range.lo": Spec(REAL, ("inputs",)),
        "range.hi": Spec(REAL, ("inputs",)),
        "range.choice.*.columns": Spec(WHOLE, ("columns/3",), 0, ascending=True),
        "range.choice.*.values": Spec(REAL, ("values/3", "columns/3")),
        **{f"tree.{name}": spec for name, spec in tree_of("tree").items()},
    }
)
NEVER: Final[Mapping[str, Spec]] = MappingProxyType({**PROOF, **_RANGE})
OF_LIMITS: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        "limit.outputs": Spec(WHOLE, ("limits/1",), 0),
        "limit.sides": Spec(WHOLE, ("limits/1",), -1, 1),
        "limit.values": Spec(REAL, ("limits/1",)),
        "limit.strict": Spec(WHOLE, ("limits/1",), 0, 1),
    }
)
STAYS: Final[Mapping[str, Spec]] = MappingProxyType({**NEVER, **OF_LIMITS})
RISING: Final = _RANGE
"""Pattern of a name -> what arrays of that name are, for each statement."""


@dataclass(frozen=True)
class NeverPredicted:
    """No point has this class: that of the largest output, of equal ones the first."""

    label: int


@dataclass(frozen=True)
class NeverFalls:
    """The score of an output never falls, or never rises, between two points that differ in one input alone."""

    feature: int
    output: int
    rises: bool


Statement: TypeAlias = Limits | NeverPredicted | NeverFalls


@dataclass(frozen=True, eq=False)
class RangeClaim:
    """A statement that holds at every point of a range."""

    cell: Cell
    """Its box is around all of it, and choices are of other inputs than the one that rises."""
    statement: Statement

    def misfit(self, model: ImplicitModel) -> str:
        """Return why the model has no such outputs or inputs; empty where it has."""
        statement, q = self.statement, model.n_outputs
        if self.cell.box.size != model.n_inputs or not model.is_feed_forward:
            return "it speaks of inputs that the model does not have, or the model has loops"
        if isinstance(statement, NeverPredicted):
            return "" if 0 <= statement.label < q and q > 1 else "it speaks of a class that the model does not have"
        if isinstance(statement, NeverFalls):
            if not 0 <= statement.output < q or not 0 <= statement.feature < model.n_inputs:
                return "it speaks of an output or of an input that the model does not have"
            known = score_rows(model, statement.output, rises=statement.rises) is not None
            return "" if known else f"it speaks of a score of {model.stripped_output}, of which no rule is known"
        if not (statement.outputs < q).all() or statement.entries(statement.outputs.size, q) > MOST_IN_A_CLAIM:
            return "it speaks of outputs that the model does not have, or of too many"
        if model.stripped_output:
            return f"it speaks of values of {model.stripped_output}, which the model leaves out"
        return ""

    def queries(self, model: ImplicitModel) -> tuple[Query, ...]:
        """Return the query that has no counterexample, if the claim holds; none of a score."""
        box, statement = self.cell.hull, self.statement
        if isinstance(statement, NeverPredicted):
            return (Query.prediction(box, model.n_outputs, statement.label),)
        return () if isinstance(statement, NeverFalls) else (statement.query(box, model.n_outputs),)

    def refused(self, model: ImplicitModel, tree: Forest) -> list[str]:
        """Return why a tree of parts of the range does not prove it; empty where it does."""
        statement = self.statement
        if not isinstance(statement, NeverFalls):
            (query,) = self.queries(model)
            return why_not_refuted(model, self.cell, query, tree)
        rows = score_rows(model, statement.output, rises=statement.rises)
        if rows is None:
            return ["it is about no score"]
        return never_falls(model, statement.feature, rows, self.cell, tree)


def pack_range(claim: RangeClaim, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put the arrays of a range and its statement among others and return what meta says of them."""
    statement = claim.statement
    pack_cell(claim.cell, arrays)
    if isinstance(statement, NeverPredicted):
        return {"kind": "never", "label": statement.label}
    if isinstance(statement, NeverFalls):
        direction = "+" if statement.rises else "-"
        return {"kind": "rising", "input": statement.feature, "output": statement.output, "direction": direction}
    pack_limits(statement, arrays)
    return {"kind": "stays"}


def pack_cell(cell: Cell, arrays: dict[str, AnyArray]) -> None:
    """Put the arrays of a range among others: the least box around it, and the values of features that have some."""
    hull = cell.hull
    arrays["range.lo"], arrays["range.hi"] = hull.lo, hull.hi
    for number, choice in enumerate(cell.choices):
        arrays[f"range.choice.{number}.columns"] = np.asarray(choice.columns, np.int64)
        arrays[f"range.choice.{number}.values"] = np.asarray(choice.values, np.float64)


def pack_limits(limits: Limits, arrays: dict[str, AnyArray]) -> None:
    """Put the arrays of limits among others."""
    arrays["limit.outputs"] = limits.outputs.astype(np.int64)
    arrays["limit.sides"] = limits.sides.astype(np.int64)
    arrays["limit.values"] = np.asarray(limits.values, np.float64)
    arrays["limit.strict"] = limits.strict.astype(np.int64)


def opened_limits(arrays: Arrays, model: ImplicitModel) -> Limits:
    """Return limits of outputs. Raises Misfit, Damaged where they make no sense."""
    outputs, sides = arrays["limit.outputs"], arrays["limit.sides"]
    if not (outputs < model.n_outputs).all():
        raise Misfit("it is about outputs that the model does not have")
    if not outputs.size or not (np.abs(sides) == 1).all():
        raise Damaged("it has no limit, or one that is on no side")
    return Limits(outputs, sides, arrays["limit.values"], arrays["limit.strict"].astype(np.bool_))


def opened_range(entry: Entry, arrays: Arrays, model: ImplicitModel) -> RangeClaim:
    """Return a statement and its range. Raises Misfit, Damaged where they make no sense."""
    kind = entry.text("kind")
    if kind == "never":
        statement: Statement = NeverPredicted(
            below(entry.whole("label"), max(2, model.n_outputs), "the label", "class")
        )
    elif kind == "stays":
        statement = opened_limits(arrays, model)
    else:
        feature = below(entry.whole("input"), model.n_inputs, "the input", "input")
        output, direction = (
            below(entry.whole("output"), model.n_outputs, "the output", "output"),
            entry.text("direction"),
        )
        if direction not in ("+", "-"):
            raise Damaged("its score goes neither up (+) nor down (-)")
        statement = NeverFalls(feature, output, direction == "+")
    rises = [statement.feature] if isinstance(statement, NeverFalls) else []
    return RangeClaim(opened_cell(arrays, model, rises), statement)


def opened_cell(arrays: Arrays, model: ImplicitModel, rises: Sequence[int] = ()) -> Cell:
    """Return a range, in which inputs that rise have no values of their own. Raises Damaged where it makes no sense."""
    lo, hi = arrays["range.lo"], arrays["range.hi"]
    if not (lo <= hi).all():
        raise Damaged("its range is empty")
    choices, owned = [], list(rises)
    for number in range(arrays.counted("range.choice", "choices")):
        columns, values = (arrays[f"range.choice.{number}.{name}"] for name in ("columns", "values"))
        if not (columns.size and len(values) and (columns < model.n_inputs).all()):
            raise Damaged("a choice has no input, or no value")
        owned += columns.tolist()
        choices.append(Choice(tuple(columns.tolist()), values))
    if len(set(owned)) < len(owned):
        raise Damaged("an input has values of two choices, or rises and has values of its own")
    return Cell(Box.between(lo, hi), tuple(choices))
