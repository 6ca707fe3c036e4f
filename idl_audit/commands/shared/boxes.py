"""The input sets around the samples, and the threat model that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from idl_audit.data.features import Features
from idl_audit.data.fingerprints import numbers_sha256
from idl_audit.data.numbers import Eps
from idl_audit.data.samples import Samples
from idl_audit.report.schema import EpsPoint, ThreatModel
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.perturbations import Perturbation
from idl_audit.values.rounding import float_above
from idl_audit.values.verdicts import ArithmeticName, NormName

Bounds = tuple[float, float] | None
"""The valid range of the data, where it is known."""

Set = TypeVar("Set")


def sample_boxes(samples: Samples, eps: Sequence[Eps], bounds: Bounds) -> list[list[Box]]:
    """Return for each sample its box of every radius, clipped to the valid range of the data.

    Raises:
        DataError: where a sample lies outside the valid range.
    """
    lo, hi = bounds or (None, None)
    return _around(samples, eps, lambda x, radius: Box.around(x, radius, valid_lo=lo, valid_hi=hi))


def sample_set(
    centre: FloatArray,
    eps: float,
    bounds: Bounds,
    sigma: FloatArray | None,
    k: int | None,
    free: Sequence[int],
    norm: NormName = "linf",
) -> InputSet:
    """Return the set around one sample: box or ball, or U_card where at most k inputs change.

    Args:
        centre: the sample, shape (p,).
        eps: the radius.
        bounds: the valid range of the data.
        sigma: how far each input moves for eps = 1, shape (p,); None stands for ones.
        k: the cardinality; None stands for all inputs.
        free: inputs that move through the whole valid range.
        norm: what the radius bounds.

    Raises:
        DataError: where the sample lies outside the valid range.
    """
    lo, hi = bounds or (None, None)
    if norm != "linf":
        radius, own = ball_radius(eps, sigma)
        return NormBall.around(centre, radius, norm, sigma=own, valid_lo=lo, valid_hi=hi)
    if k is None:
        return Box.around(centre, eps, sigma=sigma, valid_lo=lo, valid_hi=hi, free=free)
    return SparseBall.around(centre, eps, k, sigma=sigma, valid_lo=lo, valid_hi=hi)


def ball_radius(eps: float, sigma: FloatArray | None) -> tuple[float, FloatArray | None]:
    """Return the radius of a ball of another norm and the radii that its inputs have for 1, None where they are ones.

    One factor for all inputs is part of the radius, which is rounded upward then.

    Raises:
        OptionError: where the radius is no positive number.
    """
    if sigma is None:
        return eps, None
    factor = float(sigma[0])
    if not (sigma == factor).all():
        return eps, sigma
    exact = Fraction(eps) * Fraction(factor)
    if not 0 < exact < Fraction(float(np.finfo(np.float64).max)):
        raise OptionError(f"eps {eps:g} times the factor {factor:g} of --sigma is no radius of a ball; leave it out")
    return float_above(exact), None


def sample_sets(
    samples: Samples,
    eps: Sequence[Eps],
    bounds: Bounds,
    *,
    sigma: FloatArray | None = None,
    k: int | None = None,
    free: Sequence[int] = (),
) -> list[list[InputSet]]:
    """Return for each sample its input set of every radius, as `sample_set` makes it.

    Raises:
        DataError: where a sample lies outside the valid range.
    """
    return _around(samples, eps, lambda x, radius: sample_set(x, radius, bounds, sigma, k, free))


def _around(samples: Samples, eps: Sequence[Eps], make: Callable[[FloatArray, float], Set]) -> list[list[Set]]:
    sets = []
    for index, x in zip(samples.indices, samples.inputs, strict=True):
        try:
            sets.append([make(x, radius.value) for radius in eps])
        except DataError as error:
            raise DataError(f"sample {int(index)}: {error}") from error
    return sets


def box_threat_model(eps: Sequence[Eps], bounds: Bounds) -> ThreatModel:
    """Return the report's section on how inputs may be perturbed, each within its interval."""
    return threat_model(eps, bounds)


def threat_model(
    eps: Sequence[Eps],
    bounds: Bounds,
    *,
    sigma: Path | None = None,
    radii: FloatArray | None = None,
    k: int | None = None,
    target: int | None = None,
    arithmetic: ArithmeticName = "real",
    free: Sequence[int] = (),
    features: Features | None = None,
    fair: bool = False,
    perturbation: Perturbation | None = None,
    directions: Path | None = None,
    shape: tuple[int, ...] = (),
    norm: NormName = "linf",
) -> ThreatModel:
    """Return the report's section on how inputs may be perturbed.

    Args:
        eps: the radii.
        bounds: the valid range of the data.
        sigma: the file of per-input radii.
        radii: what is in it.
        k: at most so many inputs change.
        target: the only class that counts.
        arithmetic: what certified is proved for.
        free: inputs that move through the whole valid range.
        features: what valid rows are, where they alone count.
        fair: whether protected features alone move.
        perturbation: what changes in place of every input.
        directions: the file of its directions.
        shape: of one input, as a perturbation sees it.
        norm: what the radii bound.
    """
    own = None if perturbation is None else perturbation.directions
    points = tuple(EpsPoint(value=radius.value, text=radius.text) for radius in eps)
    return ThreatModel(
        set=_kind(perturbation, norm, k),
        norm=norm,
        eps=points,
        k=k,
        sigma=None if sigma is None else str(sigma),
        sigma_sha256=None if radii is None else numbers_sha256([radii]),
        target=target,
        arithmetic=arithmetic,
        clip=bounds,
        free=tuple(free),
        features=None if features is None else str(features.path),
        features_sha256=None if features is None else features.sha256,
        fair=fair,
        perturbation=None if perturbation is None else perturbation.text or None,
        directions=None if own is None else str(directions),
        directions_sha256=None if own is None else numbers_sha256(own.arrays),
        picture=shape if perturbation is not None and perturbation.needs_picture else (),
    )


def _kind(
    perturbation: Perturbation | None, norm: NormName, k: int | None
) -> Literal["box", "card", "ball", "perturbed"]:
    if perturbation is not None:
        return "perturbed"
    if norm != "linf":
        return "ball"
    return "box" if k is None else "card"
