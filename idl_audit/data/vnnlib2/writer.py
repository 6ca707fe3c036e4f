"""Specifications as text of VNN-LIB 2: `parse_specification(written(s)) == s`. And numbers without exponents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

from idl_audit.data.vnnlib2.syntax import (
    NOWHERE,
    Access,
    Comparison,
    Constant,
    Formula,
    Junction,
    Network,
    Operation,
    Specification,
    Term,
    Variable,
)
from idl_audit.data.vnnlib2.tokens import quoted


def written(specification: Specification) -> str:
    """Return a specification as text: one declaration or assertion a line."""
    lines = [f"(vnnlib-version <{specification.version}>)", ""]
    for network in specification.networks:
        lines += [*_network(network), ""]
    lines += (f"(assert {_expression(formula)})" for formula in specification.assertions)
    return "\n".join(lines) + "\n"


def _network(network: Network) -> Iterator[str]:
    yield f"(declare-network {network.name}"
    if network.relation is not None:
        yield f"  ({network.relation} {network.other})"
    for variable in network.variables:
        yield f"  ({_declaration(variable)})"
    yield ")"


def _declaration(variable: Variable) -> str:
    parts = [f"declare-{variable.kind} {variable.name} {variable.element} {_brackets(variable.shape)}"]
    if variable.onnx_name is not None:
        parts.append(quoted(variable.onnx_name))
    if variable.initialized:
        parts.append("initialized")
    return " ".join(parts)


def _brackets(numbers: Iterable[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _expression(whole: Formula | Term) -> str:
    """Return a formula or term; what waits is on a list and not on the call stack."""
    pieces: list[str] = []
    waiting: list[Formula | Term | str] = [whole]
    while waiting:
        match waiting.pop():
            case str() as text:
                pieces.append(text)
            case Constant(text=text):
                pieces.append(text)
            case Access(variable=name, index=index):
                pieces.append(name + (_brackets(index) if index else ""))
            case Comparison(sense=sense, left=left, right=right):
                pieces.append(f"({sense} ")
                waiting += [")", right, " ", left]
            case Junction(operator=operator, parts=parts) | Operation(operator=operator, parts=parts):
                pieces.append(f"({operator}")
                waiting.append(")")
                for part in reversed(parts):
                    waiting += [part, " "]
    return "".join(pieces)


def decimal(value: Fraction) -> str:
    """Return a number as digits with a decimal point, exactly: 0.00001, -3.0.

    Raises:
        ValueError: where no finite decimal is that number (1/3).
    """
    if whole_multiple((value,)) != 1:
        raise ValueError(f"{value} has no finite decimal")
    places = max(_multiplicity(value.denominator, 2), _multiplicity(value.denominator, 5), 1)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"


def constant(value: Fraction) -> Constant:
    """Return a number as part of a term. Raises ValueError as `decimal` does."""
    return Constant(value, decimal(value), NOWHERE)


def whole_multiple(values: Iterable[Fraction]) -> int:
    """Return the smallest positive integer whose product with each of the numbers is a finite decimal."""
    rest = math.lcm(*(value.denominator for value in values))
    for prime in (2, 5):
        rest //= prime ** _multiplicity(rest, prime)
    return rest


def _multiplicity(number: int, prime: int) -> int:
    """Return how often a prime divides a number."""
    if prime == 2:
        return (number & -number).bit_length() - 1
    count = 0
    while number % prime == 0:
        number //= prime
        count += 1
    return count
