"""Properties as questions to a model: the queries of a VNN-LIB file, one a box."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.shared.class_output import gives_class
from idl_audit.commands.shared.points import readable_box
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.vnnlib import OutputRow, Property, PropertyBox, read_vnnlib
from idl_audit.graph.files import read_with_sha256
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, UnsupportedModelError
from idl_audit.values.query import Conjunction, Query

RANKING: Final = frozenset({"Softmax", "LogSoftmax"})
"""Last operators that are left out of the model, and change no comparison of two outputs."""


@dataclass(frozen=True, eq=False)
class AskedProperty:
    """A property in the model's terms: one query a box."""

    source: str
    queries: tuple[Query, ...]
    stripped: str
    """The last operator, where the model leaves it out."""
    sha256: str
    """Of the file."""


def read_property(subject: Subject, path: Path) -> AskedProperty:
    """Return the queries of a property file for a model.

    Raises:
        DataError: where the file is refused or changes meanwhile, or its inputs and outputs are not the model's.
        UnsupportedModelError: where it speaks of the values that a softmax gives, which the model leaves out.
    """
    given, sha256 = read_with_sha256(path, read_vnnlib)
    model = subject.model
    if gives_class(model):
        raise UnsupportedModelError(
            [
                f"{subject.path} ends in {model.stripped_output}, and its output is the class: a property of numbers "
                "asks for the scores before it (make them the output); of classes, certify answers for samples (--data)"
            ]
        )
    for noun, has, wants in (("inputs", model.n_inputs, given.n_inputs), ("outputs", model.n_outputs, given.n_outputs)):
        if has != wants:
            raise DataError(
                f"{path} speaks of {wants} {noun}, and {subject.path} has {has}; give the property's network"
            )
    if model.stripped_output:
        _check_ranking(subject, given)
    queries = tuple(to_query(box, model.n_outputs, str(path)) for box in given.boxes)
    plain, kind = Preprocessing(), subject.point_type
    queries = tuple(replace(q, inputs=readable_box(q.box, kind, plain, subject.input_shape)) for q in queries)
    return AskedProperty(str(path), queries, model.stripped_output, sha256)


def _check_ranking(subject: Subject, given: Property) -> None:
    """Refuse what is not unchanged by the operator that the model leaves out."""
    operator = subject.model.stripped_output
    rows = [row for box in given.boxes for alternative in box.alternatives for row in alternative]
    if operator not in RANKING or not all(_is_comparison(row) for row in rows):
        raise UnsupportedModelError(
            [
                f"{subject.path} ends in {operator}, which is left out: properties of it may only compare two outputs, "
                "such as (<= Y_0 Y_1)"
            ]
        )


def _is_comparison(row: OutputRow) -> bool:
    """Return whether a row says Y_i <= Y_j."""
    return not row.offset and len(row.coefficients) == 2 and not sum(c for _, c in row.coefficients)


def to_query(box: PropertyBox, n_outputs: int, source: str) -> Query:
    """Return a box of exact fractions as a query: bounds rounded outward and inward, offsets downward.

    Inputs whose interval holds no float32 number, such as those that are held at a decimal, are pinned (`Box.pins`).

    Raises:
        DataError: where float64 does not hold the coefficients of a row, whatever it is multiplied by.
    """
    cache: dict[OutputRow, OutputRow] = {}
    alternatives = []
    for rows in box.alternatives:
        scaled = [cache.setdefault(row, scaled_row(row, source)) for row in rows]
        matrix = np.zeros((len(rows), n_outputs))
        for number, row in enumerate(scaled):
            for j, coefficient in row.coefficients:
                matrix[number, j] = float(coefficient)
        exact = tuple(row.offset for row in scaled)
        alternatives.append(Conjunction(matrix, np.array([rounded(c, up=False) for c in exact]), exact))
    lo, inner_lo = (np.array([rounded(value, up=up) for value in box.lo]) for up in (False, True))
    inner_hi, hi = (np.array([rounded(value, up=up) for value in box.hi]) for up in (False, True))
    ends = tuple(box.lo), tuple(box.hi)
    return Query(_with_pins(Box(lo, hi, inner_lo, inner_hi, ends=ends), box), tuple(alternatives))


def _with_pins(rounded_box: Box, box: PropertyBox) -> Box:
    """Return the box with a number for each input whose interval holds no float32 number: its lower end."""
    lo, hi = rounded_box.float32_bounds()
    return replace(rounded_box, pins={i: box.lo[i] for i in np.flatnonzero(lo > hi).tolist()})


def scaled_row(row: OutputRow, source: str) -> OutputRow:
    """Return an inequality with the same solutions whose coefficients float64 holds: 0.1 Y_0 <= 1 is Y_0 <= 10.

    Raises:
        DataError: where no multiple does.
    """
    numbers = [c for _, c in row.coefficients]
    if all(Fraction(float(c)) == c for c in numbers):
        return row
    multiple = math.lcm(*(c.denominator for c in numbers))
    factor = Fraction(multiple, math.gcd(*(int(c * multiple) for c in numbers)))
    if not all(abs(c * factor) < 2**53 for c in numbers) or not abs(row.offset * factor) < Fraction(10) ** 300:
        raise DataError(f"{source}: coefficients of an output constraint have too many digits; round them to 15 digits")
    return OutputRow(tuple((j, c * factor) for j, c in row.coefficients), row.offset * factor)


def rounded(value: Fraction, *, up: bool) -> float:
    """Return the nearest float64 that is not below the value (`up`), or not above it."""
    nearest = float(value)
    error = Fraction(nearest) - value
    if up and error < 0:
        return float(np.nextafter(nearest, np.inf))
    if not up and error > 0:
        return float(np.nextafter(nearest, -np.inf))
    return nearest
