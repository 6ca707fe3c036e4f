"""Terms of a query by themselves: what they read, their value, the polynomial that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final, TypeAlias

from idl_audit.data.vnnlib2.arithmetic import MOST_BITS, Arithmetic
from idl_audit.data.vnnlib2.syntax import Access, Constant, Operation, Term
from idl_audit.values.errors import DataError, TooManyDigitsError

Entry: TypeAlias = tuple[str, int]
"""A variable, and the number of one of its entries in row-major order."""
Monomial: TypeAlias = tuple[Entry, ...]
"""A product of entries, in ascending order; empty for 1."""
Polynomial: TypeAlias = Mapping[Monomial, Fraction]
"""What each monomial is multiplied by; no 0."""
Key: TypeAlias = tuple[object, ...]
"""Terms that are written alike have the same one."""

MOST_MONOMIALS: Final = 2**14
"""Of one side of a comparison."""


def entries_of(term: Term) -> Iterator[Entry]:
    """Yield the entries that a term reads, as often as it does."""
    match term:
        case Access():
            yield term.variable, term.flat
        case Operation():
            for part in term.parts:
                yield from entries_of(part)


def key_of(term: Term) -> Key:
    """Return the term without its place in the file."""
    match term:
        case Constant():
            return ("constant", term.value)
        case Access():
            return ("entry", term.variable, term.flat)
        case Operation():
            return (term.operator, *(key_of(part) for part in term.parts))


def value_of(term: Term, arithmetic: Arithmetic, read: Callable[[Entry], Fraction | None]) -> Fraction | None:
    """Return a term's value, operation by operation; None where an entry has none.

    Raises TooManyDigitsError where a number is beyond the type.
    """
    match term:
        case Constant():
            return arithmetic.constant(term.value, term.text)
        case Access():
            return read((term.variable, term.flat))
        case Operation():
            parts = [value_of(part, arithmetic, read) for part in term.parts]
            known = [part for part in parts if part is not None]
            return arithmetic.combined(term.operator, known) if len(known) == len(parts) else None


def polynomial_of(term: Term, arithmetic: Arithmetic) -> Polynomial:
    """Return the polynomial that a term is in exact arithmetic, of its constants as the type has them.

    Raises DataError where it is too large.
    """
    match term:
        case Constant():
            value = arithmetic.constant(term.value, term.text)
            return {(): value} if value else {}
        case Access():
            return {((term.variable, term.flat),): Fraction(1)}
        case Operation():
            parts = [polynomial_of(part, arithmetic) for part in term.parts]
            if term.operator == "-" and len(parts) == 1:
                return difference({}, parts[0])
            found = parts[0]
            for part in parts[1:]:
                found = _COMBINED[term.operator](found, part)
            return found


def difference(one: Polynomial, two: Polynomial) -> Polynomial:
    """Return one - two."""
    return _added(one, two, Fraction(-1))


def _added(one: Polynomial, two: Polynomial, factor: Fraction = Fraction(1)) -> Polynomial:
    found = dict(one)
    for monomial, coefficient in two.items():
        found[monomial] = _limited(found.get(monomial, Fraction(0)) + factor * coefficient)
    return _without_zeros(found)


def _multiplied(one: Polynomial, two: Polynomial) -> Polynomial:
    found: dict[Monomial, Fraction] = {}
    for left, a in one.items():
        for right, b in two.items():
            monomial = tuple(sorted((*left, *right)))
            found[monomial] = _limited(found.get(monomial, Fraction(0)) + a * b)
            if len(found) > MOST_MONOMIALS:
                raise DataError(f"an assertion multiplies out to more than {MOST_MONOMIALS:,} terms; split it")
    return _without_zeros(found)


def _without_zeros(found: Mapping[Monomial, Fraction]) -> Polynomial:
    return {monomial: coefficient for monomial, coefficient in found.items() if coefficient}


def _limited(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MOST_BITS:
        raise TooManyDigitsError(["a computed number has too many digits; write the numbers out"])
    return value


_COMBINED: Final[Mapping[str, Callable[[Polynomial, Polynomial], Polynomial]]] = MappingProxyType(
    {"+": _added, "-": difference, "*": _multiplied}
)
