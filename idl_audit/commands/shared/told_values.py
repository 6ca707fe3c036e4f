"""What an assignment of real numbers is told as: decimals, or float64 numbers of files, that satisfy the query as read.

A point that exact arithmetic found may have entries such as 1/3, which no decimal is. Where the query holds near it, a
point that can be written is told in its place; where it holds at that point alone, the remark says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np

from idl_audit.commands.shared.assertions import AskedQuery
from idl_audit.commands.shared.exact_values import exact_values
from idl_audit.data.vnnlib2.evaluation import holds
from idl_audit.values.arrays import AnyArray

DIGITS: Final = 40
"""Of a real number that has no end, behind the point."""

Write = Callable[[Fraction], Fraction]
"""Return what is read again of a number that is written."""


def in_decimals(value: Fraction) -> Fraction:
    """Return what is read again of a number as it is printed: itself where a decimal with an end is it."""
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    return value if rest == 1 else Fraction(round(value * 10**DIGITS), 10**DIGITS)


def in_doubles(value: Fraction) -> Fraction:
    """Return what is read again of a number that is stored as float64."""
    return Fraction(float(value))


def told_assignment(
    asked: AskedQuery, assignment: Mapping[str, AnyArray], write: Write
) -> tuple[Mapping[str, AnyArray], str]:
    """Return the assignment of a real query as it is to be told, and a remark on what is rounded in it.

    Args:
        asked: the query.
        assignment: exact numbers; hidden tensors and outputs of networks that have no exact form are floats.
        write: what is read again of a number.
    """
    if not asked.is_real:
        return assignment, ""
    point = _point(asked, assignment)
    if not all(isinstance(value, Fraction) for array in assignment.values() for value in array.reshape(-1)):
        rounded = "" if all(write(value) == value for value in point) else ", and so are inputs"
        why = "hidden tensors and outputs, which have no exact form, are rounded as onnxruntime computes them"
        return assignment, f"the assignment is exact in its inputs; {why}" if not rounded else f"{why}{rounded}"
    if _is_read_again(asked, assignment, write):
        return assignment, ""
    for near in _nearby(point, write):
        values = {**asked.replay.inputs_at(near), **exact_values(asked, near)}
        if len(values) == len(assignment) and _is_read_again(asked, values, write):
            return values, ""
    name, place, value = next(_rounded(assignment, write))
    return assignment, f"numbers are rounded: {name}[{','.join(map(str, place))}] is {value} exactly"


def _point(asked: AskedQuery, assignment: Mapping[str, AnyArray]) -> list[Fraction]:
    """Return the values of the inputs as one vector."""
    found = [Fraction(0)] * asked.columns.count
    for (name, flat), column in asked.columns.numbers.items():
        found[column] = Fraction(assignment[name].reshape(-1)[flat])
    return found


def _nearby(point: Sequence[Fraction], write: Write) -> Iterator[list[Fraction]]:
    """Yield points that are read again as they are written: the nearest one, and coarser ones."""
    for near in (write, in_doubles, lambda value: Fraction(float(np.float32(float(value))))):
        yield [value if write(value) == value else near(value) for value in point]


def _is_read_again(asked: AskedQuery, assignment: Mapping[str, AnyArray], write: Write) -> bool:
    """Return whether an assignment satisfies the query exactly, and once it is written and read.

    No input is rounded then; an output may be, which holds its own there as well.
    """
    if any(write(value) != value for value in _point(asked, assignment)):
        return False
    flat = {name: array.reshape(-1) for name, array in assignment.items()}
    exactly = holds(asked.specification, lambda entry: flat[entry[0]][entry[1]])
    return exactly and holds(asked.specification, lambda entry: write(flat[entry[0]][entry[1]]))


def _rounded(assignment: Mapping[str, AnyArray], write: Write) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Yield the entries that are read again as other numbers."""
    for name, array in assignment.items():
        for place, value in np.ndenumerate(array):
            if write(value) != value:
                yield name, tuple(map(int, place)), value
