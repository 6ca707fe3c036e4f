"""Rules of features.toml: linear equations and inequalities between features that are numbers, as users write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

from idl_audit.values.errors import DataError
from idl_audit.values.linear_rules import LinearRule

MOST_RULES: Final = 256
LONGEST: Final = 4096
"""Characters of a rule."""
SIGN: Final = re.compile(r"<=|>=|=")
LARGEST: Final = 10**100
"""Of coefficients and constants: sums of them stay far from the end of float64."""
DECIMAL: Final = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")


class Named(Protocol):
    """A feature."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def kind(self) -> str:
        """What it is."""

    @property
    def place(self) -> int:
        """Its first input."""


def read_rules(entries: object, features: Sequence[Named], path: Path) -> tuple[LinearRule, ...]:
    """Return the rules of a file, two for an equation or a tolerance on both sides. Raises DataError."""
    if not isinstance(entries, list) or len(entries) > MOST_RULES:
        raise DataError(f"{path}: write rules as [[rule]] tables, {MOST_RULES} at most")
    found: list[LinearRule] = []
    for number, entry in enumerate(entries):
        found += _rule(entry, features, f"{path}: rule {number}")
    return tuple(found)


def _rule(entry: object, features: Sequence[Named], where: str) -> list[LinearRule]:
    if not isinstance(entry, dict) or not {"holds"} <= set(entry) <= {"holds", "tolerance"}:
        raise DataError(f'{where} needs holds = "total = a + b", and perhaps a tolerance')
    text, tolerance = entry["holds"], _tolerance(entry, where)
    sides = SIGN.split(text) if isinstance(text, str) and len(text) <= LONGEST else []
    if len(sides) != 2:
        raise DataError(f"{where} must have two sides and one of <=, >=, = between them, such as 'total = a + b'")
    (sign,) = SIGN.findall(text)
    where = f"{where} ('{text[:60]}')"
    left, right = (_side(side, features, where) for side in sides)
    terms = {j: left.get(j, Fraction(0)) - right.get(j, Fraction(0)) for j in (*left, *right)}
    limit = -terms.pop(CONSTANT, Fraction(0))
    terms = {j: c for j, c in terms.items() if c}
    if not terms:
        raise DataError(f"{where} is about no feature")
    if max(map(abs, (limit, *terms.values()))) > LARGEST:
        raise DataError(f"{where} has a number beyond 1e100; scale the rule")
    found = []
    for factor in {"<=": (1,), ">=": (-1,), "=": (1, -1)}[sign]:
        coefficients = tuple(factor * c for c in terms.values())
        found.append(LinearRule(tuple(terms), coefficients, factor * limit + tolerance, text.strip()))
    return found


CONSTANT: Final = -1
"""In place of an input."""


def _side(text: str, features: Sequence[Named], where: str) -> dict[int, Fraction]:
    """Return the coefficient of each input on one side, and the constant."""
    known = {one.name: one for one in features}
    found: dict[int, Fraction] = {}
    rest, sign, first = text.strip(), 1, True
    while rest or first:
        signs = re.match(r"[+-]", rest)
        if signs:
            sign, rest = (1 if signs[0] == "+" else -1), rest[1:].lstrip()
        elif not first:
            raise DataError(f"{where}: write + or - before '{rest[:20]}'")
        number = DECIMAL.match(rest)
        factor, name = Fraction(sign), None
        if number and not any(rest.startswith(one) and len(one) > number.end() for one in known):
            if number[0] in known:
                raise DataError(f"{where}: {number[0]} is a number, and a feature's name; give the feature another")
            factor, rest = factor * Fraction(number[0]), rest[number.end() :].lstrip()
            if rest.startswith("*"):
                rest = rest[1:].lstrip()
                name = _name(rest, known, where)
        else:
            name = _name(rest, known, where)
        if name is not None:
            rest = rest[len(name) :].lstrip()
            one = known[name]
            if DECIMAL.fullmatch(name):
                raise DataError(f"{where}: {name} is a number, and a feature's name; give the feature another")
            if one.kind == "categorical":
                raise DataError(f"{where} speaks of {name}, which is a category; rules are about numbers")
        place = CONSTANT if name is None else known[name].place
        found[place] = found.get(place, Fraction(0)) + factor
        sign, first = 1, False
    return found


def _name(rest: str, known: dict[str, Any], where: str) -> str:
    """Return the longest name that a text begins with. Raises DataError where there is none."""
    names = [name for name in known if re.match(re.escape(name) + r"(?![\w.])", rest)]
    if not names:
        raise DataError(f"{where} speaks of '{rest[:20].strip()}', which is no feature and no number")
    return max(names, key=len)


def _tolerance(entry: dict[str, Any], where: str) -> Fraction:
    found = entry.get("tolerance", 0)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e300:
        raise DataError(f"{where} has a tolerance that is no number of 0 or more")
    return Fraction(str(found))
