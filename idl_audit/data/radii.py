"""Files of per-input radii: how far each input moves where eps is 1."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from idl_audit.data.samples import Layout
from idl_audit.data.vectors import read_numbers
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import DataError
from idl_audit.values.rounding import up


def read_sample_radii(path: Path, input_shape: tuple[int, ...], layout: Layout = "native") -> FloatArray:
    """Return radii as `read_radii` does, (p,), or those of each sample of a data file, (N, p).

    An .npz has an array `eps`, one factor for each sample, alone or beside `sigma`, whose products they are, rounded
    upward; or the file's `sigma` has a row for each sample, (N, p) or (N, ...) in the model's own order.

    Raises:
        DataError: as `read_radii`, or where a factor is no finite number >= 0.
    """
    p = math.prod(input_shape)
    first, sigma, factors = read_numbers(path, (("eps", "sigma"), ("sigma",), ("eps",)))
    assert first is not None
    rows = first if sigma is None else sigma
    if factors is None and not (rows.ndim > 1 and rows.size != p and rows.size == len(rows) * p):
        return read_radii(path, input_shape, layout)
    if layout == "nhwc":
        raise DataError(f"{path} has radii for each sample; give them, and the samples, in the model's own order")
    if factors is None:
        return _usable(path, rows.reshape(len(rows), p))
    if factors.size != max(factors.shape, default=1):
        raise DataError(f"{path} has eps of shape {factors.shape}; give one number for each sample")
    own = np.ones(p) if sigma is None else read_radii(path, input_shape, layout)
    return _usable(path, _products(_usable(path, factors.reshape(-1, 1)), own))


def _products(factors: FloatArray, own: FloatArray) -> FloatArray:
    """Return factors times radii, (N, 1) x (p,) -> (N, p); what float64 does not hold, or only as 0, is rounded upward.

    A radius that would underflow to 0 would be a set that the input does not move in.
    """
    with np.errstate(over="ignore", under="ignore"):
        product = factors * own
    if ((factors == 1) | (factors == 0)).all() or ((own == 1) | (own == 0)).all():
        return product
    exact = np.frompyfunc(Fraction, 1, 1)
    finite = np.where(np.isfinite(product), product, 0.0)
    short = np.asarray(exact(finite) < exact(factors) * exact(own), np.bool_)
    return np.where(short & np.isfinite(product), up(product), product)


def _usable(path: Path, given: AnyArray) -> FloatArray:
    radii = given.astype(np.float64)
    usable = np.isfinite(radii) & (radii >= 0)
    if not usable.all():
        row = int(np.argmin(usable.all(axis=1)))
        worst = float(radii[row][~usable[row]][0])
        raise DataError(f"{path} has {worst:g} for sample {row}; every radius must be a finite number, 0 or more")
    return radii


def read_radii(path: Path, input_shape: tuple[int, ...], layout: Layout = "native") -> FloatArray:
    """Return how far each input moves for eps = 1, shape (p,), from .npy, .npz (array 'sigma') or text with commas.

    The numbers stand in the order of the samples: of the model's own input, or (H, W, C) where the layout is nhwc.

    Raises:
        DataError: where the file cannot be read, or holds anything but one finite number >= 0 for each input, not all
            of them 0.
    """
    given = read_numbers(path, (("sigma",),))[0]
    assert given is not None
    p = math.prod(input_shape)
    if given.size != p:
        raise DataError(f"{path} has {given.size} radii, and the model has {p} inputs; give one number for each input")
    shape = tuple(size for size in given.shape if size != 1)
    if layout == "nhwc" and len(input_shape) == 4:
        _, channels, height, width = input_shape
        wanted = (height, width, channels)
        if shape != tuple(size for size in wanted if size != 1):
            raise DataError(f"{path} has shape {given.shape}; with --layout nhwc give radii of shape {wanted}")
        given = given.reshape(wanted).transpose(2, 0, 1)
    sigma = given.astype(np.float64).reshape(-1)
    usable = np.isfinite(sigma) & (sigma >= 0)
    if not usable.all():
        where = int(np.argmin(usable))
        raise DataError(
            f"{path} has {sigma[where]:g} for input {where}; every radius must be a finite number, 0 or more"
        )
    if not sigma.any():
        raise DataError(f"{path} has no radius above 0: no input would move; give at least one")
    return sigma
