"""The input sets of a threat model: boxes (every input moves within its own interval), and U_card (at most k move).

Both know their *support*: the greatest value of a linear function over the set, in closed form
(docs/mathematics.md, section 6.5).

Elsewhere: robustness radius, perturbation budget, l_inf ball, l_0 ball, few-pixel attack; with free inputs, individual
fairness, protected attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np

from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.rounding import TINY, down, gamma, up

_FLOAT32: Final = np.dtype(np.float32)
_ALL_WHOLE: Final = 2**24
"""Up to here float32 holds every whole number."""


def is_whole(kind: np.dtype[Any]) -> bool:
    """Return whether a type holds whole numbers alone."""
    return kind.kind in "iu"


def is_coarse(kind: np.dtype[Any]) -> bool:
    """Return whether a type of floats is coarser than float32."""
    return kind.kind == "f" and kind.itemsize < _FLOAT32.itemsize


def type_limits(kind: np.dtype[Any]) -> tuple[int, int]:
    """Return the least and the greatest whole number of a type."""
    info = np.iinfo(kind)
    return int(info.min), int(info.max)


def whole_limits(kind: np.dtype[Any]) -> tuple[int, int]:
    """Return the least and the greatest whole number of a type that points may have: |n| <= 2^24, as float32 holds.

    A type may hold more (`type_limits`): what is proved must hold of those as well.
    """
    least, greatest = type_limits(kind)
    return max(least, -_ALL_WHOLE), min(greatest, _ALL_WHOLE)


def check_whole(values: FloatArray, kind: np.dtype[Any], whose: str = "an input") -> None:
    """Refuse numbers that a network of whole numbers cannot be handed. Raises DataError."""
    least, greatest = whole_limits(kind)
    odd = ~((values == np.rint(values)) & (values >= least) & (values <= greatest))
    if odd.any():
        raise DataError(
            f"{whose} is {values[odd][0]:g}, and the network reads {kind.name}: whole numbers from {least} to "
            f"{greatest}; give the data as they are before any scaling"
        )


@dataclass(frozen=True)
class Box:
    """The set {u : lo <= u <= hi}, flat vectors of float64 in data units.

    `lo` and `hi` enclose the exact set (rounded outward): bounds proved on the box hold on the set.
    `inner_lo` and `inner_hi` are enclosed by it (rounded inward): a point between them lies in the exact set.
    """

    lo: FloatArray
    hi: FloatArray
    inner_lo: FloatArray
    inner_hi: FloatArray
    point_type: np.dtype[Any] = _FLOAT32
    """Points of the set are numbers of this type, and of float32 where it is finer.

    Of a type of whole numbers they are whole numbers, and the box may be any real box around them (`of_whole`)."""
    pins: Mapping[int, Fraction] = field(default_factory=dict)
    """Inputs whose interval holds no such number -> a number in it: every point has that there, exactly.

    Where the network is asked, and wherever points are float32 numbers, the nearest of them stands for it."""
    ends: tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None = None
    """The exact bounds, (lo, hi), where they are known and no float64 numbers."""

    def __post_init__(self) -> None:
        if self.lo.shape != self.hi.shape or self.lo.ndim != 1:
            raise DataError(f"a box needs two vectors of one length, not shapes {self.lo.shape} and {self.hi.shape}")
        if not (np.isfinite(self.lo).all() and np.isfinite(self.hi).all()):
            raise DataError("a box needs finite bounds; found NaN or infinity")
        if not (self.lo <= self.hi).all():
            where = int(np.argmax(self.lo > self.hi))
            raise DataError(f"the box is empty: input {where} has lower bound {self.lo[where]} > {self.hi[where]}")

    @classmethod
    def between(cls, lo: FloatArray, hi: FloatArray) -> Box:
        """Return the box whose exact bounds are the given float64 numbers."""
        lo, hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
        return cls(lo, hi, lo, hi)

    @classmethod
    def around(
        cls,
        centre: FloatArray,
        eps: float,
        *,
        sigma: FloatArray | None = None,
        valid_lo: float | None = None,
        valid_hi: float | None = None,
        point_type: np.dtype[Any] = _FLOAT32,
        free: Sequence[int] = (),
    ) -> Box:
        """Return {u : |u - centre| <= eps sigma, valid_lo <= u <= valid_hi}, the l_inf ball clipped to the data range.

        Inputs that are `free` move through the whole valid range; where there are some, eps may be 0.

        Args:
            centre: shape (p,).
            eps: the radius, in data units where there is no sigma.
            sigma: how far each input moves for eps = 1, shape (p,); 0 for inputs that stay. None stands for ones.
            valid_lo: least valid value of an input.
            valid_hi: greatest valid value of an input.
            point_type: what a network can be handed as points.
            free: numbers of inputs.

        Raises:
            OptionError: where eps is not a positive finite number, or eps sigma exceeds float64's range; where inputs
                are free, and there is no valid range, or no such input.
            DataError: where the centre lies outside the data range or is not finite, or sigma is no radius.
        """
        if not (np.isfinite(eps) and (eps > 0 or (eps == 0 and len(free)))):
            raise OptionError(f"eps must be a positive number, not {eps}")
        centre = np.asarray(centre, np.float64)
        if not all(0 <= k < centre.size for k in free):
            raise OptionError(f"inputs go from 0 to {centre.size - 1}, and {max(free)} is to move freely")
        outer, inner = _radii(centre.size, eps, sigma)
        with np.errstate(over="ignore", invalid="ignore"):  # near the largest number; infinite ends are refused
            low, low_error = _two_sum(centre, -outer)
            high, high_error = _two_sum(centre, outer)
            lo, hi = np.where(low_error < 0, down(low), low), np.where(high_error > 0, up(high), high)
            low, low_error = _two_sum(centre, -inner)
            high, high_error = _two_sum(centre, inner)
            inner_lo, inner_hi = np.where(low_error > 0, up(low), low), np.where(high_error < 0, down(high), high)
        for name, limit, outside in (("below", valid_lo, np.less), ("above", valid_hi, np.greater)):
            if limit is not None and outside(centre, limit).any():
                where = int(np.argmax(outside(centre, limit)))
                raise DataError(
                    f"input {where} is {centre[where]}, {name} the valid data range's {limit}; "
                    "give the range of the data with --bounds LO,HI, or scale the data with --scale"
                )
        if valid_lo is not None:
            lo, inner_lo = np.maximum(lo, valid_lo), np.maximum(inner_lo, valid_lo)
        if valid_hi is not None:
            hi, inner_hi = np.minimum(hi, valid_hi), np.minimum(inner_hi, valid_hi)
        if len(free):
            if valid_lo is None or valid_hi is None:
                raise OptionError("inputs move freely within the valid range of the data; give it with --bounds LO,HI")
            lo[list(free)], inner_lo[list(free)] = valid_lo, valid_lo
            hi[list(free)], inner_hi[list(free)] = valid_hi, valid_hi
        return cls(lo, hi, inner_lo, inner_hi, point_type)

    @property
    def size(self) -> int:
        """Number of inputs p."""
        return int(self.lo.size)

    @property
    def centre(self) -> FloatArray:
        """About the middle of the box; always inside it."""
        return np.clip(self.lo + (self.hi - self.lo) / 2, self.lo, self.hi)

    @property
    def radius(self) -> FloatArray:
        """Half widths, rounded upward so that |u - centre| <= radius for every u in the box."""
        centre = self.centre
        return up(np.maximum(self.hi - centre, centre - self.lo))

    @property
    def hull(self) -> Box:
        """The box itself."""
        return self

    def rise(self, rows: FloatArray, error: FloatArray | float = 0.0) -> FloatArray:
        """Return max of m . (u - centre) over the box for each row m, shape (..., p) -> (...), rounded upward.

        It holds for every m' with |m' - m| <= error as well.
        """
        return total(gains(rows, error, self.centre, self))

    def reach(self, magnitudes: FloatArray) -> FloatArray:
        """Return max of m . |u - centre| over the box for each row m >= 0, (..., p) -> (...), rounded upward."""
        return self.rise(np.zeros_like(magnitudes), magnitudes)

    def support(self, rows: FloatArray) -> FloatArray:
        """Return max of m . u over the box for each row m, shape (..., p) -> (...), rounded upward."""
        return set_support(self, rows)

    def contains(self, points: FloatArray | Float32Array) -> BoolArray:
        """Return for each row of `points`, shape (..., p), whether it lies in the exact set, pins put in."""
        inside = (points >= self.inner_lo) & (points <= self.inner_hi)
        where, near = self._pinned
        inside[..., where] = points[..., where] == near
        if is_whole(self.point_type):
            least, greatest = whole_limits(self.point_type)
            inside &= (points == np.rint(points)) & (points >= least) & (points <= greatest)
        return np.asarray(inside.all(axis=-1))

    def of_whole(self, kind: np.dtype[Any]) -> Box:
        """Return the least box around the whole numbers of a type in this one, which are its points.

        Its ends are those of the real box, rounded inward to whole numbers of the type, those that are no points
        (`whole_limits`) among them; where an interval holds none, it stays as it is, and there are no points.
        """
        least, greatest = map(float, type_limits(kind))  # 2^63 for 2^63 - 1: a set that is larger
        lo, inner_lo = (np.maximum(np.ceil(ends), least) for ends in (self.lo, self.inner_lo))
        hi, inner_hi = (np.minimum(np.floor(ends), greatest) for ends in (self.hi, self.inner_hi))
        some = lo <= hi
        pairs = ((lo, self.lo), (hi, self.hi), (inner_lo, self.inner_lo), (inner_hi, self.inner_hi))
        lo, hi, inner_lo, inner_hi = (np.where(some, whole, given) for whole, given in pairs)
        ends = self.ends if not some.any() else None
        return replace(self, lo=lo, hi=hi, inner_lo=inner_lo, inner_hi=inner_hi, point_type=kind, ends=ends)

    @property
    def _floats(self) -> np.dtype[Any]:
        return self.point_type if is_coarse(self.point_type) else _FLOAT32

    def float32_bounds(self) -> tuple[Float32Array, Float32Array]:
        """Return (lo, hi), the least and greatest points of `point_type` inside the exact set, as float32 numbers.

        lo > hi where there is none.
        """
        if is_whole(self.point_type):
            least, greatest = whole_limits(self.point_type)
            lo, hi = np.maximum(np.ceil(self.inner_lo), least), np.minimum(np.floor(self.inner_hi), greatest)
            with np.errstate(over="ignore"):
                return lo.astype(np.float32), hi.astype(np.float32)
        infinity = np.array(np.inf, self._floats)
        with np.errstate(over="ignore"):
            lo, hi = self.inner_lo.astype(self._floats), self.inner_hi.astype(self._floats)
        lo = np.where(lo.astype(np.float64) < self.inner_lo, np.nextafter(lo, infinity), lo)
        hi = np.where(hi.astype(np.float64) > self.inner_hi, np.nextafter(hi, -infinity), hi)
        where, near = self._pinned
        lo[where] = hi[where] = near
        return lo.astype(np.float32), hi.astype(np.float32)

    @cached_property
    def _pinned(self) -> tuple[IntArray, FloatArray]:
        """Which inputs are pinned, and the numbers of `point_type` next to their pins."""
        near = [nearest_number(value, self._floats) for value in self.pins.values()]
        return np.array(list(self.pins), np.int64), np.array(near, np.float64)

    @property
    def exact_ends(self) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None:
        """The exact bounds (lo, hi); None where they are not known."""
        if self.ends is not None:
            return self.ends
        if not ((self.lo == self.inner_lo).all() and (self.hi == self.inner_hi).all()):
            return None
        lo, hi = (tuple(map(Fraction, ends.tolist())) for ends in (self.lo, self.hi))
        return lo, hi

    def exactly(self, point: Float32Array) -> list[Fraction]:
        """Return the exact point that a point of float32 numbers stands for, (p,)."""
        values = [Fraction(value) for value in point.tolist()]
        for i, value in self.pins.items():
            values[i] = value
        return values

    @property
    def in_float32(self) -> Box:
        """The box whose pins are the float32 numbers next to them, as arithmetic in float32 reads them."""
        lo, inner_lo, inner_hi, hi = (ends.copy() for ends in (self.lo, self.inner_lo, self.inner_hi, self.hi))
        where, near = self._pinned
        for one in (lo, inner_lo, inner_hi, hi):
            one[where] = near
        return replace(self, lo=lo, inner_lo=inner_lo, inner_hi=inner_hi, hi=hi, pins={}, ends=None)

    def project(self, points: FloatArray) -> Float32Array:
        """Return the points of `point_type` inside the exact set nearest to `points`, (..., p), as float32 numbers.

        An input whose interval holds no such number gets the nearest one outside; `contains` tells.
        """
        lo, hi = self.float32_bounds()
        points = np.rint(points) if is_whole(self.point_type) else points
        with np.errstate(over="ignore"):
            nearest = points.astype(self._floats).astype(np.float32)
        return np.asarray(np.clip(nearest, np.minimum(lo, hi), np.maximum(lo, hi)), np.float32)


class Centred:
    """What sets have that lie around a centre, within a box of the changes of each input alone."""

    centre: FloatArray
    box: Box

    @property
    def size(self) -> int:
        """Number of inputs p."""
        return self.box.size

    @property
    def hull(self) -> Box:
        """The least box around the set."""
        return self.box

    @property
    def radius(self) -> FloatArray:
        """How far each input moves from the centre at most, rounded upward."""
        return up(np.maximum(self.box.hi - self.centre, self.centre - self.box.lo))


@dataclass(frozen=True)
class SparseBall(Centred):
    """U_card = {u in box : at most k inputs differ from the centre} (paper 4.2), flat vectors in data units.

    The box is that of all changes, clipped to the valid range: each input alone moves as far in either set.
    """

    centre: FloatArray
    box: Box
    k: int
    """The cardinality; p or more makes it the box."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise OptionError(f"the cardinality must be 1 or more, not {self.k}")
        if self.centre.shape != self.box.lo.shape:
            raise DataError(f"the centre has shape {self.centre.shape}, and its box {self.box.lo.shape}")
        if not bool(self.box.contains(self.centre)):
            raise DataError("the centre of U_card must lie in its box")

    @classmethod
    def around(
        cls,
        centre: FloatArray,
        eps: float,
        k: int,
        *,
        sigma: FloatArray | None = None,
        valid_lo: float | None = None,
        valid_hi: float | None = None,
    ) -> SparseBall:
        """Return the set of inputs in `Box.around(...)` with at most k entries that differ from the centre.

        Raises:
            OptionError: where k is below 1, or eps is not a positive finite number.
            DataError: where the centre lies outside the data range or is not finite, or sigma is no radius.
        """
        box = Box.around(centre, eps, sigma=sigma, valid_lo=valid_lo, valid_hi=valid_hi)
        return cls(np.asarray(centre, np.float64), box, k)

    def rise(self, rows: FloatArray, error: FloatArray | float = 0.0) -> FloatArray:
        """Return max of m . (u - centre) over the set for each row m, shape (..., p) -> (...), rounded upward.

        The sum of the k largest gains, gain_i = max(m_i (hi_i - u0_i), m_i (lo_i - u0_i)) >= 0
        (docs/mathematics.md, section 6.5). It holds for every m' with |m' - m| <= error as well.
        """
        found = gains(rows, error, self.centre, self.box)
        if self.k < self.size:
            found = np.partition(found, self.size - self.k, axis=-1)[..., self.size - self.k :]
        return total(found)

    def reach(self, magnitudes: FloatArray) -> FloatArray:
        """Return max of m . |u - centre| over the set for each row m >= 0, (..., p) -> (...), rounded upward."""
        return self.rise(np.zeros_like(magnitudes), magnitudes)

    def support(self, rows: FloatArray) -> FloatArray:
        """Return max of m . u over the set for each row m, shape (..., p) -> (...), rounded upward."""
        return set_support(self, rows)

    def project(self, points: FloatArray) -> Float32Array:
        """Return float32 points of the exact set near the given ones, (..., p), where there are any.

        The k largest changes are kept, each relative to how far its input may move, and the others undone.
        """
        if self.k < self.size:
            points = np.clip(points, self.box.lo, self.box.hi)  # what may not move has not moved
            change = np.abs(points - self.centre) / self.radius
            points = np.where(largest_entries(change, self.k), points, self.centre)
        return self.box.project(points)

    def contains(self, points: FloatArray | Float32Array) -> BoolArray:
        """Return for each row of `points`, shape (..., p), whether it lies in the exact set."""
        changed = (points.astype(np.float64) != self.centre).sum(axis=-1)
        return np.asarray(self.box.contains(points) & (changed <= self.k))


class Supported(Protocol):
    """A set that knows how far linear functions rise from its centre."""

    @property
    def centre(self) -> FloatArray:
        """A point of it, or next to it."""

    @property
    def size(self) -> int:
        """Number of inputs."""

    def rise(self, rows: FloatArray) -> FloatArray:
        """Return max of m . (u - centre) over the set for each row m, rounded upward."""


def nearest_number(value: Fraction, kind: np.dtype[Any] = _FLOAT32) -> float:
    """Return the nearest number of a type, of two that are as near the one whose last bit is 0."""
    with np.errstate(over="ignore"):
        near = kind.type(float(value))  # rounded twice: one of its neighbours may be nearer
        candidates = [near, np.nextafter(near, kind.type(-np.inf)), np.nextafter(near, kind.type(np.inf))]
    finite = [float(one) for one in candidates if np.isfinite(one)]
    if not finite:
        return float(near)
    return min(finite, key=lambda one: (abs(Fraction(one) - value), _has_odd_bit(one, kind)))


def _has_odd_bit(value: float, kind: np.dtype[Any]) -> bool:
    return bool(np.frombuffer(kind.type(value).tobytes(), f"<u{kind.itemsize}")[0] & 1)


def largest_entries(values: FloatArray, k: int) -> BoolArray:
    """Return a mask of the k largest entries of each row, shape (..., p); of equal ones, the first."""
    mask = np.zeros(values.shape, np.bool_)
    order = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


def radii_of(size: int, sigma: FloatArray) -> FloatArray:
    """Return how far each input moves for eps = 1, (p,). Raises DataError where these are no radii."""
    sigma = np.asarray(sigma, np.float64)
    if sigma.shape != (size,):
        raise DataError(f"sigma has shape {sigma.shape} for {size} inputs; give one radius for each input")
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        where = int(np.argmin(np.isfinite(sigma) & (sigma >= 0)))
        raise DataError(f"sigma has {sigma[where]} at input {where}; every radius must be a finite number, 0 or more")
    return sigma


def _radii(size: int, eps: float, sigma: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Return eps sigma rounded upward and rounded downward; both are eps where there is no sigma."""
    if sigma is None:
        return np.full(size, eps), np.full(size, eps)
    sigma = radii_of(size, sigma)
    with np.errstate(over="ignore"):
        product = eps * sigma
    if not np.isfinite(product).all():
        raise OptionError(f"eps = {eps} times sigma exceeds the range of float64; give smaller ones")
    exact = (sigma == 0) | (sigma == 1)
    with np.errstate(over="ignore"):
        return np.where(exact, product, up(product)), np.where(exact, product, np.maximum(down(product), 0.0))


def gains(rows: FloatArray, error: FloatArray | float, centre: FloatArray, box: Box) -> FloatArray:
    """Return how much each input adds to m . (u - centre) at most, entry by entry, up to rounding; never negative."""
    with np.errstate(over="ignore", invalid="ignore"):
        above = np.where(box.hi > centre, up(box.hi - centre), 0.0)
        below = np.where(box.lo < centre, up(centre - box.lo), 0.0)
        found = np.where(rows >= 0, rows * above, -rows * below) + error * np.maximum(above, below)
    return np.where((above == 0) & (below == 0), 0.0, found)


def total(values: FloatArray) -> FloatArray:
    """Return the sum of numbers >= 0 over the last axis, rounded upward; infinity where it is no number."""
    with np.errstate(over="ignore"):
        found = values.sum(axis=-1) * (1 + 2 * gamma(values.shape[-1] + 8)) + TINY
    return np.where(np.isnan(found), np.inf, found)


def set_support(inputs: Supported, rows: FloatArray) -> FloatArray:
    """Return max of m . u over the set for each row m, rounded upward: m . centre + rise."""
    with np.errstate(over="ignore", invalid="ignore"):
        at_centre = (rows * inputs.centre).sum(axis=-1)
        size = np.abs(rows * inputs.centre).sum(axis=-1)
        found = at_centre + inputs.rise(rows)
        found = found + gamma(inputs.size + 8) * (size + np.abs(found)) + TINY
    return np.where(np.isnan(found), np.inf, found)


def _two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (s, e) with s = fl(a + b) and a + b = s + e exactly (Knuth's two-sum)."""
    s = a + b
    a_part = s - b
    b_part = s - a_part
    return s, (a - a_part) + (b - b_part)
