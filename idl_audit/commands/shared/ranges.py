"""The whole range of the inputs, and parts of it where conditions hold."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.commands.shared.features import named_inputs
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.features import Feature, Features
from idl_audit.data.fingerprints import numbers_sha256
from idl_audit.data.numbers import parse_fraction
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.statements import Condition, Sign
from idl_audit.report.schema import InputRange
from idl_audit.report.wording import input_name
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.mixed import Cell, Choice
from idl_audit.values.rounding import float_above, float_below

_COMPARISONS: Final[Mapping[Sign, Callable[[Fraction, Fraction], bool]]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
)
LISTED: Final = 12
"""Values of a feature that are listed; of more, the first and the last."""


@dataclass(frozen=True, eq=False)
class Ranges:
    """The inputs of a network by name, and the range that each moves in."""

    subject: Subject
    preprocessing: Preprocessing
    features: Features | None = None

    @property
    def whole(self) -> Cell:
        """All inputs. Raises DataError where a feature has no range."""
        p, clip = self.subject.model.n_inputs, self.preprocessing.bounds
        if self.features is not None:
            return self.readable(self.features.whole(clip))
        assert clip is not None  # the options ask for it
        return self.readable(Cell(Box.between(np.full(p, clip[0]), np.full(p, clip[1])), ()))

    def readable(self, cell: Cell) -> Cell:
        """Return the cell whose points the network reads as numbers inside it."""
        box = self.subject.readable(cell.box, self.preprocessing)
        return replace(cell, box=box) if isinstance(box, Box) else cell

    def place(self, name: str, option: str) -> int:
        """Return the input of a name, of a feature with one input or as `named_inputs`. Raises OptionError."""
        own = self._feature(name)
        if own is None:
            return named_inputs(self.subject, (name,), option)[0]
        if own.size != 1:
            raise OptionError(f"{option} speaks of {name}, which is a category; name a feature that is a number")
        return own.place

    def names(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return every feature, or input, and where it stands."""
        if self.features is not None:
            return [(one.name, one.columns) for one in self.features.features]
        named = ((k, input_name(self.subject.info, k)) for k in range(self.subject.model.n_inputs))
        return [(f"input {name}" if name.isdigit() else name, (k,)) for k, name in named]

    def where(self, cell: Cell, conditions: Sequence[Condition], option: str) -> Cell:
        """Return the part of a range where conditions hold. Raises OptionError where one makes no sense."""
        for one in conditions:
            own = self._feature(one.name)
            chosen = None if own is None else next((c for c in cell.choices if c.columns == own.columns), None)
            if own is not None and own.kind == "categorical":
                cell = _only(cell, chosen, _is_category(own, one, option))
            elif chosen is not None:
                cell = _only(cell, chosen, _kept(chosen.values[:, 0], one, option))
            else:
                cell = _bounded(cell, self.place(one.name, option), one, option)
            if any(not len(choice.values) for choice in cell.choices):
                raise OptionError(f"{option}: {one} holds nowhere in the range")
        return cell

    def told(self, cell: Cell, lo: FloatArray, hi: FloatArray, choices: Sequence[Choice]) -> tuple[InputRange, ...]:
        """Return what a part of a range has of each input that has less in it than in the range."""
        left = {choice.columns: choice for choice in choices}
        whole = {choice.columns: choice for choice in cell.choices}
        box, found = cell.hull, []
        for name, columns in self.names():
            if columns in whole and columns in left:
                if len(left[columns].values) < len(whole[columns].values):
                    found.append(self.of_values(name, left[columns]))
            elif (lo[list(columns)] > box.lo[list(columns)]).any() or (hi[list(columns)] < box.hi[list(columns)]).any():
                found.append(InputRange(name=name, lo=float(lo[columns[0]]), hi=float(hi[columns[0]])))
        return tuple(found)

    def of_values(self, name: str, choice: Choice) -> InputRange:
        """Return the values of a choice, in words."""
        own = self._feature(name)
        rows = choice.values if len(choice.values) <= LISTED else choice.values[[0, -1]]
        if own is not None and own.kind == "categorical":
            named = [own.categories[int(row.argmax())] for row in rows]
        else:
            named = [f"{row[0]:.9g}" for row in rows]
        return InputRange(name=name, values=tuple(named), n_values=len(choice.values))

    def all_told(self, cell: Cell) -> tuple[InputRange, ...]:
        """Return the range of each feature; nothing where no file says what they are."""
        if self.features is None:
            return ()
        by_columns = {choice.columns: choice for choice in cell.choices}
        return tuple(
            self.of_values(one.name, by_columns[one.columns])
            if one.columns in by_columns
            else InputRange(name=one.name, lo=float(cell.box.lo[one.place]), hi=float(cell.box.hi[one.place]))
            for one in self.features.features
        )

    def _feature(self, name: str) -> Feature | None:
        return None if self.features is None else next((f for f in self.features.features if f.name == name), None)


def range_sha256(cell: Cell) -> str:
    """Return a hash of all that defines a range."""
    box = cell.box
    parts = [box.lo, box.hi, box.inner_lo, box.inner_hi]
    for choice in cell.choices:
        parts += [np.asarray(choice.columns, np.float64), choice.values]
    return numbers_sha256(parts)


def _only(cell: Cell, chosen: Choice | None, kept: BoolArray) -> Cell:
    assert chosen is not None
    left = replace(chosen, values=chosen.values[kept])
    return replace(cell, choices=tuple(left if one is chosen else one for one in cell.choices))


def _is_category(own: Feature, one: Condition, option: str) -> BoolArray:
    if one.sign != "=" or one.value not in own.categories:
        raise OptionError(f"{option}: {own.name} is one of {', '.join(own.categories)}; write '{own.name} = ...'")
    return np.array([name == one.value for name in own.categories])


def _number(one: Condition, option: str) -> Fraction:
    return parse_fraction(one.value, option=f"{option}, {one.name},")


def _kept(values: FloatArray, one: Condition, option: str) -> BoolArray:
    limit = _number(one, option)
    keeps = _COMPARISONS[one.sign]
    return np.array([keeps(Fraction(value), limit) for value in values.tolist()], np.bool_)


def _bounded(cell: Cell, place: int, one: Condition, option: str) -> Cell:
    """Return the cell with one input on a side of a number; the number itself is left to bounds, not to points."""
    limit, box = _number(one, option), cell.box
    lo, hi, inner_lo, inner_hi = (ends.copy() for ends in (box.lo, box.hi, box.inner_lo, box.inner_hi))
    below, above = float_below(limit), float_above(limit)
    if one.sign in ("<", "<=", "="):
        last = math.nextafter(below, -math.inf) if one.sign == "<" and Fraction(below) == limit else below
        hi[place], inner_hi[place] = min(hi[place], above), min(inner_hi[place], last)
    if one.sign in (">", ">=", "="):
        first = math.nextafter(above, math.inf) if one.sign == ">" and Fraction(above) == limit else above
        lo[place], inner_lo[place] = max(lo[place], below), max(inner_lo[place], first)
    if not (lo[place] <= hi[place] and inner_lo[place] <= inner_hi[place]):
        raise OptionError(f"{option}: {one} holds nowhere in the range {box.lo[place]:g} to {box.hi[place]:g}")
    return replace(cell, box=Box(lo, hi, inner_lo, inner_hi, box.point_type))


def refuse_other_size(features: Features, n_inputs: int, model: object) -> None:
    """Raise DataError where a file speaks of other inputs than a network's."""
    if features.size != n_inputs:
        raise DataError(f"{features.path} speaks of {features.size} inputs, and {model} has {n_inputs}")
