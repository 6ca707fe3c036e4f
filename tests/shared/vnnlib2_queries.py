"""Drawn VNN-LIB 2 queries, all of them valid."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

from hypothesis import strategies as st

from idl_audit.data.vnnlib2.syntax import (
    NOWHERE,
    Access,
    Comparison,
    Constant,
    Formula,
    Junction,
    Kind,
    Network,
    Operation,
    Relation,
    Sense,
    Specification,
    Term,
    Variable,
)

TYPES = ("float32", "float64", "bfloat16", "int8", "uint16", "int64")
"""That every reader of the format knows."""

SENSES: tuple[Sense, ...] = ("<=", ">=", "<", ">", "==", "!=")


def drawn(seed: int, *, letters: str = 'ab/:;( \\"\n\té\u4e00') -> Specification:
    """Return a query of one to three networks, with relations, senses and operators of every kind.

    Args:
        seed: of the chance.
        letters: of the names that hidden tensors have in the model.
    """
    return _Drawn(random.Random(seed), letters).specification()


specifications = st.integers(0, 2**64).map(drawn)


class _Drawn:
    def __init__(self, rng: random.Random, letters: str) -> None:
        self.rng = rng
        self.letters = letters
        names = [f"{letter}{i}{tail}" for letter in "XYn" for i in range(8) for tail in ("", "_", "Q")]
        rng.shuffle(names)
        self.names = iter(names)
        self.types = ("real",) if rng.random() < 0.4 else TYPES
        self.variables: tuple[Variable, ...] = ()

    def specification(self) -> Specification:
        networks: list[Network] = []
        for _ in range(self.rng.randint(1, 3)):
            networks.append(self.network([network for network in networks if network.relation is None]))
        self.variables = tuple(variable for network in networks for variable in network.variables)
        assertions = tuple(self.formula(2) for _ in range(self.rng.randint(1, 4)))
        return Specification("drawn", self.rng.choice(["2.0", "2.1"]), tuple(networks), assertions)

    def network(self, free: Sequence[Network]) -> Network:
        name = next(self.names)
        other = self.rng.choice([None, *free])
        if other is None:
            inputs, outputs = (tuple(self.tensors(kind, self.rng.randint(1, 2))) for kind in ("input", "output"))
            hidden = tuple(self.tensors("hidden", self.rng.randint(0, 2)))
            return Network(name, inputs, hidden, outputs, NOWHERE)
        inputs, outputs = (
            tuple(Variable(next(self.names), v.kind, v.element, v.shape, NOWHERE) for v in like)
            for like in (other.inputs, other.outputs)
        )
        relation: Relation = self.rng.choice(("equal-to", "isomorphic-to"))
        return Network(name, inputs, (), outputs, NOWHERE, relation, other.name)

    def tensors(self, kind: str, count: int) -> Iterator[Variable]:
        for _ in range(count):
            shape = tuple(self.rng.randint(1, 3) for _ in range(self.rng.randint(0, 3)))
            named = "".join(self.rng.choices(self.letters, k=self.rng.randint(0, 6))) if kind == "hidden" else None
            yield Variable(next(self.names), cast(Kind, kind), self.rng.choice(self.types), shape, NOWHERE, named)

    def formula(self, depth: int) -> Formula:
        if depth and self.rng.random() < 0.4:
            parts = tuple(self.formula(depth - 1) for _ in range(self.rng.randint(1, 3)))
            return Junction(self.rng.choice(("and", "or")), parts, NOWHERE)
        element = self.rng.choice(self.variables).element
        own = [variable for variable in self.variables if variable.element == element]
        sides: list[Term] = [self.access(own), self.term(2, own)]
        self.rng.shuffle(sides)
        return Comparison(self.rng.choice(SENSES), sides[0], sides[1], NOWHERE)

    def term(self, depth: int, own: Sequence[Variable]) -> Term:
        chance = self.rng.random()
        if depth and chance < 0.5:
            parts = tuple(self.term(depth - 1, own) for _ in range(self.rng.randint(1, 3)))
            return Operation(self.rng.choice(("+", "-", "*")), parts, NOWHERE)
        return self.access(own) if chance < 0.75 else self.constant(own[0].element)

    def access(self, own: Sequence[Variable]) -> Access:
        variable = self.rng.choice(own)
        index = tuple(self.rng.randrange(size) for size in variable.shape)
        flat = 0
        for number, size in zip(index, variable.shape, strict=True):
            flat = flat * size + number
        return Access(variable.name, index, flat, NOWHERE)

    def constant(self, element: str) -> Constant:
        text = str(self.rng.randint(0, 100))
        if "int" not in element:
            text = f"{self.rng.choice(('', '-', '0', '-00'))}{text}.{self.rng.randint(0, 10**6):07d}"
        return Constant(Fraction(text), text, NOWHERE)
