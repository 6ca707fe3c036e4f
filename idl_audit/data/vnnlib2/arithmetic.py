"""The numbers of each element type: what a constant is, what an operation of an assertion gives, what lies beside one.

A constant of a float32 query is the float32 number nearest to its decimal, and every operation is rounded; those of a
`real` query are exact. Whole numbers are compared, and never computed with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from idl_audit.data.vnnlib2.syntax import REAL
from idl_audit.values.errors import DataError, TooManyDigitsError

MOST_BITS: Final = 20_000
"""Of a number that is computed exactly."""


@dataclass(frozen=True)
class Arithmetic:
    """The numbers of one element type, as exact fractions."""

    name: str
    kind: str
    """float, whole, truth or real."""
    largest: Fraction | None = None
    """The greatest number; None where there is none."""
    least: Fraction | None = None

    @property
    def is_exact(self) -> bool:
        """Whether nothing is ever rounded."""
        return self.kind == REAL

    @property
    def _float(self) -> Callable[..., Any]:
        return {"float32": np.float32, "float64": np.float64}[self.name]

    def constant(self, value: Fraction, text: str) -> Fraction:
        """Return the number that a constant stands for. Raises DataError where the type has none."""
        if self.kind == "float":
            nearest = self.nearest(value)
            if nearest is None:
                raise DataError(f"the constant {text[:60]} is beyond the largest {self.name}")
            return nearest
        if self.largest is not None and self.least is not None and not self.least <= value <= self.largest:
            raise DataError(f"the constant {text[:60]} is beyond the numbers of {self.name}")
        if not self.is_exact and value.denominator != 1:
            raise DataError(f"the constant {text[:60]} is no {self.name}")
        return value

    def nearest(self, value: Fraction) -> Fraction | None:
        """Return the float of this type nearest to an exact number, of two the even one; None beyond the largest."""
        assert self.largest is not None
        with np.errstate(over="ignore", under="ignore"):
            start = self._float(float(max(min(value, self.largest), -self.largest)))
            near = [start, np.nextafter(start, self._float(np.inf)), np.nextafter(start, self._float(-np.inf))]
        best = min(filter(np.isfinite, near), key=lambda one: (abs(Fraction(float(one)) - value), _is_odd(one)))
        found = Fraction(float(best))
        half = (self.largest - Fraction(float(np.nextafter(self._float(float(self.largest)), self._float(0))))) / 2
        return None if abs(value) >= self.largest + half else found

    def beside(self, value: Fraction, *, above: bool) -> Fraction | None:
        """Return the next number above or below one of this type; None where there is none next to it."""
        if self.is_exact:
            return None
        if self.kind != "float":
            return value + (1 if above else -1)
        with np.errstate(over="ignore", under="ignore"):
            found = np.nextafter(self._float(float(value)), self._float(np.inf if above else -np.inf))
        return Fraction(float(found)) if np.isfinite(found) else None

    def within(self, value: Fraction, *, above: bool) -> Fraction | None:
        """Return the least number of this type not below a value (`above`), or the greatest not above it.

        None where there is none; of reals the value itself.
        """
        if self.kind != "float":
            return value
        assert self.largest is not None
        if abs(value) > self.largest:
            outside = (value > 0) == above
            return None if outside else (self.largest if value > 0 else -self.largest)
        found = self.nearest(value)
        assert found is not None
        wrong = found < value if above else found > value
        return self.beside(found, above=above) if wrong else found

    def combined(self, operator: str, parts: Iterable[Fraction]) -> Fraction:
        """Return the sum, difference or product of numbers, rounded from the left as this type does.

        Raises TooManyDigitsError where a result is beyond the type.
        """
        values = list(parts)
        if operator == "-" and len(values) == 1:
            return -values[0]
        step = _STEPS[operator]
        return reduce(lambda a, b: self._rounded(step(a, b)), values)

    def _rounded(self, value: Fraction) -> Fraction:
        if self.kind == "float":
            found = self.nearest(value)
        else:
            found = value if value.numerator.bit_length() + value.denominator.bit_length() <= MOST_BITS else None
        if found is None:
            raise TooManyDigitsError([f"a computed constant is beyond what {self.name} holds; write smaller numbers"])
        return found


def _is_odd(number: Any) -> bool:
    """Whether the last bit of a float's significand is set."""
    return bool(int(number.view(np.uint32 if number.dtype == np.float32 else np.uint64)) & 1)


_STEPS: Final[Mapping[str, Callable[[Fraction, Fraction], Fraction]]] = MappingProxyType(
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
)


def _floats(name: str, kind: type[np.floating[Any]]) -> Arithmetic:
    largest = Fraction(float(np.finfo(kind).max))
    return Arithmetic(name, "float", largest, -largest)


def _whole(name: str) -> Arithmetic:
    limits = np.iinfo(name)
    return Arithmetic(name, "whole", Fraction(int(limits.max)), Fraction(int(limits.min)))


ARITHMETICS: Final[Mapping[str, Arithmetic]] = MappingProxyType(
    {
        "float32": _floats("float32", np.float32),
        "float64": _floats("float64", np.float64),
        REAL: Arithmetic(REAL, REAL),
        "bool": Arithmetic("bool", "truth", Fraction(1), Fraction(0)),
        **{name: _whole(name) for bits in (8, 16, 32, 64) for name in (f"int{bits}", f"uint{bits}")},
    }
)
"""The element types that variables may have here."""

OF_INPUTS: Final = ("float32", "float64", REAL)
"""The element types of inputs that are decided here."""
