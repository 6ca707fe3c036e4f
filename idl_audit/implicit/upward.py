"""Products of nonnegative numbers that never vanish: bounds of how far a change reaches, rounded upward.

A product of two small numbers may be 0 in float64 although no factor is, and S = 0 would say that an output does not
depend on an input. Where products may fall below the range, what that loses is added, but only where some product is
not 0 in exact arithmetic (the patterns of nonzeros tell); everywhere else the numbers are those of plain arithmetic.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import Activation
from idl_audit.implicit.composition import least_entry
from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import TINY


def pulled(linear_map: LinearMap, r: FloatArray, *, uncertain: bool = True) -> FloatArray:
    """Return |W_true|^T r at least, but for rounding, for each row r >= 0; 0 only where the exact value is.

    Without `uncertain`, |W|^T r for the coefficients as they are stored.
    """
    term = linear_map.magnitude.adjoint(r)
    if uncertain:
        term = term * (1 + linear_map.relative)
        if linear_map.slack is not None:
            term = term + linear_map.slack.adjoint(r)
    if _is_safe(least_entry(linear_map), _least(r)):
        return term
    ones = (r > 0).astype(np.float64)
    lost = TINY + linear_map.column_loss
    return np.asarray(term + lost * sum(part.adjoint(ones) for part in patterns(linear_map)))


def pushed(linear_map: LinearMap, x: FloatArray) -> FloatArray:
    """Return |W| x at least, but for rounding, for each row x >= 0; 0 only where the exact value is."""
    product = linear_map.magnitude.apply(x)
    if _is_safe(least_entry(linear_map), _least(x)):
        return product
    lost = TINY + linear_map.row_loss
    return np.asarray(product + lost * _pattern(linear_map).apply((x > 0).astype(np.float64)))


def weighted(r: FloatArray, s: FloatArray) -> FloatArray:
    """Return r s at least, entry by entry, but for rounding, for r, s >= 0; 0 only where a factor is."""
    product = r * s
    return product if _is_safe(_least(r), _least(s)) else product + TINY * ((r > 0) & (s > 0))


def multiplied(r: FloatArray, matrix: FloatArray) -> FloatArray:
    """Return r M at least, but for rounding, for r, M >= 0; 0 only where all products are."""
    product = r @ matrix
    if _is_safe(_least(r), _least(matrix)):
        return np.asarray(product)
    return np.asarray(product + TINY * ((r > 0).astype(np.float64) @ (matrix > 0).astype(np.float64)))


def applied(rows: FloatArray, x: FloatArray) -> FloatArray:
    """Return rows x of each box at least, but for rounding, (m, q, n) and (m, n) -> (m, q); 0 only where it is."""
    product = np.einsum("mqn,mn->mq", rows, x)
    if _is_safe(_least(rows), _least(x)):
        return np.asarray(product)
    ones = np.einsum("mqn,mn->mq", (rows > 0).astype(np.float64), (x > 0).astype(np.float64))
    return np.asarray(product + TINY * ones)


def spread(activation: Activation, r: FloatArray) -> FloatArray:
    """Return Gamma^T r at least, |dx| <= Gamma |dz|; 0 only where it is."""
    found = activation.spread(r)
    if _is_safe(_least(r), _least(np.asarray(activation.lipschitz))):
        return found
    return np.asarray(found + TINY * (activation.spread((r > 0).astype(np.float64)) > 0))


def _least(values: FloatArray) -> float:
    """Return the smallest that is not 0; 1 where there is none below."""
    return float(np.min(values, where=values > 0, initial=1.0))


def _is_safe(first: float, second: float) -> bool:
    """Whether products of numbers of at least these sizes keep their digits."""
    return first * second >= TINY


# --- patterns of nonzeros ---------------------------------------------------------------------------------------------


def patterns(linear_map: LinearMap) -> list[LinearMap]:
    """Return maps with 1 where W_true may have a nonzero: those of W, and those that rounding may have hidden."""
    found = [_pattern(linear_map)]
    return found if linear_map.slack is None else [*found, *patterns(linear_map.slack)]


def _pattern(linear_map: LinearMap) -> LinearMap:
    """Return the map with 1 in place of every nonzero coefficient; of a Reindexed, of its factors' coefficients."""
    match linear_map:
        case Selection():
            return _selection_pattern(linear_map)
        case Dense():
            return Dense(matrix=_ones(linear_map.matrix))
        case Sparse():
            return Sparse(matrix=_sparse_pattern(linear_map.matrix))
        case Convolution():
            return _convolution_pattern(linear_map)
        case TransposedConvolution():
            return TransposedConvolution(forward=_convolution_pattern(linear_map.forward))
        case Reindexed():
            left, right = _selection_pattern(linear_map.left), _selection_pattern(linear_map.right)
            return Reindexed(left=left, core=_pattern(linear_map.core), right=right)
    raise UnsupportedModelError((f"independence is not known for maps of kind {type(linear_map).__name__}",))


def _selection_pattern(selection: Selection) -> Selection:
    weights = None if selection.weights is None else _ones(selection.weights)
    return replace(selection, weights=weights, relative=0.0, slack=None)


def _convolution_pattern(conv: Convolution) -> Convolution:
    return replace(conv, kernel=_ones(conv.kernel), relative=0.0, slack=None)


def _sparse_pattern(matrix: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((_ones(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)


def _ones(coefficients: FloatArray) -> FloatArray:
    return np.asarray(coefficients != 0, np.float64)
