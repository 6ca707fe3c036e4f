"""What a query says of one assignment, in the arithmetic of its types: IEEE floats as numpy has them, exact reals.

Nothing of the ways in which queries are decided is used here: whatever is answered `sat` is looked at once more.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from idl_audit.data.vnnlib2.arithmetic import ARITHMETICS, Arithmetic
from idl_audit.data.vnnlib2.syntax import (
    Access,
    Comparison,
    Constant,
    Formula,
    Junction,
    Operation,
    Specification,
    Term,
)
from idl_audit.data.vnnlib2.terms import Entry, entries_of

Read = Callable[[Entry], Any]
"""Return the value of an entry: a number of numpy's, or a Fraction where it is real."""


def holds(query: Specification, read: Read) -> bool:
    """Return whether an assignment satisfies all assertions of a query."""
    elements = {variable.name: variable.element for variable in query.variables}
    with np.errstate(all="ignore"):
        return all(_holds(assertion, elements, read) for assertion in query.assertions)


def _holds(formula: Formula, elements: Mapping[str, str], read: Read) -> bool:
    match formula:
        case Junction():
            parts = (_holds(part, elements, read) for part in formula.parts)
            return all(parts) if formula.operator == "and" else any(parts)
        case Comparison():
            name = next(entry[0] for side in (formula.left, formula.right) for entry in entries_of(side))
            arithmetic = ARITHMETICS[elements[name]]
            left, right = (evaluated(side, arithmetic, read) for side in (formula.left, formula.right))
            return bool(_SENSES[formula.sense](left, right))


def evaluated(term: Term, arithmetic: Arithmetic, read: Read) -> Any:
    """Return a term's value, operation by operation from the left."""
    match term:
        case Access():
            return read((term.variable, term.flat))
        case Constant():
            value = arithmetic.constant(term.value, term.text)
            return _TYPES[arithmetic.kind](arithmetic, value)
        case Operation():
            parts = [evaluated(part, arithmetic, read) for part in term.parts]
            if term.operator == "-" and len(parts) == 1:
                return -parts[0]
            return reduce(_OPERATORS[term.operator], parts)


_TYPES: Final[Mapping[str, Callable[[Arithmetic, Fraction], Any]]] = MappingProxyType(
    {
        "float": lambda arithmetic, value: np.dtype(arithmetic.name).type(float(value)),
        "whole": lambda arithmetic, value: np.dtype(arithmetic.name).type(int(value)),
        "truth": lambda arithmetic, value: np.bool_(value != 0),
        "real": lambda arithmetic, value: value,
    }
)
"""Kind of numbers -> a constant of that kind."""

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = MappingProxyType(
    {"+": operator.add, "-": operator.sub, "*": operator.mul}
)

_SENSES: Final[Mapping[str, Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        "<=": operator.le,
        ">=": operator.ge,
        "<": operator.lt,
        ">": operator.gt,
        "==": operator.eq,
        "!=": operator.ne,
    }
)
