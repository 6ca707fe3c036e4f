"""What floating-point arithmetic may change in rows of outputs, over boxes: what verdicts for it are proved with.

delta >= |f y' - f y| for every input of the box that is a number of the format, y' what a runtime computes and y the
exact outputs. A row with f y + c > delta in exact arithmetic has f y' + c > 0 in the runtime's, so that a query is
proved for that arithmetic by proving the one whose offsets are lowered by delta in exact arithmetic (`lowered`);
counterexamples are looked for in the query as it was asked. See docs/mathematics.md, section 12.

Elsewhere: floating-point-sound verification.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.as_written import AsWritten
from idl_audit.implicit.kernels import FLOAT32
from idl_audit.implicit.last_operator import NAMED
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.threshold import FLOAT32_ERROR, Threshold
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.float_errors import GROWN, FloatErrors
from idl_audit.proof.intervals import affine_interval
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.rounding import down, gamma

MOST_WORK: Final = 5 * 10**9
"""Products that bounds of every state's error may take; a network that needs more has the coarser ones."""

TIE: Final = 32.0
"""Logits that are further apart than u times this have different probabilities, whatever softmax a runtime computes:
e^-t (1 + 2 rho + u t) (1 + u)^4 < 1 - 4 u with twice the measured rho of exp."""

SEEN: Final = 64.0
"""Logits that are not further below the largest one have probabilities far above the smallest normal number."""

FEW: Final = 2**12
"""Classes of which the largest probability is a normal number of float16."""


@dataclass(frozen=True, eq=False)
class Units:
    """The network reads factor u + offset of the user's numbers u, computed in float32 or better."""

    factor: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class FloatMargins:
    """A network as its file has it, and where its states stand in the implicit model that proofs are about.

    What is claimed: for every input in the set that is a number of the format, a functional of the outputs that a
    runtime computes differs from the exact one by the bound at most. A runtime may add in any order, fuse multiply-add,
    fold and merge linear operators, and flush subnormal numbers; TF32, accumulators of 16 bits, Winograd and Fourier
    convolutions, integer kernels and approximate divisions are not covered. Errors of exp, tanh and the like are
    measured ones, doubled. Of a last softmax or of a last activation that the model leaves out, the functionals are
    those of what it reads, and the bound is one beyond which the operator's own results are ranked alike.
    """

    written: AsWritten
    """With its one output where the model makes classes of it."""
    model: ImplicitModel
    """Of the user's numbers."""
    units: Units | None = None
    threshold: Threshold | None = None
    """What makes two classes of one output, where the model has been made a classifier by it."""
    unrounded: BoolArray | None = None
    """Outputs that no runtime rounds (`implicit.unrounded`), (q,), where subnormal numbers are kept."""

    def over(
        self, inputs: Interval, states: StateBounds, *, sharp: bool = False, check: Check = unchecked
    ) -> BoxErrors:
        """Return what bounds rows over m boxes.

        Args:
            inputs: the boxes in the user's numbers, (m, p).
            states: proved bounds of states of the model over the boxes.
            sharp: whether every state's error gets a bound of its own; for networks that `can_be_sharp`.
            check: called between parts of the sharp bounds.
        """
        known = {k: states.z[own] for k, own in self._places.items() if own in states.z}
        read, error = self._read_inputs(inputs)
        return BoxErrors(self, FloatErrors(self.written, read, error, known, sharp, check))

    @cached_property
    def can_be_sharp(self) -> bool:
        """Whether bounds of every state's error cost no more than `MOST_WORK`."""
        rows, blocks = self.written.model.rows, self.written.model.blocks
        behind, total = 0, 0
        for k in self.written.model.evaluation_order:
            behind += sum(linear_map.nnz for linear_map in rows[k].states.values())
            total += blocks[k].size * behind if self.written.roundings[k].is_state else 0
        return total <= MOST_WORK

    @cached_property
    def _places(self) -> dict[int, int]:
        without_last = self.threshold is not None and bool(self.threshold.activation)
        return self.written.places_in(self.model, without_last=without_last)

    def _read_inputs(self, inputs: Interval) -> tuple[Interval, FloatArray]:
        """Return the box as the network reads it, and how far preprocessing in float32 may be from exact one.

        (u s - m) / t with s, m and t rounded first: at most five roundings of either part, and one more where the
        network reads 16-bit floats.
        """
        if self.units is None:
            return inputs, np.zeros_like(inputs.lo)
        factor, offset = self.units.factor, self.units.offset
        row = Affine({}, Selection.diagonal(factor).uncertain(gamma(4)), offset, float(np.abs(offset).max()) * gamma(4))
        size = inputs.largest * np.abs(factor) + np.abs(offset)
        error = 5 * FLOAT32.unit * size + 4 * FLOAT32.smallest
        entry = self.written.entry
        if entry.unit > FLOAT32.unit:
            error = error + entry.unit * (size + error) + entry.smallest
        return affine_interval(row, {}, inputs), error * GROWN


@dataclass(frozen=True, eq=False)
class BoxErrors:
    """What is known of computed outputs over m boxes."""

    margins: FloatMargins
    errors: FloatErrors

    def of(self, functionals: FloatArray, *, ranked: bool = False) -> FloatArray:
        """Return bounds of |f y' - f y|, (m, R); infinite where nothing is known.

        Args:
            functionals: rows f over the model's outputs, (R, q), or of each box its own, (m, R, q).
            ranked: whether they are all margins of one class, so that it is the largest where they are positive.
        """
        margins, left_out = self.margins, self.margins.model.stripped_output
        operator = "" if left_out in NAMED else left_out  # a class is named by what the scores are, without rounding
        if margins.threshold is not None:
            one = self.errors.of_outputs(np.ones((1, 1)))[:, 0]
            last = max(FLOAT32_ERROR, 16 * margins.written.arithmetic.unit)
            needed = np.array([_margin(margins.threshold, error, last) for error in one.tolist()])
            weights = np.abs(functionals[..., 1])
            return np.where(weights > 0, np.maximum(weights, 1.0) * needed[:, None], 0.0)
        found, arithmetic = self.errors.of_outputs(functionals), margins.written.arithmetic
        if margins.unrounded is not None and not operator:
            found = np.where((functionals[..., ~margins.unrounded] != 0).any(axis=-1), found, 0.0)
        weights = np.abs(functionals).max(axis=-1, initial=0.0)  # a row may compare multiples of two outputs
        if operator == "Softmax":
            has_few_exponents = arithmetic.largest < FLOAT32.largest
            found = found + TIE * arithmetic.unit * weights
            if has_few_exponents and functionals.shape[-1] > FEW:
                found = np.full_like(found, np.inf)
            if not ranked:  # neither of two probabilities need be the largest: both arguments of exp are rounded
                is_seen = not has_few_exponents and self._is_seen(functionals)
                found = np.where(is_seen, found + 4 * arithmetic.unit * SEEN * weights, np.inf)
        elif operator:  # LogSoftmax: x - max - log(sum), each of them rounded
            q = functionals.shape[-1]
            size = 2 * self.errors.largest_output[:, None] + math.log(q) + 1
            found = found + 16 * arithmetic.unit * size * weights
        return np.asarray(found)

    def of_each_output(self) -> FloatArray:
        """Return bounds of |y' - y| of every output as the model has it, (m, q); infinite where nothing is known."""
        return self.errors.of_outputs(np.eye(self.margins.model.n_outputs))

    def _is_seen(self, functionals: FloatArray) -> FloatArray:
        """Whether what a row weighs positively is no probability that may be flushed to 0, as others may be, (m, R)."""
        outputs, error = self.errors.exact_outputs, self.of_each_output()
        with np.errstate(invalid="ignore"):
            near = outputs.lo - error >= (outputs.hi + error).max(axis=1, keepdims=True) - SEEN
        return np.asarray((near[:, None, :] | (functionals <= 0)).all(axis=-1))


def _margin(threshold: Threshold, error: float, last: float) -> float:
    return threshold.margin(error, last) * GROWN if error < math.inf else math.inf


@dataclass(frozen=True)
class Unbounded:
    """Arithmetic that rounds, and a network for which nothing bounds what that changes."""

    problems: tuple[str, ...]
    """One operator each, or whatever else it is."""

    @property
    def told(self) -> str:
        """Why, in one line."""
        more = f" and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        return f"what floating-point arithmetic changes has no known bound: {', '.join(self.problems[:3])}{more}"


Arithmetic: TypeAlias = FloatMargins | Unbounded | None
"""What verdicts are proved for: the arithmetic that a runtime computes in, or real arithmetic (None)."""

Slack: TypeAlias = tuple[FloatArray, ...]
"""For each alternative of a query delta of its rows, (k,): infinite where none is known yet."""

SPARE: Final = 1 + 2.0**-20
"""What a delta that is written down is above the one that was computed: another machine may add in another order."""


def lowered(query: Query, slack: Slack) -> Query:
    """Return the query that is to be proved in exact arithmetic: offsets lowered by delta, rounded downward."""
    pairs = zip(query.alternatives, slack, strict=True)
    return replace(query, alternatives=tuple(_lowered(one, delta) for one, delta in pairs))


def _lowered(alternative: Conjunction, delta: FloatArray) -> Conjunction:
    if not (delta > 0).any() and not np.isnan(delta).any():
        return alternative
    with np.errstate(over="ignore", invalid="ignore"):
        offsets = down(alternative.offsets - delta)
    return replace(alternative, offsets=np.where(np.isnan(offsets), -np.inf, offsets), exact_offsets=())


def unknown_slack(query: Query) -> Slack:
    """Return the slack of which nothing is known."""
    return tuple(np.full(len(one.rows), np.inf) for one in query.alternatives)


def parted(rows: Sequence[Conjunction], values: FloatArray) -> list[FloatArray]:
    """Return values of all rows of some alternatives, the last axis, alternative by alternative."""
    ends = np.cumsum([len(one.rows) for one in rows])[:-1]
    return np.split(values, ends, axis=-1)
