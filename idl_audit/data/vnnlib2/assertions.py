"""The assertions of a VNN-LIB 2 file: their words become formulas of one type each.

One loop with a stack of its own: no file is too deep for it, and a million assertions take seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NoReturn, TypeAlias, cast

from idl_audit.data.vnnlib2.limits import MAX_CHARACTERS, MAX_DEPTH, MAX_TERMS
from idl_audit.data.vnnlib2.syntax import (
    Access,
    Comparison,
    Constant,
    Formula,
    Junction,
    Operation,
    Place,
    Term,
    Variable,
)
from idl_audit.data.vnnlib2.tokens import HINTS, Match, bracketed, raw, shown, start, whole_numbers
from idl_audit.data.vnnlib2.types import ELEMENT_TYPES

Fail: TypeAlias = Callable[[int | Place, str], NoReturn]

SENSES: Final = frozenset({"<=", ">=", "<", ">", "==", "!="})
JUNCTIONS: Final = frozenset({"and", "or"})
ARITHMETIC: Final = frozenset({"+", "-", "*"})

_FORMULA: Final = "a comparison such as (<= X[0] 1.0), or (and ...) or (or ...) of such,"
_TERM: Final = "a number, an entry such as X[0], or a sum or product of such"

_CHARACTERS: Final = {
    ".": "; a number has digits on both sides of its point: 0.5, 5.0",
    "+": "; a number has no plus sign, and a sum is written (+ X[0] X[1])",
    "[": "; an entry is a tensor's name with one whole number for each dimension, X[0,2], and a scalar its name alone",
}
"""What stands where it cannot -> what may have been meant."""

_EXPONENT: Final = re.compile(r"[eE][0-9]*")


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a variable, wherever it stands."""

    variable: str
    index: tuple[int, ...]
    flat: int
    element: str


@dataclass(slots=True)
class _Types:
    """What is known of one comparison's type so far."""

    element: str | None = None
    """Of its entries; None before the first of them."""
    constants: list[Constant] = field(default_factory=list)
    """Its numbers, which must be of that type."""


@dataclass(slots=True)
class _Frame:
    """An expression that is not closed yet."""

    operator: str
    place: Place
    parts: list[Any]
    """What is closed of it: formulas or terms, as its operator takes."""
    types: _Types | None = None
    """Of the comparison that it is, or is in; None where formulas stand."""


class Assertions:
    """Reads the assertions of one text, one after the other; what was seen once is not worked out again."""

    def __init__(
        self,
        text: str,
        variables: dict[str, Variable],
        matches: Iterator[Match],
        place: Callable[[int], Place],
        fail: Fail,
    ) -> None:
        self._text = text
        self._variables = variables
        self._matches = matches
        self._place = place
        self._fail = fail
        self._entries: dict[str, _Entry] = {}
        self._numbers: dict[str, tuple[str, Fraction]] = {}
        self._terms = 0

    def formula(self, opening: Match) -> Formula:
        """Return the formula of the assertion that `opening` opens, having read it to its closing parenthesis."""
        frame = _Frame("assert", self._place(start(opening)), [])
        outer: list[_Frame] = []
        for match in self._matches:
            kind = match.lastgroup
            if kind == "close":
                done = self._closed(frame, match)
                if not outer:
                    return cast(Formula, done)
                frame = outer.pop()
                frame.parts.append(done)
                continue
            self._terms += 1
            if self._terms > MAX_TERMS:
                self._fail(start(match), f"the assertions have more than {MAX_TERMS:,} words; split the query")
            if kind == "open":
                if len(outer) == MAX_DEPTH:
                    self._fail(start(match), f"this is nested deeper than {MAX_DEPTH} parentheses; write it flat")
                outer.append(frame)
                frame = self._opened(match, frame)
            elif frame.types is None:
                self._refuse(match, frame)
            elif kind == "entry":
                frame.parts.append(self._access(match, frame.types))
            elif kind == "number":
                frame.parts.append(self._constant(match, frame.types))
            else:
                self._refuse(match, frame)
        raise AssertionError("the end of the text is a word too")

    def _opened(self, match: Match, around: _Frame) -> _Frame:
        """Return the expression that begins with this word."""
        operator, types = match["operator"], around.types
        if types is not None and operator not in ARITHMETIC:
            self._refuse(match, around)
        if types is None and operator not in JUNCTIONS:
            if operator not in SENSES:
                self._refuse(match, around)
            types = _Types()
        return _Frame(operator, self._place(match.start("open")), [], types)

    def _closed(self, frame: _Frame, match: Match) -> Formula | Term:
        """Return the expression that is whole now; of an assertion, its formula."""
        operator, parts = frame.operator, frame.parts
        if operator in SENSES:
            return self._comparison(frame)
        if not parts:
            self._fail(start(match), f"{shown(operator)} stands alone; it takes {_wanted(frame).strip(',')}")
        if operator in ARITHMETIC:
            return Operation(cast(Any, operator), tuple(parts), frame.place)
        if operator in JUNCTIONS:
            return Junction(cast(Any, operator), tuple(parts), frame.place)
        if len(parts) > 1:
            self._fail(parts[1].place, "an assertion has one formula; put several together with and")
        return cast(Formula, parts[0])

    def _comparison(self, frame: _Frame) -> Comparison:
        if len(frame.parts) != 2:
            told = f"{shown(frame.operator)} compares two terms and has {len(frame.parts)}"
            self._fail(frame.place, f"{told}; write one comparison for each pair")
        assert frame.types is not None
        element = frame.types.element
        if element is None:
            self._fail(frame.place, "this compares numbers, which have no type without a variable; leave it out")
        known = ELEMENT_TYPES[element]
        if known.family != "decimal":
            for constant in frame.types.constants:
                refusal = known.refusal(constant.text, constant.value)
                if refusal is not None:
                    self._fail(constant.place, f"{shown(constant.text)} is compared with {element}; {refusal}")
        left, right = frame.parts
        return Comparison(cast(Any, frame.operator), left, right, frame.place)

    def _access(self, match: Match, types: _Types) -> Access:
        entry = self._entries.get(match["entry"]) or self._entry(match)
        if types.element is None:
            types.element = entry.element
        elif types.element != entry.element:
            self._fail(
                start(match),
                f"{shown(raw(match))} is {entry.element} and what stands before it {types.element}; a comparison has "
                "one type, and nothing is converted",
            )
        return Access(entry.variable, entry.index, entry.flat, self._place(match.start("entry")))

    def _constant(self, match: Match, types: _Types) -> Constant:
        text, value = self._numbers.get(match["number"]) or self._number(match)
        made = Constant(value, text, self._place(match.start("number")))
        types.constants.append(made)
        return made

    def _refuse(self, match: Match, frame: _Frame) -> NoReturn:
        """Raise for a word that cannot stand in an expression."""
        wanted = _wanted(frame)
        if match.lastgroup == "end":
            where = f"the assertion of line {frame.place.line} does not end"
            self._fail(start(match), f"{where}; the file is truncated or lacks a ')'")
        if match["operator"] in HINTS:
            self._fail(start(match), f"there is no {shown(match['operator'])} in VNN-LIB 2; {HINTS[match['operator']]}")
        hint = _CHARACTERS.get(match["other"] or "", "")
        self._fail(start(match), f"{shown(raw(match))} stands where {wanted} is expected{hint}")

    def _number(self, match: Match) -> tuple[str, Fraction]:
        """Return a number's text and value, exactly."""
        text = match["number"]
        if len(text) > MAX_CHARACTERS:
            self._fail(start(match), f"a number has more than {MAX_CHARACTERS:,} digits; write fewer")
        whole, _, decimals = text.partition(".")
        found = text, Fraction(int(whole + decimals), 10 ** len(decimals))
        self._numbers[text] = found
        return found

    def _entry(self, match: Match) -> _Entry:
        """Return the entry of a variable that is written for the first time."""
        name, position = match["name"], start(match)
        variable = self._variables.get(name)
        if variable is None:
            if self._text[position - 1].isdigit() and _EXPONENT.fullmatch(name):
                self._fail(position, "a number has an exponent, which VNN-LIB 2 has not; write 0.00001 for 1e-05")
            self._fail(position, f"{shown(name)} is no variable; declare it in a network, or use a declared name")
        rank = len(variable.shape)
        digits = () if match["index"] is None else whole_numbers(match["index"])
        if len(digits) != rank:
            self._fail(position, self._wrong_rank(match, variable, len(digits)))
        index = tuple(int(part) if len(part) < 20 else 10**20 for part in digits)
        flat = 0
        for number, size in zip(index, variable.shape, strict=True):
            if number >= size:
                told = f"is not in {name}, whose shape is {list(variable.shape)}; indices count from 0"
                self._fail(position, f"{shown(raw(match))} {told}")
            flat = flat * size + number
        found = _Entry(variable.name, index, flat, variable.element)
        self._entries[match["entry"]] = found
        return found

    def _wrong_rank(self, match: Match, variable: Variable, count: int) -> str:
        """Return what is wrong with the indices of an entry."""
        name, rank = variable.name, len(variable.shape)
        example = f"{name}[{','.join('0' * rank)}]" if rank else name
        if match["index"] is None and (brackets := bracketed(self._text, match.end())):
            return f"{shown(name + brackets)} has no whole numbers with commas as indices; write {example}"
        return f"{shown(raw(match))} has {count} of the {rank} indices of {name}; write {example}"


def _wanted(frame: _Frame) -> str:
    return _FORMULA if frame.operator == "assert" or frame.operator in JUNCTIONS else _TERM
