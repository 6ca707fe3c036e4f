"""The boxes around the samples, and the threat model that they stand for."""

from __future__ import annotations

from collections.abc import Sequence

from idl_audit.arrays import FloatArray
from idl_audit.box import Box
from idl_audit.data.numbers import Eps
from idl_audit.data.samples import Samples
from idl_audit.errors import DataError
from idl_audit.report.schema import EpsPoint, ThreatModel

Bounds = tuple[float, float] | None
"""The valid range of the data, where it is known."""


def sample_boxes(samples: Samples, eps: Sequence[Eps], bounds: Bounds) -> list[list[Box]]:
    """Return for each sample its box of every radius, clipped to the valid range of the data.

    Raises:
        DataError: where a sample lies outside the valid range.
    """
    lo, hi = bounds or (None, None)
    return [_boxes(int(i), x, eps, lo, hi) for i, x in zip(samples.indices, samples.inputs, strict=True)]


def _boxes(index: int, x: FloatArray, eps: Sequence[Eps], lo: float | None, hi: float | None) -> list[Box]:
    try:
        return [Box.around(x, radius.value, valid_lo=lo, valid_hi=hi) for radius in eps]
    except DataError as error:
        raise DataError(f"sample {index}: {error}") from error


def box_threat_model(eps: Sequence[Eps], bounds: Bounds) -> ThreatModel:
    """Return the report's section on how inputs may be perturbed."""
    points = tuple(EpsPoint(value=radius.value, text=radius.text) for radius in eps)
    return ThreatModel(set="box", eps=points, clip=bounds)
