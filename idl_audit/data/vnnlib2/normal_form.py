"""Queries in disjunctive normal form: boxes of inputs, and for each the alternatives of comparisons that remain.

Entries of inputs are *columns*: two that every assignment makes equal, by `(== X[0] Z[0])` among the assertions
themselves, are one. Comparisons of one input with a constant are bounds, those of several inputs narrow them; what is
left are *literals*, `left <= right` or `left < right`. Of floats `X < c` is `X <=` the number below c, and an input
without bounds ranges over all finite numbers; a real one has no bound then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.data.vnnlib import MAX_CASES, MAX_LITERALS
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
    Variable,
)
from idl_audit.data.vnnlib2.terms import Entry, Key, difference, entries_of, key_of, polynomial_of, value_of
from idl_audit.values.arrays import IntArray
from idl_audit.values.errors import DataError, TooManyDigitsError

MOST_SWEEPS: Final = 8
"""Times that comparisons of inputs narrow each other's bounds."""


@dataclass(frozen=True)
class Literal:
    """left <= right, or < where it is strict."""

    left: Term
    right: Term
    strict: bool
    arithmetic: Arithmetic

    @property
    def key(self) -> Key:
        """What makes two literals the same."""
        return key_of(self.left), key_of(self.right), self.strict


@dataclass(frozen=True)
class Columns:
    """The inputs of all networks as one vector."""

    numbers: Mapping[Entry, int]
    """Entry of an input -> its column."""
    arithmetics: tuple[Arithmetic, ...]
    """Of each column."""

    @property
    def count(self) -> int:
        """The number of columns."""
        return len(self.arithmetics)

    def of(self, variable: Variable) -> IntArray:
        """Return the columns of an input's entries, in its shape."""
        flat = [self.numbers[variable.name, entry] for entry in range(size_of(variable))]
        return np.array(flat, np.int64).reshape(variable.shape)


@dataclass(frozen=True)
class BoxOfCases:
    """A box of inputs, and the alternatives: the query holds where all literals of one of them do."""

    lo: tuple[Fraction | None, ...]
    """None where a real input has no bound."""
    hi: tuple[Fraction | None, ...]
    alternatives: tuple[tuple[Literal, ...], ...]


@dataclass(frozen=True)
class NormalForm:
    """The disjunction that the assertions are; without a box, nothing satisfies them."""

    columns: Columns
    boxes: tuple[BoxOfCases, ...]


def normal_form(query: Specification) -> NormalForm:
    """Return the disjunctive normal form of a query.

    Raises:
        DataError: where it exceeds a limit, or a constant is no number of its type.
        TooManyDigitsError: where a number that it computes has too many digits.
    """
    variables = {variable.name: variable for variable in query.variables}
    columns = _columns(query)
    making = _Making(query.source, variables, columns)
    try:
        cases = making.conjunction(making.formula(assertion) for assertion in query.assertions)
        return NormalForm(columns, making.boxes(cases))
    except _Fault as error:
        raise DataError(f"{query.source}: {error}") from None
    except TooManyDigitsError as error:  # the query is right all the same
        raise TooManyDigitsError([f"{query.source}: {error}"]) from None
    except DataError as error:
        raise DataError(f"{query.source}: {error}") from None


class _Fault(Exception):
    """What is too much, without the file's name."""


# --- columns ----------------------------------------------------------------------------------------------------------


def _columns(query: Specification) -> Columns:
    inputs = [variable for network in query.networks for variable in network.inputs]
    kinds = {variable.name: ARITHMETICS[variable.element] for variable in inputs}
    first: dict[Entry, Entry] = {}

    def origin(entry: Entry) -> Entry:
        while entry in first:
            entry = first[entry]
        return entry

    for comparison in _stated(query.assertions):
        sides = (comparison.left, comparison.right)
        if comparison.sense == "==" and all(isinstance(side, Access) and side.variable in kinds for side in sides):
            left, right = (origin(*entries_of(side)) for side in sides)
            if left != right and kinds[left[0]] == kinds[right[0]]:
                first[right] = left
    numbers: dict[Entry, int] = {}
    arithmetics: list[Arithmetic] = []
    entries = [(variable.name, flat) for variable in inputs for flat in range(size_of(variable))]
    for entry in entries:
        if entry not in first:
            numbers[entry] = len(arithmetics)
            arithmetics.append(kinds[entry[0]])
    numbers.update({entry: numbers[origin(entry)] for entry in entries if entry in first})
    return Columns(MappingProxyType(numbers), tuple(arithmetics))


def size_of(variable: Variable) -> int:
    """Return the number of entries of a variable."""
    size = 1
    for length in variable.shape:
        size *= length
    return size


def _stated(formulas: Iterable[Formula]) -> Iterator[Comparison]:
    """Yield the comparisons that hold in every case."""
    for formula in formulas:
        match formula:
            case Comparison():
                yield formula
            case Junction(operator="and"):
                yield from _stated(formula.parts)


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass
class _Case:
    """A conjunction: bounds of columns, and literals in the order in which they were written, each once."""

    lo: dict[int, Fraction] = field(default_factory=dict)
    hi: dict[int, Fraction] = field(default_factory=dict)
    literals: dict[Key, Literal] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return 1 + len(self.lo) + len(self.hi) + len(self.literals)

    def add(self, other: _Case) -> None:
        """Make it the conjunction of both."""
        for i, bound in other.lo.items():
            self.lo[i] = max(bound, self.lo.get(i, bound))
        for i, bound in other.hi.items():
            self.hi[i] = min(bound, self.hi.get(i, bound))
        self.literals.update(other.literals)

    def with_(self, other: _Case) -> _Case:
        both = _Case(dict(self.lo), dict(self.hi), dict(self.literals))
        both.add(other)
        return both

    @property
    def is_empty(self) -> bool:
        return any(i in self.hi and bound > self.hi[i] for i, bound in self.lo.items())


def _check_size(cases: int, literals: int) -> None:
    if cases > MAX_CASES or literals > MAX_LITERALS:
        raise _Fault(
            f"its disjunctive form has more than {MAX_CASES:,} cases or {MAX_LITERALS:,} constraints; split the query"
        )


@dataclass(frozen=True)
class _Making:
    """What the cases are made with."""

    source: str
    variables: Mapping[str, Variable]
    columns: Columns

    def conjunction(self, parts: Iterable[list[_Case]]) -> list[_Case]:
        """Return the cases of a conjunction of disjunctions; those with contradictory bounds are left out."""
        common, several = _Case(), []
        for cases in parts:
            if len(cases) == 1:
                common.add(cases[0])
            else:
                several.append(cases)
        made = [] if common.is_empty else [common]
        for cases in several:
            pairs = len(made) * len(cases)
            _check_size(pairs, len(cases) * sum(a.size for a in made) + len(made) * sum(b.size for b in cases))
            made = [both for both in (a.with_(b) for a in made for b in cases) if not both.is_empty]
        return made

    def formula(self, formula: Formula) -> list[_Case]:
        """Return the cases of a formula; none where it cannot hold."""
        match formula:
            case Comparison():
                return self._comparison(formula)
            case Junction(operator="and"):
                return self.conjunction(self.formula(part) for part in formula.parts)
            case Junction():
                cases = []
                for part in formula.parts:
                    cases += self.formula(part)
                    _check_size(len(cases), sum(case.size for case in cases) if len(cases) > 1 else 0)
                return cases

    def _comparison(self, comparison: Comparison) -> list[_Case]:
        read = next(chain(entries_of(comparison.left), entries_of(comparison.right)), None)
        if read is None:
            raise _Fault(f"line {comparison.place.line} compares two constants, which have no type")
        arithmetic = ARITHMETICS[self.variables[read[0]].element]
        sides = (comparison.left, comparison.right)
        if comparison.sense == "!=" and arithmetic.kind == "float" and key_of(sides[0]) == key_of(sides[1]):
            return self._literal(_beyond(comparison, arithmetic))
        several = []
        for option in _SENSES[comparison.sense]:
            literals = (Literal(*(sides if forward else sides[::-1]), strict, arithmetic) for forward, strict in option)
            several += self.conjunction(self._literal(literal) for literal in literals)
        return several

    def _literal(self, literal: Literal) -> list[_Case]:
        """Return the cases of one literal: a bound, the literal itself, nothing (it holds), or no case at all."""
        arithmetic = literal.arithmetic
        values = [value_of(side, arithmetic, lambda entry: None) for side in (literal.left, literal.right)]
        if values[0] is not None and values[1] is not None:
            holds = values[0] < values[1] or (values[0] == values[1] and not literal.strict)
            return [_Case()] if holds else []
        if key_of(literal.left) == key_of(literal.right) and (literal.strict or arithmetic.is_exact):
            return [] if literal.strict else [_Case()]
        itself = _Case(literals={literal.key: literal})
        for side, limit, is_upper in ((literal.left, values[1], True), (literal.right, values[0], False)):
            if limit is not None and isinstance(side, Access) and (side.variable, side.flat) in self.columns.numbers:
                return self._bound(literal, self.columns.numbers[side.variable, side.flat], limit, is_upper, itself)
        return [itself]

    def _bound(self, literal: Literal, column: int, limit: Fraction, is_upper: bool, itself: _Case) -> list[_Case]:
        kept = _Case()
        if literal.strict and not literal.arithmetic.is_exact:
            beside = literal.arithmetic.beside(limit, above=not is_upper)
            if beside is None:
                return []
            limit = beside
        elif literal.strict:
            kept = itself
        return [kept.with_(_Case(hi={column: limit}) if is_upper else _Case(lo={column: limit}))]

    # --- boxes --------------------------------------------------------------------------------------------------------

    def boxes(self, cases: Sequence[_Case]) -> tuple[BoxOfCases, ...]:
        """Return the cases with those of one box together; of such that cannot hold, none is left."""
        if len(cases) * self.columns.count > MAX_LITERALS:
            raise _Fault(f"it has {len(cases):,} boxes of {self.columns.count:,} inputs, too many; split the query")
        grouped: dict[tuple[object, ...], tuple[_Case, dict[tuple[Literal, ...], None]]] = {}
        for case in cases:
            narrowed = self._narrowed(case)
            if narrowed is not None:
                key = (tuple(sorted(narrowed.lo.items())), tuple(sorted(narrowed.hi.items())))
                group = grouped.setdefault(key, (narrowed, {}))
                group[1][tuple(case.literals.values())] = None
        return tuple(
            BoxOfCases(
                tuple(case.lo.get(i) for i in range(self.columns.count)),
                tuple(case.hi.get(i) for i in range(self.columns.count)),
                tuple(alternatives),
            )
            for case, alternatives in grouped.values()
        )

    def _narrowed(self, case: _Case) -> _Case | None:
        """Return the case with the bounds that follow from its comparisons of inputs; None where it is empty."""
        found = _Case(dict(case.lo), dict(case.hi), case.literals)
        for i, arithmetic in enumerate(self.columns.arithmetics):
            if arithmetic.largest is not None and arithmetic.least is not None:
                found.lo.setdefault(i, arithmetic.least)
                found.hi.setdefault(i, arithmetic.largest)
        if any(self._is_refuted(literal, found) for literal in case.literals.values()):
            return None
        rows = [row for row in map(self._row, case.literals.values()) if row is not None]
        for _ in range(MOST_SWEEPS):
            changed = [row.narrow(found, self.columns.arithmetics) for row in rows]
            if found.is_empty:
                return None
            if not any(changed):
                break
        return None if found.is_empty else found

    def _is_refuted(self, literal: Literal, case: _Case) -> bool:
        """Whether the least that the left side may be, computed as it is written, is above the most of the right."""
        ends = [self._ends(side, literal.arithmetic, case) for side in (literal.left, literal.right)]
        least, most = ends[0][0], ends[1][1]
        return least is not None and most is not None and (least > most or (literal.strict and least == most))

    def _ends(self, term: Term, arithmetic: Arithmetic, case: _Case) -> tuple[Fraction | None, Fraction | None]:
        """Return the least and the greatest value of a term of inputs; None where none is known.

        Rounding is monotone: what is computed of the ends are ends of what is computed.
        """
        match term:
            case Constant():
                value = arithmetic.constant(term.value, term.text)
                return value, value
            case Access():
                column = self.columns.numbers.get((term.variable, term.flat))
                return (None, None) if column is None else (case.lo.get(column), case.hi.get(column))
            case Operation():
                parts = [self._ends(part, arithmetic, case) for part in term.parts]
                if term.operator == "-" and len(parts) == 1:
                    ((lo, hi),) = parts
                    return None if hi is None else -hi, None if lo is None else -lo
                found = parts[0]
                for part in parts[1:]:
                    found = _combined(term.operator, found, part, arithmetic)
                return found

    def _row(self, literal: Literal) -> _Row | None:
        """Return the linear inequality between inputs that a literal is, where it is one."""
        read = {*entries_of(literal.left), *entries_of(literal.right)}
        if not read <= self.columns.numbers.keys():
            return None
        sides = [polynomial_of(side, literal.arithmetic) for side in (literal.left, literal.right)]
        whole = difference(*sides)
        if any(len(monomial) > 1 for side in sides for monomial in side):
            return None
        terms: dict[int, Fraction] = {}
        for monomial, coefficient in whole.items():
            for entry in monomial:
                column = self.columns.numbers[entry]
                terms[column] = terms.get(column, Fraction(0)) + coefficient
        return _Row(literal, {i: c for i, c in terms.items() if c}, whole.get((), Fraction(0)), self.columns)


_Ends: TypeAlias = tuple[Fraction | None, Fraction | None]


def _combined(operator: str, one: _Ends, two: _Ends, arithmetic: Arithmetic) -> _Ends:
    """Return the ends of a sum, difference or product of two intervals, rounded as the type rounds."""
    if operator == "-":
        operator, two = "+", (None if two[1] is None else -two[1], None if two[0] is None else -two[0])
    if operator == "+":
        return _computed("+", one[0], two[0], arithmetic), _computed("+", one[1], two[1], arithmetic)
    products = [_computed("*", a, b, arithmetic) for a in one for b in two]
    known = [value for value in products if value is not None]
    return (min(known), max(known)) if len(known) == len(products) else (None, None)


def _computed(operator: str, a: Fraction | None, b: Fraction | None, arithmetic: Arithmetic) -> Fraction | None:
    if a is None or b is None:
        return None
    try:
        return arithmetic.combined(operator, (a, b))
    except TooManyDigitsError:  # beyond the type
        return None


@dataclass(frozen=True)
class _Row:
    """sum terms[i] u_i + constant <= what rounding may add, in exact arithmetic."""

    literal: Literal
    terms: Mapping[int, Fraction]
    constant: Fraction
    columns: Columns

    def narrow(self, case: _Case, arithmetics: Sequence[Arithmetic]) -> bool:
        """Narrow the bounds of a case; tell whether one changed."""
        slack = self._slack(case)
        if slack is None:
            return False
        least = {i: self._least(i, case) for i in self.terms}
        unbounded = [i for i, value in least.items() if value is None]
        if len(unbounded) > 1:
            return False
        total = sum((value for value in least.values() if value is not None), self.constant)
        changed = False
        for i in unbounded or list(self.terms):
            coefficient, own = self.terms[i], least[i] or Fraction(0)
            limit = (slack - (total - own)) / coefficient
            changed |= _limit(case, i, limit, arithmetics[i], is_upper=coefficient > 0)
        return changed

    def _least(self, i: int, case: _Case) -> Fraction | None:
        coefficient = self.terms[i]
        end = case.lo.get(i) if coefficient > 0 else case.hi.get(i)
        return None if end is None else coefficient * end

    def _slack(self, case: _Case) -> Fraction | None:
        """Return what the roundings of both sides come to at most; None where nothing is known of them."""
        arithmetic, both = self.literal.arithmetic, (self.literal.left, self.literal.right)
        if arithmetic.is_exact or all(isinstance(side, Access) for side in both):
            return Fraction(0)
        sizes: dict[Entry, float] = {}
        for side in both:
            for entry in entries_of(side):
                column = self.columns.numbers[entry]
                ends = case.lo.get(column), case.hi.get(column)
                sizes[entry] = max(abs(float(end)) if end is not None else float("inf") for end in ends) * GROWN
        total = sum(rounding_of(side, arithmetic, sizes) for side in both)
        return Fraction(total) if total < float("inf") else None


GROWN: Final = 1.0 + 2.0**-40
"""Above what the roundings of float64 may take away from one step of a bound."""


def rounding_of(term: Term, arithmetic: Arithmetic, sizes: Mapping[Entry, float]) -> float:
    """Return how far the computed value of a term may be from its exact one, for entries of such sizes at most."""
    return _size_and_error(term, arithmetic, sizes)[1]


def _size_and_error(term: Term, arithmetic: Arithmetic, sizes: Mapping[Entry, float]) -> tuple[float, float]:
    """Return bounds of the size of the computed value, and of its distance from the exact one."""
    unit, least, most = _FORMATS[arithmetic.name]
    if isinstance(term, Access):
        return sizes[term.variable, term.flat], 0.0
    if isinstance(term, Constant):
        value = value_of(term, arithmetic, lambda entry: None)
        assert value is not None
        return abs(float(value)) * GROWN, 0.0
    (size, error), *others = [_size_and_error(part, arithmetic, sizes) for part in term.parts]
    for one, its in others:
        if term.operator == "*":
            error = (size * its + one * error + error * its) * GROWN
            size = size * one * GROWN
            error = (error + unit * size + least) * GROWN
        else:
            size = (size + one) * GROWN
            error = (error + its + unit * size) * GROWN
        size = size * (1 + unit) * GROWN + least
        if not size < most:
            return float("inf"), float("inf")
    return size, error


_FORMATS: Final[Mapping[str, tuple[float, float, float]]] = MappingProxyType(
    {"float32": (2.0**-24, 2.0**-126, 2.0**127), "float64": (2.0**-53, 2.0**-1022, 2.0**1000)}
)
"""Float -> unit roundoff, what a product that underflows loses at most, and what is surely within its range."""


def _limit(case: _Case, i: int, limit: Fraction, arithmetic: Arithmetic, *, is_upper: bool) -> bool:
    """Let column i be at most, or at least, a number; tell whether that is news."""
    ends = case.hi if is_upper else case.lo
    inside = arithmetic.within(limit, above=not is_upper)
    if inside is None:  # no number of the type satisfies it
        case.lo[i], case.hi[i] = Fraction(1), Fraction(0)
        return True
    known = ends.get(i)
    if known is not None and (known <= inside if is_upper else known >= inside):
        return False
    ends[i] = inside
    return True


def _beyond(comparison: Comparison, arithmetic: Arithmetic) -> Literal:
    """Return what is refuted for a float that is compared with itself only where it is a number: it is too large.

    NaN is not equal to itself. A term that is proved to be at most the largest float, with its roundings, is none.
    """
    assert arithmetic.largest is not None
    largest = Constant(arithmetic.largest, str(arithmetic.largest), comparison.place)
    return Literal(largest, comparison.left, True, arithmetic)


_SENSES: Final[Mapping[str, tuple[tuple[tuple[bool, bool], ...], ...]]] = MappingProxyType(
    {
        "<=": (((True, False),),),
        ">=": (((False, False),),),
        "<": (((True, True),),),
        ">": (((False, True),),),
        "==": (((True, False), (False, False)),),
        "!=": (((True, True),), ((False, True),)),
    }
)
"""Sense -> its cases: literals, each as (whether left and right stay, whether it is strict)."""
