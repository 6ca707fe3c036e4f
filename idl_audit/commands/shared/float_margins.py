"""What floating-point arithmetic may change in margins that are proved in exact arithmetic (IDL202)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from idl_audit.commands.shared.subject import Subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.implicit.as_written import as_written, of_implicit_model
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.threshold import Threshold
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.float_margins import BoxErrors, FloatMargins, Unbounded, Units, parted
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.report.schema import Diagnostic, Level
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import BudgetError, OptionError, UnsupportedModelError
from idl_audit.values.query import Misclassification, Query
from idl_audit.values.verdicts import ArithmeticName

BOXES_AT_ONCE: Final = 2**17
"""Times the number of states: of boxes that are looked at together."""

IN_EXACT_ARITHMETIC: Final = "the proof holds in exact arithmetic for the weights in the file"


def float_margins(
    subject: Subject, preprocessing: Preprocessing, *, max_bytes: int | None = None
) -> FloatMargins | Unbounded:
    """Return what bounds the rows of a subject's outputs, or what keeps them from having a bound."""
    itself = subject.network_itself or subject
    try:
        if itself.graph is None:
            written = of_implicit_model(itself.model)
        else:
            written = as_written(itself.graph, output=itself.output_name, max_bytes=max_bytes)
    except UnsupportedModelError as error:
        return Unbounded(error.problems)
    units = None if preprocessing.is_identity else Units(*preprocessing.affine(subject.input_shape))
    return FloatMargins(written, subject.in_data_units(preprocessing), units, subject.threshold)


def check_arithmetic(subject: Subject, asked: ArithmeticName) -> None:
    """Raise OptionError where verdicts are asked for in other floats than those that the network computes in."""
    own = subject.info.arithmetic
    if asked not in ("real", own):
        raise OptionError(f"{subject.path}: the network computes in {own}; ask for --arithmetic {own}, or real")


def float_margins_of(
    itself: ImplicitModel, model: ImplicitModel, threshold: Threshold | None
) -> FloatMargins | Unbounded:
    """Return those of an implicit model that is its own network: `model` is it, or the classifier that it makes."""
    try:
        return FloatMargins(of_implicit_model(itself), model, threshold=threshold)
    except UnsupportedModelError as error:
        return Unbounded(error.problems)


def errors(
    margins: FloatMargins,
    inputs: Interval,
    functionals: FloatArray,
    proved: FloatArray,
    states: StateBounds | None = None,
    *,
    ranked: bool = False,
    check: Check = unchecked,
) -> FloatArray:
    """Return bounds of |computed - exact| for rows of outputs over m boxes; infinite where none is known.

    Coarse bounds first; finer ones only as long as a margin is not above its bound.

    Args:
        margins: of the model.
        inputs: the boxes in the user's numbers, (m, p).
        functionals: (R, q).
        proved: what is proved of each row, (m, R), or (R,) over one box; the result has the same shape.
        states: proved bounds of the model's states over the boxes, where there are some already.
        ranked: whether the rows are all margins of one class.
        check: called between parts of the finer bounds; where it ends them, the coarse ones stay.
    """
    found = np.full(proved.shape, np.inf)
    if not len(functionals):
        return found
    try:
        for attempt in _attempts(margins, inputs, states, check):
            found = np.fmin(found, attempt.of(functionals, ranked=ranked))
            if (proved > found).all():
                break
    except (BudgetError, MemoryError):
        pass
    return found.reshape(proved.shape)


def _attempts(margins: FloatMargins, inputs: Interval, states: StateBounds | None, check: Check) -> Iterator[BoxErrors]:
    """Yield what bounds rows, cheap ones first."""
    known = interval_bounds(margins.model, inputs) if states is None else states
    yield margins.over(inputs, known)
    if states is None:
        known = backward_state_bounds(margins.model, inputs, check=check)
        yield margins.over(inputs, known)
    if margins.can_be_sharp:
        yield margins.over(inputs, known, sharp=True, check=check)


def errors_of(
    margins: FloatMargins,
    query: Query,
    proved: Sequence[float],
    states: StateBounds | None,
    *,
    check: Check = unchecked,
) -> FloatArray:
    """Return for each alternative a bound of |computed - exact| of its rows and sums of rows, (a,)."""
    return np.asarray(_of_alternatives(margins, [query], np.asarray(proved, np.float64)[None], states, check)[0])


def errors_of_alike(
    margins: FloatMargins,
    queries: Sequence[Query],
    proved: FloatArray,
    states: Sequence[StateBounds | None],
    *,
    check: Check = unchecked,
) -> FloatArray:
    """Return those of queries with the same rows, (m, a), many boxes at a time."""
    if len(queries) == 1:
        return _of_alternatives(margins, queries, proved, states[0], check)
    at_once = max(1, BOXES_AT_ONCE // max(1, margins.model.n_states))
    parts = [slice(start, start + at_once) for start in range(0, len(queries), at_once)]
    return np.concatenate([_of_alternatives(margins, queries[part], proved[part], None, check) for part in parts])


def _of_alternatives(
    margins: FloatMargins, queries: Sequence[Query], proved: FloatArray, states: StateBounds | None, check: Check
) -> FloatArray:
    alternatives = queries[0].alternatives
    if not alternatives:
        return np.zeros((len(queries), 0))
    margins_of_rows = np.repeat(proved, [len(one.rows) for one in alternatives], axis=1)
    inputs = Interval.of_boxes([query.box for query in queries])
    functionals = np.concatenate([one.rows for one in alternatives])
    ranked = isinstance(queries[0], Misclassification)
    each = errors(margins, inputs, functionals, margins_of_rows, states, ranked=ranked, check=check)
    return np.stack([own.sum(axis=1) for own in parted(alternatives, each)], axis=1)


def without_bound(what: str, why: str, *, where: str | None = None) -> Diagnostic:
    """Return the word on verdicts that are unknown because nothing bounds what roundings change; `what` says which."""
    return Diagnostic(
        code="IDL217",
        level="warning",
        message=f"{what}: unknown in floating-point arithmetic; {why}",
        hint="--arithmetic real proves verdicts in exact arithmetic",
        where=where,
    )


def told_unknown(unbounded: Unbounded, what: str, *, level: Level = "warning", where: str | None = None) -> Diagnostic:
    """Return the word on verdicts that speak of exact arithmetic alone; `what` says which."""
    return told_exact(unbounded.told, what, level=level, where=where)


def told_exact(why: str, what: str, *, level: Level = "warning", where: str | None = None) -> Diagnostic:
    """Return what `told_unknown` does, of the reason in words."""
    return Diagnostic(
        code="IDL202",
        level=level,
        message=f"{what}: in exact arithmetic; {why}",
        hint=IN_EXACT_ARITHMETIC,
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
