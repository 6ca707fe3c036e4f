"""Properties of VNN-LIB 1 as specifications of version 2: the same box, the same alternatives, the same rows.

What all boxes share stands alone: their bounds, and the rows that every alternative begins with. The rest is one
disjunction of boxes and one of alternatives or, where each box has alternatives of its own, one disjunction of both.
All numbers are exact. Where one has no finite decimal, both sides of its inequality are multiplied by the smallest
whole number that gives it one: x <= 1/3 becomes 3 x <= 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from idl_audit.data.vnnlib import OutputRow, Property, PropertyBox
from idl_audit.data.vnnlib2.limits import MAX_CHARACTERS
from idl_audit.data.vnnlib2.syntax import (
    NOWHERE,
    REAL,
    Access,
    Comparison,
    Constant,
    Formula,
    Junction,
    Network,
    Operation,
    Sense,
    Specification,
    Term,
    Variable,
)
from idl_audit.data.vnnlib2.writer import constant, whole_multiple
from idl_audit.values.errors import DataError

_SIDES: Final[tuple[tuple[Sense, str], ...]] = ((">=", "lo"), ("<=", "hi"))


def specification_of(
    asked: Property,
    *,
    inputs: tuple[int, ...] | None = None,
    outputs: tuple[int, ...] | None = None,
    element: str = REAL,
) -> Specification:
    """Return a property as a specification about one network N with the input X and the output Y.

    Args:
        asked: the property; X_i and Y_j are entries i and j of X and Y in row-major order.
        inputs: shape of X, with `asked.n_inputs` entries; None: (n_inputs,).
        outputs: shape of Y, likewise.
        element: the type of both.

    Raises:
        DataError: where a number has too many digits to be written.
    """
    shapes = (asked.n_inputs,) if inputs is None else inputs, (asked.n_outputs,) if outputs is None else outputs
    network = Network(
        "N",
        (Variable("X", "input", element, shapes[0], NOWHERE),),
        (),
        (Variable("Y", "output", element, shapes[1], NOWHERE),),
        NOWHERE,
    )
    writer = _Translation(asked, *shapes)
    return Specification(asked.source, "2.0", (network,), tuple(writer.assertions()))


@dataclass(frozen=True)
class _Translation:
    """The formulas of one property."""

    asked: Property
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def assertions(self) -> Iterator[Formula]:
        boxes = self.asked.boxes
        shared = {side: _shared([getattr(box, side) for box in boxes]) for _, side in _SIDES}
        yield from self._bounds(boxes[0], shared)
        own = {side: frozenset(range(self.asked.n_inputs)) - shared[side] for _, side in _SIDES}
        common = _common_rows([alternative for box in boxes for alternative in box.alternatives])
        yield from map(self._row, boxes[0].alternatives[0][:common])
        one_question = len({box.alternatives for box in boxes}) == 1
        if one_question and any(own.values()):  # else all boxes are one
            yield _either([_all(self._bounds(box, own)) for box in boxes])
        if one_question:
            yield from self._alternatives(boxes[0], common)
        else:
            yield _either([_all([*self._bounds(box, own), *self._alternatives(box, common)]) for box in boxes])

    def _bounds(self, box: PropertyBox, which: Mapping[str, frozenset[int]]) -> Iterator[Formula]:
        """Yield the bounds of a box on the inputs that are named for each side."""
        for i in sorted(frozenset().union(*which.values())):
            for sense, side in _SIDES:
                if i in which[side]:
                    yield self._bound(sense, i, getattr(box, side)[i])

    def _bound(self, sense: Sense, i: int, bound: Fraction) -> Formula:
        factor = whole_multiple((bound,))
        left = self._multiple(Fraction(factor), _entry("X", self.inputs, i))
        return Comparison(sense, left, self._number(bound * factor), NOWHERE)

    def _alternatives(self, box: PropertyBox, common: int) -> Iterator[Formula]:
        """Yield what an assertion must say of the rows behind the common ones; nothing where there are none."""
        if len(box.alternatives) > 1:
            yield _either([_all(map(self._row, alternative[common:])) for alternative in box.alternatives])
        else:
            yield from map(self._row, box.alternatives[0][common:])

    def _row(self, row: OutputRow) -> Formula:
        """Return sum_j c_j Y_j + offset <= 0 with positive coefficients on both sides."""
        factor = whole_multiple((*(c for _, c in row.coefficients), row.offset))
        terms = [(c * factor, _entry("Y", self.outputs, j)) for j, c in row.coefficients]
        left = [self._multiple(c, entry) for c, entry in terms if c > 0]
        right = [self._multiple(-c, entry) for c, entry in terms if c < 0]
        offset = row.offset * factor
        if not left:
            return Comparison(">=", _sum(right), self._number(offset), NOWHERE)
        if offset or not right:
            right.append(self._number(-offset))
        return Comparison("<=", _sum(left), _sum(right), NOWHERE)

    def _multiple(self, factor: Fraction, entry: Access) -> Term:
        return entry if factor == 1 else Operation("*", (self._number(factor), entry), NOWHERE)

    def _number(self, value: Fraction) -> Constant:
        # A number has as many decimals as its denominator has bits, at most.
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_CHARACTERS:
            raise DataError(
                f"{self.asked.source}: a number of it has hundreds of decimals, which other tools do not read; round it"
            )
        return constant(value)


def _entry(variable: str, shape: tuple[int, ...], flat: int) -> Access:
    index: list[int] = []
    rest = flat
    for size in reversed(shape):
        index.append(rest % size)
        rest //= size
    return Access(variable, tuple(reversed(index)), flat, NOWHERE)


def _shared(sides: Sequence[tuple[Fraction, ...]]) -> frozenset[int]:
    """Return the inputs whose bound is the same in every box."""
    return frozenset(i for i, bounds in enumerate(zip(*sides, strict=True)) if len(set(bounds)) == 1)


def _common_rows(alternatives: Sequence[tuple[OutputRow, ...]]) -> int:
    """Return with how many rows all alternatives begin; where there are several, each keeps one of its own."""
    if len(alternatives) == 1:
        return len(alternatives[0])
    alike = itertools.takewhile(lambda rows: len(set(rows)) == 1, zip(*alternatives, strict=False))
    return min(sum(1 for _ in alike), min(map(len, alternatives)) - 1)


def _sum(parts: Sequence[Term]) -> Term:
    return parts[0] if len(parts) == 1 else Operation("+", tuple(parts), NOWHERE)


def _all(parts: Iterable[Formula]) -> Formula:
    found = tuple(parts)
    return found[0] if len(found) == 1 else Junction("and", found, NOWHERE)


def _either(parts: Sequence[Formula]) -> Formula:
    return Junction("or", tuple(parts), NOWHERE)
