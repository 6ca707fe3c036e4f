"""Linear maps of every kind, drawn from a seed, and their exact counterparts in rational numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse

Array = np.ndarray[Any, Any]
Rng = np.random.Generator


def selection(rng: Rng, n_in: int, n_out: int) -> Selection:
    """Return a Selection that drops, repeats and zeroes at random."""
    index = rng.integers(-1, n_in, size=n_out) if n_in else np.full(n_out, -1)
    weights = rng.normal(size=n_out) if rng.random() < 0.5 else None
    return Selection(index=index, size_in=n_in, weights=weights)


def monomial(rng: Rng, n_in: int, n_out: int) -> Selection:
    """Return a Selection that reads no input twice."""
    index = np.concatenate([rng.permutation(n_in), np.full(n_out, -1)])
    index = rng.permutation(index)[:n_out] if rng.random() < 0.5 else index[:n_out]
    weights = rng.normal(size=n_out) if rng.random() < 0.5 else None
    return Selection(index=index, size_in=n_in, weights=weights)


def dense(rng: Rng, n_in: int, n_out: int) -> Dense:
    return Dense(matrix=rng.normal(size=(n_out, n_in)))


def sparse(rng: Rng, n_in: int, n_out: int) -> Sparse:
    matrix = rng.normal(size=(n_out, n_in)) * (rng.random((n_out, n_in)) < 0.4)
    return Sparse(matrix=sp.csr_array(matrix))


def convolution(rng: Rng, rank: int | None = None) -> Convolution:
    """Return a small convolution with strides, asymmetric pads, dilations and groups; some windows may be all pad."""
    rank = int(rng.integers(1, 4)) if rank is None else rank
    most = {1: 9, 2: 5, 3: 3}[rank]
    while True:
        groups, per_in, per_out = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
        taps = tuple(int(n) for n in rng.integers(1, 4, size=rank))
        try:
            return Convolution(
                kernel=rng.normal(size=(groups * per_out, per_in, *taps)),
                spatial_in=tuple(int(n) for n in rng.integers(1, most, size=rank)),
                strides=tuple(int(n) for n in rng.integers(1, 4, size=rank)),
                pads=tuple(int(n) for n in rng.integers(0, 3, size=2 * rank)),
                dilations=tuple(int(n) for n in rng.integers(1, 3, size=rank)),
                groups=groups,
            )
        except ValueError:
            continue  # the kernel does not fit; draw again


def transposed(rng: Rng, rank: int | None = None) -> TransposedConvolution:
    return TransposedConvolution(forward=convolution(rng, rank))


def reindexed(rng: Rng, core: LinearMap | None = None) -> Reindexed:
    if core is None:
        core = (convolution, transposed, lambda r: dense(r, 4, 5), lambda r: sparse(r, 4, 5))[rng.integers(4)](rng)
    left = selection(rng, core.n_out, int(rng.integers(1, 8)))
    right = monomial(rng, core.n_in + int(rng.integers(0, 3)), core.n_in)
    return Reindexed(left=left, core=core, right=right)


def size(rng: Rng) -> int:
    return int(rng.integers(1, 7))


KINDS: dict[str, Callable[[Rng], LinearMap]] = {
    "selection": lambda rng: selection(rng, size(rng), size(rng)),
    "monomial": lambda rng: monomial(rng, size(rng), size(rng)),
    "diagonal": lambda rng: Selection.diagonal(rng.normal(size=size(rng))),
    "identity": lambda rng: Selection.identity(size(rng)),
    "dense": lambda rng: dense(rng, size(rng), size(rng)),
    "sparse": lambda rng: sparse(rng, size(rng), size(rng)),
    "conv1d": lambda rng: convolution(rng, 1),
    "conv2d": lambda rng: convolution(rng, 2),
    "conv3d": lambda rng: convolution(rng, 3),
    "transposed1d": lambda rng: transposed(rng, 1),
    "transposed2d": lambda rng: transposed(rng, 2),
    "transposed3d": lambda rng: transposed(rng, 3),
    "reindexed": reindexed,
}
"""Every kind of map, free sizes."""


def _divisor(rng: Rng, n: int, most: int) -> int:
    return int(rng.choice([d for d in range(1, most + 1) if n % d == 0]))


def _image(rng: Rng, n: int, rank: int) -> tuple[int, int, tuple[int, ...]]:
    """Return (groups, channels a group, spatial shape) of an image with n entries."""
    groups = _divisor(rng, n, 2)
    channels = _divisor(rng, n // groups, 3)
    rest, spatial = n // groups // channels, []
    for _ in range(rank - 1):
        spatial.append(_divisor(rng, rest, 5))
        rest //= spatial[-1]
    return groups, channels, (*spatial, rest)


def convolution_of(rng: Rng, n_in: int, rank: int) -> Convolution:
    """Return a convolution of images with n_in entries."""
    groups, per_in, spatial = _image(rng, n_in, rank)
    taps = tuple(int(rng.integers(1, min(n, 3) + 1)) for n in spatial)
    return Convolution(
        kernel=rng.normal(size=(groups * int(rng.integers(1, 3)), per_in, *taps)),
        spatial_in=spatial,
        strides=tuple(int(n) for n in rng.integers(1, 4, size=rank)),
        pads=tuple(int(n) for n in rng.integers(0, 2, size=2 * rank)),
        dilations=(1,) * rank,
        groups=groups,
    )


def convolution_to(rng: Rng, n_out: int, rank: int) -> Convolution:
    """Return a convolution whose result is an image with n_out entries."""
    groups, per_out, spatial = _image(rng, n_out, rank)
    taps, pads = rng.integers(1, 4, size=rank), rng.integers(0, 2, size=2 * rank)
    strides, dilations = rng.integers(1, 3, size=rank), rng.integers(1, 3, size=rank)
    ends = (np.array(spatial) - 1) * strides + dilations * (taps - 1) + 1 + rng.integers(0, strides)
    pads = np.where(np.tile(ends, 2) - np.tile(pads[:rank] + pads[rank:], 2) < 1, 0, pads)
    return Convolution(
        kernel=rng.normal(size=(groups * per_out, int(rng.integers(1, 3)), *taps)),
        spatial_in=tuple(int(n) for n in ends - pads[:rank] - pads[rank:]),
        strides=tuple(int(n) for n in strides),
        pads=tuple(int(n) for n in pads),
        dilations=tuple(int(n) for n in dilations),
        groups=groups,
    )


def _reindexed_of(rng: Rng, n_in: int) -> Reindexed:
    core = (convolution, transposed, lambda r: dense(r, 4, 5), lambda r: sparse(r, 4, 5))[rng.integers(4)](rng)
    return Reindexed(left=selection(rng, core.n_out, size(rng)), core=core, right=monomial(rng, n_in, core.n_in))


FITTED: dict[str, Callable[[Rng, int], LinearMap]] = {
    "selection": lambda rng, n: selection(rng, n, size(rng)),
    "monomial": lambda rng, n: monomial(rng, n, size(rng)),
    "diagonal": lambda rng, n: Selection.diagonal(rng.normal(size=n)),
    "identity": lambda rng, n: Selection.identity(n),
    "dense": lambda rng, n: dense(rng, n, size(rng)),
    "sparse": lambda rng, n: sparse(rng, n, size(rng)),
    "conv1d": lambda rng, n: convolution_of(rng, n, 1),
    "conv2d": lambda rng, n: convolution_of(rng, n, 2),
    "conv3d": lambda rng, n: convolution_of(rng, n, 3),
    "transposed1d": lambda rng, n: TransposedConvolution(forward=convolution_to(rng, n, 1)),
    "transposed2d": lambda rng, n: TransposedConvolution(forward=convolution_to(rng, n, 2)),
    "transposed3d": lambda rng, n: TransposedConvolution(forward=convolution_to(rng, n, 3)),
    "reindexed": _reindexed_of,
}
"""The same kinds with a given n_in."""


def pair(outer: str, inner: str, rng: Rng) -> tuple[LinearMap, LinearMap]:
    """Return maps of two kinds that fit together."""
    second = KINDS[inner](rng)
    return FITTED[outer](rng, second.n_out), second


def matrix(linear_map: LinearMap) -> Array:
    """Return the matrix of the map by its own definition: not by to_sparse, not by torch."""
    match linear_map:
        case Selection():
            result = np.zeros((linear_map.n_out, linear_map.n_in))
            for row, column in enumerate(linear_map.index):
                if column >= 0:
                    result[row, column] = 1.0 if linear_map.weights is None else linear_map.weights[row]
            return result
        case Dense():
            return linear_map.matrix
        case Sparse():
            return linear_map.matrix.toarray()
        case Convolution():
            return _convolution_matrix(linear_map)
        case TransposedConvolution():
            return _convolution_matrix(linear_map.forward).T
        case Reindexed():
            left, core, right = matrix(linear_map.left), matrix(linear_map.core), matrix(linear_map.right)
            return left @ core @ right
        case _:
            raise TypeError(type(linear_map).__name__)


def exact(linear_map: LinearMap) -> Array:
    """Return the matrix in rational numbers: a Reindexed stands for the exact product of its three factors."""
    if isinstance(linear_map, Reindexed):
        return product(exact(linear_map.left), product(exact(linear_map.core), exact(linear_map.right)))
    return rational(matrix(linear_map))


def rational(values: Array) -> Array:
    result = np.empty(values.shape, dtype=object)
    for place, value in np.ndenumerate(values):
        result[place] = Fraction(float(value))
    return result


def product(outer: Array, inner: Array) -> Array:
    """Return the exact product of two rational matrices."""
    result = np.empty((outer.shape[0], inner.shape[1]), dtype=object)
    columns = [[(k, value) for k, value in enumerate(inner[:, j]) if value] for j in range(inner.shape[1])]
    for i in range(outer.shape[0]):
        for j, column in enumerate(columns):
            result[i, j] = sum((outer[i, k] * value for k, value in column), Fraction(0))
    return result


def allowance(found: LinearMap) -> Array:
    """Return relative |W| + slack, exact: how far each entry may be from the truth."""
    result = Fraction(found.relative) * magnitudes(exact(found))
    return result if found.slack is None else result + exact(found.slack)


def magnitudes(values: Array) -> Array:
    """Return |values| entry by entry."""
    result = np.empty(values.shape, dtype=object)
    for place, value in np.ndenumerate(values):
        result[place] = abs(value)
    return result


def admits(found: LinearMap, true: Array) -> bool:
    """Return whether |true - W| <= relative |W| + slack holds in every entry."""
    return bool((magnitudes(true - exact(found)) <= allowance(found)).all())


def distance(true: Array, found: LinearMap) -> Fraction:
    """Return ||true - found||_inf, exact."""
    difference = magnitudes(true - exact(found))
    return max((sum(row, Fraction(0)) for row in difference), default=Fraction(0))


def perturbed(found: LinearMap, rng: Rng) -> Array:
    """Return a matrix that the map admits to stand for: every entry off by all it may be, in a drawn direction."""
    signs = rational(rng.choice([-1.0, 1.0], size=(found.n_out, found.n_in)))
    return exact(found) + signs * allowance(found)


def _convolution_matrix(conv: Convolution) -> Array:
    """Return the matrix by the formula in Convolution's docstring, one entry at a time."""
    rank = len(conv.spatial_in)
    per_in = conv.kernel.shape[1]
    per_out = conv.kernel.shape[0] // conv.groups
    result = np.zeros((conv.n_out, conv.n_in))
    for row, (o, *t) in enumerate(np.ndindex(conv.kernel.shape[0], *conv.spatial_out)):
        for c, *k in np.ndindex(*conv.kernel.shape[1:]):
            place = [conv.strides[a] * t[a] + conv.dilations[a] * k[a] - conv.pads[a] for a in range(rank)]
            if all(0 <= place[a] < conv.spatial_in[a] for a in range(rank)):
                channel = (o // per_out) * per_in + c
                column = channel * math.prod(conv.spatial_in) + int(np.ravel_multi_index(place, conv.spatial_in))
                result[row, column] += conv.kernel[(o, c, *k)]
    return result
