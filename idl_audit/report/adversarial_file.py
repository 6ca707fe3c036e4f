"""The file that --save wrote beside a report: adversarial inputs with their originals, compared with the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from idl_audit.report.schema import Adversarial, Report
from idl_audit.report.worst_first import worst_first
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import DataError

ARRAYS: Final = ("inputs", "originals", "labels", "predictions", "eps", "indices")


@dataclass(frozen=True)
class Triple:
    """A sample, what an attack made of it, and what the report says of that."""

    index: int
    label: int
    eps: float
    found: Adversarial
    original: FloatArray
    """Shape (p,), in data units, the model's own order."""
    adversarial: FloatArray
    """Likewise; inputs that differ from the original by float32's rounding alone are the original's."""


def read_triples(report: Report, arrays: Mapping[str, AnyArray], *, source: object) -> tuple[Triple, ...]:
    """Return the falsified samples of the report with their inputs, worst first, each at its smallest radius.

    Every row of the file must be a falsified result of the report: same sample, radius, label and class, and the
    change that the report names.

    Raises:
        DataError: where the file is not the one that was written with this report.
    """
    lacking = [name for name in ARRAYS if name not in arrays]
    if lacking:
        raise DataError(
            f"{source} has no array '{lacking[0]}'; give the file that attack or certify wrote with --save (this "
            "version also keeps the originals)"
        )
    inputs, originals = (np.atleast_2d(arrays[name]) for name in ("inputs", "originals"))
    columns = [np.atleast_1d(arrays[name]) for name in ARRAYS[2:]]
    numbers = all(array.dtype.kind in "iuf" for array in (inputs, originals, *columns))
    if not numbers or inputs.ndim != 2 or inputs.shape != originals.shape or inputs.shape[1] == 0:
        raise DataError(f"{source} has no inputs beside originals of the same shape; give the file that --save wrote")
    if any(column.shape != (len(inputs),) for column in columns):
        raise DataError(f"{source} has labels, predictions, eps or indices that do not fit its {len(inputs)} inputs")
    rows: dict[tuple[int, float], tuple[int, int, FloatArray, FloatArray]] = {}
    for place in range(len(inputs)):
        label, predicted, eps, index = (column[place].item() for column in columns)
        before = np.asarray(originals[place], np.float64)
        moved = inputs[place] != before.astype(_read_as(report)).astype(np.float32)
        after = np.where(moved, inputs[place].astype(np.float64), before)
        rows[index, eps] = label, predicted, before, after
        _compare(report, index, eps, label, predicted, inputs[place].astype(np.float64) - before, moved, source)
    return tuple(_worst_first(report, rows))


def _read_as(report: Report) -> np.dtype[Any]:
    """Return the type of the numbers that the network reads of the samples themselves."""
    if report.model is None or report.data is None or report.model.input_type != "float16":
        return np.dtype(np.float32)
    units = report.data.preprocessing
    as_they_are = units.scale == 1 and not any(units.mean) and all(one == 1 for one in units.std)
    return np.dtype(np.float16 if as_they_are else np.float32)


def _compare(
    report: Report,
    index: int,
    eps: float,
    label: int,
    predicted: int,
    change: FloatArray,
    moved: AnyArray,
    source: object,
) -> None:
    found = next(
        (
            result.adversarial
            for sample in report.samples
            if sample.index == index and sample.label == label
            for result in sample.results
            if result.eps == eps
        ),
        None,
    )
    same = (
        found is not None
        and (-1 if found.class_ is None else found.class_) == predicted
        and found.l0 == int(moved.sum())
        and math.isclose(found.linf, float(np.abs(change).max()), rel_tol=1e-9, abs_tol=1e-12)
    )
    if not same:
        raise DataError(
            f"{source} was not written with this report: its input for sample {index} at eps {eps:g} is none that the "
            "report speaks of; give the file that --save wrote in the same run"
        )


def _worst_first(
    report: Report, rows: Mapping[tuple[int, float], tuple[int, int, FloatArray, FloatArray]]
) -> list[Triple]:
    triples = []
    for sample in worst_first(report.samples):
        for result in sorted(sample.results, key=lambda result: result.eps):
            row = rows.get((sample.index, result.eps))
            if result.adversarial is not None and row is not None:
                label, _, before, after = row
                triples.append(Triple(sample.index, label, result.eps, result.adversarial, before, after))
                break
    # the ranking of samples leaves ties at one radius open: the more clearly wrong, the worse
    return sorted(triples, key=lambda one: (one.eps, -math.inf if one.found.margin is None else one.found.margin))
