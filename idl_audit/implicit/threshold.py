"""A network with one output y as a classifier of two classes: class 1 where y > T, class 0 elsewhere.

The classifier has the outputs (0, y - T): the largest of them, the first of equal ones, is the class. Where y is a last
sigmoid or tanh of z, the outputs are (0, z - phi^-1(T)) instead, as phi rises strictly: y > T where and only where
z > phi^-1(T). That is no float64 number in general; what rounding did to it is in the model's `constant_error`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.implicit.affine import INPUT, AffineForm
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.model import Affine, ImplicitModel, PoolWindows, StateBlock
from idl_audit.values.arrays import FloatArray

_DECIMAL: Final = Context(prec=60)
_INVERSE_ERROR: Final = 1e-50
"""Far above what 60 digits leave of logarithms below 1000 in size."""


def _log_ratio(above: Decimal, below: Decimal) -> Decimal:
    return _DECIMAL.subtract(_DECIMAL.ln(above), _DECIMAL.ln(below))


def _logit(value: Decimal) -> Decimal:
    """Return ln(T / (1 - T))."""
    return _log_ratio(value, _DECIMAL.subtract(Decimal(1), value))


def _artanh(value: Decimal) -> Decimal:
    """Return ln((1 + T) / (1 - T)) / 2."""
    one = Decimal(1)
    return _DECIMAL.divide(_log_ratio(_DECIMAL.add(one, value), _DECIMAL.subtract(one, value)), Decimal(2))


@dataclass(frozen=True)
class Rising:
    """A strictly rising activation with the range (lo, hi), and its inverse, right to 50 digits behind the point."""

    lo: float
    hi: float
    inverse: Callable[[Decimal], Decimal]

    def at(self, value: float) -> float:
        """Return phi^-1(value), rounded to float64; infinite outside (lo, hi)."""
        if value <= self.lo:
            return -math.inf
        return math.inf if value >= self.hi else float(self.inverse(Decimal(value)))


FLOAT32_ERROR: Final = 2.0**-20
"""Above the errors of sigmoid and tanh in the float32 kernels of runtimes: 5.5 units in the last place of 1."""

RISING: Final[Mapping[str, Rising]] = MappingProxyType(
    {"sigmoid": Rising(0.0, 1.0, _logit), "tanh": Rising(-1.0, 1.0, _artanh)}
)
"""Activations whose name a model may end with -> what a threshold of their value is one of their argument by."""


@dataclass(frozen=True)
class Threshold:
    """What makes classes of one output: 1 where it is above `value`.

    operator: the last one of the network, where the classifier has its argument for output; else empty.
    activation: its name among `RISING`, likewise.
    """

    value: float
    operator: str = ""
    activation: str = ""

    def scores(self, outputs: FloatArray) -> FloatArray:
        """Return (0, y - T) for outputs y, shape (m, 1) -> (m, 2); the sign of the difference is exact."""
        return np.hstack([np.zeros_like(outputs), outputs - self.value])

    def exact_scores(self, outputs: Sequence[Fraction]) -> tuple[Fraction, ...]:
        """Return (0, y - T) for one output y."""
        return Fraction(0), outputs[0] - Fraction(self.value)

    def margin(self, error: float, last: float = FLOAT32_ERROR) -> float:
        """Return a margin of the classifier beyond which an error of that size in y changes no class.

        Where phi is left out, the largest |z - phi^-1(T)| with |phi(z) - T| <= error + `last`, what its kernel may be
        off by; infinite where phi saturates: there the network's own output is the same number for all z.
        """
        if not self.activation:
            return error
        rising, error = RISING[self.activation], error + last
        middle = rising.at(self.value)
        return max(rising.at(self.value + error) - middle, middle - rising.at(self.value - error))


def with_threshold(model: ImplicitModel, value: float) -> tuple[ImplicitModel, Threshold]:
    """Return the classifier of two classes that a model of one output is, and how it reads the output.

    Args:
        model: y, one output.
        value: T, a finite number, within the range of y where its last operator is in `RISING`.
    """
    place = _last_place(model)
    if place is not None:
        block = model.blocks[0]
        rising = RISING[block.activation.name]
        if rising.lo < value < rising.hi:
            return _without_last(model, place, rising.at(value)), Threshold(value, block.op, block.activation.name)
    shape = (1, 1)
    output = _form(model.output, shape, 0).mapped(
        Selection(index=np.array([-1, 0]), size_in=1), (1, 2), offset=np.array([0.0, -value])
    )
    return replace(model, output=_row(output), output_shape=(1, 2)), Threshold(value)


def _last_place(model: ImplicitModel) -> int | None:
    """Return which state of the newest block the output is, as it is; None where it is anything else."""
    output = model.output
    is_bare = set(output.states) == {0} and output.input is None
    if not is_bare or output.constant.any() or output.constant_error or any(0 in row.states for row in model.rows):
        return None
    entry = output.states[0].to_sparse()
    block = model.blocks[0]
    if entry.nnz != 1 or output.states[0].relative or output.states[0].slack is not None:
        return None
    (place,) = entry.indices
    exponent = np.broadcast_to(block.exponent, (block.size,))[place]
    # x = 2^-e phi(2^e z) is kept in a rescaled model, and its output is 2^e x
    if block.activation.name not in RISING or entry.data[0] != np.ldexp(1.0, exponent):
        return None
    return int(place)


def _without_last(model: ImplicitModel, place: int, middle: float) -> ImplicitModel:
    """Return (0, z - middle) of the argument z of the last activation, whose block is left out."""
    block, row = model.blocks[0], model.rows[0]
    exponent = int(np.broadcast_to(block.exponent, (block.size,))[place])
    argument = Selection(
        index=np.array([-1, place]), size_in=block.size, weights=np.array([1.0, np.ldexp(1.0, exponent)])
    )
    output = _form(row, (1, block.size), 1).mapped(
        argument,
        (1, 2),
        offset=np.array([0.0, -middle]),
        offset_error=max(math.ulp(middle), _INVERSE_ERROR),
    )
    return replace(
        model,
        blocks=tuple(_earlier_block(one) for one in model.blocks[1:]),
        rows=tuple(_row(_form(one, (1, one.size), 1)) for one in model.rows[1:]),
        output=_row(output),
        output_shape=(1, 2),
        stripped_output=block.op,
        scaling=None,
        loop_weights={k - 1: weights for k, weights in model.loop_weights.items()},
    )


def _earlier_block(block: StateBlock) -> StateBlock:
    if block.maximum is None:
        return block
    return replace(block, maximum=PoolWindows(block.maximum.source - 1, block.maximum.windows))


def _form(row: Affine, shape: tuple[int, int], left_out: int) -> AffineForm:
    """Return a row of blocks as a form; the newest `left_out` blocks are no longer there."""
    terms = {k - left_out: linear_map for k, linear_map in row.states.items()}
    if row.input is not None:
        terms[INPUT] = row.input
    return AffineForm(shape, terms, row.constant, row.constant_error)


def _row(form: AffineForm) -> Affine:
    states = {k: linear_map for k, linear_map in form.terms.items() if k != INPUT}
    return Affine(states, form.terms.get(INPUT), form.constant, form.constant_error)
