"""What a VNN-LIB 2 query says: networks with their variables, and formulas over entries of these.

All of it is as the file has it: nothing is evaluated, rounded or brought into another form. Two values are equal where
they say the same, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["input", "hidden", "output"]
Relation: TypeAlias = Literal["equal-to", "isomorphic-to"]
Sense: TypeAlias = Literal["<=", ">=", "<", ">", "==", "!="]

REAL = "real"
"""The element type of queries about exact arithmetic."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the file, both from 1."""

    line: int
    column: int


NOWHERE: Final = Place(0, 0)
"""The place of what was made and not read."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A tensor of a network that the query speaks of."""

    name: str
    kind: Kind
    element: str
    """Its element type: a name of the ONNX IR, or `REAL`."""
    shape: tuple[int, ...]
    """Empty for a scalar."""
    place: Place = field(compare=False)
    onnx_name: str | None = None
    """Of a hidden one: the tensor's name in the model, without quotation marks."""
    initialized: bool = False
    """Of an input: it has the value that the model's initializer gives it, and no other (from 2.1 on)."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network with its variables, each kind in the order of the file."""

    name: str
    inputs: tuple[Variable, ...]
    hidden: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    place: Place = field(compare=False)
    relation: Relation | None = None
    other: str | None = None
    """The network that it is equal or isomorphic to."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        """All variables in the order of declaration."""
        return (*self.inputs, *self.hidden, *self.outputs)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number."""

    value: Fraction
    text: str
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Access:
    """One entry of a variable."""

    variable: str
    index: tuple[int, ...]
    flat: int
    """Its number in row-major order."""
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Operation:
    """A sum, a difference (from the left; of one part: its negative) or a product of terms."""

    operator: Literal["+", "-", "*"]
    parts: tuple[Term, ...]
    place: Place = field(compare=False)


Term: TypeAlias = "Constant | Access | Operation"


@dataclass(frozen=True, slots=True)
class Comparison:
    """left SENSE right."""

    sense: Sense
    left: Term
    right: Term
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Junction:
    """The conjunction or disjunction of formulas."""

    operator: Literal["and", "or"]
    parts: tuple[Formula, ...]
    place: Place = field(compare=False)


Formula: TypeAlias = "Comparison | Junction"


@dataclass(frozen=True, slots=True)
class Specification:
    """A whole query: is there one assignment of all inputs that satisfies all assertions?"""

    source: str = field(compare=False)
    """What messages call it."""
    version: str
    """As written: 2.0, 2.1."""
    networks: tuple[Network, ...]
    assertions: tuple[Formula, ...]

    @property
    def variables(self) -> Iterator[Variable]:
        """Yield the variables of all networks in the order of declaration."""
        for network in self.networks:
            yield from network.variables

    @property
    def is_real(self) -> bool:
        """Whether the query is about exact arithmetic."""
        return all(variable.element == REAL for variable in self.variables)
