"""The network at one exact point: its outputs enclosed by intervals or, where that does not decide, in rationals.

A point may have entries that no float64 number is, such as the decimals of a property. In exact arithmetic a query
holds there or not, whatever a runtime's rounding says: `ExactNetwork.opinion` tells, first by intervals over the
smallest box of float64 numbers around the point, then, where the network is piecewise linear and its file's own numbers
are its coefficients, exactly (docs/mathematics.md, section 13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final

import numpy as np

from idl_audit.implicit.activations import Activation, Mixed
from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.activations.product import Product
from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.domains import why_outside
from idl_audit.proof.exact.numbers import Exact, Inexact, product
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError
from idl_audit.values.query import Query

MOST_PRODUCTS: Final = 2**24
"""Of coefficients with numbers, in one exact evaluation: some ten seconds."""

INTERVALS: Final = "interval arithmetic"
RATIONALS: Final = "exact rational arithmetic"

Point = Sequence[Fraction]
"""(p,)."""


@dataclass(frozen=True)
class Opinion:
    """Whether a query holds at a point, in exact arithmetic."""

    holds: bool | None
    """None where it is not known."""
    by: str = ""
    """How it was found out."""


@dataclass(frozen=True, eq=False)
class ExactNetwork:
    """A network in exact arithmetic, in the user's units."""

    model: ImplicitModel
    """Reads the user's numbers; what its coefficients have lost by rounding is in its bounds."""
    written: Callable[[], ImplicitModel | None] = lambda: None
    """Makes the model with the file's own coefficients (`implicit.unfused`), which reads the network's numbers.

    None where there is none."""
    read: Callable[[Point], Point] = tuple
    """What the network's numbers are for the user's."""
    scores: Callable[[Point], Point] = tuple
    """What a query is asked about, of the outputs of `written`."""

    def __call__(self, query: Query, point: Float32Array) -> Opinion:
        """Return whether the query's outputs hold at a point of its set, pins put in."""
        return self.opinion(query, query.box.exactly(point))

    def opinion(self, query: Query, point: Point) -> Opinion:
        """Return whether the query's outputs hold at a point; whether it lies in the set is not asked here."""
        found = _by_intervals(query, *enclosed_outputs(self.model, point))
        if found.holds is not None:
            return found
        outputs = self.outputs(point)
        return Opinion(None) if outputs is None else Opinion(query.holds_between(outputs, outputs), RATIONALS)

    def between(self, query: Query, lo: FloatArray, hi: FloatArray) -> Opinion:
        """Return whether the query's outputs hold at every point between two, or at none; None where that is open."""
        return _by_intervals(query, *outputs_between(self.model, lo, hi))

    def outputs(self, point: Point) -> tuple[Fraction, ...] | None:
        """Return the outputs exactly; None where the network has no exact form, or a very large one."""
        model = self.exact
        if model is None:
            return None
        try:
            return tuple(self.scores(exact_outputs(model, self.read(point))))
        except Inexact:
            return None

    @property
    def own(self) -> ImplicitModel | None:
        """The exact model, where it reads the user's numbers and has the outputs that queries are about."""
        return self.exact if self.read is tuple and self.scores is tuple else None

    @cached_property
    def exact(self) -> ImplicitModel | None:
        """The model with the file's own coefficients; None where it has no exact outputs, or too many products."""
        if why_no_rationals(self.model):  # then `written` has none either, and may be large
            return None
        try:
            model = self.written()
        except (UnsupportedModelError, MemoryLimitError, MemoryError):
            return None
        return model if model is not None and why_inexact(model) == "" else None


def _by_intervals(query: Query, lo: FloatArray, hi: FloatArray) -> Opinion:
    """Return whether all outputs between two make a counterexample, or none does."""
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()):
        return Opinion(None)
    holds = query.holds_between(_fractions(lo), _fractions(hi))
    return Opinion(None) if holds is None else Opinion(holds, INTERVALS)


def enclosed_outputs(model: ImplicitModel, point: Point) -> tuple[FloatArray, FloatArray]:
    """Return (lo, hi) with lo <= y <= hi for the outputs y at a point, each (q,); infinite where nothing is known."""
    lo = np.array([_rounded(value, -np.inf) for value in point])
    hi = np.array([_rounded(value, np.inf) for value in point])
    return outputs_between(model, lo, hi)


def outputs_between(model: ImplicitModel, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return bounds (lo, hi) of the outputs at all points between two, as `enclosed_outputs` does, by intervals."""
    model = without_self_feedback(model)
    inputs = Interval(lo[None], hi[None])
    unknown = np.full(model.n_outputs, np.inf)
    if not model.is_well_posed:
        return -unknown, unknown
    try:
        with np.errstate(all="ignore"):
            bounds = interval_bounds(model, inputs)
            found = affine_interval(model.output, bounds.x, inputs).known
            if why_outside(model, bounds):  # there may be no outputs at all
                return -unknown, unknown
    except UnsupportedModelError:  # nothing bounds a loop there
        return -unknown, unknown
    return found.lo[0], found.hi[0]


def exact_outputs(model: ImplicitModel, point: Point) -> tuple[Fraction, ...]:
    """Return y at a point, exactly, shape (q,).

    Raises:
        Inexact: where a coefficient or an activation is not known exactly.
    """
    inputs, states = Exact.of_fractions(point), dict[int, Exact]()
    for k in model.evaluation_order:
        block = model.blocks[k]
        if np.any(block.exponent) and not block.activation.positively_homogeneous:
            raise Inexact
        states[k] = _through(block.activation, _affine(model.rows[k], states, inputs))
    return _affine(model.output, states, inputs).fractions


def why_inexact(model: ImplicitModel) -> str:
    """Return why a model has no exact outputs, or would take too long; empty where it has."""
    rows = (*model.rows, model.output)
    if any(row.constant_error or any(w.relative or w.slack is not None for w in row.maps) for row in rows):
        return "its coefficients are computed, and rounded"
    return why_no_rationals(model)


def why_no_rationals(model: ImplicitModel) -> str:
    """Return the same, whatever its coefficients are."""
    if model.loops:
        return "it has loops"
    bent = next((block for block in model.blocks if not _is_exact(block.activation)), None)
    if bent is not None:
        return f"'{bent.name}' ({bent.op}) is not piecewise linear"
    if model.nnz > MOST_PRODUCTS:
        return "it takes too many products"
    return ""


def _is_exact(activation: Activation) -> bool:
    parts = activation.parts if isinstance(activation, Mixed) else (activation,)
    return all(isinstance(part, Kinked | Product) for part in parts)


def _affine(row: Affine, states: Mapping[int, Exact], inputs: Exact) -> Exact:
    if row.constant_error:
        raise Inexact
    total = Exact.of_floats(row.constant)
    for k, linear_map in row.states.items():
        total = total.plus(product(linear_map, states[k]))
    return total if row.input is None else total.plus(product(row.input, inputs))


def _through(activation: Activation, z: Exact) -> Exact:
    """Return phi(z)."""
    if isinstance(activation, Kinked):
        slopes = np.where(z.tops >= 0, activation.above, activation.below).astype(np.float64)
        return z.times(np.broadcast_to(slopes, z.tops.shape))
    if isinstance(activation, Product):
        bottom, tops = z.bottom * z.bottom, z.tops * z.bottom
        tops[0::2] = z.tops[0::2] * z.tops[1::2]
        return Exact(tops, bottom)
    if isinstance(activation, Mixed):
        edges = np.cumsum(activation.sizes)[:-1]
        pieces = zip(activation.parts, np.split(z.tops, edges), strict=True)
        parts = [_through(part, Exact(tops, z.bottom)) for part, tops in pieces]
        bottom = int(np.lcm.reduce(np.array([part.bottom for part in parts], object)))
        return Exact(np.concatenate([part.over(bottom) for part in parts]), bottom)
    raise Inexact


def _fractions(values: FloatArray) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


def _rounded(value: Fraction, direction: float) -> float:
    """Return the nearest float64 number that is not on the wrong side of a value."""
    nearest = float(value)
    error = Fraction(nearest) - value
    is_wrong = error > 0 if direction < 0 else error < 0
    return float(np.nextafter(nearest, direction)) if is_wrong else nearest
