"""VNN-LIB properties, plain or gzipped: for which inputs and outputs does a network violate its specification?

Read are `declare-const` (or `declare-fun`) of X_i and Y_j, and `assert` with `<=`, `>=`, `=`, `and`, `or`, nested as
one likes, over linear expressions of one input or of outputs (`+`, `-`, `*` and `/` by numbers). The conjunction of all
assertions is brought into disjunctive form; what has the same input box is put together: `Property.boxes`. All numbers
are exact fractions. The file may come from anywhere: its size, depth and number of cases are limited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from idl_audit.data.property_text import property_text
from idl_audit.values.errors import DataError

MAX_BYTES: Final = 2**26
"""Largest size of a property, after decompression (64 MB)."""
MAX_DEPTH: Final = 50
"""How deep parentheses may be nested."""
MAX_TOKENS: Final = 2**21
"""Most words and parentheses of one assertion."""
MAX_CASES: Final = 10_000
"""Most cases of the disjunctive form."""
MAX_LITERALS: Final = 2**21
"""Most constraints of all cases together, and most bounds of all boxes."""
MAX_INPUTS: Final = 10**6
"""Most inputs, and most outputs."""
MAX_CHARACTERS: Final = 100
"""Longest text of a number or name."""
MAX_BITS: Final = 20_000
"""Most bits of a computed number."""
LARGEST: Final = Fraction(10) ** 300
"""No bound or coefficient may be larger in size; smaller ones than its inverse are 0 or refused."""


@dataclass(frozen=True)
class OutputRow:
    """One inequality on the outputs: sum_j coefficients[j] Y_j + offset <= 0, exactly."""

    coefficients: tuple[tuple[int, Fraction], ...]
    """(j, coefficient of Y_j), ascending in j; none is 0."""
    offset: Fraction


@dataclass(frozen=True)
class PropertyBox:
    """Counterexamples in one box of inputs: all rows of one of the alternatives hold."""

    lo: tuple[Fraction, ...]
    hi: tuple[Fraction, ...]
    alternatives: tuple[tuple[OutputRow, ...], ...]


@dataclass(frozen=True)
class Property:
    """A property: it is violated (`sat`) where one of its boxes has a counterexample."""

    source: str
    n_inputs: int
    n_outputs: int
    boxes: tuple[PropertyBox, ...]


def read_vnnlib(path: Path) -> Property:
    """Return the property in a file, plain or gzipped (told apart by content).

    Raises:
        DataError: where it cannot be read, is no VNN-LIB, has parts that are not supported, or exceeds a limit.
    """
    return parse_vnnlib(property_text(path, MAX_BYTES), source=str(path))


def parse_vnnlib(text: str, *, source: str = "the property") -> Property:
    """Return the property that a text holds. Raises DataError as `read_vnnlib` does; `source` names the text."""
    parser = _Property(source)
    try:
        for command in _commands(text):
            parser.take(command)
        return parser.finished()
    except _ParseError as error:
        raise DataError(f"{source}: {error}") from None


class _ParseError(Exception):
    """What is wrong, without the file's name."""


# --- words and parentheses -------------------------------------------------------------------------------------------

Expression: TypeAlias = "str | list[Expression]"

_TOKEN = re.compile(r";[^\n]*|[()]|[^\s();|\"]+|[|\"]")


def _commands(text: str) -> Iterator[list[Expression]]:
    """Yield the text's parenthesised commands one by one; nothing is kept of those before."""
    stack: list[list[Expression]] = []
    tokens = 0
    line, seen = 1, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] == ";":
            continue
        if not stack:
            line, seen, tokens = line + text.count("\n", seen, match.start()), match.start(), 0
            if token != "(":
                raise _ParseError(f"line {line} has {_shown(token)} where '(' is expected; give a VNN-LIB property")
        tokens += 1
        if tokens > MAX_TOKENS:
            raise _ParseError(f"the command in line {line} has more than {MAX_TOKENS:,} words; split the property")
        if token == "(":
            if len(stack) == MAX_DEPTH:
                raise _ParseError(f"the command in line {line} is nested deeper than {MAX_DEPTH} parentheses")
            stack.append([])
        elif token == ")":
            done = stack.pop()
            if not done and (len(stack) != 1 or stack[0][:1] != ["declare-fun"]):
                raise _ParseError(f"the command in line {line} has empty parentheses")
            if not stack:
                yield done
            else:
                stack[-1].append(done)
        elif token in ("|", '"'):
            raise _ParseError(f"the command in line {line} has a quoted name; write X_0, X_1, ..., Y_0, ...")
        else:
            if len(stack) == 1 and not stack[0]:
                _check_version(token, text, match.end(), line)
            stack[-1].append(token)
    if stack:
        raise _ParseError(f"the command in line {line} does not end; the file is truncated or lacks a ')'")


def _check_version(name: str, text: str, at: int, line: int) -> None:
    """Refuse a command of version 2 by that version's name, before anything else of it can look wrong."""
    if name.lower() not in _OF_VERSION_2:
        return
    version = "2.0"
    if name.lower() == "vnnlib-version":
        found = _VERSION.match(text, at)
        version = "of another version" if found is None else found[1]
        if found is not None and found[1].partition(".")[0] == "1":
            return
    raise _ParseError(
        f"line {line} has {_shown(name)}, so this is VNN-LIB {version} where VNN-LIB 1 is expected: write it "
        "with declare-const X_0, X_1, ..., Y_0, Y_1, ..., or give the file of version 1.0"
    )


_OF_VERSION_2: Final = frozenset(
    {"vnnlib-version", "declare-network", "declare-input", "declare-hidden", "declare-output"}
)
"""Commands that a file of version 2 has and one of version 1 has not."""

_VERSION: Final = re.compile(r"""\s*[<"|]?\s*([0-9]{1,9}(?:\.[0-9]{1,9})*)""")


def _shown(expression: Expression) -> str:
    """Return the beginning of an expression, to be named in a message."""
    parts: list[str] = []
    waiting: list[Expression] = [expression]
    while waiting and len(parts) < 20:
        part = waiting.pop()
        if isinstance(part, str):
            parts.append(part if len(part) <= 40 else part[:40] + "...")
        else:
            waiting += [")", *part[:20][::-1], "("]
    text = " ".join(parts).replace("( ", "(").replace(" )", ")")
    return repr(text if len(text) <= 60 else text[:60] + "...")


# --- linear expressions ----------------------------------------------------------------------------------------------

Variable: TypeAlias = tuple[str, int]
"""("X", i) or ("Y", j)."""

_NAME = re.compile(r"([XY])_(0|[1-9][0-9]{0,6})")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class _Linear:
    """sum of terms[v] v + constant."""

    terms: Mapping[Variable, Fraction]
    constant: Fraction

    def scaled(self, factor: Fraction) -> _Linear:
        return _Linear(
            {v: _limited(c * factor) for v, c in self.terms.items()} if factor else {}, _limited(self.constant * factor)
        )


def _limited(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise _ParseError("a computed number has too many digits; write the numbers out")
    return value


def _sum(parts: Iterable[_Linear]) -> _Linear:
    terms: dict[Variable, Fraction] = {}
    constant = Fraction(0)
    for part in parts:
        constant = _limited(constant + part.constant)
        for variable, coefficient in part.terms.items():
            terms[variable] = _limited(terms.get(variable, Fraction(0)) + coefficient)
    return _Linear({v: c for v, c in terms.items() if c}, constant)


def _product(parts: Sequence[_Linear], whole: Expression) -> _Linear:
    result = _Linear({}, Fraction(1))
    for part in parts:
        if result.terms and part.terms:
            raise _ParseError(f"{_shown(whole)} multiplies variables; only linear expressions are read")
        result = part.scaled(result.constant) if part.terms else result.scaled(part.constant)
    return result


def _quotient(parts: Sequence[_Linear], whole: Expression) -> _Linear:
    result = parts[0]
    for part in parts[1:]:
        if part.terms or not part.constant:
            raise _ParseError(f"{_shown(whole)} divides by a variable or by zero; only linear expressions are read")
        result = result.scaled(1 / part.constant)
    return result


def _difference(parts: Sequence[_Linear], whole: Expression) -> _Linear:
    minus = Fraction(-1)
    return parts[0].scaled(minus) if len(parts) == 1 else _sum([parts[0], *(part.scaled(minus) for part in parts[1:])])


_ARITHMETIC: Final[Mapping[str, Callable[[Sequence[_Linear], Expression], _Linear]]] = MappingProxyType(
    {"+": lambda parts, whole: _sum(parts), "-": _difference, "*": _product, "/": _quotient}
)


def _number(text: str) -> Fraction:
    value = Fraction(text)
    if value and not 1 / LARGEST <= abs(value) <= LARGEST:
        raise _ParseError(f"the number {text} is beyond what float64 holds; give numbers from 1e-300 to 1e300, or 0")
    return value


# --- disjunctive form ------------------------------------------------------------------------------------------------


@dataclass
class _Case:
    """One case of the disjunctive form: bounds of inputs, and inequalities on the outputs."""

    lo: dict[int, Fraction] = field(default_factory=dict)
    hi: dict[int, Fraction] = field(default_factory=dict)
    rows: dict[OutputRow, None] = field(default_factory=dict)
    """In the order in which they were written, each once."""

    @property
    def size(self) -> int:
        return 1 + len(self.lo) + len(self.hi) + len(self.rows)

    def add(self, other: _Case) -> None:
        """Make it the conjunction of both."""
        for i, bound in other.lo.items():
            self.lo[i] = max(bound, self.lo.get(i, bound))
        for i, bound in other.hi.items():
            self.hi[i] = min(bound, self.hi.get(i, bound))
        self.rows.update(other.rows)

    def with_(self, other: _Case) -> _Case:
        """Return the conjunction of both."""
        both = _Case(dict(self.lo), dict(self.hi), dict(self.rows))
        both.add(other)
        return both

    @property
    def is_empty(self) -> bool:
        return any(i in self.hi and bound > self.hi[i] for i, bound in self.lo.items())


def _conjunction(parts: Iterable[list[_Case]]) -> list[_Case]:
    """Return the cases of a conjunction of disjunctions; those with contradictory bounds are left out."""
    common = _Case()
    several = []
    for cases in parts:
        if len(cases) == 1:
            common.add(cases[0])
        else:
            several.append(cases)
    made = [common]
    for cases in several:
        count = len(made) * len(cases)
        _check_size(count, len(cases) * sum(a.size for a in made) + len(made) * sum(b.size for b in cases))
        made = [both for both in (a.with_(b) for a in made for b in cases) if not both.is_empty]
    return made


def _check_size(cases: int, literals: int) -> None:
    if cases > MAX_CASES or literals > MAX_LITERALS:
        raise _ParseError(
            f"its disjunctive form has more than {MAX_CASES:,} cases or {MAX_LITERALS:,} constraints; "
            "split the property"
        )


_Bounds: TypeAlias = tuple[tuple[tuple[int, Fraction], ...], tuple[tuple[int, Fraction], ...]]


class _Property:
    """The property while it is read, command by command."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._declared: dict[str, set[int]] = {"X": set(), "Y": set()}
        self._common = _Case()
        self._several: list[list[_Case]] = []

    def take(self, command: list[Expression]) -> None:
        """Read one command."""
        name = command[0]
        if not isinstance(name, str) or name not in _COMMANDS:
            raise _ParseError(f"there is no command {_shown(name)}; known are {', '.join(_COMMANDS)}")
        _COMMANDS[name](self, command)

    def declare(self, command: list[Expression]) -> None:
        """Read (declare-const X_0 Real) or (declare-fun X_0 () Real)."""
        shape = ["Real"] if command[0] == "declare-const" else [[], "Real"]
        if len(command) < 2 or command[2:] != shape:
            raise _ParseError(f"{_shown(command)} declares no real number; write (declare-const X_0 Real)")
        match = _NAME.fullmatch(command[1]) if isinstance(command[1], str) else None
        if match is None or int(match[2]) >= MAX_INPUTS:
            raise _ParseError(f"{_shown(command)} names no variable; write X_0, X_1, ... and Y_0, Y_1, ...")
        known = self._declared[match[1]]
        if int(match[2]) in known:
            raise _ParseError(f"{match[0]} is declared twice")
        known.add(int(match[2]))

    def state(self, command: list[Expression]) -> None:
        """Read (assert ...)."""
        if len(command) != 2:
            raise _ParseError(f"{_shown(command)} must have one formula: (assert (<= X_0 1))")
        cases = self._formula(command[1])
        if len(cases) == 1:
            self._common.add(cases[0])
        else:
            self._several.append(cases)

    def ignore(self, command: list[Expression]) -> None:
        """Skip a command that says nothing about the property."""

    def _formula(self, formula: Expression) -> list[_Case]:
        """Return the disjunctive form of a formula; no case is left where it cannot hold."""
        name = formula[0] if isinstance(formula, list) else formula
        if isinstance(formula, str) or not isinstance(name, str) or name not in ("and", "or", "<=", ">=", "="):
            raise _ParseError(f"{_shown(formula)} is no formula that is read: use <=, >=, =, and, or")
        parts = formula[1:]
        if name in ("and", "or"):
            if not parts:
                raise _ParseError(f"'{name}' stands without formulas")
            if name == "and":
                return _conjunction(self._formula(part) for part in parts)
            cases: list[_Case] = []
            for part in parts:
                cases += self._formula(part)
                _check_size(len(cases), 0)
            return cases
        if len(parts) != 2:
            raise _ParseError(f"{_shown(formula)} must compare two expressions")
        bound = self._plain_bound(name, *parts)
        if bound is not None:
            return [bound]
        left, right = (self._linear(part) for part in parts)
        minus = Fraction(-1)
        senses = {"<=": (1,), ">=": (-1,), "=": (1, -1)}[name]
        difference = _sum([left, right.scaled(minus)])
        return _conjunction(self._literal(difference.scaled(Fraction(sign)), formula) for sign in senses)

    def _plain_bound(self, name: str, left: Expression, right: Expression) -> _Case | None:
        """Return the bound that `(<= X_0 0.5)` or `(>= X_0 0.5)` is: what almost all of a file consists of."""
        if name == "=" or not isinstance(left, str) or not isinstance(right, str) or left[:1] != "X":
            return None
        if right[:1] in ("X", "Y"):
            return None
        ((_, i),) = self._linear(left).terms
        bound = self._linear(right).constant
        return _Case(hi={i: bound}) if name == "<=" else _Case(lo={i: bound})

    def _linear(self, expression: Expression) -> _Linear:
        if isinstance(expression, str):
            if len(expression) > MAX_CHARACTERS:
                raise _ParseError(f"{_shown(expression)} has more than {MAX_CHARACTERS} characters")
            if _NUMBER.fullmatch(expression):
                return _Linear({}, _number(expression))
            match = _NAME.fullmatch(expression)
            if match is None or int(match[2]) not in self._declared[match[1]]:
                index = "; indices in brackets belong to VNN-LIB 2" if "[" in expression else ""
                raise _ParseError(f"{_shown(expression)} is no number and was not declared as a variable{index}")
            return _Linear({(match[1], int(match[2])): Fraction(1)}, Fraction(0))
        name = expression[0]
        if not isinstance(name, str) or name not in _ARITHMETIC or len(expression) < 2:
            raise _ParseError(f"{_shown(expression)} is no linear expression: use +, -, * and / by numbers")
        return _ARITHMETIC[name]([self._linear(part) for part in expression[1:]], expression)

    def _literal(self, difference: _Linear, whole: Expression) -> list[_Case]:
        """Return the cases of `difference <= 0`: one bound, one row, nothing (it holds), or no case at all."""
        kinds = {kind for kind, _ in difference.terms}
        if not kinds:
            return [_Case()] if difference.constant <= 0 else []
        if kinds == {"Y"}:
            ordered = sorted(difference.terms.items())
            row = OutputRow(tuple((j, _in_range(c)) for (_, j), c in ordered), _in_range(difference.constant))
            return [_Case(rows={row: None})]
        if len(difference.terms) > 1:
            raise _ParseError(
                f"{_shown(whole)} ties an input to another variable; only bounds on single inputs are read"
            )
        (((_, i), coefficient),) = difference.terms.items()
        bound = _in_range(-difference.constant / coefficient)
        return [_Case(hi={i: bound})] if coefficient > 0 else [_Case(lo={i: bound})]

    def finished(self) -> Property:
        """Return the property once all commands have been read."""
        n_inputs, n_outputs = self._count("X", "input"), self._count("Y", "output")
        grouped: dict[_Bounds, tuple[_Case, list[_Case]]] = {}
        for case in _conjunction(self._several):
            key = (tuple(sorted(case.lo.items())), tuple(sorted(case.hi.items())))
            grouped.setdefault(key, (case, []))[1].append(case)
        if len(grouped) * n_inputs > MAX_LITERALS:
            raise _ParseError(f"it has {len(grouped):,} boxes of {n_inputs:,} inputs, too many; split the property")
        boxes = []
        for first, cases in grouped.values():
            _check_size(len(cases), len(cases) * len(self._common.rows))
            whole = self._common.with_(_Case(first.lo, first.hi))
            if not whole.is_empty:
                rows = dict.fromkeys(tuple(self._common.rows | case.rows) for case in cases)
                boxes.append(_box(whole, n_inputs, tuple(rows)))
        if not boxes:
            raise _ParseError(f"nothing can satisfy it: {self._contradiction()}; correct its assertions")
        return Property(self._source, n_inputs, n_outputs, tuple(boxes))

    def _contradiction(self) -> str:
        for i, bound in self._common.lo.items():
            if i in self._common.hi and bound > self._common.hi[i]:
                return f"X_{i} is to be at least {float(bound):g} and at most {float(self._common.hi[i]):g}"
        return "its assertions contradict each other"

    def _count(self, kind: str, noun: str) -> int:
        known = self._declared[kind]
        if not known:
            raise _ParseError(f"it declares no {noun}; write (declare-const {kind}_0 Real)")
        if max(known) + 1 != len(known):
            missing = min(set(range(len(known))) - known)
            raise _ParseError(f"it declares {kind}_{max(known)} but not {kind}_{missing}")
        return len(known)


def _box(case: _Case, n_inputs: int, alternatives: tuple[tuple[OutputRow, ...], ...]) -> PropertyBox:
    for side, bounds in (("lower", case.lo), ("upper", case.hi)):
        if len(bounds) < n_inputs:
            missing = next(i for i in range(n_inputs) if i not in bounds)
            raise _ParseError(f"X_{missing} has no {side} bound; every input needs both")
    if not all(alternatives):
        raise _ParseError("an alternative says nothing about the outputs; add an assertion on Y_0, Y_1, ...")
    lo, hi = (tuple(bounds[i] for i in range(n_inputs)) for bounds in (case.lo, case.hi))
    return PropertyBox(lo, hi, alternatives)


def _in_range(value: Fraction) -> Fraction:
    if abs(value) > LARGEST:
        raise _ParseError("a computed bound is beyond what float64 holds; give numbers below 1e300 in size")
    return value


_COMMANDS: Final[Mapping[str, Callable[[_Property, list[Expression]], None]]] = MappingProxyType(
    {
        "declare-const": _Property.declare,
        "declare-fun": _Property.declare,
        "assert": _Property.state,
        "vnnlib-version": _Property.ignore,
        "set-logic": _Property.ignore,
        "set-info": _Property.ignore,
        "set-option": _Property.ignore,
        "check-sat": _Property.ignore,
        "get-model": _Property.ignore,
        "exit": _Property.ignore,
    }
)
"""Command -> what reads it; those that ask a solver for an answer say nothing about the property."""
