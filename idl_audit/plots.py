"""Pictures of what was found, as figures of matplotlib for notebooks and papers.

>>> import idl_audit
>>> report = idl_audit.audit("sample_models/digits_mlp.onnx", "sample_models/digits_mlp.npz", eps="0.01,0.05", limit=10)
>>> figure = idl_audit.plot_accuracy(report)
>>> figure.savefig("accuracy.png")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_audit.api import Robustness, Sweep
from idl_audit.report.pictures import (
    LIGHT,
    AccuracyPoint,
    accuracy_band,
    accuracy_points,
    adversarial_triple,
    clean_share,
    heat_map,
)
from idl_audit.report.schema import Report
from idl_audit.values.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_accuracy(found: Report | Sweep) -> Figure:
    """Return the band in which robust accuracy lies, over the radius in units of the data.

    Below it is what is certified, above it what attacks have toppled: accuracy never grows with the radius, so that
    between two radii the band's edges are steps.

    Args:
        found: a report of `audit`, or what `certify` returns for a list of radii; at least two radii.

    Raises:
        OptionError: where there are fewer than two radii, or no samples.
    """
    points = accuracy_points(found) if isinstance(found, Report) else _points(found)
    if len(points) < 2:
        raise OptionError("a curve needs verdicts of samples at two radii or more; give eps as a list")
    clean = clean_share(found) if isinstance(found, Report) else 1 - found[0].clean_wrong / found[0].n
    return accuracy_band(points, clean=clean, theme=LIGHT, narrow=False)


def _points(found: Sweep) -> list[AccuracyPoint]:
    rising = sorted((one for one in found if one.n), key=lambda one: one.eps)
    return [
        AccuracyPoint(one.eps, f"{one.eps:g}", one.certified / one.n, (one.certified + one.unknown) / one.n)
        for one in rising
    ]


def plot_sensitivity(matrix: Any, output: int = 0, *, shape: Sequence[int] | None = None) -> Figure:
    """Return one row of a sensitivity matrix: how far the output may move for each unit that an input moves.

    Args:
        matrix: S, shape (q, p), as `sensitivity_matrix` returns it.
        output: which row.
        shape: of one input where it is an image, such as (8, 8) or (3, 32, 32); without it, a strip of bars.

    Raises:
        OptionError: where the matrix has no such row, is not finite, or the shape does not fit.
    """
    rows = np.abs(np.asarray(matrix, np.float64))
    if rows.ndim != 2 or not 0 <= output < len(rows):
        raise OptionError(f"the matrix, shape {rows.shape}, has no row {output}")
    if not np.isfinite(rows[output]).all():
        raise OptionError(f"row {output} of the matrix is not finite, and cannot be drawn")
    fitting = _fitting(shape, rows.shape[1])
    return heat_map(
        rows[output],
        shape=fitting,
        largest=float(rows[output].max()),
        title=f"sensitivity of output {output}",
        caption=f"row sum {rows[output].sum():.4g}",
        unit="output change per unit",
    )


def plot_adversarial(
    found: Robustness,
    x: Any,
    sample: int,
    *,
    shape: Sequence[int] | None = None,
    bounds: tuple[float, float] | None = None,
) -> Figure:
    """Return a sample, the change that topples it, and the result, side by side.

    Args:
        found: what `certify` or `attack` returned.
        x: the samples that they were given, shape (n, ...).
        sample: the sample's index among them.
        shape: of one input where it is an image; that of x unless given.
        bounds: what is black and what is white; the sample's own range unless given.

    Raises:
        OptionError: where the sample was not falsified, or the shape does not fit.
    """
    verdict = next((one for one in found.samples if one.index == sample), None)
    if verdict is None or verdict.adversarial is None:
        raise OptionError(f"no adversarial input was found for sample {sample}, so there is nothing to draw")
    array = np.asarray(x)
    original = np.asarray(array[sample], np.float64).reshape(-1)
    fitting = _fitting(array.shape[1:] if shape is None else shape, original.size)
    becomes = "no number" if verdict.becomes is None or verdict.becomes < 0 else f"class {verdict.becomes}"
    return adversarial_triple(
        original,
        verdict.adversarial.astype(np.float64),
        shape=fitting,
        bounds=bounds,
        titles=(f"original: class {verdict.label}", f"adversarial: {becomes}"),
        caption=f"sample {sample}, eps {found.eps:g}",
    )


def _fitting(shape: Sequence[int] | None, p: int) -> tuple[int, ...]:
    """Return the shape of an input. Raises OptionError where it does not have p numbers."""
    fitting = (p,) if shape is None else tuple(shape)
    if prod(fitting) != p:
        raise OptionError(f"a shape of {fitting} holds {prod(fitting)} numbers, and an input has {p}")
    return fitting
