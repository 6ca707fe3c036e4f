"""Products W c that are rounded about once: W and c are split into parts whose products float64 holds exactly.

c = c1 + c2 and W = W1 + W2, where c1 and W1 are whole multiples of powers of two, at most 2^b times these in size. With
K terms a sum and 2 b + log2 K <= 53, W1 c1 is exact in whatever order it is summed; what is left, W1 c2 + W2 c, is
smaller by 2^-b, and so is its rounding. Known from matrix products by Ozaki, Ogita, Oishi and Rump (2012).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, gamma

SMALLEST = 2.0**-400
"""Units that are not below this have products far above where float64 ends."""


def product(linear_map: LinearMap, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return W c for the coefficients as they are stored, and a bound on its rounding, (n_out,) each."""
    if isinstance(linear_map, Selection) and linear_map.weights is None:
        return linear_map.apply(values[None])[0], np.zeros(linear_map.n_out)
    with np.errstate(over="ignore", invalid="ignore"):
        found = _split_product(linear_map, values)
        if found is not None and np.isfinite(found[0]).all():
            return found
        rounding = linear_map.magnitude.apply(np.abs(values)[None])[0] * gamma(2 * linear_map.row_terms + 8)
        return linear_map.apply(values[None])[0], rounding + linear_map.row_loss + TINY


def _split_product(linear_map: LinearMap, values: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Return the same by parts; None for other maps than kernels and matrices, and for numbers beyond the scale."""
    if not isinstance(linear_map, (Convolution, Dense)):
        return None
    terms = linear_map.row_terms
    bits = (53 - math.ceil(math.log2(max(2, terms)))) // 2
    weights = linear_map.kernel if isinstance(linear_map, Convolution) else linear_map.matrix
    of_weights, of_values = _split(weights, bits), _split(values, bits)
    if of_weights is None or of_values is None:
        return None
    (w1, w2), (c1, c2) = of_weights, of_values
    parts = [_with(linear_map, w).apply(c[None])[0] for w, c in ((w1, c1), (w1, c2), (w2, values))]
    largest = [float(np.abs(part).max(initial=0.0)) for part in (w1, c2, w2, values)]
    rest = terms * (largest[0] * largest[1] + largest[2] * largest[3])
    size = np.abs(parts[0]) + np.abs(parts[1]) + np.abs(parts[2])
    return parts[0] + (parts[1] + parts[2]), (gamma(terms + 8) * rest + gamma(4) * size) * (1 + gamma(8)) + TINY


def _split(values: FloatArray, bits: int) -> tuple[FloatArray, FloatArray] | None:
    """Return (multiples of a unit, at most 2^bits of them; the rest), both exact; None where no unit is of use."""
    unit = math.ldexp(1.0, math.frexp(float(np.abs(values).max(initial=0.0)))[1] - bits)
    if not SMALLEST <= unit <= 1 / SMALLEST:
        return None
    first = np.rint(values / unit) * unit
    return first, values - first


def _with(linear_map: Convolution | Dense, weights: FloatArray) -> LinearMap:
    """Return the same map with other weights."""
    if isinstance(linear_map, Convolution):
        return replace(linear_map, kernel=weights)
    return replace(linear_map, matrix=weights)
