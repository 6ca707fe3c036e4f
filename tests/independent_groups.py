"""Groups of states that read each other's z, for independent checkers: products, matrix products, norms, softmax.

Each has its values, multipliers lam that part 12 of docs/proof-format.md tells, in floating point since any are sound,
and a lower bound of v . phi(z) - lam . z over the box of every group for whatever lam is: in whole numbers and
fractions, with intervals of mpmath for exp and log. Nothing is shared with idl_audit.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from mpmath import iv, mp

from tests.independent_calculus import NEVER, floor, interval
from tests.independent_checker import GRID, Exact
from tests.independent_files import Array

ONE = 1 << GRID
MARGIN = 1e-12
UNKNOWN: Any = math.inf  # the most that a state may be, as far as is known


def floats(ints: Array) -> Array:
    """Numbers on the grid, as the nearest floats."""
    return Exact(ints, GRID).floats()


def usual_shares(la: Array, ha: Array, low: Array, high: Array) -> Array:
    """Of planes of z1 z2 that share for which the least value over the box is greatest, in the middle of equally good.

    `low` is the end of z2 that the first plane has as its slope; planes above are those of z1 (-z2).
    """
    with np.errstate(all="ignore"):
        places = np.broadcast_arrays(0 * la + 0 * low, 1 + 0 * la + 0 * low, high / (high - low), ha / (ha - la))
        eta = np.clip(np.nan_to_num(np.array(places), nan=0.5), 0, 1)
        sign = np.sign(high - low)
        first, second = eta * low + (1 - eta) * high, eta * la + (1 - eta) * ha
        least = np.minimum(sign * first * la, sign * first * ha) + np.minimum(sign * second * low, sign * second * high)
        least = least - sign * (eta * la * low + (1 - eta) * ha * high)
        best = least >= least.max(axis=0) - MARGIN * abs(least).max(axis=0)
    return (np.where(best, eta, -1).max(axis=0) + np.where(best, eta, 2).min(axis=0)) / 2


class Group:
    """What is asked of any of them; `width` neighbouring states are a group."""

    width: int
    unit = Fraction(1)

    def grouped(self, values: Array) -> Array:
        """The values of every group, (..., groups, width)."""
        return values.reshape(*values.shape[:-1], -1, self.width)

    def multipliers(self, v: Exact, shares: Array, bounds: Array) -> Array:
        """lam, (rows, n), for shares, or usual ones where these are NaN."""
        raise NotImplementedError

    def least(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The sums over all groups of lower bounds of v . phi(z) - lam . z, times 2**GRID."""
        raise NotImplementedError

    def __call__(self, z: Array) -> Array:
        """About phi(z), (m, n)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Products(Group):
    """Pairs of states (z1 z2, z2); of a linear function the least value is at a corner of the box of (z1, z2)."""

    width: int = 2

    def least(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The sums over pairs of lower bounds of v1 z1 z2 + v2 z2 - lam1 z1 - lam2 z2, times 2**GRID."""
        rest = v.times(np.arange(v.ints.shape[1]) % 2) - lam  # of z1 and of z2
        factor = v.ints[:, 0::2] << rest.exp - v.exp
        (la, lb), (ha, hb) = ((end[0::2], end[1::2]) for end in (bounds[0], -bounds[1]))
        values = [
            (factor * a * b >> GRID) + rest.ints[:, 0::2] * a + rest.ints[:, 1::2] * b
            for a in (la, ha)
            for b in (lb, hb)
        ]
        return functools.reduce(np.minimum, values).sum(axis=1) >> rest.exp

    def multipliers(self, v: Exact, shares: Array, bounds: Array) -> Array:
        """The slopes of z1 and z2 of planes below where v1 >= 0, above elsewhere, times v: shares of a side's first."""
        given, lo, hi = v.floats(), floats(bounds[0]), floats(-bounds[1])
        (la, lb), (ha, hb), v1 = (lo[0::2], lo[1::2]), (hi[0::2], hi[1::2]), given[:, 0::2]
        low, high = np.where(v1 >= 0, lb, hb), np.where(v1 >= 0, hb, lb)
        eta = np.where(np.isnan(shares[:, 0::2]), usual_shares(la, ha, low, high), shares[:, 0::2])
        lam = np.zeros(given.shape)
        lam[:, 0::2] = v1 * (eta * low + (1 - eta) * high)
        lam[:, 1::2] = v1 * (eta * la + (1 - eta) * ha) + given[:, 1::2]
        return lam

    def __call__(self, z: Array) -> Array:
        """About (z1 z2, z2)."""
        x = z.copy()
        x[:, 0::2] *= z[:, 1::2]
        return x


@dataclass(frozen=True)
class Contractions(Group):
    """The entries of X, (rows, inner), and of Y, (inner, columns), become those of X Y; places left over are 0."""

    rows: int
    inner: int
    columns: int

    @property
    def width(self) -> int:  # type: ignore[override]
        """States of a group."""
        return max((self.rows + self.columns) * self.inner, self.rows * self.columns)

    def factors(self, values: Array) -> tuple[Array, Array]:
        """X and Y of every group."""
        groups, edge = self.grouped(values), self.rows * self.inner
        x, y = groups[..., :edge], groups[..., edge : edge + self.inner * self.columns]
        lead = groups.shape[:-1]
        return x.reshape(*lead, self.rows, self.inner), y.reshape(*lead, self.inner, self.columns)

    def results(self, values: Array) -> Array:
        """What stands where X Y does."""
        groups = self.grouped(values)[..., : self.rows * self.columns]
        return groups.reshape(*groups.shape[:-1], self.rows, self.columns)

    def pulled(self, v: Array, z: Array) -> Array:
        """(V Y^T, X^T V), (rows of v, n)."""
        (x, y), own = self.factors(z), self.results(v)
        parts = times(own, np.swapaxes(y, -1, -2)), times(np.swapaxes(x, -1, -2), own)
        flat = [part.reshape(*part.shape[:-2], -1) for part in parts]
        missing = self.width - sum(part.shape[-1] for part in flat)
        flat.append(np.zeros((*flat[0].shape[:-1], missing), flat[0].dtype))
        return np.concatenate(flat, axis=-1).reshape(len(v), -1)

    def multipliers(self, v: Exact, shares: Array, bounds: Array) -> Array:
        """The planes around the centres of both factors."""
        return self.pulled(v.floats(), (floats(bounds[0]) + floats(-bounds[1])) / 2)

    def least(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """-V . Xc Yc - |V| . rX rY, and the box's least value of what is left of lam; with centres times 2."""
        lo, hi = bounds[0], -bounds[1]
        centre, radius = lo + hi, hi - lo
        exp = max(v.exp + GRID + 1, lam.exp)
        rest = (self.pulled(v.ints, centre) << exp - v.exp - GRID - 1) - (lam.ints << exp - lam.exp)
        ends = np.minimum(rest * lo, rest * hi).sum(axis=1) >> exp
        own = self.results(v.ints)
        grown = own * times(*self.factors(centre)) + abs(own) * times(*self.factors(radius))
        return ends + (-grown.sum(axis=(-1, -2, -3)) >> v.exp + GRID + 2)

    def __call__(self, z: Array) -> Array:
        """About X Y, and 0."""
        x = np.zeros((len(z), z.shape[1] // self.width, self.width))
        x[..., : self.rows * self.columns] = times(*self.factors(z)).reshape(*x.shape[:2], -1)
        return x.reshape(z.shape)


def times(a: Array, b: Array) -> Array:
    """Products of matrices, of floats or of integers."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(axis=-2)


class Sizes(NamedTuple):
    """What the box of one group says, on the grid."""

    least: list[int]
    most: list[int]
    """Ends of d, times `over`."""
    over: int
    smallest: int
    largest: int
    """Ends of the factor 1 / s."""
    below: list[int]
    above: list[int]
    """Ends of x."""


@dataclass(frozen=True)
class Norms(Group):
    """(d / s, f) of every group of entries z and a factor f; s = max(sqrt(sum of d^2 / count + under) + beside, least).

    d is z less its mean where the group is `centred`. Where a group is `aided`, f is 1 / s and the mean is 0.
    """

    width: int
    count: Fraction
    under: Fraction
    beside: Fraction
    floor: Fraction
    centred: bool
    aided: bool = False
    seen: dict[bytes, list[Sizes | None]] = field(default_factory=dict, compare=False)

    @property
    def n(self) -> int:
        """Entries."""
        return self.width - 1

    @property
    def takes_mean(self) -> bool:
        """Whether the mean is not known to be 0."""
        return self.centred and not self.aided

    def size(self, square: Fraction, up: bool) -> int:
        """max(sqrt(square + under) + beside, least) on the grid, rounded."""
        inner = (square + self.under) * (ONE * ONE)
        root = math.isqrt(-math.floor(-inner)) + 1 if up else math.isqrt(math.floor(inner))
        ends = root + self.beside * ONE, self.floor * ONE
        return max(-math.floor(-end) if up else math.floor(end) for end in ends)

    def tallest(self, t: int, over: int) -> int:
        """The most that d_i / s may be where d_i <= t / over on the grid."""
        if t <= 0:
            return 0
        share = Fraction(self.n, max(self.n - 1, 1)) if self.centred else Fraction(1)
        s = self.size(Fraction(t, over * ONE) ** 2 * share / self.count, False)
        return -(-(t * ONE) // (over * s)) if s else UNKNOWN

    def sizes(self, bounds: Array) -> list[Sizes | None]:
        """What a box says of every group; None where nothing is known."""
        key = repr(bounds.tolist()).encode()
        if key not in self.seen:
            self.seen.clear()
            lows, highs = self.grouped(bounds[0]).tolist(), self.grouped(-bounds[1]).tolist()
            self.seen[key] = [self._sizes(*pair) for pair in zip(lows, highs, strict=True)]
        return self.seen[key]

    def _sizes(self, low: list[int], high: list[int]) -> Sizes | None:
        if not all(math.isfinite(end) for end in (*low, *high)):
            return None
        (*lo, f_lo), (*hi, f_hi), over = low, high, 1
        if self.takes_mean:
            over, low_sum, high_sum = self.n, sum(lo), sum(hi)
            pairs = [(over * a - high_sum + b - a, over * b - low_sum + a - b) for a, b in zip(lo, hi, strict=True)]
            lo, hi = [a for a, _ in pairs], [b for _, b in pairs]
        near = sum(max(a, -b, 0) ** 2 for a, b in zip(lo, hi, strict=True))
        far = sum(max(-a, b) ** 2 for a, b in zip(lo, hi, strict=True))
        unit = self.count * (over * ONE) ** 2
        s_lo, s_hi = self.size(near / unit, False), self.size(far / unit, True)
        smallest = ONE * ONE // s_hi
        largest = -(-ONE * ONE // s_lo) if s_lo else math.inf
        if self.aided:
            smallest, largest = max(smallest, f_lo), min(largest, f_hi)
        if not math.isfinite(largest):
            return None
        corners = [
            (min(a * smallest, a * largest), max(b * smallest, b * largest)) for a, b in zip(lo, hi, strict=True)
        ]
        below = [max(a // (over * ONE), -self.tallest(-d, over)) for (a, _), d in zip(corners, lo, strict=True)]
        above = [min(-(-b // (over * ONE)), self.tallest(d, over)) for (_, b), d in zip(corners, hi, strict=True)]
        return Sizes(lo, hi, over, smallest, int(largest), below, above)

    def multipliers(self, v: Exact, shares: Array, bounds: Array) -> Array:
        """Planes of f w_i d_i with shares, where these are above what the ranges say in the middle of the box."""
        if None in (seen := self.sizes(bounds)):
            return np.zeros(v.ints.shape)
        ends = [self.grouped(floats(end)) for end in (bounds[0], -bounds[1])]
        low, high = (end[..., :-1] for end in ends)
        middle = ((low + high) / 2).mean(axis=-1, keepdims=True) if self.takes_mean else 0.0
        low, high = low - middle, high - middle
        small, large = (np.array([float(Fraction(one[k], ONE)) for one in seen])[:, None] for k in (3, 4))
        given = self.grouped(v.floats())
        w = given[..., :-1] - (given[..., :-1].mean(axis=-1, keepdims=True) if self.takes_mean else 0.0)
        first, second = np.where(w >= 0, small, large), np.where(w >= 0, large, small)
        picked = self.grouped(shares)[..., :-1]
        eta = np.where(np.isnan(picked), usual_shares(low + 0 * w, high + 0 * w, first, second), picked)
        lam = np.zeros(given.shape)
        lam[..., :-1] = w * (eta * first + (1 - eta) * second)
        by_factor = (w * (eta * low + (1 - eta) * high)).sum(axis=-1)
        lam[..., -1] = given[..., -1] + (by_factor if self.aided else 0.0)
        flat = np.nan_to_num(lam.reshape(v.ints.shape))
        chosen, none = Exact.of(flat), Exact.of(np.zeros(flat.shape))
        planes, ranges = self.by_planes(v, chosen, bounds), self.by_ranges(v, none, bounds)
        centres = self.grouped((bounds[0] - bounds[1]) // 2)
        there = planes + ((self.grouped(chosen.ints) * centres).sum(axis=-1) >> chosen.exp)
        return flat * np.repeat(there > ranges, self.width, axis=1)

    def least(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """By planes, or by ranges where these say more of a group."""
        if None in self.sizes(bounds):
            return np.full(len(v.ints), NEVER, object)
        return np.maximum(self.by_planes(v, lam, bounds), self.by_ranges(v, lam, bounds)).sum(axis=1)

    def _rows(self, v: Exact, lam: Exact, bounds: Array) -> Iterator[tuple[int, int, Any, Any, Any, Any]]:
        """Row, group, what the box says of it, its z, v and lam as fractions."""
        lows, highs = self.grouped(bounds[0]).tolist(), self.grouped(-bounds[1]).tolist()
        vs, lams = self.grouped(v.ints).tolist(), self.grouped(lam.ints).tolist()
        for r, (row, own) in enumerate(zip(vs, lams, strict=True)):
            for g, seen in enumerate(self.sizes(bounds)):
                z = list(zip(lows[g], highs[g], strict=True))
                yield (
                    r,
                    g,
                    seen,
                    z,
                    [Fraction(x, 1 << v.exp) for x in row[g]],
                    [Fraction(x, 1 << lam.exp) for x in own[g]],
                )

    def by_planes(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The least of sum_i (f w_i - lam_i) z_i at both ends of f, and the factor's own part, (rows, groups)."""
        found = np.zeros((len(v.ints), v.ints.shape[1] // self.width), object)
        for r, g, seen, z, (*own, own_f), (*lams, lam_f) in self._rows(v, lam, bounds):
            mean = sum(own) / self.n if self.takes_mean else 0
            sides = []
            for f in (seen.smallest, seen.largest):
                tilts = [(c - mean) * f / ONE - x for c, x in zip(own, lams, strict=True)]
                least = sum(min(t * a, t * b) for t, (a, b) in zip(tilts, z[:-1], strict=True))
                sides.append(least + ((own_f - lam_f) * f if self.aided else 0))
            rest = 0 if self.aided else min((own_f - lam_f) * end for end in z[-1])
            found[r, g] = math.floor(min(sides) + rest)
        return found

    def by_ranges(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The least v . x by the ranges of x or by its length, less the most that lam . z may be, (rows, groups)."""
        found = np.zeros((len(v.ints), v.ints.shape[1] // self.width), object)
        for r, g, seen, z, (*own, own_f), (*lams, lam_f) in self._rows(v, lam, bounds):
            mean = sum(own) / self.n if self.takes_mean else 0
            x = list(zip(seen.below, seen.above, strict=True))
            sums = [sum(min((c - m) * a, (c - m) * b) for c, (a, b) in zip(own, x, strict=True)) for m in (0, mean)]
            square = sum((c - mean) ** 2 for c in own) * self.count * ONE * ONE
            sums.append(-math.isqrt(-math.floor(-square)) - 1)
            most = sum(max(c * a, c * b) for c, (a, b) in zip(lams, z[:-1], strict=True))
            found[r, g] = math.floor(max(sums) - most + min((own_f - lam_f) * end for end in z[-1]))
        return found

    def __call__(self, z: Array) -> Array:
        """About (d / s, f)."""
        groups = self.grouped(z)
        d, f = groups[..., :-1], groups[..., -1:]
        d = d - d.mean(axis=-1, keepdims=True) if self.centred else d
        root = np.sqrt((d * d).sum(axis=-1, keepdims=True) / float(self.count) + float(self.under))
        s = np.maximum(root + float(self.beside), float(self.floor))
        return np.concatenate([d / s, f], axis=-1).reshape(z.shape)


class Planes(NamedTuple):
    """Of one group: slopes (i, j) of x_i by z_j and heights on the grid, below and above; and the ranges of x."""

    below: list[list[Fraction]]
    at_below: list[int]
    above: list[list[Fraction]]
    at_above: list[int]
    least: list[int]
    most: list[int]


@dataclass(frozen=True)
class Softmaxes(Group):
    """exp(z_i) / sum_j exp(z_j) within every group."""

    width: int
    known: dict[bytes, list[Planes]] = field(default_factory=dict, compare=False)

    def planes(self, bounds: Array) -> list[Planes]:
        """The planes and ranges of every group over a box."""
        key = repr(bounds.tolist()).encode()
        if key not in self.known:
            self.known.clear()
            lows, highs = self.grouped(bounds[0]).tolist(), self.grouped(-bounds[1]).tolist()
            self.known[key] = [self._planes(*pair) for pair in zip(lows, highs, strict=True)]
        return self.known[key]

    def _planes(self, low: list[int], high: list[int]) -> Planes:
        sides: tuple[Any, ...] = [], [], [], [], [], []
        for i in range(self.width):
            for side, one in zip(sides, self._of_state(i, low, high), strict=True):
                side.append(one)
        return Planes(*sides)

    def _of_state(self, i: int, low: list[int], high: list[int]) -> Any:
        """Planes of x_i = 1 / s, s = 1 + sum of exp(d_j): both in d_j = z_j - z_i, and then in z."""
        others = [j for j in range(self.width) if j != i]
        d = [(Fraction(low[j] - high[i], ONE), Fraction(high[j] - low[i], ONE)) for j in others]
        heights = [tuple(iv.exp(interval(end)) for end in pair) for pair in d]
        first, last = (sum((pair[k] for pair in heights), iv.mpf(1)) for k in (0, 1))
        least, most = max(floor(1 / last), 0), min(-floor(-1 / first), ONE)
        if max((float(b) for _, b in d), default=0.0) > 600:  # beyond floating point planes say nothing
            return [Fraction(0)] * self.width, least, [Fraction(0)] * self.width, most, least, most
        rough = [tuple(float(mid(end)) for end in pair) for pair in heights]
        widths = [float(b - a) for a, b in d]
        chords = [(b - a) / w if w > 0 else a for (a, b), w in zip(rough, widths, strict=True)]
        tau = 1 / (1 + sum(a + c * w / 2 for (a, _), c, w in zip(rough, chords, widths, strict=True)))
        k = Fraction(tau) ** 2
        slopes = [Fraction(float(k) * c) for c in chords]
        tops = [
            max(-floor(-(interval(k) * e - interval(a * z))) for e, z in zip(pair, ends, strict=True))
            for a, pair, ends in zip(slopes, heights, d, strict=True)
        ]
        under = math.floor((2 * Fraction(tau) - k) * ONE) - sum(tops)
        s_lo, s_hi = (float(mid(end)) for end in (first, last))
        r = Fraction(1 / (s_lo * s_hi))
        greatest = max(-floor(-(1 / end + interval(r) * end)) for end in (iv.mpf(first.a), iv.mpf(last.b)))
        tilts = [Fraction(float(r) * math.exp(float(a + b) / 2)) for a, b in d]
        # r exp(d) - a d is least where its slope is 0
        bottoms = [floor(interval(a) * (1 - iv.log(interval(a) / interval(r)))) if a else 0 for a in tilts]
        over = greatest + math.ceil(-r * ONE) - sum(bottoms)
        made = []
        for own, height, flat, sign in ((slopes, under, least, 1), (tilts, over, most, -1)):
            row = [Fraction(0)] * self.width
            for j, a in zip(others, own, strict=True):
                row[j], row[i] = -a, row[i] + a
            middle = sum(c * (a + b) for c, a, b in zip(row, low, high, strict=True)) / 2
            usable = sign * (middle + height) > sign * flat
            made += [row if usable else [Fraction(0)] * self.width, height if usable else flat]
        return *made, least, most

    def _centred(self, row: list[Fraction], low: list[int], high: list[int]) -> Fraction:
        """The mean of v by the states in the middle of the box: any number is sound, as x adds up to 1."""
        z = np.array([float(Fraction(a + b, 2 * ONE)) for a, b in zip(low, high, strict=True)])
        x = np.exp(z - z.max())
        return Fraction(float(np.array([float(c) for c in row]) @ x / x.sum()))

    def multipliers(self, v: Exact, shares: Array, bounds: Array) -> Array:
        """The planes below x_i where v_i is above that mean, above x_i elsewhere, times v less the mean."""
        lam = np.zeros(v.ints.shape)
        for r, g, row, low, high, planes in self._rows(v, bounds):
            lam[r, g * self.width : (g + 1) * self.width] = [float(x) for x in self._pulled(row, low, high, planes)[0]]
        return lam

    def _rows(self, v: Exact, bounds: Array) -> Iterator[Any]:
        lows, highs = self.grouped(bounds[0]).tolist(), self.grouped(-bounds[1]).tolist()
        for r, row in enumerate(self.grouped(v.ints).tolist()):
            for g, planes in enumerate(self.planes(bounds)):
                yield r, g, [Fraction(x, 1 << v.exp) for x in row[g]], lows[g], highs[g], planes

    def _pulled(self, row: list[Fraction], low: list[int], high: list[int], planes: Planes) -> tuple[Any, Any]:
        """The slopes and the height of what lies below v . x."""
        c = self._centred(row, low, high)
        slopes, height = [Fraction(0)] * self.width, c * ONE
        for i, own in enumerate(row):
            w = own - c
            sides = (planes.below[i], planes.at_below[i]) if w >= 0 else (planes.above[i], planes.at_above[i])
            slopes = [s + w * t for s, t in zip(slopes, sides[0], strict=True)]
            height += w * sides[1]
        return slopes, height

    def least(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """By planes, or by the ranges of the states where these say more of a group."""
        found, lams = np.zeros(len(v.ints), object), self.grouped(lam.ints).tolist()
        for r, g, row, low, high, planes in self._rows(v, bounds):
            own = [Fraction(x, 1 << lam.exp) for x in lams[r][g]]
            slopes, height = self._pulled(row, low, high, planes)
            rest = [s - c for s, c in zip(slopes, own, strict=True)]
            by_planes = height + sum(min(t * a, t * b) for t, a, b in zip(rest, low, high, strict=True))
            by_ranges = sum(min(c * a, c * b) for c, a, b in zip(row, planes.least, planes.most, strict=True))
            by_ranges -= sum(max(c * a, c * b) for c, a, b in zip(own, low, high, strict=True))
            found[r] += math.floor(max(by_planes, by_ranges))
        return found

    def __call__(self, z: Array) -> Array:
        """About exp(z_i) / sum_j exp(z_j)."""
        groups = self.grouped(z)
        x = np.exp(groups - groups.max(axis=-1, keepdims=True))
        return (x / x.sum(axis=-1, keepdims=True)).reshape(z.shape)


def mid(number: Any) -> Any:
    """The middle of an interval."""
    return mp.mpf(number.mid)
