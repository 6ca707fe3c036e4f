"""A VNN-LIB 2 query in terms of one implicit model: which numbers its comparisons speak of, and one query a box.

All networks are one (`graph.product`), read at one vector of inputs. Its outputs are the sides of the comparisons: of a
float query entries of tensors and sums, differences and products as the query writes them, so that they are rounded
like everything else; of a real query entries, and products of entries, and a row holds the exact coefficients. A row
`left - right` says what the comparison says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Final

import numpy as np

from idl_audit.commands.shared.networks import OpenNetwork
from idl_audit.commands.shared.questions import rounded, scaled_row
from idl_audit.data.vnnlib import OutputRow
from idl_audit.data.vnnlib2.arithmetic import ARITHMETICS, Arithmetic
from idl_audit.data.vnnlib2.evaluation import evaluated
from idl_audit.data.vnnlib2.normal_form import BoxOfCases, Columns, Literal, NormalForm, normal_form, size_of
from idl_audit.data.vnnlib2.syntax import (
    NOWHERE,
    REAL,
    Access,
    Comparison,
    Constant,
    Operation,
    Specification,
    Term,
)
from idl_audit.data.vnnlib2.terms import Entry, Key, Monomial, difference, key_of, polynomial_of, value_of
from idl_audit.graph.ir import Graph
from idl_audit.graph.product import Member, Place, Product
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.exact_constants import rounded_constants
from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, TooManyDigitsError, UnsupportedModelError
from idl_audit.values.query import Conjunction, Query

FAR_AWAY: Final = Fraction(2**20)
"""Where real inputs without a bound are looked for: what is proved there is not proved of all of them."""


@dataclass(frozen=True)
class Side:
    """An output of the model: a term of a float query, or a product of entries of a real one."""

    arithmetic: Arithmetic
    term: Term | None = None
    monomial: Monomial = ()

    @property
    def key(self) -> Key:
        """What makes two sides the same."""
        return self.monomial if self.term is None else key_of(self.term)


@dataclass(frozen=True, eq=False)
class AskedBox:
    """One box of a query."""

    query: Query
    lo: tuple[Fraction | None, ...]
    """The exact bounds of the inputs; None where a real one has none."""
    hi: tuple[Fraction | None, ...]
    unbounded: tuple[int, ...]
    """Columns whose real inputs go on beyond the box."""
    is_whole: bool
    """Whether every point of the box satisfies the query: nothing is left to compare."""


@dataclass(frozen=True, eq=False)
class AskedQuery:
    """A query with its networks as one."""

    specification: Specification
    networks: tuple[OpenNetwork, ...]
    columns: Columns
    graph: Graph | None
    """The networks as one; None where nothing is left to compare."""
    boxes: tuple[AskedBox, ...]
    """One of them must have a point; without any, nothing satisfies the query."""
    replay: Replay

    @property
    def is_real(self) -> bool:
        """Whether it is about exact arithmetic."""
        return self.specification.is_real

    def model(self, max_bytes: int | None = None) -> ImplicitModel:
        """Return the implicit model of all networks and comparisons.

        Raises:
            UnsupportedModelError: with every operator, or use of one, that has no implicit form, or of a real query
                with every constant of the networks that is rounded.
            MemoryLimitError: where a matrix would exceed `max_bytes`.
        """
        assert self.graph is not None
        rounded = rounded_constants(self.graph) if self.is_real else ()
        if rounded:
            raise UnsupportedModelError(rounded)
        return build_implicit(self.graph, max_bytes=max_bytes)


@dataclass(frozen=True, eq=False)
class Replay:
    """The networks as their files have them, and the comparisons in the arithmetic of their types, as one function."""

    networks: tuple[OpenNetwork, ...]
    columns: Columns
    sides: tuple[Side, ...]
    """What each output is."""
    elements: Mapping[str, str]
    """Variable -> its element type."""

    @property
    def name(self) -> str:
        """What runs the networks, with its version."""
        return self.networks[0].tensors.name

    def __call__(self, inputs: Float32Array) -> FloatArray:
        """Return the sides of the comparisons, (m, q), at points of the input vector, (m, p)."""
        rows = np.atleast_2d(np.asarray(inputs))
        found = [[*self._sides(self.assignment(point)), float(point[0])] for point in rows]
        return np.array(found, np.float64).reshape(len(found), len(self.sides) + 1)

    def assignment(self, point: FloatArray | Float32Array) -> dict[str, AnyArray]:
        """Return the values of all variables at one point, by name."""
        values: dict[str, AnyArray] = {}
        for network in self.networks:
            for variable in network.declared.inputs:
                kind = network.tensors.input_types[network.names[variable.name]]
                values[variable.name] = point[self._places[variable.name]].astype(kind)
            values.update(network.run(values))
        return values

    def inputs_at(self, point: Sequence[Fraction]) -> dict[str, AnyArray]:
        """Return the values of all input variables at an exact point, by name."""
        whole = np.array(point, object)
        return {name: np.asarray(whole[places]) for name, places in self._places.items()}

    @cached_property
    def _places(self) -> Mapping[str, IntArray]:
        """Input variable -> the columns of its entries, in its shape."""
        return {
            variable.name: self.columns.of(variable)
            for network in self.networks
            for variable in network.declared.inputs
        }

    def _sides(self, values: Mapping[str, AnyArray]) -> list[float]:
        flat = {name: array.reshape(-1) for name, array in values.items()}
        with np.errstate(all="ignore"):
            return [float(self._side(side, lambda entry: flat[entry[0]][entry[1]])) for side in self.sides]

    def _side(self, side: Side, read: Callable[[Entry], Any]) -> Any:
        if side.monomial:
            return math.prod(float(read(entry)) for entry in side.monomial)
        assert side.term is not None
        return evaluated(side.term, side.arithmetic, read)


# --- from the query to boxes and rows ---------------------------------------------------------------------------------


def asked_query(query: Specification, networks: Sequence[OpenNetwork]) -> AskedQuery:
    """Return a query in terms of one model.

    Raises:
        DataError: where its disjunctive form exceeds a limit, or a number is beyond its type.
        UnsupportedModelError: where whole numbers are computed with, or operator sets do not go together.
    """
    query = _with_initialized(query, networks)
    form = normal_form(query)
    making = _Making(query, tuple(networks), form)
    boxes = tuple(making.box(box) for box in form.boxes)
    graph = making.graph() if making.sides and boxes else None
    width = 0 if graph is None else len(making.sides) + 1
    elements = {variable.name: variable.element for variable in query.variables}
    return AskedQuery(
        query,
        tuple(networks),
        form.columns,
        graph,
        tuple(box.finished(width) for box in boxes),
        Replay(tuple(networks), form.columns, tuple(making.sides.values()), elements),
    )


def _with_initialized(query: Specification, networks: Sequence[OpenNetwork]) -> Specification:
    """Return the query with what its declarations assert: initialized inputs have the values of initializers."""
    more = []
    for network in networks:
        for name, values in network.initialized.items():
            if not np.isfinite(values).all():
                raise UnsupportedModelError(
                    [f"{query.source}: the initializer of {name} holds what is no finite number"]
                )
            for flat, (index, value) in enumerate(np.ndenumerate(values)):
                entry = Access(name, tuple(map(int, index)), flat, NOWHERE)
                number = Constant(Fraction(float(value)), repr(float(value)), NOWHERE)
                more.append(Comparison("==", entry, number, NOWHERE))
    return replace(query, assertions=(*query.assertions, *more))


def graph_of_entries(asked: AskedQuery) -> tuple[Graph, tuple[Entry, ...]]:
    """Return the networks of a real query with all entries of hidden tensors and outputs, and which these are.

    No input is read as a fixed number there.
    """
    free = (None,) * asked.columns.count
    form = NormalForm(asked.columns, (BoxOfCases(free, free, ()),))
    making = _Making(asked.specification, asked.networks, form)
    made = [
        variable for network in asked.networks for variable in (*network.declared.hidden, *network.declared.outputs)
    ]
    entries = tuple((variable.name, flat) for variable in made for flat in range(size_of(variable)))
    for entry in entries:
        making.number(Side(ARITHMETICS[REAL], monomial=(entry,)))
    return making.graph(), entries


@dataclass(frozen=True)
class _Row:
    """sum coefficients[k] side k + offset <= 0, or < 0."""

    coefficients: tuple[tuple[int, Fraction], ...]
    offset: Fraction
    strict: bool


@dataclass(frozen=True, eq=False)
class _Rows:
    """A box and its rows, before it is known how many sides there are."""

    whole: BoxOfCases
    box: Box
    unbounded: tuple[int, ...]
    alternatives: tuple[tuple[_Row, ...], ...]

    def finished(self, width: int) -> AskedBox:
        """Return the box as a query of so many outputs."""
        left = [found for found in map(_without_constants, self.alternatives) if found is not None]
        alternatives = tuple(_conjunction(rows, width) for rows in left if rows)
        query = Query(self.box, alternatives)
        return AskedBox(query, self.whole.lo, self.whole.hi, self.unbounded, not all(left))


def _without_constants(rows: Sequence[_Row]) -> tuple[_Row, ...] | None:
    """Return the rows that speak of a side; None where one of the others does not hold."""
    left = []
    for row in rows:
        totals: dict[int, Fraction] = {}
        for k, coefficient in row.coefficients:
            totals[k] = totals.get(k, Fraction(0)) + coefficient
        kept = tuple((k, coefficient) for k, coefficient in totals.items() if coefficient)
        if kept:
            left.append(_Row(kept, row.offset, row.strict))
        elif row.offset > 0 or (row.strict and not row.offset):
            return None
    return tuple(left)


def _conjunction(rows: Sequence[_Row], width: int) -> Conjunction:
    matrix = np.zeros((len(rows), width))
    for number, row in enumerate(rows):
        for k, coefficient in row.coefficients:
            matrix[number, k] = float(coefficient)
    exact = tuple(row.offset for row in rows)
    offsets = np.array([rounded(offset, up=False) for offset in exact])
    return Conjunction(matrix, offsets, exact, np.array([row.strict for row in rows], np.bool_))


@dataclass(eq=False)
class _Making:
    """The sides of the comparisons, while they are collected."""

    query: Specification
    networks: tuple[OpenNetwork, ...]
    form: NormalForm
    sides: dict[Key, Side] = field(default_factory=dict)
    _numbers: dict[Key, int] = field(default_factory=dict)

    def box(self, box: BoxOfCases) -> _Rows:
        """Return a box in float64, rounded outward and inward, with the rows of its alternatives."""
        unbounded = tuple(
            i for i, ends in enumerate(zip(box.lo, box.hi, strict=True)) if ends[0] is None or ends[1] is None
        )
        lo = [_end(low, high, below=True) for low, high in zip(box.lo, box.hi, strict=True)]
        hi = [_end(high, low, below=False) for low, high in zip(box.lo, box.hi, strict=True)]
        found = Box(_floats(lo, up=False), _floats(hi, up=True), _floats(lo, up=True), _floats(hi, up=False))
        if self.query.is_real:
            low, high = found.float32_bounds()
            pins = {i: lo[i] for i in np.flatnonzero(low > high).tolist()}
            found = replace(found, pins=pins, ends=(tuple(lo), tuple(hi)))
        return _Rows(box, found, unbounded, tuple(tuple(map(self._row, literals)) for literals in box.alternatives))

    def graph(self) -> Graph:
        """Return the networks with all sides that were met as one graph."""
        members = [self._member(network) for network in self.networks if network not in self._aliases]
        product = Product(members, self.form.columns.count, self._element)
        owners = {variable.name: network for network in self.networks for variable in network.declared.variables}
        for network in self.networks:
            for variable in (*network.declared.hidden, *network.declared.outputs):
                kind = network.tensors.types[network.names[variable.name]]
                owner = self._aliases.get(network, network)
                product.element_of(owner.declared.name, network.names[variable.name], kind)

        def place(entry: Entry) -> Place:
            network = owners[entry[0]]
            owner = self._aliases.get(network, network)
            return Place(owner.declared.name, network.names[entry[0]], entry[1])

        for side in self.sides.values():
            product.ask(_asked(side, product, place))
        product.ask(product.column(0))  # an output that depends on the inputs, where no other does
        return product.graph

    @cached_property
    def _aliases(self) -> Mapping[OpenNetwork, OpenNetwork]:
        """Networks of a real query that are equal to another one, and read the same inputs: they are that one.

        Two runs in floats may differ. Hidden tensors must be those that the other one was opened with.
        """
        own = {network.declared.name: network for network in self.networks}
        found = {}
        for network in self.networks if self.query.is_real else ():
            other = own.get(network.declared.other or "")
            if network.declared.relation == "equal-to" and other is not None and self._reads_alike(network, other):
                found[network] = other
        return found

    def _reads_alike(self, one: OpenNetwork, other: OpenNetwork) -> bool:
        columns = [self._member(network).columns for network in (one, other)]
        known = {value.name for value in other.graph.outputs}
        same = all(np.array_equal(a, b) for a, b in zip(*columns, strict=True))
        return same and {one.names[variable.name] for variable in one.declared.hidden} <= known

    @property
    def _element(self) -> str:
        kinds = {arithmetic.name for arithmetic in self.form.columns.arithmetics}
        return "float64" if kinds == {"float64"} else "float32"

    def _member(self, network: OpenNetwork) -> Member:
        columns = tuple(map(self.form.columns.of, network.declared.inputs))
        return Member(network.declared.name, network.graph, columns)

    def _row(self, literal: Literal) -> _Row:
        return self._exact_row(literal) if literal.arithmetic.is_exact else self._rounded_row(literal)

    def _exact_row(self, literal: Literal) -> _Row:
        """Return left - right multiplied out, its coefficients scaled until float64 holds them."""
        sides = [polynomial_of(side, literal.arithmetic) for side in (literal.left, literal.right)]
        whole = difference(*sides)
        terms = {self.number(Side(literal.arithmetic, monomial=one)): c for one, c in whole.items() if one}
        try:
            row = scaled_row(OutputRow(tuple(terms.items()), whole.get((), Fraction(0))), self.query.source)
        except DataError as error:  # the query is right all the same
            raise TooManyDigitsError([str(error)]) from error
        return _Row(row.coefficients, row.offset, literal.strict)

    def _rounded_row(self, literal: Literal) -> _Row:
        """Return left - right, each of them a number that is rounded before they are compared."""
        coefficients, offset = [], Fraction(0)
        for side, sign in ((literal.left, 1), (literal.right, -1)):
            value = value_of(side, literal.arithmetic, lambda entry: None)
            if value is not None:
                offset += sign * value
            else:
                if isinstance(side, Operation) and literal.arithmetic.kind != "float":
                    raise UnsupportedModelError(
                        [
                            f"{self.query.source}: line {side.place.line} computes with {literal.arithmetic.name}; "
                            "whole numbers can be compared as they are"
                        ]
                    )
                coefficients.append((self.number(Side(literal.arithmetic, term=side)), Fraction(sign)))
        return _Row(tuple(coefficients), offset, literal.strict)

    def number(self, side: Side) -> int:
        """Return the number of a side, which is new where it was not met before."""
        if side.key not in self._numbers:
            self._numbers[side.key] = len(self._numbers)
            self.sides[side.key] = side
        return self._numbers[side.key]


def _asked(side: Side, product: Product, place: Callable[[Entry], Place]) -> Place | str:
    """Put a side into the product; return what to ask for."""
    if len(side.monomial) == 1:
        return place(side.monomial[0])
    if side.monomial:
        return product.combined("*", [product.entry(place(entry)) for entry in side.monomial])
    match side.term:
        case Access():
            return place((side.term.variable, side.term.flat))
        case Operation():
            return _expression(side.term, side.arithmetic, product, place)
    raise AssertionError("a constant is no output")


def _expression(term: Term, arithmetic: Arithmetic, product: Product, place: Callable[[Entry], Place]) -> str:
    match term:
        case Access():
            return product.entry(place((term.variable, term.flat)))
        case Constant():
            return product.number(float(arithmetic.constant(term.value, term.text)))
        case Operation():
            parts = [_expression(part, arithmetic, product, place) for part in term.parts]
            return product.combined(term.operator, parts)


def _floats(ends: Sequence[Fraction], *, up: bool) -> FloatArray:
    return np.array([rounded(end, up=up) for end in ends], np.float64)


def _end(own: Fraction | None, other: Fraction | None, *, below: bool) -> Fraction:
    """Return an end of an interval; where there is none, one that is far away from the other end, and from 0."""
    if own is not None:
        return own
    start = Fraction(0) if other is None else other
    return min(start, Fraction(0)) - FAR_AWAY if below else max(start, Fraction(0)) + FAR_AWAY
