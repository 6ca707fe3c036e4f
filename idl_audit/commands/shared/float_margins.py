"""What floating-point arithmetic may change in margins that are proved in exact arithmetic (IDL202)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.commands.shared.subject import Subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.implicit.as_written import AsWritten, as_written, of_implicit_model
from idl_audit.implicit.kernels import FLOAT32
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.float_errors import FloatErrors
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.report.schema import Diagnostic, Level
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import BudgetError, UnsupportedModelError
from idl_audit.values.query import Query
from idl_audit.values.rounding import gamma

MOST_WORK: Final = 5 * 10**9
"""Products that bounds of every state's error may take; a network that needs more has the coarser ones."""

BOXES_AT_ONCE: Final = 2**17
"""Times the number of states: of boxes that are looked at together."""

TIE: Final = 2.0**-19
"""Logits that are further apart than this have different probabilities, whatever softmax a runtime computes:
e^-t (1 + 2 rho + u t) < 1 - 2^-22 with twice the measured rho of exp."""


@dataclass(frozen=True)
class FloatMargins:
    """A network as its file has it, and where its states stand in the implicit model that proofs are about.

    What is claimed: for every float32 input in the set, the functional of the outputs that a runtime computes differs
    from the exact one by the bound at most. A runtime may add in any order, fuse multiply-add, fold and merge linear
    operators, and flush subnormal numbers; TF32, half precision, Winograd and Fourier convolutions, integer kernels and
    approximate divisions are not covered. Errors of exp, tanh and the like are measured ones, doubled.
    """

    written: AsWritten
    model: ImplicitModel
    """Of the user's numbers."""
    preprocessing: Preprocessing

    @classmethod
    def of(cls, subject: Subject, preprocessing: Preprocessing, *, max_bytes: int | None = None) -> FloatMargins:
        """Read the network operator by operator.

        Raises:
            UnsupportedModelError: with every operator that no bound is known for.
        """
        if subject.graph is None:
            written = of_implicit_model(subject.model)
        else:
            written = as_written(subject.graph, output=subject.output_name, max_bytes=max_bytes)
        return cls(written, subject.in_data_units(preprocessing), preprocessing)

    def errors(
        self,
        inputs: Interval,
        functionals: FloatArray,
        margins: FloatArray,
        states: StateBounds | None = None,
        *,
        check: Check = unchecked,
    ) -> FloatArray:
        """Return bounds of |computed - exact| for rows of outputs over m boxes; infinite where none is known.

        Coarse bounds first; finer ones only as long as a margin is not above its bound.

        Args:
            inputs: the boxes in the user's numbers, (m, p).
            functionals: (R, q).
            margins: what is proved of each row, (m, R), or (R,) over one box; the result has the same shape.
            states: proved bounds of the model's states over the boxes, where there are some already.
            check: called between parts of the finer bounds; where it ends them, the coarse ones stay.
        """
        found = np.full(margins.shape, np.inf)
        if not len(functionals):
            return found
        try:
            for bounds, sharp in self._attempts(inputs, states, check):
                found = np.fmin(found, self._once(inputs, functionals, bounds, sharp=sharp, check=check))
                if (margins > found).all():
                    break
        except (BudgetError, MemoryError):
            pass
        return found.reshape(margins.shape)

    def _attempts(
        self, inputs: Interval, states: StateBounds | None, check: Check
    ) -> Iterator[tuple[StateBounds, bool]]:
        """Yield bounds of the states, and whether each state's error gets a bound of its own; cheap ones first."""
        known = interval_bounds(self.model, inputs) if states is None else states
        yield known, False
        if states is None:
            known = backward_state_bounds(self.model, inputs, check=check)
            yield known, False
        if self._work <= MOST_WORK:
            yield known, True

    def _once(
        self, inputs: Interval, functionals: FloatArray, bounds: StateBounds, *, sharp: bool, check: Check
    ) -> FloatArray:
        places = self.written.places_in(self.model)
        known = {k: bounds.z[own] for k, own in places.items() if own in bounds.z}
        errors = FloatErrors(self.written, *self._read_inputs(inputs), known, sharp, check)
        found = errors.of_outputs(functionals)
        operator = self.model.stripped_output
        if operator == "Softmax":
            found = found + TIE
        elif operator:  # LogSoftmax: x - max - log(sum), each of them rounded
            q = functionals.shape[1]
            found = found + 16 * FLOAT32.unit * (2 * errors.largest_output[:, None] + math.log(q) + 1)
        return np.asarray(found)

    def _read_inputs(self, inputs: Interval) -> tuple[Interval, FloatArray]:
        """Return the box as the network reads it, and how far preprocessing in float32 may be from exact one."""
        if self.preprocessing.is_identity:
            return inputs, np.zeros_like(inputs.lo)
        factor, offset = self.preprocessing.affine(self.model.input_shape)
        row = Affine({}, Selection.diagonal(factor).uncertain(gamma(4)), offset, float(np.abs(offset).max()) * gamma(4))
        size = inputs.largest * np.abs(factor) + np.abs(offset)
        return affine_interval(row, {}, inputs), 5 * FLOAT32.unit * size + 4 * FLOAT32.smallest

    @property
    def _work(self) -> int:
        """About how many products the sharp bounds take."""
        rows, blocks = self.written.model.rows, self.written.model.blocks
        behind, total = 0, 0
        for k in self.written.model.evaluation_order:
            behind += sum(linear_map.nnz for linear_map in rows[k].states.values())
            total += blocks[k].size * behind if self.written.roundings[k].is_state else 0
        return total

    def errors_of(
        self, query: Query, proved: Sequence[float], states: StateBounds | None, *, check: Check = unchecked
    ) -> FloatArray:
        """Return for each alternative a bound of |computed - exact| of its rows and sums of rows, (a,)."""
        return np.asarray(self._of_alternatives([query], np.asarray(proved, np.float64)[None], states, check)[0])

    def errors_of_alike(
        self,
        queries: Sequence[Query],
        proved: FloatArray,
        states: Sequence[StateBounds | None],
        *,
        check: Check = unchecked,
    ) -> FloatArray:
        """Return those of queries with the same rows, (m, a), many boxes at a time."""
        if len(queries) == 1:
            return self._of_alternatives(queries, proved, states[0], check)
        at_once = max(1, BOXES_AT_ONCE // max(1, self.model.n_states))
        parts = [slice(start, start + at_once) for start in range(0, len(queries), at_once)]
        return np.concatenate([self._of_alternatives(queries[part], proved[part], None, check) for part in parts])

    def _of_alternatives(
        self, queries: Sequence[Query], proved: FloatArray, states: StateBounds | None, check: Check
    ) -> FloatArray:
        rows = [alternative.rows for alternative in queries[0].alternatives]
        if not rows:
            return np.zeros((len(queries), 0))
        margins = np.repeat(proved, [len(own) for own in rows], axis=1)
        inputs = Interval.of_boxes([query.box for query in queries])
        each = self.errors(inputs, np.concatenate(rows), margins, states, check=check)
        ends = np.cumsum([len(own) for own in rows])[:-1]
        return np.stack([own.sum(axis=1) for own in np.split(each, ends, axis=1)], axis=1)


def float_margins(subject: Subject, preprocessing: Preprocessing) -> FloatMargins | UnsupportedModelError:
    """Return what bounds the margins, or what keeps them from having a bound."""
    try:
        return FloatMargins.of(subject, preprocessing)
    except UnsupportedModelError as error:
        return error


def why_unknown(subject: Subject, preprocessing: Preprocessing) -> tuple[str, ...]:
    """Return what keeps the margins of a network from having a bound; nothing where they have one."""
    found = float_margins(subject, preprocessing)
    return found.problems if isinstance(found, UnsupportedModelError) else ()


def told_unknown(
    problems: Sequence[str], what: str, *, level: Level = "warning", where: str | None = None
) -> Diagnostic:
    """Return the word on verdicts that speak of exact arithmetic alone; `what` says which."""
    named = ", ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")
    return Diagnostic(
        code="IDL202",
        level=level,
        message=f"{what}: in exact arithmetic; what floating-point arithmetic changes has no known bound ({named})",
        hint="the proof holds in exact arithmetic for the weights in the file",
        where=where,
    )


def told_denied(count: int, what: str, *, where: str | None = None) -> Diagnostic:
    """Return the word on points that are counterexamples for the network as it runs, and none in exact arithmetic."""
    points = "a point that is a counterexample" if count == 1 else f"{count} points that are counterexamples"
    return Diagnostic(
        code="IDL213",
        level="warning",
        message=f"{what}: {points} for the network as it runs, and not in exact arithmetic, or not known to be",
        hint="verdicts speak of exact arithmetic; what is deployed rounds, and errs there",
        where=where,
    )
