"""Proved upper bounds of spectral norms: of matrices, of convolutions, of every linear map.

A singular value that a library computes is a guess. What is believed is a product: s I - W W^T = L L^T + R proves
||W||_2^2 <= s + ||R||_2, whatever L is. sqrt(||W||_1 ||W||_inf) holds always and is the bound of last resort.
See docs/mathematics.md, section 5.9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.rounding import TINY, UNIT_ROUNDOFF, gamma

LARGEST_WORK = 10**11
"""Operations granted to the spectral norm of one map: a few seconds; beyond it coarser bounds are taken."""

SHORT_SIDE = 512
"""Maps that are no matrices become one where their shorter side is at most this long."""

LARGEST_MATRIX = 2**22
"""Maps that are no matrices become one of at most so many entries."""

CHUNK = 2**19
"""Complex numbers held at once."""

PHASE_ERROR = 2.0**-44
"""Bounds the error of cos and sin of an angle in [0, 6 pi]: a few units in the last place of each."""

MARGINS = (2.0**-40, 2.0**-30, 2.0**-20, 2.0**-10, 2.0**-7, 2.0**-5, 2.0**-3, 1.0)
"""How far above a guess of the largest eigenvalue a proof is tried, relative, one after the other."""


LargestNorm: TypeAlias = Callable[[AnyArray], float]
"""Matrices, shape (..., m, n) -> an upper bound of the largest ||M||_2."""


def spectral_norm(linear_map: LinearMap, *, quickly: bool = False) -> float:
    """Return an upper bound of ||W_true||_2, its largest singular value: what rounding did to W is paid for.

    At most sqrt(||W||_1 ||W||_inf), for every kind; close to ||W||_2 where the shorter side is below about 2,000 and
    for convolutions (where zero padding is a small part of the image). Infinite beyond the range of float64. What is
    found quickly may be greater by the sixteenth root of that side.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = _stored_norm(linear_map, powered_norm if quickly else largest_norm)
        if not linear_map.relative and linear_map.slack is None:
            return stored
        norms = linear_map.uncertain_norm, float(linear_map.uncertain_column_sums.max(initial=0.0))
    if not all(math.isfinite(norm) for norm in norms):
        return math.inf
    return total([stored, _interpolated(norms, extra=4)])


def _interpolated(norms: tuple[float, float], *, extra: int = 0) -> float:
    """Return sqrt(||W||_inf ||W||_1), rounded upward; it bounds ||W||_2."""
    if not all(norms):
        return 0.0
    return up(up(math.sqrt(norms[0]) * math.sqrt(norms[1]) * (1 + gamma(4 + extra))))


def _stored_norm(linear_map: LinearMap, largest: LargestNorm) -> float:
    """Return an upper bound of ||W||_2 for the coefficients as they are stored."""
    if isinstance(linear_map, TransposedConvolution):
        return _stored_norm(linear_map.forward, largest)
    if isinstance(linear_map, Selection):
        return _selection_norm(linear_map)
    bound = _interpolated((linear_map.norm_inf, float(linear_map.column_sums.max(initial=0.0))))
    if isinstance(linear_map, Reindexed):
        outer = times(_selection_norm(linear_map.left), _stored_norm(linear_map.core, largest))
        bound = min(bound, times(outer, _selection_norm(linear_map.right)))
    if isinstance(linear_map, Convolution):
        bound = min(bound, _symbol_norm(linear_map, largest))
    short, long = sorted((linear_map.n_out, linear_map.n_in))
    if isinstance(linear_map, Dense):
        if 2 * short**2 * long + 10 * short**3 <= LARGEST_WORK:
            bound = min(bound, largest(linear_map.matrix))
    elif short <= SHORT_SIDE and short * long <= LARGEST_MATRIX:
        # the factors of a Reindexed are multiplied there: each entry is off by gamma_4 of itself at most
        rounding = gamma(4) * bound
        bound = min(bound, up(largest(linear_map.to_sparse().toarray()) + rounding))
    return bound


def _selection_norm(selection: Selection) -> float:
    """Return max over inputs of the 2-norm of its column: W^T W is diagonal."""
    used = selection.index >= 0
    if selection.weights is None:
        readers = int(np.bincount(selection.index[used], minlength=1).max())
        return float(readers) if readers <= 1 else up(math.sqrt(readers))
    weights, exponent = _near_one(selection.weights[used])
    squares = np.bincount(selection.index[used], weights**2, minlength=1)
    if not squares.any():
        return 0.0
    return _rescaled(math.sqrt(squares.max()) * (1 + gamma(selection.column_terms + 4)) + TINY, exponent)


def _near_one(values: AnyArray) -> tuple[AnyArray, int]:
    """Return (values 2^-e, e) with the largest entry near 1, so that squares neither overflow nor vanish.

    Scaling by a power of two is exact, but for entries TINY times smaller than the largest.
    """
    largest = np.maximum(np.abs(values.real).max(initial=0.0), np.abs(values.imag).max(initial=0.0))
    exponent = int(np.clip(np.frexp(largest)[1], -1000, 1000))
    return values * 2.0**-exponent, exponent


def _lying(matrices: AnyArray) -> tuple[AnyArray, int]:
    """Return matrices near 1 of the same norms with no more rows than columns, and the exponent that was taken out."""
    scaled, exponent = _near_one(matrices)
    return (np.conj(np.swapaxes(scaled, -1, -2)) if scaled.shape[-2] > scaled.shape[-1] else scaled), exponent


def _rescaled(value: float, exponent: int) -> float:
    with np.errstate(over="ignore"):
        return up(float(np.ldexp(value, exponent)))


# ---- matrices --------------------------------------------------------------------------------------------------------


def largest_norm(matrices: AnyArray) -> float:
    """Return an upper bound of max ||M||_2 over a batch of real or complex matrices, shape (..., m, n).

    ||M||^2 is the largest eigenvalue of G = M M^* (the smaller of the two Gram matrices). Computed in float64, G is off
    by gamma_2n |M||M|^* at most, whose norm is below gamma_2n ||M||_F^2.
    """
    if not np.isfinite(matrices).all():
        return math.inf
    if not matrices.any():
        return 0.0
    scaled, exponent = _lying(matrices)
    squares = _squares(scaled).max()
    error = 2 * gamma(2 * scaled.shape[-1] + 4) * float(squares)
    top = _largest_eigenvalue(scaled @ np.conj(np.swapaxes(scaled, -1, -2))) + error * (1 + gamma(scaled.size + 8))
    return _rescaled(up(up(math.sqrt(top)) + TINY), exponent)


def powered_norm(matrices: AnyArray) -> float:
    """Return an upper bound of max ||M||_2 by three products in float32: at most m^(1/16) times it, m the shorter side.

    ||M||^8 = ||B B^*||_2 <= ||B B^*||_F with A = M M^*, B = A A^*. In float32 M is off by 2^-24 ||M||_F, and each
    product P P^* by 2 gamma |P||P|^* at most, whose norm is below 2 gamma ||P||_F^2, gamma that of float32.
    """
    if not np.isfinite(matrices).all():
        return math.inf
    if not matrices.any():
        return 0.0
    scaled, exponent = _lying(matrices)
    power = scaled.astype(np.complex64 if np.iscomplexobj(scaled) else np.float32)
    errors = [2.0**-24 * np.sqrt(_squares(scaled)) * (1 + gamma(scaled.size + 8)) + _lost(power)]
    for _ in range(3):
        terms = 2 * power.shape[-1] + 8
        if not terms * 2.0**-24 < 0.25:
            return math.inf
        rounding = 2 * terms * 2.0**-24 / (1 - terms * 2.0**-24)
        size = _squares(power.astype(scaled.dtype)) * (1 + gamma(power.size + 8))
        errors.append(rounding * size * (1 + gamma(8)) + _lost(power))
        power = power @ np.conj(np.swapaxes(power, -1, -2))
    norm = np.sqrt(_squares(power.astype(scaled.dtype))) * (1 + gamma(power.size + 8))
    for error in errors[:0:-1]:
        norm = np.sqrt(norm + error) * (1 + gamma(8))
    top = float((norm + errors[0]).max()) * (1 + gamma(8))
    return _rescaled(top + TINY, exponent) if math.isfinite(top) else math.inf


def _lost(matrices: AnyArray) -> float:
    """Return more than what numbers below the range of float32 take from the norm of a product, flushed to 0 or not."""
    return float(matrices.shape[-2] * matrices.shape[-1]) * 2.0**-120


def _squares(matrices: AnyArray) -> FloatArray:
    """Return ||M||_F^2 over a batch, up to rounding, without a matrix of squares beside it."""
    parts = (matrices.real, matrices.imag) if np.iscomplexobj(matrices) else (matrices,)
    return np.asarray(sum(np.einsum("...ij,...ij->...", part, part) for part in parts))


def _largest_eigenvalue(grams: AnyArray) -> float:
    """Return an upper bound of the largest eigenvalue over a batch of Hermitian matrices, shape (..., m, m).

    For any L, s I - G = L L^* + R proves lambda_max(G) <= s + ||R||. L is a Cholesky factor, however accurate: R is
    computed by multiplication, with the error of that.
    """
    m = grams.shape[-1]
    guess = _guess(grams)
    for margin in MARGINS:
        shift = guess * (1 + margin)
        shifted = shift * np.eye(m) - grams
        try:
            factor = np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            continue
        product = factor @ np.conj(np.swapaxes(factor, -1, -2))
        gaps = np.abs(shifted - product) + 8 * UNIT_ROUNDOFF * (np.abs(shifted) + np.abs(product))
        squares = float(_squares(factor).max())
        rest = _widest_sum(gaps) + 2 * gamma(2 * m + 4) * squares
        return float((shift + rest * (1 + gamma(m**2 + 16))) * (1 + gamma(4)) + TINY)
    return _widest_sum(np.abs(grams)) * (1 + gamma(m + 4)) + TINY


def _widest_sum(matrices: FloatArray) -> float:
    """Return max(||M||_1, ||M||_inf) >= ||M||_2 of nonnegative matrices."""
    return float(np.maximum(matrices.sum(axis=-1).max(), matrices.sum(axis=-2).max()))


def _guess(grams: AnyArray) -> float:
    """Return about the largest eigenvalue of the batch: nothing is proved by it."""
    m = grams.shape[-1]
    if m <= 192:
        try:
            return float(np.linalg.eigvalsh(grams).max())
        except np.linalg.LinAlgError:  # after an overflow
            return _widest_sum(np.abs(grams))
    vectors = np.broadcast_to(1 + np.cos(1.7 * np.arange(m))[:, None], (*grams.shape[:-1], 1))
    sizes = np.ones((*grams.shape[:-2], 1, 1))
    for _ in range(100):
        vectors = grams @ vectors
        sizes = np.linalg.norm(vectors, axis=-2, keepdims=True)
        vectors = vectors / np.maximum(sizes, TINY)
    return float(sizes.max())


# ---- convolutions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Symbol:
    """K(theta) = sum over taps t of kernel[t] exp(-i t . theta), and the frequencies at which it is asked for."""

    kernel: FloatArray
    """(groups, rows, columns, *taps): a convolution of stride 1."""
    periods: tuple[int, ...]
    """Along each axis, N with ||W|| <= max over theta in (2 pi / N) Z of ||K(theta)||."""

    @property
    def taps(self) -> tuple[int, ...]:
        """Number of taps along each axis."""
        return self.kernel.shape[3:]

    @property
    def work(self) -> int:
        """Operations that one frequency takes."""
        groups, rows, columns = self.kernel.shape[:3]
        short, long = sorted((rows, columns))
        return int(groups * (8 * short**2 * long + 32 * short**3))


def _symbol_norm(conv: Convolution, find: LargestNorm = largest_norm) -> float:
    """Return an upper bound of a convolution's spectral norm: the largest ||K(theta)||_2 over enough frequencies.

    The outputs t = 0..T-1 read t..T+k-2 of the padded image, so W is a part of the circular convolution of period
    N = T + k - 1, which the discrete Fourier transform splits into the matrices K(2 pi j / N). Where those are too
    many, a coarser grid is taken: a trigonometric polynomial of degree d <= k / 2 is at most 1 / cos(pi d / N) times
    its largest value on N > 2d evenly spaced points (Ehlich and Zeller 1964), axis by axis.
    """
    symbol = _as_symbol(conv)
    periods, factor = _grid(symbol)
    if not periods:
        return math.inf
    groups, rows, columns = symbol.kernel.shape[:3]
    kernel, exponent = _near_one(symbol.kernel.reshape(groups * rows * columns, -1).T)
    taps = np.stack(np.unravel_index(np.arange(len(kernel)), symbol.taps), axis=-1)
    # a real kernel has conjugate symbols at theta and -theta: half of the first axis is enough
    halved = (periods[0] // 2 + 1, *periods[1:])
    count, step = math.prod(halved), max(1, CHUNK // kernel.shape[1])
    largest = 0.0
    for start in range(0, count, step):
        places = np.stack(np.unravel_index(np.arange(start, min(start + step, count)), halved), axis=-1)
        values = _values(kernel, taps, places, np.array(periods))
        largest = float(np.maximum(largest, find(values.reshape(-1, rows, columns))))
    sums = np.abs(kernel).sum(axis=0).reshape(groups, rows, columns)
    rounding = 2 * (PHASE_ERROR + gamma(len(kernel) + 4))
    error = rounding * _interpolated((float(sums.sum(axis=2).max()), float(sums.sum(axis=1).max())), extra=sums.size)
    return _rescaled((largest + error * (1 + gamma(len(kernel)))) * factor * (1 + gamma(8)) + TINY, exponent)


def _as_symbol(conv: Convolution) -> _Symbol:
    """Return the convolution of stride 1 that does the same: the pixels of a stride s become s channels.

    y[t] = sum_k K[k] x[s t + k] with k = s a + r reads channel r of the split image at t + a. With stride 1 a
    dilation d splits the image into d parts that never meet, each with ceil(T / d) outputs.
    """
    kernel = conv.kernel.reshape(conv.groups, -1, *conv.kernel.shape[1:])
    periods = []
    for axis in range(conv.rank):
        stride, dilation, outputs = conv.strides[axis], conv.dilations[axis], conv.spatial_out[axis]
        taps = np.moveaxis(kernel, 3 + axis, -1)
        if stride > 1:
            length = dilation * (taps.shape[-1] - 1) + 1
            spread = np.zeros((*taps.shape[:-1], -(-length // stride) * stride))
            spread[..., :length:dilation] = taps
            split = spread.reshape(*taps.shape[:-1], -1, stride)
            taps = np.moveaxis(split, -1, 3).reshape(*taps.shape[:2], -1, *taps.shape[3:-1], split.shape[-2])
            dilation = 1
        periods.append(-(-outputs // dilation) + taps.shape[-1] - 1)
        kernel = np.moveaxis(taps, -1, 3 + axis)
    return _Symbol(np.ascontiguousarray(kernel), tuple(periods))


def _grid(symbol: _Symbol) -> tuple[tuple[int, ...], float]:
    """Return (frequencies along each axis, the factor that pays for a coarse grid); () where none is affordable."""
    degrees = [taps // 2 for taps in symbol.taps]
    widest = max(symbol.periods)
    while True:
        periods = tuple(min(n, widest) if degree else 1 for n, degree in zip(symbol.periods, degrees, strict=True))
        if (periods[0] // 2 + 1) * math.prod(periods[1:]) * symbol.work <= LARGEST_WORK:
            break
        widest = widest * 9 // 10
        if widest <= 2 * max(degrees):
            return (), math.inf
    factor = 1.0
    for n, whole, degree in zip(periods, symbol.periods, degrees, strict=True):
        if degree and n < whole:
            factor /= math.cos(math.pi * degree / n) * (1 - 2.0**-40)
    return periods, factor * (1 + gamma(4 * len(periods)))


def _values(kernel: FloatArray, taps: IntArray, places: IntArray, periods: IntArray) -> AnyArray:
    """Return K(2 pi places / periods), shape (frequencies, entries of a matrix)."""
    turns = ((places[:, None, :] * taps[None, :, :]) % periods / periods).sum(axis=-1)
    angles = 2 * np.pi * turns
    return np.asarray(np.cos(angles) @ kernel - 1j * (np.sin(angles) @ kernel))


# ---- scalars, rounded upward -----------------------------------------------------------------------------------------


def up(value: float) -> float:
    """Return a float64 above the exact result of the one operation that gave `value`."""
    return math.nextafter(value, math.inf)


def times(first: float, second: float) -> float:
    """Return first * second, rounded upward; 0 only where a factor is."""
    return up(first * second) if first and second else 0.0


def total(values: list[float]) -> float:
    """Return the sum, rounded upward; 0 only where all values are."""
    result = 0.0
    for value in values:
        result = up(result + value) if result and value else result + value
    return result


def hypotenuse(values: list[float]) -> float:
    """Return sqrt(sum of squares), rounded upward."""
    return up(math.hypot(*values) * (1 + gamma(len(values) + 8))) if len(values) > 1 else values[0]
