"""Products and sums of linear maps: one table of pairs, with an estimate before anything is allocated.

`compose(outer, inner)` multiplies out, so that |W2 W1| is taken and not |W2||W1| (docs/mathematics.md,
section 2.2). The caller compares `product_nnz` with the factors first and cuts the graph by an identity block where
multiplying out would cost more.

Elsewhere: batch-norm folding, layer merging.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import LEAST, TINY, gamma


def product_nnz(outer: LinearMap, inner: LinearMap) -> int:
    """Return an upper bound on the entries that `compose(outer, inner)` would hold, without computing anything."""
    whole = outer.n_out * inner.n_in
    if isinstance(outer, Dense) or isinstance(inner, Dense):
        return whole
    return min(whole, outer.nnz * inner.row_terms, inner.nnz * outer.column_terms)


def compose(outer: LinearMap, inner: LinearMap) -> LinearMap:
    """Return outer o inner as one map whose absolute value is exact, shape (outer.n_out, inner.n_in).

    The result's `relative` and `slack` cover those of the factors, the rounding of this product, and its underflow.
    """
    if outer.n_in != inner.n_out:
        raise ValueError(f"cannot compose maps of shapes {_shape(outer)} and {_shape(inner)}")
    if isinstance(inner, Selection) and inner.is_identity and _is_exact(inner):
        return outer
    if isinstance(outer, Selection) and outer.is_identity and _is_exact(outer):
        return inner
    with np.errstate(over="ignore", invalid="ignore"):
        found = _composed(outer, inner)
    if not _most(outer) * _most(inner) < LARGEST_PRODUCT and not np.isfinite(_entries(found)).all():
        raise UnsupportedModelError(["the products of its weights lie beyond the range of float64"])
    if not _may_underflow(outer, inner):
        return found
    # each product, in the map and in its slack, loses less than TINY where it falls below the range of float64, and a
    # Reindexed multiplies that by entries of its other parts
    lost = _times(_product(_pattern(outer), _pattern(inner)), 8 * TINY * _most(outer) * _most(inner))
    return found.uncertain(found.relative, lost if found.slack is None else _times(_plain_sum(found.slack, lost), 1.0))


def _composed(outer: LinearMap, inner: LinearMap) -> LinearMap:
    product = _product(outer, inner)
    if _moves_only(outer):
        return product.uncertain(inner.relative, inner.slack and _product(outer.magnitude, inner.slack))
    if _moves_only(inner):
        return product.uncertain(outer.relative, outer.slack and _product(outer.slack, inner.magnitude))
    if _sums_nothing(outer, inner):
        relative = _compounded(outer.relative, inner.relative, gamma(2))
        return product.uncertain(relative, _carried_slack(outer, inner))
    relative = _compounded(outer.relative, inner.relative, gamma(outer.row_terms + 2))
    slack = _times(_product(outer.magnitude, inner.magnitude), relative)
    carried = _carried_slack(outer, inner)
    return product.uncertain(0.0, slack if carried is None else _plain_sum(slack, carried))


SMALL = 2.0**-900
"""Products of entries above this keep all their digits, and so do their rounding errors."""


LARGEST_PRODUCT = 2.0**960
"""Sums of products below this stay finite."""

LEAST_COEFFICIENT, LARGEST_COEFFICIENT = 1e-100, 1e100
"""Coefficients of a network that are read: products of several keep their digits, and so do their rounding errors."""


def is_in_range(linear_map: LinearMap) -> bool:
    """Return whether every coefficient is 0 or within the range that networks are read with; NaN is not."""
    return _least(linear_map) >= LEAST_COEFFICIENT and _most(linear_map) <= LARGEST_COEFFICIENT


def stays_in_range(outer: LinearMap, inner: LinearMap) -> bool:
    """Return whether no product of coefficients of the two leaves that range."""
    least, most = _least(outer) * _least(inner), _most(outer) * _most(inner) * outer.row_terms
    return least >= LEAST_COEFFICIENT and most <= LARGEST_COEFFICIENT


def _may_underflow(outer: LinearMap, inner: LinearMap) -> bool:
    """Whether a product of entries, or of what bounds their errors, may lose digits to the range of float64."""
    return least_entry(outer) * least_entry(inner) < SMALL


def least_entry(linear_map: LinearMap) -> float:
    """Return the smallest nonzero among the entries and what bounds their errors, at most 1."""
    least = _least(linear_map)
    return least if linear_map.slack is None else min(least, least_entry(linear_map.slack))


def _least(linear_map: LinearMap) -> float:
    """Return the smallest nonzero among the entries' absolute values, at most 1."""
    values = _entries(linear_map)
    return float(np.min(np.abs(values), where=values != 0, initial=1.0))


def _most(linear_map: LinearMap) -> float:
    """Return the largest of the entries' absolute values, at least 1; for a Reindexed, of the product of its parts."""
    if isinstance(linear_map, Reindexed):
        return _most(linear_map.left) * _most(linear_map.core) * _most(linear_map.right)
    return float(np.abs(_entries(linear_map)).max(initial=1.0))


def _entries(linear_map: LinearMap) -> FloatArray:
    match linear_map:
        case Dense():
            return linear_map.matrix
        case Sparse():
            return np.asarray(linear_map.matrix.data)
        case Selection():
            return np.ones(1) if linear_map.weights is None else linear_map.weights
        case Convolution():
            return linear_map.kernel
        case TransposedConvolution():
            return linear_map.forward.kernel
        case Reindexed():
            parts = (linear_map.left, linear_map.core, linear_map.right)
            return np.array([max(math.prod(least_entry(part) for part in parts), LEAST)])  # which may underflow itself
        case _:
            return np.asarray(linear_map.to_sparse().data)


def _pattern(linear_map: LinearMap) -> LinearMap:
    """Return the map with 1 in place of every entry that is not zero, in itself or in its slack."""
    if isinstance(linear_map, Reindexed):  # whose own product may underflow
        parts = [_pattern(part).to_sparse() for part in (linear_map.left, linear_map.core, linear_map.right)]
        matrix = sp.csr_array(parts[0] @ parts[1] @ parts[2])
    else:
        matrix = linear_map.to_sparse().copy()
    matrix.data = np.ones_like(matrix.data)
    if linear_map.slack is not None:
        matrix = sp.csr_array(matrix + _pattern(linear_map.slack).to_sparse())
        matrix.data = np.ones_like(matrix.data)
    return Sparse(matrix=_csr(matrix))


def _product(outer: LinearMap, inner: LinearMap) -> LinearMap:
    return _TABLE.get((type(outer), type(inner)), _through_sparse)(outer, inner)


def _is_exact(linear_map: LinearMap) -> bool:
    return not linear_map.relative and linear_map.slack is None


def _sums_nothing(outer: LinearMap, inner: LinearMap) -> bool:
    """Whether every entry of the product is one product of entries, so that |outer inner| = |outer||inner|."""
    return isinstance(outer, Selection) or (isinstance(inner, Selection) and inner.is_column_monomial)


def _compounded(*relatives: float) -> float:
    """Return (1 + a)(1 + b)... - 1, rounded upward; 0 where all are."""
    if not any(relatives):
        return 0.0
    return sum(relatives) * (1 + 2 * max(relatives) * len(relatives)) * (1 + gamma(8))


def _carried_slack(outer: LinearMap, inner: LinearMap) -> LinearMap | None:
    """Return (|outer| + its uncertainty) (|inner| + its uncertainty) - (relative part), from the factors' slacks."""
    parts: list[LinearMap] = []
    if outer.slack is not None:
        parts.append(_times(_product(outer.slack, inner.magnitude), 1 + inner.relative))
    if inner.slack is not None:
        parts.append(_times(_product(outer.magnitude, inner.slack), 1 + outer.relative))
    if outer.slack is not None and inner.slack is not None:
        parts.append(_product(outer.slack, inner.slack))
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = _plain_sum(total, part)
    return _times(total, 1 + gamma(outer.row_terms + 8))


def _times(linear_map: LinearMap, factor: float) -> LinearMap:
    """Return factor * W, each entry rounded upward, without uncertainty of its own."""
    weights = np.full(linear_map.n_out, factor * (1 + gamma(4)))
    return _product(Selection.diagonal(weights), linear_map).uncertain(0.0)


def add(first: LinearMap, second: LinearMap) -> LinearMap:
    """Return first + second as one map whose absolute value is exact."""
    if isinstance(first, Selection) and isinstance(second, Selection) and _fill_different_rows(first, second):
        total: LinearMap = _merge(first, second)
        relative, slack = max(first.relative, second.relative), None
    else:
        total = _plain_sum(first, second)
        relative = 0.0
        slack = _plain_sum(
            _times(first.magnitude, _compounded(first.relative, gamma(2))),
            _times(second.magnitude, _compounded(second.relative, gamma(2))),
        )
    for part in (first.slack, second.slack):
        if part is not None:
            slack = part if slack is None else _times(_plain_sum(slack, part), 1.0)
    return total.uncertain(relative, slack)


def _plain_sum(first: LinearMap, second: LinearMap) -> LinearMap:
    """Return first + second, uncertainties left out."""
    if isinstance(first, Dense) or isinstance(second, Dense):
        return Dense(matrix=_matrix(first) + _matrix(second))
    if isinstance(first, Convolution) and isinstance(second, Convolution) and _same_geometry(first, second):
        return replace(first, kernel=first.kernel + second.kernel, relative=0.0, slack=None)
    return Sparse(matrix=_csr(first.to_sparse() + second.to_sparse()))


def _fill_different_rows(first: Selection, second: Selection) -> bool:
    return not bool(((first.index >= 0) & (second.index >= 0)).any())


def _merge(first: Selection, second: Selection) -> Selection:
    """Return the sum of two Selections that fill different rows."""
    weights = None
    if first.weights is not None or second.weights is not None:
        weights = first.row_weights + second.row_weights
    return Selection(index=np.maximum(first.index, second.index), size_in=first.size_in, weights=weights)


def _shape(linear_map: LinearMap) -> tuple[int, int]:
    return linear_map.n_out, linear_map.n_in


def _moves_only(linear_map: LinearMap) -> bool:
    """Whether multiplying by this map is exact: its nonzeros are exact powers of two and nothing is summed."""
    if not isinstance(linear_map, Selection) or not linear_map.is_column_monomial or not _is_exact(linear_map):
        return False
    if linear_map.weights is None:
        return True
    mantissa, _ = np.frexp(linear_map.row_weights[linear_map.row_weights != 0])
    return bool((np.abs(mantissa) == 0.5).all())


def _matrix(linear_map: LinearMap) -> FloatArray:
    if isinstance(linear_map, Dense):
        return linear_map.matrix
    return np.asarray(linear_map.to_sparse().toarray())


def _csr(matrix: sp.csr_array) -> sp.csr_array:
    result = sp.csr_array(matrix)
    result.sum_duplicates()
    return result


def _same_geometry(first: Convolution, second: Convolution) -> bool:
    return (
        first.kernel.shape == second.kernel.shape
        and first.spatial_in == second.spatial_in
        and first.strides == second.strides
        and first.pads == second.pads
        and first.dilations == second.dilations
        and first.groups == second.groups
    )


def _select_selection(outer: Selection, inner: Selection) -> LinearMap:
    read = outer.index >= 0
    if not inner.n_out:
        return Selection(index=outer.index, size_in=inner.n_in)
    index = np.where(read, inner.index[np.where(read, outer.index, 0)], -1)
    if outer.weights is None and inner.weights is None:
        weights = None
    else:
        weights = np.where(index >= 0, outer.row_weights * inner.row_weights[np.where(read, outer.index, 0)], 0.0)
    return Selection(index=index, size_in=inner.n_in, weights=weights)


def _select_dense(outer: Selection, inner: Dense) -> LinearMap:
    if not inner.n_out:
        return Dense(matrix=np.zeros((outer.n_out, inner.n_in)))
    return Dense(matrix=inner.matrix[outer.index] * outer.row_weights[:, None])


def _dense_select(outer: Dense, inner: Selection) -> LinearMap:
    return Dense(matrix=inner.adjoint(outer.matrix))


def _dense_any(outer: Dense, inner: LinearMap) -> LinearMap:
    return Dense(matrix=np.ascontiguousarray(inner.adjoint(outer.matrix)))


def _any_dense(outer: LinearMap, inner: Dense) -> LinearMap:
    return Dense(matrix=np.ascontiguousarray(outer.apply(np.ascontiguousarray(inner.matrix.T)).T))


def _through_sparse(outer: LinearMap, inner: LinearMap) -> LinearMap:
    return Sparse(matrix=_csr(outer.to_sparse() @ inner.to_sparse()))


def _select_structured(outer: Selection, inner: LinearMap) -> LinearMap:
    """Selection o Convolution: a scaling per channel folds into the kernel; anything else stays in front of it."""
    if isinstance(inner, Convolution) and outer.is_diagonal:
        per_channel = _per_channel(outer.row_weights, inner.channels_out)
        if per_channel is not None:
            return inner.scale_channels(per_channel, None)
    if isinstance(inner, TransposedConvolution) and outer.is_diagonal:
        per_channel = _per_channel(outer.row_weights, inner.forward.channels_in)
        if per_channel is not None:
            return TransposedConvolution(forward=inner.forward.scale_channels(None, per_channel))
    return Reindexed(left=outer, core=inner, right=Selection.identity(inner.n_in))


def _structured_select(outer: LinearMap, inner: Selection) -> LinearMap:
    """Convolution o Selection: scalings per channel and zero padding fold into it; reading twice multiplies out."""
    if isinstance(outer, Convolution):
        if inner.is_diagonal:
            per_channel = _per_channel(inner.row_weights, outer.channels_in)
            if per_channel is not None:
                return outer.scale_channels(None, per_channel)
        padded = _absorb_padding(outer, inner)
        if padded is not None:
            return padded
    if isinstance(outer, TransposedConvolution) and inner.is_diagonal:
        per_channel = _per_channel(inner.row_weights, outer.forward.channels_out)
        if per_channel is not None:
            return TransposedConvolution(forward=outer.forward.scale_channels(per_channel, None))
    if inner.is_column_monomial:
        return Reindexed(left=Selection.identity(outer.n_out), core=outer, right=inner)
    return _through_sparse(outer, inner)


def _select_reindexed(outer: Selection, inner: Reindexed) -> LinearMap:
    left = compose(outer, inner.left)
    if isinstance(left, Selection) and inner.right.is_identity:
        return (
            compose(left, inner.core) if left.is_diagonal else Reindexed(left=left, core=inner.core, right=inner.right)
        )
    return Reindexed(left=_as_selection(left), core=inner.core, right=inner.right)


def _reindexed_select(outer: Reindexed, inner: Selection) -> LinearMap:
    right = _as_selection(_product(outer.right, inner))
    if not right.is_column_monomial:
        return _through_sparse(outer, inner)
    return Reindexed(left=outer.left, core=outer.core, right=right)


def _as_selection(linear_map: LinearMap) -> Selection:
    if not isinstance(linear_map, Selection):
        raise TypeError(f"a product of two Selections must be a Selection, not {type(linear_map).__name__}")
    return linear_map


def _per_channel(weights: FloatArray, channels: int) -> FloatArray | None:
    """Return the weight of each channel where it is constant over the channel, else None."""
    table = weights.reshape(channels, -1)
    return table[:, 0] if bool((table == table[:, :1]).all()) else None


def _absorb_padding(outer: Convolution, inner: Selection) -> Convolution | None:
    """Return the convolution with wider pads where `inner` only puts zeros around an image, else None."""
    if inner.weights is not None:
        return None
    channels, rank = outer.channels_in, outer.rank
    image: IntArray = inner.index.reshape(channels, *outer.spatial_in)
    kept = image[0] >= 0
    corners = [np.flatnonzero(kept.any(axis=tuple(b for b in range(rank) if b != a))) for a in range(rank)]
    if not kept.any():
        return None
    before = tuple(int(c[0]) for c in corners)
    sizes = tuple(int(c[-1] - c[0] + 1) for c in corners)
    behind = tuple(outer.spatial_in[a] - before[a] - sizes[a] for a in range(rank))
    expected = np.full_like(image, -1)
    window = tuple(slice(b, b + s) for b, s in zip(before, sizes, strict=True))
    if inner.n_in != channels * int(np.prod(sizes)):
        return None
    expected[(slice(None), *window)] = np.arange(inner.n_in).reshape(channels, *sizes)
    if not bool((expected == image).all()):
        return None
    pads = tuple(p + q for p, q in zip(outer.pads, (*before, *behind), strict=True))
    return replace(outer, spatial_in=sizes, pads=pads, relative=0.0, slack=None)


_TABLE: dict[tuple[type[LinearMap], type[LinearMap]], Callable[..., LinearMap]] = {
    (Selection, Selection): _select_selection,
    (Selection, Dense): _select_dense,
    (Selection, Sparse): _through_sparse,
    (Selection, Convolution): _select_structured,
    (Selection, TransposedConvolution): _select_structured,
    (Selection, Reindexed): _select_reindexed,
    (Dense, Selection): _dense_select,
    (Dense, Dense): _dense_any,
    (Dense, Sparse): _dense_any,
    (Dense, Convolution): _dense_any,
    (Dense, TransposedConvolution): _dense_any,
    (Dense, Reindexed): _dense_any,
    (Sparse, Selection): _through_sparse,
    (Sparse, Dense): _any_dense,
    (Convolution, Selection): _structured_select,
    (TransposedConvolution, Selection): _structured_select,
    (Reindexed, Selection): _reindexed_select,
    (Convolution, Dense): _any_dense,
    (TransposedConvolution, Dense): _any_dense,
    (Reindexed, Dense): _any_dense,
}
